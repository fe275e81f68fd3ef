"""A running dataflow whose Redis server is killed and comes back, with what it saved or without: the result is the right one."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

import sage_actor as sage
from sage_actor.errors import BackendUnavailable
from sage_actor.ports import offload, system_clock
from sage_actor.testing import RedisServer

RECORDS = 20_000
KEYS = 7


class Numbers(sage.Source[int]):
    """0, 1, 2, … in a worker. At a place it says so with a file, and goes on when there is another one."""

    def __init__(self, at: int, folder: str) -> None:
        self.next = 0
        self.at = at
        self.folder = Path(folder)

    async def open(self, context: sage.FunctionContext) -> None:
        (self.folder / f"attempt-{uuid.uuid4().hex}").touch()

    async def read(self, limit: int) -> Sequence[int] | None:
        if self.next >= self.at and not (self.folder / "go on").exists():
            (self.folder / "there").touch()
            await system_clock.sleep(0.01)
            return await self.read(limit)
        if self.next == RECORDS:
            return None
        start, self.next = self.next, min(self.next + min(limit, 100), RECORDS)
        return range(start, self.next)

    def position(self) -> int:
        return self.next

    async def seek(self, position: object) -> None:
        assert isinstance(position, int)
        self.next = position


@pytest.fixture(scope="module", autouse=True)
def everything_is_imported() -> None:
    """Not on the loop of the first test, where that would take too long on a busy machine."""
    import redis.asyncio

    import sage_actor.backends.redis

    assert redis.asyncio
    assert sage_actor.backends.redis
    env = sage.LocalEnvironment("the first", backend="local")
    env.from_collection([1]).collect()
    env.execute()


@pytest.fixture(params=["saved", "empty"])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server that has saved what it said it has, and one that forgets everything."""
    arguments = ("--appendonly", "yes", "--appendfsync", "always") if request.param == "saved" else ()
    try:
        with RedisServer(arguments=arguments) as started:
            yield started
    except BackendUnavailable as error:
        pytest.skip(str(error))


def environment(server: RedisServer, folder: Path, patience: float) -> sage.Environment:
    return sage.Environment(
        "through redis",
        backend=f"{server.address}?patience={patience}",
        parallelism=2,
        config={
            "checkpoint.dir": str(folder / "checkpoints"), "checkpoint.interval": 0.1,
            "restart.delay": 0.2, "restart.jitter": 0, "restart.attempts": 50,
        },
    )  # fmt: skip


def expected() -> dict[int, int]:
    return {key: sum(range(key, RECORDS, KEYS)) for key in range(KEYS)}


def sums(env: sage.Environment, at: int, folder: Path) -> sage.Collected[tuple[int, int]]:
    pairs = env.from_source(Numbers, at=at, folder=str(folder), parallelism=1).map(lambda n: (n % KEYS, n)).key_by(lambda pair: pair[0])
    return pairs.fold(0, lambda total, pair: total + pair[1], emit="final").collect()


def attempts(folder: Path) -> int:
    return len(list(folder.glob("attempt-*")))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(40):
        while not condition():  # noqa: ASYNC110  files and servers do not tell
            await asyncio.sleep(0)


@pytest.mark.asyncio
@pytest.mark.parametrize("at", [100, RECORDS // 2, RECORDS])
async def test_a_server_that_comes_back_in_time_is_not_even_noticed(server: RedisServer, tmp_path: Path, at: int) -> None:
    async with environment(server, tmp_path, patience=30) as env:
        results = sums(env, at, tmp_path)
        job = await env.submit()
        await until((tmp_path / "there").exists)
        for _ in range(2):
            server.kill()
            await offload(server.restart)
        (tmp_path / "go on").touch()
        await job.wait()
        assert dict(results) == expected()
    assert attempts(tmp_path) == 1


@pytest.mark.asyncio
async def test_a_server_that_is_away_for_too_long_costs_an_attempt_and_nothing_else(server: RedisServer, tmp_path: Path) -> None:
    async with environment(server, tmp_path, patience=0.3) as env:
        results = sums(env, RECORDS // 2, tmp_path)
        job = await env.submit()
        await until((tmp_path / "there").exists)
        await until(lambda: len(job.checkpoints) > 0)
        server.kill()
        await until(lambda: job.status == "restarting")
        await offload(server.restart)
        (tmp_path / "go on").touch()
        await job.wait()
        assert dict(results) == expected()
        assert job.restored_from is not None
    assert attempts(tmp_path) > 1
