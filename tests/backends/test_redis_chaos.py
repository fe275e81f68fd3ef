"""Everything that can happen to a server and the way to it, at random, one after the other: no frame is lost or given twice."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest
import redis.asyncio

from sage_actor.backends.redis_endpoint import RedisEndpoint
from sage_actor.backends.redis_keys import RedisKeys
from sage_actor.errors import BackendError, BackendUnavailable
from sage_actor.ports import offload
from sage_actor.testing import RedisServer, TcpProxy

ROUNDS = 12


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server of this test's own, which forgets everything when it restarts."""
    try:
        with RedisServer() as started:
            yield started
    except BackendUnavailable as error:
        pytest.skip(str(error))


class Chaos:
    """An owner on a good way and a worker on a bad one, and what is done to them."""

    def __init__(self, server: RedisServer, proxy: TcpProxy, seed: int) -> None:
        self.server, self.proxy, self.random = server, proxy, Random(seed)
        keys = RedisKeys(f"{server.address}?patience=30", "sage:chaos", 1, secrets.token_bytes(32))
        bad = replace(keys, address=proxy.instead_of(keys.address))
        self.ends = [RedisEndpoint(worker, of_it, silent=lambda worker: None) for worker, of_it in ((0, keys), (1, bad))]
        self.came: list[list[bytes]] = [[], []]
        self.sent: list[list[bytes]] = [[], []]
        self.lost: list[BackendError] = []
        self.orders = [self.cut, self.cut_soon, self.slow, self.stall, self.delete, self.restart, self.nothing, self.nothing]

    async def open(self) -> None:
        for end, came in zip(self.ends, self.came, strict=True):
            await end.open()
            end.start(lambda sender, frame, came=came: came.append(bytes(frame)), self.lost.append)

    async def close(self) -> None:
        await asyncio.gather(*(end.abort() for end in self.ends))

    def send(self) -> None:
        for end, sent in zip(self.ends, self.sent, strict=True):
            for _ in range(self.random.randrange(100)):
                frame = b"%d:" % len(sent) + bytes(self.random.choice([0, 100, 5_000]))
                sent.append(frame)
                end.send(1 - end.worker, [frame])

    async def until_came(self) -> None:
        self.proxy.heal()
        async with asyncio.timeout(30):
            while not self.lost and not all(len(self.came[1 - worker]) >= len(self.sent[worker]) for worker in (0, 1)):  # noqa: ASYNC110
                await asyncio.sleep(0)
        assert not self.lost
        assert self.came == self.sent[::-1]

    # -- what happens ---------------------------------------------------------------------------------------------------

    async def cut(self) -> None:
        self.proxy.cut()

    async def cut_soon(self) -> None:
        self.proxy.cut_after(self.random.randrange(50_000), self.random.choice(["to_server", "to_client"]))

    async def slow(self) -> None:
        self.proxy.delay(self.random.random() * 0.01)
        self.proxy.limit(self.random.choice([None, 1e6, 1e7]))

    async def stall(self) -> None:
        self.proxy.stall(self.random.choice(["to_server", "to_client", None]))
        for _ in range(self.random.randrange(2_000)):
            await asyncio.sleep(0)
        self.proxy.resume()

    async def delete(self) -> None:
        async with redis.asyncio.Redis.from_url(self.server.address) as client:  # pyright: ignore[reportUnknownMemberType]
            await client.flushall()

    async def restart(self) -> None:
        self.server.kill()
        await offload(self.server.restart)

    async def nothing(self) -> None:
        pass


@pytest.mark.slow
@pytest.mark.asyncio
@pytest.mark.rule("F41")
@pytest.mark.parametrize("seed", range(6))
async def test_any_course_of_events_loses_and_repeats_nothing(server: RedisServer, seed: int) -> None:
    with TcpProxy.before(server.address) as proxy:
        chaos = Chaos(server, proxy, seed)
        await chaos.open()
        try:
            for _ in range(ROUNDS):
                for _ in range(chaos.random.randrange(1, 5)):
                    chaos.send()
                    await chaos.random.choice(chaos.orders)()
                    for _ in range(chaos.random.randrange(50)):
                        await asyncio.sleep(0)
                await chaos.until_came()
        finally:
            await chaos.close()
