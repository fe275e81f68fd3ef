"""The thread that everything in Ray which blocks is left to; Ray itself is in test_ray.py."""

from __future__ import annotations

import asyncio
import threading

import pytest

from sage_actor.backends import ray_connection
from sage_actor.backends.ray_connection import RayConnection


class Stubborn:
    """What stands where the module ``ray`` would: it connects, and cannot let go."""

    def __init__(self) -> None:
        self.asked = 0

    def is_initialized(self) -> bool:
        return False

    def init(self, address: str | None, **options: object) -> None:
        """Connected."""

    def shutdown(self) -> None:
        self.asked += 1
        raise RuntimeError("the cluster is gone")


@pytest.mark.asyncio
async def test_a_connection_that_cannot_be_ended_does_not_hold_up_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = Stubborn()
    monkeypatch.setattr(ray_connection, "load_ray", lambda backend: ray)
    monkeypatch.setattr(ray_connection, "_LINGER", 0.0)
    connection = RayConnection()
    before = set(threading.enumerate())
    for turn in range(3):
        async with asyncio.timeout(10):
            await connection.acquire("ray://nowhere:1", "ray")
            connection.release()
            while ray.asked <= turn or set(threading.enumerate()) - before:  # noqa: ASYNC110  threads do not tell
                await asyncio.sleep(0)
    assert ray.asked == 3
