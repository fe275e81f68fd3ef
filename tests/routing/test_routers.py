"""Routers: who gets a message, what order is kept, and what happens when members come and go."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator, Callable
from random import Random
from typing import Any

import pytest

import sage_actor as sage
from sage_actor.errors import UnstableKey
from sage_actor.routing.broadcast import BroadcastRouter
from sage_actor.routing.hash_ring_router import HashRingRouter
from sage_actor.routing.router import LeastLoadedRouter, RandomRouter, RoundRobinRouter, Router
from sage_actor.testing import ManualClock

RouterKind = Callable[[list[sage.ActorRef["Member"]]], Router["Member"]]
KINDS: list[RouterKind] = [RoundRobinRouter, LeastLoadedRouter, RandomRouter, HashRingRouter]


class Member(sage.Actor):
    def __init__(self, number: int) -> None:
        self.number = number
        self.got: list[object] = []
        self.gate = asyncio.Event()

    def receive(self, message: object) -> int:
        if message == "boom":
            raise RuntimeError("boom")
        self.got.append(message)
        return self.number

    def note(self, key: object, value: object = None) -> int:
        self.got.append((key, value))
        return self.number

    def everything(self) -> list[object]:
        return self.got

    async def wait(self, key: object = None) -> int:
        await self.gate.wait()
        return self.number

    def open(self) -> None:
        self.gate.set()

    async def count(self, key: str, up_to: int) -> AsyncIterator[int]:
        for number in range(up_to):
            yield number


async def members(system: sage.ActorSystem, count: int, **options: Any) -> list[sage.ActorRef[Member]]:
    return [await system.spawn(Member, number, name=f"member-{number}", **options) for number in range(count)]


# -- all kinds --------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_has_the_face_of_a_ref(kind: RouterKind) -> None:
    async with sage.ActorSystem("routers") as system:
        router = kind(await members(system, 3))
        assert await router.tell("hello")
        assert await router.tell(Member.note, "a", value=1)
        assert router.tell_nowait(Member.note, "b")
        number: int = await router.ask(Member.note, "c", timeout=5)
        assert number in range(3)
        assert await router.ask(Member.note, "d", value=4, timeout=5) in range(3)
        assert await router.ask("again", timeout=1) in range(3)
        assert [part async for part in router.stream(Member.count, "a", 4, demand=2)] == [0, 1, 2, 3]
        got = [message for ref in router.members for message in await ref.ask(Member.everything)]
        assert Counter(map(repr, got)) == Counter(map(repr, ["hello", "again", ("a", 1), ("b", None), ("c", None), ("d", 4)]))


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", KINDS)
async def test_members_that_end_are_taken_out(kind: RouterKind) -> None:
    async with sage.ActorSystem("routers") as system:
        refs = await members(system, 4, restart=sage.NoRestart())
        router = kind(refs)
        await system.stop(refs[1])
        assert router.members == (refs[0], refs[2], refs[3])
        with pytest.raises(sage.ActorFailed):
            await refs[2].ask("boom")
        await system.watch(refs[2])
        assert router.members == (refs[0], refs[3])
        assert {await router.ask(Member.note, key) for key in range(40)} <= {0, 3}
        assert router.remove(refs[0])
        assert not router.remove(refs[0])
        assert refs[0].alive
        assert {await router.ask(Member.note, key) for key in range(5)} == {3}
        await system.kill(refs[3])
        assert len(router) == 0
        for send in (router.tell, router.tell_nowait, router.ask):
            with pytest.raises(sage.ActorError, match="no members"):
                send("anyone?")
        assert router.add(refs[0])
        assert not router.add(refs[0])
        assert await router.ask("anyone?") == 0
        with pytest.raises(sage.ActorStopped):
            router.add(refs[3])
        assert system.dead_letters.total == 0


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", KINDS)
async def test_a_member_that_drains_gets_nothing_more(kind: RouterKind) -> None:
    async with sage.ActorSystem("routers") as system:
        refs = await members(system, 2)
        router = kind(refs)
        waiting = refs[0].ask(Member.wait)
        await asyncio.sleep(0)
        stopping = asyncio.ensure_future(system.stop(refs[0]))
        await asyncio.sleep(0)
        assert refs[0].alive, "it still has to finish"
        assert {await router.ask(Member.note, key) for key in range(30)} == {1}
        waiting.cancel()
        await system.kill(refs[0])
        await stopping


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", KINDS)
async def test_a_member_that_restarts_stays(kind: RouterKind) -> None:
    clock = ManualClock()
    async with sage.ActorSystem("routers", clock=clock) as system:
        refs = await members(system, 1, restart=sage.FixedDelay(attempts=3, delay=1))
        router = kind(refs)
        with pytest.raises(sage.ActorFailed):
            await router.ask("boom")
        kept = router.ask("kept")
        await clock.advance(1)
        assert await kept == 0


@pytest.mark.asyncio
async def test_a_router_that_is_dropped_is_forgotten_by_its_members() -> None:
    async with sage.ActorSystem("routers") as system:
        refs = await members(system, 1)
        watched = refs[0].cell.lifecycle.deathwatch._outside
        router = RoundRobinRouter(refs)
        assert len(watched) == 1
        del router
        gc.collect()
        assert len(watched) == 0


# -- round robin, random, least loaded --------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_round_robin_takes_turns() -> None:
    async with sage.ActorSystem("routers") as system:
        refs = await members(system, 3)
        router = RoundRobinRouter([*refs, refs[0]])
        assert [await router.ask("x") for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]


@pytest.mark.asyncio
async def test_random_is_seeded_and_reaches_all() -> None:
    async with sage.ActorSystem("routers") as system:
        refs = await members(system, 4)
        runs = []
        for _ in range(2):
            router = RandomRouter(refs, random=Random(3))
            runs.append([await router.ask("x") for _ in range(100)])
        assert runs[0] == runs[1]
        assert set(runs[0]) == {0, 1, 2, 3}


@pytest.mark.asyncio
async def test_the_least_loaded_gets_it() -> None:
    async with sage.ActorSystem("routers") as system:
        refs = await members(system, 3)
        router = LeastLoadedRouter(refs)
        assert [await router.ask("x") for _ in range(6)] == [0, 1, 2, 0, 1, 2], "idle ones take turns"
        held = [refs[0].ask(Member.wait), refs[0].ask("q"), refs[1].ask(Member.wait)]
        await asyncio.sleep(0)
        assert [await router.ask("x") for _ in range(3)] == [2, 2, 2]
        held.append(refs[2].ask(Member.wait))
        await asyncio.sleep(0)
        more = [router.ask("x") for _ in range(4)]
        assert sorted(ref.cell.queued + ref.cell.in_hand for ref in refs) == [2, 3, 3]
        for ref in refs:
            await system.kill(ref)
        await asyncio.gather(*held, *more, return_exceptions=True)


@pytest.mark.asyncio
async def test_one_that_waits_for_its_restart_does_not_attract_the_work() -> None:
    clock = ManualClock()
    async with sage.ActorSystem("routers", clock=clock) as system:
        refs = await members(system, 2, restart=sage.FixedDelay(attempts=3, delay=10))
        router = LeastLoadedRouter(refs)
        with pytest.raises(sage.ActorFailed):
            await refs[0].ask("boom")
        held = [refs[1].ask(Member.wait)]
        await asyncio.sleep(0)
        held += [router.ask("x") for _ in range(3)]
        assert (refs[0].cell.queued, refs[1].cell.queued) == (0, 3)
        await clock.advance(10)
        assert await router.ask("x") == 0
        await system.kill(refs[1])
        await asyncio.gather(*held, return_exceptions=True)


# -- hash ring --------------------------------------------------------------------------------------------------------


@pytest.mark.rule("A23")
@pytest.mark.asyncio
async def test_one_key_one_member_in_order() -> None:
    async with sage.ActorSystem("routers") as system:
        refs = await members(system, 4)
        router = HashRingRouter(refs)
        chance = Random(1)
        sent: list[tuple[str, int]] = [(f"user {chance.randrange(30)}", number) for number in range(600)]
        asks = []
        for key, number in sent:
            if number % 3:
                router.tell_nowait(Member.note, key, number)
            else:
                asks.append(router.ask(Member.note, key, number))
        await asyncio.gather(*asks)
        await system.wait_idle()
        by_key: dict[str, list[tuple[int, object]]] = {}
        for ref in refs:
            got: Any = await ref.ask(Member.everything)
            for key, value in got:
                by_key.setdefault(key, []).append((refs.index(ref), value))
        for key, entries in by_key.items():
            assert len({member for member, _ in entries}) == 1
            assert [value for _, value in entries] == [number for other, number in sent if other == key]
        assert len({entries[0][0] for entries in by_key.values()}) == 4


@pytest.mark.asyncio
async def test_a_change_of_members_moves_only_the_keys_it_must() -> None:
    async with sage.ActorSystem("routers") as system:
        refs = await members(system, 5)
        router = HashRingRouter(refs[:4])
        before = [await router.ask(Member.note, key) for key in range(200)]
        router.add(refs[4])
        after = [await router.ask(Member.note, key) for key in range(200)]
        assert {new for old, new in zip(before, after, strict=True) if new != old} == {4}
        await system.kill(refs[4])
        assert [await router.ask(Member.note, key) for key in range(200)] == before


@pytest.mark.asyncio
async def test_the_key_is_what_the_function_says() -> None:
    async with sage.ActorSystem("routers") as system:
        refs = await members(system, 4)

        def key(first: object, value: object = None) -> object:
            return ("v", value) if value is not None else first

        router = HashRingRouter(refs, key=key)
        assert len({await router.ask(Member.note, n, "same") for n in range(20)}) == 1
        assert len({await router.ask(Member.note, n, value="same") for n in range(20)}) == 1
        assert len({await router.ask(str(n)) for n in range(20)}) > 1
        plain = HashRingRouter(refs)
        with pytest.raises(UnstableKey):
            plain.ask(object())
        with pytest.raises(sage.ActorError, match="key"):
            plain.ask(Member.everything)
        function_key = HashRingRouter(refs, key=lambda *_: 0)
        assert await function_key.ask(Member.everything) is not None


@pytest.mark.asyncio
async def test_two_members_of_one_path_are_refused() -> None:
    async with sage.ActorSystem("one") as one, sage.ActorSystem("two") as two:
        (first,), (second,) = await members(one, 1), await members(two, 1)
        with pytest.raises(sage.ActorError, match="member-0"):
            HashRingRouter([first, second])


# -- broadcast --------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_broadcast_reaches_all_in_order() -> None:
    async with sage.ActorSystem("routers") as system:
        refs = await members(system, 3)
        everyone = BroadcastRouter(refs)
        for number in range(20):
            assert await everyone.tell(number)
        assert everyone.tell_nowait(Member.note, "a", 1)
        numbers: list[int] = await everyone.ask(Member.note, "b", 2)
        assert numbers == [0, 1, 2]
        expected = [*range(20), ("a", 1), ("b", 2)]
        assert await everyone.ask(Member.everything) == [expected] * 3
        assert [await reply for reply in everyone.ask_each("x")] == [0, 1, 2]


@pytest.mark.asyncio
async def test_broadcast_waits_for_room_everywhere_and_may_be_cancelled() -> None:
    async with sage.ActorSystem("routers") as system:
        refs = await members(system, 3, mailbox=sage.MailboxSettings(capacity=1))
        everyone = BroadcastRouter(refs)
        held = [ref.ask(Member.wait) for ref in refs[:2]]
        await asyncio.sleep(0)
        assert await everyone.tell("fits")
        waiting = asyncio.ensure_future(everyone.tell("too much"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [ref.cell.statistics().waiting_putters for ref in refs] == [1, 1, 0]
        waiting.cancel()
        await asyncio.wait([waiting])
        with pytest.raises(sage.MailboxFull):
            everyone.tell_nowait("too much, now")
        again = asyncio.ensure_future(everyone.tell("in the end"))
        await asyncio.sleep(0)
        for ref in refs[:2]:
            ref.cell.actor.gate.set()
        assert await again
        await asyncio.gather(*held)
        await system.wait_idle()
        got: list[list[object]] = await everyone.ask(Member.everything)
        assert got == [["fits", "in the end"], ["fits", "in the end"], ["fits", "too much", "too much, now", "in the end"]]


@pytest.mark.asyncio
async def test_broadcast_to_full_mailboxes_that_refuse() -> None:
    async with sage.ActorSystem("routers") as system:
        full = await system.spawn(Member, 0, mailbox=sage.MailboxSettings(capacity=1, overflow="fail"))
        dropping = await system.spawn(Member, 1, mailbox=sage.MailboxSettings(capacity=1, overflow="drop_new"))
        waiting = await system.spawn(Member, 2, mailbox=sage.MailboxSettings(capacity=1))
        roomy = await system.spawn(Member, 3)
        held = [ref.ask(Member.wait) for ref in (full, dropping, waiting)]
        await asyncio.sleep(0)
        assert await BroadcastRouter([full, dropping, waiting, roomy]).tell("first")
        assert not await BroadcastRouter([roomy, dropping]).tell("dropped")
        sending = asyncio.ensure_future(BroadcastRouter([full, waiting, roomy]).tell("second"))
        await asyncio.sleep(0)
        for ref in (full, dropping, waiting):
            ref.cell.actor.gate.set()
        with pytest.raises(sage.MailboxFull):
            await sending
        await asyncio.gather(*held)
        await system.wait_idle()
        assert await waiting.ask(Member.everything) == ["first", "second"]
        assert await roomy.ask(Member.everything) == ["first", "dropped", "second"]


@pytest.mark.asyncio
async def test_a_broadcast_ask_that_fails_or_is_cancelled_gives_the_others_up() -> None:
    async with sage.ActorSystem("routers") as system:
        refs = await members(system, 3, restart=sage.NoRestart())
        everyone = BroadcastRouter(refs)
        blocked = refs[1].ask(Member.wait)
        await asyncio.sleep(0)
        with pytest.raises(sage.ActorFailed):
            await everyone.ask("boom")
        await system.watch(refs[2])
        assert everyone.members == (refs[1],)
        asking = everyone.ask("never")
        asking.cancel()
        await asyncio.wait([asking])
        refs[1].cell.actor.gate.set()
        await blocked
        await system.wait_idle()
        assert await refs[1].ask(Member.everything) == []
        assert [letter.reason for letter in system.dead_letters] == ["its caller gave up"] * 2
        await system.kill(refs[1])
        for send in (everyone.tell, everyone.tell_nowait, everyone.ask, everyone.ask_each):
            with pytest.raises(sage.ActorError, match="no members"):
                send("anyone?")
