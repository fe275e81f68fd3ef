"""Actors on other workers: what a ref promises holds wherever its actor lives."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import cloudpickle
import numpy as np
import pytest

import sage_actor as sage
from sage_actor.errors import ConfigError, SerializationError
from sage_actor.ports import Cancellable, system_clock

# Workers cannot import this module: its classes travel by value, as those of a script do.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Refused(Exception):
    """An expected error of a user's own."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Where(sage.Actor):
    """Says where it is, and keeps what it is told."""

    expected_errors = (Refused,)

    def __init__(self, *seen: object) -> None:
        self.seen: list[object] = list(seen)
        self.gate = asyncio.Event()

    def receive(self, message: object) -> object:
        self.seen.append(message)
        return message

    def pid(self) -> int:
        return os.getpid()

    def total(self, array: np.ndarray, *, scale: float = 1.0) -> float:
        return float(array.sum()) * scale

    def double(self, array: np.ndarray) -> np.ndarray:
        array *= 2  # it is the actor's own
        return array

    def all_seen(self) -> list[object]:
        return self.seen

    def fail(self, text: str) -> None:
        raise ValueError(text)

    def fail_strangely(self) -> None:
        class Strange(Exception):
            def __init__(self, one: str, two: str) -> None:
                super().__init__(f"{one}, {two}")

        raise Strange("one", "two")

    async def forward(self, to: sage.ActorRef[Any], message: object) -> object:
        return await to.ask(message)

    def refuse(self, code: int) -> None:
        raise Refused(code)

    async def wait(self) -> str:
        await self.gate.wait()
        return "opened"

    def call(self, function: Callable[[int], int], x: int) -> int:
        return function(x)

    async def ask_other(self, other: sage.ActorRef[Where]) -> tuple[int, int]:
        return os.getpid(), await other.ask(Where.pid)

    async def round_trip(self, other: sage.ActorRef[Any], back: sage.ActorRef[Any]) -> Any:
        return await other.ask(Where.ask_back, back)

    async def ask_back(self, back: sage.ActorRef[Where]) -> int:
        return await back.ask(Where.pid)

    def me(self) -> sage.ActorRef[Any]:
        return self.context.ref

    def echo(self, value: Any) -> Any:
        return value

    async def read_some(self, of: sage.ActorRef[Where]) -> None:
        parts = of.stream(Where.rows, 10**9)
        await parts.__anext__()
        await asyncio.Event().wait()

    async def rows(self, count: int) -> AsyncIterator[int]:
        for row in range(count):
            self.seen.append(row)
            yield row

    def end(self) -> None:
        self.context.stop()


def lambda_of(y: int) -> Callable[[int], int]:
    return lambda x: x + y


@pytest.mark.asyncio
async def test_an_actor_on_a_worker_answers_there(backend: str) -> None:
    async with sage.ActorSystem("far", backend=backend, workers=2) as system:
        refs = [await system.spawn(Where, "first", worker=i) for i in range(2)]
        pids = [await ref.ask(Where.pid) for ref in refs]
        assert pids == [worker.pid for worker in system.workers]
        assert len({*pids, os.getpid()}) == 3
        ref = refs[1]
        assert await ref.ask(Where.total, np.ones(1_000_000), scale=2.0) == 2_000_000.0
        sent = np.arange(5)
        assert (await ref.ask(Where.double, sent)).tolist() == [0, 2, 4, 6, 8]
        assert sent.tolist() == [0, 1, 2, 3, 4]
        assert await ref.ask(Where.call, lambda_of(2), 40) == 42
        assert await ref.ask("hello", timeout="20s") == "hello"
        assert await ref.tell("told")
        assert ref.tell_nowait(Where.receive, ["told", {"by": "name"}])
        assert await ref.ask(Where.all_seen) == ["first", "hello", "told", ["told", {"by": "name"}]]
        assert isinstance(ref, sage.ActorRef)
        assert ref.alive


