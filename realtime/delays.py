"""How long committed changes take to reach clients, tallied so that a delivery costs next to nothing."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

#: Upper bounds of the classes that delays are counted in, in seconds; what is above the last one has its own.
BOUNDS: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Delays:
    """Counts of delays by class, and their sum. Only grows; whoever reports it remembers what was reported."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.sum_seconds = 0.0

    def note(self, seconds: float) -> None:
        """Count one delay. Below zero, which is a clock that runs behind the database's, it counts as none."""
        seconds = max(seconds, 0.0)
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum_seconds += seconds
