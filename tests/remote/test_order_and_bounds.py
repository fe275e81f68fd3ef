"""Order per pair over any workers, compared with a model; and what is bounded when a receiver does not read."""

from __future__ import annotations

import asyncio
import random
import sys
from typing import Any, cast

import cloudpickle
import numpy as np
import pytest

import sage_actor as sage
from sage_actor.ports import system_clock

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Peer(sage.Actor):
    """Sends numbered messages to others, and keeps what it gets."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.got: list[tuple[str, int]] = []
        self.news = asyncio.Event()

    async def send(self, plan: list[tuple[sage.ActorRef[Peer], int]], seed: int) -> None:
        chance = random.Random(seed)
        sent = dict.fromkeys([ref for ref, _ in plan], 0)
        waiting: list[Any] = []
        for ref, count in plan:
            for _ in range(count):
                n, sent[ref] = sent[ref], sent[ref] + 1
                kind = chance.choice(("tell", "ask", "call", "large"))
                if kind == "tell":
                    await ref.tell((self.name, n))
                elif kind == "call":
                    await ref.tell(Peer.take, self.name, n)
                elif kind == "large":
                    await ref.tell(Peer.take, self.name, n, np.zeros(20_000))
                else:
                    waiting.append(ref.ask(Peer.take, self.name, n))
        await asyncio.gather(*waiting)

    def receive(self, message: Any) -> None:
        self.take(*message)

    def take(self, name: str, n: int, load: object = None) -> None:
        self.got.append((name, n))
        self.news.set()

    async def until(self, count: int) -> list[tuple[str, int]]:
        while len(self.got) < count:  # what others have told may still be under way
            self.news.clear()
            await self.news.wait()
        return self.got


@pytest.mark.asyncio
@pytest.mark.rule("A23")
@pytest.mark.rule("A24")
@pytest.mark.parametrize("seed", range(6))
async def test_each_pair_is_in_order_and_nothing_is_lost_or_doubled(seed: int) -> None:
    chance = random.Random(seed)
    async with sage.ActorSystem("far", backend="process", workers=2) as system:
        peers: dict[str, sage.ActorRef[Peer]] = {}
        for name in "abcde":
            mailbox = sage.MailboxSettings(capacity=chance.choice((1, 3, 1000)))
            place = chance.choice((None, 0, 1))
            peers[name] = await system.spawn(Peer, name, name=name, worker=place, mailbox=mailbox, concurrency=3)
        model: dict[tuple[str, str], int] = {}
        runs: list[Any] = []
        for name, peer in peers.items():
            plan: list[tuple[sage.ActorRef[Peer], int]] = []
            for _ in range(4):
                other, count = chance.choice([p for p in peers if p != name]), chance.randrange(120)
                plan.append((peers[other], count))
                model[name, other] = model.get((name, other), 0) + count
            runs.append(peer.ask(Peer.send, plan, chance.randrange(1000)))
        await asyncio.gather(*runs)
        for name, peer in peers.items():
            got = await peer.ask(Peer.until, sum(count for (_, to), count in model.items() if to == name))
            for sender in peers:
                assert [n for who, n in got if who == sender] == list(range(model.get((sender, name), 0)))
        assert not system.dead_letters


class Slow(sage.Actor):
    """Reads when it is let."""

    def __init__(self) -> None:
        self.got: list[int] = []
        self.gate = asyncio.Event()

    async def receive(self, message: Any) -> None:
        await self.gate.wait()
        self.got.append(message if isinstance(message, int) else 0)

    def count(self) -> list[int]:
        return self.got


class Opener(sage.Actor):
    """Lives beside a slow one, and lets it read."""

    def __init__(self) -> None:
        self.slow: sage.ActorRef[Slow] | None = None

    async def have(self, capacity: int) -> sage.ActorRef[Slow]:
        self.slow = await self.context.spawn(Slow, mailbox=sage.MailboxSettings(capacity=capacity))
        return self.slow

    def answer(self) -> None:
        """For a round trip."""

    def open(self) -> None:
        assert self.slow is not None
        cast("Slow", self.slow.cell.actor).gate.set()


async def fill(ref: sage.ActorRef[Any], beside: sage.ActorRef[Opener], message: Any = None) -> int:
    """Tell until nothing is taken any more, although the other side has had time for all that came before; how many were."""
    accepted, refused = 0, 0
    while refused < 3:
        try:
            ref.tell_nowait(accepted if message is None else message)
            accepted, refused = accepted + 1, 0
        except sage.MailboxFull:
            refused += 1
            await beside.ask(Opener.answer)
    return accepted


@pytest.mark.asyncio
async def test_a_receiver_that_does_not_read_holds_its_sender_and_nobody_else(backend: str) -> None:
    async with sage.ActorSystem("far", backend=backend, workers=1) as system:
        opener = await system.spawn(Opener, worker=0)
        slow = await opener.ask(Opener.have, 4)
        accepted = await fill(slow, opener)
        # Outbox, window, mailbox, the one in hand.
        assert 1024 <= accepted <= 1024 + 256 + 4 + 1
        waits = asyncio.ensure_future(slow.tell(accepted))
        await asyncio.sleep(0)  # it stands in line
        asked = slow.ask(Slow.count)
        await opener.ask(Opener.open)  # over the same link, not behind them
        assert await waits
        assert await asked == list(range(accepted + 1))


@pytest.mark.asyncio
async def test_large_messages_are_bounded_by_their_bytes() -> None:
    async with sage.ActorSystem("far", backend="process", workers=1) as system:
        opener = await system.spawn(Opener, worker=0)
        slow = await opener.ask(Opener.have, 2)
        accepted = await fill(slow, opener, np.zeros(1 << 17))  # a mebibyte, the same one each time: only what is sent takes memory
        assert 1024 <= accepted <= 1024 + 8 + 1 + 2 + 1
        await system.stop(slow, drain=False)
        assert system.dead_letters.total >= 1024


class Strained:
    """A clock that handlers can move on, as work would."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        return system_clock.monotonic() + self.ahead

    def __getattr__(self, name: str) -> Any:
        return getattr(system_clock, name)


