"""What does a keyed shuffle between two Ray actors reach, against batched calls written by hand?"""

from __future__ import annotations

import logging
import pickle
import time
from collections import deque
from typing import Any

from benchmarks.result import Result
from benchmarks.rounds import Options
from benchmarks.shuffle_case import BATCH, count_keys, measure_shuffle, small_tuples

__all__ = ["measure"]

IN_FLIGHT = 8
"""Calls that the floor has under way: what measured best from 1 to 16."""


class Receiver:
    """The other actor of the floor: counts by key."""

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}

    def take(self, pickled: bytes) -> None:
        """One batch. As a list, which Ray would pickle itself, it takes three times as long."""
        count_keys(self.counts, pickle.loads(pickled))

    def counted(self) -> int:
        """How many records came."""
        return sum(self.counts.values())


class Sender:
    """One actor of the floor: makes batches and calls the other one with them, a few calls in flight."""

    def run(self, receiver: Any, n: int) -> tuple[float, int]:
        """Seconds, and how many records the other one has counted."""
        import ray

        begun = time.perf_counter()
        calls: deque[Any] = deque()
        for start in range(0, n, BATCH):
            calls.append(receiver.take.remote(pickle.dumps(small_tuples(start, min(start + BATCH, n)), protocol=5)))
            if len(calls) == IN_FLIGHT:
                ray.get(calls.popleft())
        counted: int = ray.get(receiver.counted.remote())
        return time.perf_counter() - begun, counted


def floor(n: int) -> float:
    """One actor makes batches and calls another with them, which counts; both are up before the clock starts."""
    import ray

    receiver, sender = (ray.remote(actor).options(num_cpus=0).remote() for actor in (Receiver, Sender))
    ray.get(receiver.counted.remote())
    ray.get(sender.run.remote(receiver, 0))
    spent, counted = ray.get(sender.run.remote(receiver, n))
    for actor in (receiver, sender):
        ray.kill(actor)
    assert counted == n
    return float(spent)


def measure(options: Options) -> Result:
    """Records a second, both on one local cluster."""
    import ray

    ray.init(address="local", include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False, object_store_memory=200_000_000)
    try:
        return measure_shuffle(
            options, "ray", floor, 0.7, f"pickle-5 batches of 1,000 in calls of one Ray actor by another, {IN_FLIGHT} in flight"
        )
    finally:
        ray.shutdown()
