"""The figures of workers that have ended."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from api.metric_files import MetricFiles

#: A worker's life: it counts, and says who it was.
WORKER = """
import os, sys
from prometheus_client import Counter, Gauge, Histogram
count = int(sys.argv[1])
Counter("requests", "-", ["route"]).labels("/posts").inc(count)
Histogram("seconds", "-", buckets=(1, 2)).observe(count)
Gauge("sockets", "-", multiprocess_mode="livesum").set(count)
print(os.getpid())
"""


def worked(folder: Path, count: int) -> int:
    """The process id of a worker that has counted so far, and ended."""
    command = [sys.executable, "-c", WORKER, str(count)]
    environment = {MetricFiles.VARIABLE: str(folder)}
    return int(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)  # noqa: S603 - ours


def figures(files: MetricFiles) -> dict[str, float]:
    """What is told of all workers."""
    with files.merged() as registry:
        return {
            sample.name + sample.labels.get("le", ""): sample.value
            for metric in registry.collect()
            for sample in metric.samples
        }


def test_workers_that_have_ended(tmp_path: Path) -> None:
    """Their counts stay and add up, their gauges go, and no file of theirs is left however many there were."""
    files = MetricFiles(str(tmp_path))
    for count in (1, 3):
        pid = worked(tmp_path, count)
        assert figures(files)["sockets"] == count
        files.bury(pid)
        files.bury(pid)
    total = figures(files)
    assert "sockets" not in total
    assert (total["requests_total"], total["seconds_count"], total["seconds_sum"]) == (4, 2, 4)
    assert (total["seconds_bucket1.0"], total["seconds_bucket2.0"], total["seconds_bucket+Inf"]) == (1, 1, 2)
    assert {path.name for path in tmp_path.iterdir()} == {"lock", "counter_0.db", "histogram_0.db"}
