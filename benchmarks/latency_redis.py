"""How long is a record under way when the exchange goes through a Redis server, at 10,000 records a second, open loop?"""

from __future__ import annotations

from dataclasses import replace

from benchmarks import latency
from benchmarks.result import Result
from benchmarks.rounds import Options

__all__ = ["measure"]


def measure(options: Options) -> Result:
    """As `latency` on that backend; through a server of our own unless the command line names one."""
    from sage_actor.testing import redis_server

    if options.backend.startswith("redis"):
        return latency.measure(options)
    with redis_server() as address:
        return latency.measure(replace(options, backend=address))