@pytest.mark.asyncio
async def test_local_workers_are_the_owner() -> None:
    async with sage.ActorSystem("near", backend="local", workers=2) as system:
        refs = [await system.spawn(Where, worker=i) for i in range(2)]
        assert {await ref.ask(Where.pid) for ref in refs} == {os.getpid()}
        assert [worker.pid for worker in system.workers] == [os.getpid()] * 2
        with pytest.raises(sage.ActorError, match="0 to 1"):
            await system.spawn(Where, worker=2)


@pytest.mark.asyncio
async def test_errors_come_as_themselves() -> None:
    async with sage.ActorSystem("far", backend="process", workers=1) as system:
        ref = await system.spawn(Where, worker=0, restart=sage.FixedDelay(attempts=9, delay=0))
        with pytest.raises(sage.ActorFailed) as failed:
            await ref.ask(Where.fail, "no such thing")
        assert isinstance(failed.value.__cause__, ValueError)
        assert "in fail" in "".join(failed.value.__cause__.__notes__)
        with pytest.raises(Refused) as refused:
            await ref.ask(Where.refuse, 7)
        assert refused.value.code == 7
        with pytest.raises(sage.BadCall):
            await ref.ask(Where.total)
        with pytest.raises(SerializationError, match="argument 1"):
            await ref.ask(Where.echo, threading.Lock())
        assert await ref.ask(Where.echo, 1) == 1
        with pytest.raises(sage.ActorFailed, match="ZeroDivisionError"):
            await system.spawn(Broken, worker=0)
        with pytest.raises(sage.NameTaken):
            await asyncio.gather(*(system.spawn(Where, name="one", worker=0) for _ in range(2)))


class Broken(sage.Actor):
    """Does not start."""

    def on_start(self) -> Any:
        return 1 / 0


@pytest.mark.asyncio
async def test_refs_travel_and_come_home(backend: str) -> None:
    async with sage.ActorSystem("far", backend=backend, workers=2) as system:
        here = await system.spawn(Where)
        one, two = [await system.spawn(Where, worker=i) for i in range(2)]
        pids = [worker.pid for worker in system.workers]
        assert await one.ask(Where.ask_other, two) == (pids[0], pids[1])
        assert await one.ask(Where.ask_other, here) == (pids[0], os.getpid())
        assert await one.ask(Where.round_trip, two, here) == os.getpid()
        assert await one.ask(Where.echo, here) is here
        assert await one.ask(Where.echo, {"both": [one, two]}) == {"both": [one, two]}
        assert await two.ask(Where.me) is two
        with pytest.raises(SerializationError, match="another actor system"):
            async with sage.ActorSystem("other") as other:
                await one.ask(Where.echo, await other.spawn(Where))


@pytest.mark.asyncio
async def test_a_ref_travels_even_if_its_class_cannot() -> None:
    lock = threading.Lock()

    class Unpicklable(sage.Actor):
        def receive(self, message: object) -> object:
            with lock:
                return message

    async with sage.ActorSystem("far", backend="process", workers=1) as system:
        here = await system.spawn(Unpicklable)
        far = await system.spawn(Where, worker=0)
        assert await far.ask(Where.forward, here, "hello") == "hello"
        with pytest.raises(SerializationError, match="Unpicklable"):
            await system.spawn(Unpicklable, worker=0)


@pytest.mark.asyncio
async def test_an_error_that_cannot_be_rebuilt_ends_its_actor_all_the_same() -> None:
    async with sage.ActorSystem("far", backend="process", workers=1) as system:
        ref = await system.spawn(Where, worker=0, restart=sage.NoRestart())
        watched = system.watch(ref)
        with pytest.raises(sage.ActorFailed) as failed:
            await ref.ask(Where.fail_strangely)
        assert type(failed.value.__cause__).__name__ == "RemoteError"
        assert "Strange: one, two" in str((await watched).reason)


