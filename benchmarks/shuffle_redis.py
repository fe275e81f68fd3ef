"""What does a keyed shuffle through a Redis server reach, against batches that redis-py and hiredis carry end to end?"""

from __future__ import annotations

import multiprocessing
import pickle
import time
from multiprocessing.connection import Connection
from typing import Any, cast

from benchmarks.result import Result
from benchmarks.rounds import Options
from benchmarks.shuffle_case import BATCH, count_keys, measure_shuffle, small_tuples

__all__ = ["measure"]

STREAM = "benchmark:shuffle"
ENTRIES = 32
"""Entries in one read at most: as ours."""


def client(address: str) -> Any:
    """redis-py, with hiredis; its own types leave most of this open."""
    import redis

    return cast("Any", redis.Redis).from_url(address, protocol=2)


def receive(address: str, pipe: Connection) -> None:
    """The other process of the floor: read, remove, unpickle, count by key."""
    server, counts, last = client(address), dict[int, int](), b"0-0"
    pipe.send(b"ready")
    while True:
        [(_, entries)] = server.xread({STREAM: last}, count=ENTRIES, block=0)
        for identity, fields in entries:
            last = identity
            batch = pickle.loads(fields[b"f"])
            if not batch:
                pipe.send(sum(counts.values()))
                return
            count_keys(counts, batch)
        server.xtrim(STREAM, minid=last, approximate=False)


def floor(address: str, n: int) -> float:
    """One process makes batches and adds them to a stream, another reads and counts; one call a batch, as one writes it by hand."""
    server = client(address)
    server.delete(STREAM)
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=receive, args=(address, there))
    process.start()
    here.recv()
    begun = time.perf_counter()
    for start in range(0, n, BATCH):
        server.xadd(STREAM, {"f": pickle.dumps(small_tuples(start, min(start + BATCH, n)), protocol=5)})
    server.xadd(STREAM, {"f": pickle.dumps([], protocol=5)})
    counted = here.recv()
    spent = time.perf_counter() - begun
    process.join()
    server.delete(STREAM)
    assert counted == n
    return spent


def measure(options: Options) -> Result:
    """Records a second, through a server of our own unless the command line names one."""
    from sage_actor.testing import redis_server

    if options.backend.startswith("redis"):
        return compare(options, options.backend)
    with redis_server() as address:
        return compare(options, address)


def compare(options: Options, address: str) -> Result:
    """Ours and the floor through the same server."""
    note = "pickle-5 batches of 1,000 through a stream of the same server, XADD, XREAD and XTRIM by redis-py with hiredis"
    return measure_shuffle(options, address, lambda n: floor(address, n), 0.6, note)
