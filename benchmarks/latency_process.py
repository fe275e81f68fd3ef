"""How long is a record under way on the process backend, through the same four operators and one exchange, open loop?"""

from __future__ import annotations

from dataclasses import replace

from benchmarks import latency
from benchmarks.result import Result
from benchmarks.rounds import Options

__all__ = ["measure"]


def measure(options: Options) -> Result:
    """p99 above the probe's own, in milliseconds."""
    return latency.measure(replace(options, backend="process"))