@pytest.mark.asyncio
@pytest.mark.rule("A25")
async def test_a_deadline_fires_here_and_a_cancellation_is_told_once() -> None:
    async with sage.ActorSystem("far", backend="process", workers=1) as system:
        ref = await system.spawn(Hanging, worker=0, concurrency=2)
        seconds = 0.1
        while "begun" not in await ref.ask(Hanging.counts):  # on a slow machine the deadline may come first
            with pytest.raises(sage.AskTimeout):
                await ref.ask(Hanging.hang, timeout=seconds)
            seconds *= 2
        await ref.ask(Hanging.until, "given up", 1)
        hanging = ref.ask(Hanging.hang)
        await ref.ask(Hanging.until, "begun", 2)
        hanging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hanging
        await ref.ask(Hanging.until, "given up", 2)
        # One that has not begun never will.
        await _given_up(ref)
        assert await ref.ask(Hanging.counts) == {"begun": 2, "given up": 2}


async def _given_up(ref: sage.ActorRef[Hanging]) -> None:
    ref.ask(Hanging.hang).cancel()


class Hanging(sage.Actor):
    """Hangs until it is given up."""

    def __init__(self) -> None:
        self.happened: dict[str, int] = {}
        self.news = asyncio.Condition()

    async def note(self, what: str) -> None:
        async with self.news:
            self.happened[what] = self.happened.get(what, 0) + 1
            self.news.notify_all()

    @sage.interruptible
    async def hang(self) -> None:
        await self.note("begun")
        try:
            await asyncio.Event().wait()
        finally:
            await self.note("given up")

    async def until(self, what: str, count: int) -> None:
        async with self.news:
            await self.news.wait_for(lambda: self.happened.get(what, 0) >= count)

    def counts(self) -> dict[str, int]:
        return self.happened


@pytest.mark.asyncio
async def test_an_ask_cycle_over_workers_is_found(backend: str) -> None:
    async with sage.ActorSystem("far", backend=backend, workers=2) as system:
        one, two = [await system.spawn(Where, name=f"cycle-{i}", worker=i) for i in range(2)]
        with pytest.raises(sage.ActorFailed) as failed:
            await one.ask(Where.round_trip, two, one, timeout=30)
        assert "cycle-0 -> cycle-1@1 -> cycle-0" in str(failed.value)
        inward = await system.spawn(Where, name="inward", worker=0, reentrant=True)
        assert await inward.ask(Where.round_trip, two, inward, timeout=30) == system.workers[0].pid


@pytest.mark.asyncio
async def test_ends_are_told_over_the_border() -> None:
    async with sage.ActorSystem("far", backend="process", workers=2) as system:
        ref = await system.spawn(Where, worker=0)
        watched = system.watch(ref)
        await ref.tell(Where.end)
        assert (await watched) == sage.Terminated(ref, None)
        assert not ref.alive
        assert not await ref.tell("late")
        assert system.dead_letters[-1].ref is ref
        with pytest.raises(sage.ActorStopped):
            await ref.ask(Where.pid)
        assert (await system.watch(ref)).ref is ref

        drained = await system.spawn(Where, worker=1)
        kept: list[object] = []
        for n in range(500):
            await drained.tell(n)
        seen = drained.ask(Where.all_seen)
        await system.stop(drained)
        kept.extend(await seen)
        assert kept == list(range(500))

        doomed = await system.spawn(Where, worker=1, restart=sage.NoRestart())
        watched = system.watch(doomed)
        with pytest.raises(sage.ActorFailed):
            await doomed.ask(Where.fail, "for good")
        assert isinstance((await watched).reason, ValueError)

        hangs = await system.spawn(Hanging, worker=1)
        asked = hangs.ask(Hanging.hang)
        await system.kill(hangs)
        with pytest.raises(sage.ActorStopped):
            await asked


