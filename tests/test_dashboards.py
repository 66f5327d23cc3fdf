"""The files for Grafana and Prometheus: they ask for metrics that there are, in queries that Prometheus understands."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client import Counter, Histogram

from api.metrics import Metrics

DEPLOY = Path(__file__).parent.parent / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "headwater.json").read_text())
ALERTS = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
QUERIES += [(rule["alert"], rule["expr"]) for rule in RULES]


def known() -> dict[str, set[str]]:
    """The labels of each series, by its name."""
    found: dict[str, set[str]] = {}
    for metric in vars(Metrics()).values():
        if hasattr(metric, "_labelnames"):
            (family,) = metric.describe()
            labels = set(metric._labelnames)
            if isinstance(metric, Histogram):
                found |= {f"{family.name}_{end}": labels for end in ("count", "sum")}
                found[f"{family.name}_bucket"] = labels | {"le"}
            else:
                found[f"{family.name}_total" if isinstance(metric, Counter) else family.name] = labels
    return found


def parts(node: Any) -> Iterator[Any]:
    """A query and all that it is made of."""
    yield node
    for name in ("expr", "lhs", "rhs", "vector_selector"):
        if (inner := getattr(node, name, None)) is not None:
            yield from parts(inner)
    for argument in getattr(node, "args", ()):
        yield from parts(argument)


def parsed(query: str) -> list[Any]:
    """The parts of a query, with a number for what Grafana puts in. Raises ValueError for what is none."""
    return list(parts(promql_parser.parse(query.replace("$__rate_interval", "5m"))))


def selectors(query: str) -> list[Any]:
    """Those that name series."""
    return [part for part in parsed(query) if isinstance(part, promql_parser.VectorSelector)]


@pytest.mark.parametrize(("name", "query"), QUERIES, ids=[f"{name}: {query[:30]}" for name, query in QUERIES])
def test_query(name: str, query: str) -> None:
    """It is PromQL, names only metrics that there are, and groups and picks by labels that they have."""
    found, series = selectors(query), known()
    assert found, name
    assert {selector.name for selector in found} == set(re.findall(r"headwater_\w+", query))
    labels: set[str] = set()
    for selector in found:
        assert selector.name in series
        assert {matcher.name for matcher in selector.matchers.matchers} <= series[selector.name]
        labels |= series[selector.name]
    for part in parsed(query):
        if isinstance(part, promql_parser.AggregateExpr) and part.modifier is not None:
            assert set(part.modifier.labels) <= labels


def test_dashboard() -> None:
    """Each panel has a place of its own and its legend's labels; every metric is on it."""
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    for panel in PANELS:
        for target in panel["targets"]:
            for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
                assert re.search(rf"by \([^)]*\b{label}\b", target["expr"]), target
    shown = {selector.name for panel in PANELS for t in panel["targets"] for selector in selectors(t["expr"])}
    assert {name.removesuffix("_bucket") for name in shown} == {
        name.removesuffix("_bucket") for name in known() if not name.endswith(("_sum", "_count"))
    }


def test_alerts() -> None:
    """Each says how bad it is, what has happened and where to look."""
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert set(rule["annotations"]) == {"summary", "description"}
        assert all(text.endswith(".") for text in rule["annotations"].values()), rule["alert"]


@pytest.mark.parametrize("query", ["sum(rate(headwater_deliveries_total[5m])", "rate(headwater_deliveries_total)"])
def test_what_is_no_query(query: str) -> None:
    """The check finds it."""
    with pytest.raises(ValueError, match=r"\w"):
        parsed(query)
