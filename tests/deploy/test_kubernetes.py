"""The manifests, checked against the schemas of Kubernetes, against each other and against the server."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import kubernetes_validate
import pytest
import yaml

from api import Settings
from api.serving import DRAIN_SECONDS, GRACE_SECONDS
from tests.api.servers import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
#: The versions that Kubernetes maintains.
VERSIONS = ("1.34", "1.35", "1.36")

Manifest = dict[str, Any]


def manifests() -> dict[str, Manifest]:
    """Each manifest by its kind."""
    found: dict[str, Manifest] = {}
    for path in sorted(FOLDER.glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            if document["kind"] != "Kustomization":
                assert document["kind"] not in found
                found[document["kind"]] = document
    return found


def pod() -> Manifest:
    """What a pod is."""
    spec: Manifest = manifests()["Deployment"]["spec"]["template"]["spec"]
    return spec


def container() -> Manifest:
    """The one container of a pod."""
    (found,) = pod()["containers"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_schemas(version: str) -> None:
    """Every manifest is valid, and has no field that Kubernetes would leave out in silence."""
    found = manifests()
    assert set(found) == {
        *("Namespace", "ConfigMap", "Secret", "Deployment", "Service", "Ingress"),
        *("HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy"),
    }
    for manifest in found.values():
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda spec: spec["template"]["spec"]["containers"][0].update(readynessProbe={}),
        lambda spec: spec.update(replicas="two"),
        lambda spec: spec.pop("selector"),
    ],
)
def test_schemas_see_mistakes(spoil: Callable[[Manifest], object]) -> None:
    """A misspelt field, a wrong type and a missing field are refused: the check can fail."""
    deployment = copy.deepcopy(manifests()["Deployment"])
    spoil(deployment["spec"])
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, VERSIONS[0], strict=True)


def test_kustomization_names_every_manifest() -> None:
    """All of them are applied but the secret, of which the repository has only an example."""
    listed = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    assert set(listed) == {path.name for path in FOLDER.glob("*.yaml")} - {
        "kustomization.yaml",
        "secret.example.yaml",
        "secret.yaml",
    }


def test_settings_are_settings() -> None:
    """Every name in the ConfigMap and the Secret is a setting; the example holds no secret."""
    found = manifests()
    known = {f"HEADWATER_{name.upper()}" for name in Settings.model_fields}
    assert set(found["ConfigMap"]["data"]) <= known
    assert set(found["Secret"]["stringData"]) <= known
    assert set(found["Secret"]["stringData"].values()) == {""}


def test_settings_are_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the ConfigMap and a filled-in secret the server finds nothing that keeps it from starting."""
    found = manifests()
    filled = {"HEADWATER_SECRET_KEY": "k" * 48, "HEADWATER_MONGODB_URL": "mongodb://db.example.org/?replicaSet=rs0"}
    filled["HEADWATER_REDIS_URL"] = "rediss://cache.example.org"
    for name, value in {**found["Secret"]["stringData"], **found["ConfigMap"]["data"], **filled}.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.environment == "production"
    assert settings.faults() == []


def test_labels() -> None:
    """Service, autoscaler, disruption budget, network policy and spread all speak of the deployment's pods."""
    found = manifests()
    deployment = found["Deployment"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert found["Service"]["spec"]["selector"] == labels
    assert found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    assert all(each["labelSelector"]["matchLabels"] == labels for each in pod()["topologySpreadConstraints"])
    assert found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    (rule,) = found["Ingress"]["spec"]["rules"]
    assert rule["host"] == found["ConfigMap"]["data"]["HEADWATER_TRUSTED_HOSTS"]
    (path,) = rule["http"]["paths"]
    assert path["backend"]["service"]["name"] == found["Service"]["metadata"]["name"]


def test_end_of_a_pod() -> None:
    """There is time for proxies to hear of it, for the drain and for open requests before the kubelet kills."""
    (_, seconds) = container()["lifecycle"]["preStop"]["exec"]["command"]
    needed = float(seconds) + DRAIN_SECONDS + GRACE_SECONDS
    assert needed + 5 < pod()["terminationGracePeriodSeconds"]


def test_names_that_the_cluster_gives() -> None:
    """The Service's name would make the cluster set HEADWATER_PORT to an address, and no pod would start."""
    assert manifests()["Service"]["metadata"]["name"] == "headwater"
    assert pod()["enableServiceLinks"] is False


def test_probes() -> None:
    """Liveness asks for the process alone; readiness for what it needs."""
    assert container()["livenessProbe"]["httpGet"]["path"] == "/health/live"
    assert container()["startupProbe"]["httpGet"]["path"] == "/health/live"
    assert container()["readinessProbe"]["httpGet"]["path"] == "/health/ready"


def test_rights() -> None:
    """The pod keeps to the restricted standard, and writes to nothing but its own volumes."""
    assert pod()["securityContext"]["runAsNonRoot"] is True
    assert pod()["automountServiceAccountToken"] is False
    user = pod()["securityContext"]["runAsUser"]
    assert f"--uid {user}" in (ROOT / "Dockerfile").read_text()
    context = container()["securityContext"]
    assert (context["allowPrivilegeEscalation"], context["readOnlyRootFilesystem"]) == (False, True)
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert {mount["name"] for mount in container()["volumeMounts"]} == {volume["name"] for volume in pod()["volumes"]}