class Watcher(sage.Actor):
    """Watches or links another, and keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[sage.Terminated] = []
        self.news = asyncio.Event()

    def watch(self, ref: sage.ActorRef[Any]) -> None:
        self.context.watch(ref)

    def link(self, ref: sage.ActorRef[Any]) -> None:
        self.context.link(ref)

    def unwatch(self, ref: sage.ActorRef[Any]) -> None:
        self.context.unwatch(ref)

    async def on_terminated(self, ended: sage.Terminated) -> None:
        self.told.append(ended)
        self.news.set()

    async def heard(self) -> list[sage.Terminated]:
        await self.news.wait()
        return self.told

    def so_far(self) -> list[sage.Terminated]:
        return self.told

    def fail(self) -> None:
        raise ValueError("for good")


@pytest.mark.asyncio
async def test_watches_and_links_work_in_both_directions() -> None:
    async with sage.ActorSystem("far", backend="process", workers=2) as system:
        one, two = [await system.spawn(Watcher, worker=i, restart=sage.NoRestart(), concurrency=2) for i in range(2)]
        here = await system.spawn(Watcher, restart=sage.NoRestart(), concurrency=2)
        await one.ask(Watcher.watch, here)
        await one.ask(Watcher.watch, two)
        await here.ask(Watcher.watch, two)
        await system.stop(two)
        assert await here.ask(Watcher.heard) == [sage.Terminated(two, None)]
        assert [ended.ref for ended in await one.ask(Watcher.heard)] == [two]

        # Links: a failure of either is told to the other, whoever made the link.
        three, four = [await system.spawn(Watcher, worker=1, restart=sage.NoRestart(), concurrency=2) for _ in range(2)]
        await here.ask(Watcher.link, three)
        await four.ask(Watcher.link, here)
        await three.ask(Watcher.unwatch, here)  # the far side undoes the first
        await asyncio.gather(here.ask(Watcher.fail), return_exceptions=True)
        assert [str(ended.reason) for ended in await four.ask(Watcher.heard)] == ["for good"]
        assert not await three.ask(Watcher.so_far)


@pytest.mark.asyncio
async def test_an_answer_in_parts_comes_no_faster_than_it_is_read() -> None:
    async with sage.ActorSystem("far", backend="process", workers=1) as system:
        ref = await system.spawn(Where, worker=0, concurrency=2)
        assert [row async for row in ref.stream(Where.rows, 1000, demand=8)] == list(range(1000))
        parts = ref.stream(Where.rows, 10**9, demand=4)
        assert [await parts.__anext__() for _ in range(3)] == [0, 1, 2]
        await parts.aclose()
        assert len(await ref.ask(Where.all_seen)) < 1000 + 3 + 2 * 4 + 4
        with pytest.raises(sage.BadCall):
            ref.stream(Where.pid)  # type: ignore[arg-type]


@pytest.mark.asyncio
async def test_answers_in_parts_that_nobody_reads_hold_nobody_up() -> None:
    async with sage.ActorSystem("far", backend="process", workers=2, stop_timeout=0.2) as system:
        refs = [await system.spawn(Where, worker=i, concurrency=3) for i in range(2)]
        kept = [ref.stream(Where.rows, 10**9, demand=2) for ref in refs]
        for parts in kept:
            assert await parts.__anext__() == 0
        here = await system.spawn(Where, concurrency=2)
        reading = refs[0].ask(Where.read_some, here)
        await system.kill(refs[1])
    with pytest.raises(sage.ActorStopped):
        await reading
    for parts in kept:
        with pytest.raises(sage.ActorStopped):
            [row async for row in parts]


@pytest.mark.asyncio
async def test_routers_take_refs_of_any_worker() -> None:
    async with sage.ActorSystem("far", backend="process", workers=2) as system:
        refs = [await system.spawn(Where, worker=i) for i in (0, 1)]
        pids = [worker.pid for worker in system.workers]
        router = sage.RoundRobinRouter[Where](refs)
        assert [await router.ask(Where.pid) for _ in range(4)] == pids * 2
        ring = sage.HashRingRouter[Where](refs, key=lambda message: message)
        assert await ring.ask("a") == "a"
        await system.stop(refs[0])
        assert [await router.ask(Where.pid) for _ in range(2)] == [pids[1]] * 2


KEY = sage.ServiceKey[Any]("places")


class Offering(sage.Actor):
    """Registers itself, and finds others."""

    def offer(self) -> None:
        self.context.system.registry.register(KEY, self.context.ref)

    def found(self) -> list[sage.ActorRef[Any]]:
        return list(self.context.system.registry.find(KEY))

    async def until_none(self) -> list[sage.ActorRef[Any]]:
        async for offers in self.context.system.registry.subscribe(KEY):
            if not offers:
                break
        return self.found()


@pytest.mark.asyncio
async def test_the_registry_spans_the_workers() -> None:
    async with sage.ActorSystem("far", backend="process", workers=2) as system:
        here = await system.spawn(Where)
        system.registry.register(KEY, here)
        one, two = [await system.spawn(Offering, worker=i) for i in range(2)]
        assert await one.ask(Offering.found) == [here]
        await one.ask(Offering.offer)
        assert system.registry.find(KEY) == (here, one)
        async for offers in system.registry.subscribe(KEY):
            if len(offers) == 2:
                break
        await system.stop(one)
        assert system.registry.find(KEY) == (here,)
        assert system.registry.unregister(KEY, here)
        assert await two.ask(Offering.until_none) == []


@pytest.mark.asyncio
async def test_the_least_loaded_worker_is_chosen_and_workers_spawn_on_workers() -> None:
    async with sage.ActorSystem("far", backend="process", workers=3, clock=cast("Any", Patient())) as system:
        for worker in (0, 2):
            await system.spawn(Where, worker=worker)
        least = await system.spawn(Where, worker="least_loaded")
        assert await least.ask(Where.pid) == system.workers[1].pid
        parent = await system.spawn(Parent, worker=0)
        child = await parent.ask(Parent.have, 2)
        assert await child.ask(Where.pid) == system.workers[2].pid
        assert await (await parent.ask(Parent.have, None)).ask(Where.pid) == system.workers[0].pid


class Patient:
    """A clock on which every machine is fast enough to say in half a second how much it has to do."""

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Cancellable:
        return system_clock.call_later(100 * seconds, callback)

    def __getattr__(self, name: str) -> Any:
        return getattr(system_clock, name)


class Parent(sage.Actor):
    """Has others made."""

    async def have(self, worker: int | None) -> sage.ActorRef[Where]:
        return await self.context.system.spawn(Where, worker=worker)


@pytest.mark.asyncio
async def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match="backend="):
        sage.ActorSystem(workers=2)
    with pytest.raises(ConfigError, match="at least 1"):
        sage.ActorSystem(backend="process", workers=0)
    with pytest.raises(ConfigError, match="msgspec"):
        sage.ActorSystem(backend="process", allow=[Where])
    with pytest.raises(sage.UnknownBackend):
        sage.ActorSystem(backend="nowhere")
    async with sage.ActorSystem("near") as system:
        with pytest.raises(sage.ActorError, match="no workers"):
            await system.spawn(Where, worker=0)
    system = sage.ActorSystem("far", backend="process", workers=1)
    with pytest.raises(sage.ActorError, match="not running"):
        await system.spawn(Where, worker=0)


def test_the_blocking_face_has_workers_too() -> None:
    with sage.SyncActorSystem("script", backend="process", workers=1) as system:
        ref = system.spawn(Where, worker=0)
        assert system.ask(ref, Where.pid) != os.getpid()
        system.stop(ref)
        assert not ref.alive


@pytest.mark.asyncio
async def test_waiting_for_ones_own_end_is_refused_over_workers_too() -> None:
    async with sage.ActorSystem("far", backend="process", workers=1) as system:
        stopper = await system.spawn(Stopper)
        ref = await system.spawn(Stopper, worker=0, restart=sage.FixedDelay(delay=0))
        with pytest.raises(sage.ActorFailed, match="would wait for its own end"):
            await ref.ask(Stopper.have_me_stopped, stopper, timeout=30)
        await system.stop(ref)


class Stopper(sage.Actor):
    """Stops others."""

    async def stop(self, ref: sage.ActorRef[Any]) -> None:
        await self.context.system.stop(ref)

    async def have_me_stopped(self, by: sage.ActorRef[Stopper]) -> None:
        await by.ask(Stopper.stop, self.context.ref)