@pytest.mark.asyncio
async def test_a_burst_of_asks_does_not_keep_the_loop_to_itself() -> None:
    clock = Strained()
    turn = 0
    turns: list[int] = []

    def next_turn() -> None:
        nonlocal turn
        turn += 1
        asyncio.get_running_loop().call_soon(next_turn)

    class Working(sage.Actor):
        def work(self) -> None:
            clock.ahead += 0.01
            turns.append(turn)

    class Asking(sage.Actor):
        async def ask_all(self, refs: list[sage.ActorRef[Any]], method: str) -> None:
            await asyncio.gather(*[ref.ask(method) for ref in refs])

    class Receiving(Working):
        def receive(self, message: object) -> None:
            self.work()

    async with sage.ActorSystem("far", backend="process", workers=1, clock=cast("Any", clock)) as system:
        refs = [await system.spawn(Receiving) for _ in range(40)]
        asking = await system.spawn(Asking, worker=0)
        asyncio.get_running_loop().call_soon(next_turn)
        await asking.ask(Asking.ask_all, refs, "work")
        assert len(set(turns)) > 20
        next_turn = lambda: None


@pytest.mark.asyncio
async def test_what_was_sent_before_leaving_is_handled() -> None:
    got: list[int] = []

    class Collector(sage.Actor):
        def receive(self, message: int) -> None:
            got.append(message)

    class Doubling(sage.Actor):
        def __init__(self, to: sage.ActorRef[Any]) -> None:
            self.to = to

        async def receive(self, message: int) -> None:
            await self.to.tell(2 * message)

    async with sage.ActorSystem("far", backend="process", workers=2) as system:
        collector = await system.spawn(Collector, mailbox=sage.MailboxSettings(capacity=3))
        small = sage.MailboxSettings(capacity=3)
        doubling = await system.spawn(Doubling, collector, worker=1, mailbox=small)
        for n in range(1000):
            await doubling.tell(n)
    assert got == [2 * n for n in range(1000)]
