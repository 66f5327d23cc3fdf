"""What a Prometheus server would read of a server."""

from __future__ import annotations

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.api.servers import Server

#: By the sample's name and its labels, sorted.
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(server: Server, token: str = "", **headers: str) -> Samples:
    """All samples."""
    if token:
        headers |= {"Authorization": f"Bearer {token}"}
    # A connection of its own each time: nothing says which worker accepts it.
    answer = httpx.get(f"{server.url}/metrics", headers=headers, timeout=30)
    assert answer.status_code == 200, answer.text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    """One sample; 0 for a count that nothing was counted in yet."""
    return samples.get((f"headwater_{name}", tuple(sorted(labels.items()))), 0.0)


def counts(samples: Samples) -> Samples:
    """Those that only grow."""
    return {key: value for key, value in samples.items() if key[0].endswith(("_total", "_count", "_bucket"))}
