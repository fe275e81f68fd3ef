"""Rules for actors on a backend's workers: they answer from there, hold their senders back, and are missed when a worker is lost."""

from __future__ import annotations

import asyncio
import os
import signal

import numpy as np
import numpy.typing as npt

from sage_actor._core.actor_ref import ActorRef
from sage_actor.actor.actor import Actor
from sage_actor.actor.system import ActorSystem
from sage_actor.errors import ActorLost, ActorStopped
from sage_actor.ports import system_clock
from sage_actor.testing.conformance_case import NOTICED, PATIENCE, BackendCase, assert_gone, assert_nothing_left

__all__ = ["a_killed_worker_ends_its_actors", "a_stopped_actor_holds_its_senders_back", "actors_answer_from_their_workers"]

_MOST_ACCEPTED = 20_000  # messages of a kilobyte that fit into mailbox, credit and outbox


class Resident(Actor):
    """Says where it is, keeps what it is told, asks others."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    def receive(self, message: object) -> None:
        """Keep it."""
        self.seen.append(message)

    def pid(self) -> int:
        """Of its process."""
        return os.getpid()

    def all_seen(self) -> list[object]:
        """Everything that it was told, in order."""
        return self.seen

    def doubled(self, array: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Another array."""
        return array * 2

    async def pid_of(self, other: ActorRef[Resident]) -> int:
        """Ask another one where it is."""
        return await other.ask(Resident.pid)

    async def hang(self) -> None:
        """Never answer."""
        await asyncio.Event().wait()


def _system(case: BackendCase) -> ActorSystem:
    return ActorSystem("conformance", backend=case.create(case.address), workers=2, inspect=False)


async def actors_answer_from_their_workers(case: BackendCase) -> None:
    """An actor on each of two workers: asked, told in order, given arrays and each other's refs; nothing of them is left."""
    async with asyncio.timeout(PATIENCE), _system(case) as system:
        refs = [await system.spawn(Resident, worker=number) for number in range(2)]
        pids = [await ref.ask(Resident.pid) for ref in refs]
        expected = [worker.pid for worker in system.workers]
        if case.create(case.address).hosts_in_owner:
            expected = [os.getpid()] * 2
        assert pids == expected, f"the actors are in {pids}, expected {expected}"
        for number in range(2_000):
            for ref in refs:
                await ref.tell(number)
        for ref in refs:
            assert await ref.ask(Resident.all_seen) == list(range(2_000)), "what was told came out of order, or not at all"
        assert await refs[0].ask(Resident.pid_of, refs[1]) == pids[1], "a ref that travelled leads elsewhere"
        array = np.arange(500_000, dtype=np.float64)
        assert np.array_equal(await refs[1].ask(Resident.doubled, array), array * 2), "an array came back with other content"
    await assert_nothing_left(case, [pid for pid in pids if pid != os.getpid()])


async def a_stopped_actor_holds_its_senders_back(case: BackendCase) -> None:
    """With an actor that handles nothing, telling it waits sooner or later; nobody gathers messages without bound."""
    accepted = 0
    async with asyncio.timeout(PATIENCE), _system(case) as system:
        ref = await system.spawn(Resident, worker=0)
        hanging = asyncio.ensure_future(ref.ask(Resident.hang))

        async def tell_for_ever() -> None:
            nonlocal accepted
            while accepted <= _MOST_ACCEPTED:
                await ref.tell(bytes(1000))
                accepted += 1

        telling = asyncio.ensure_future(tell_for_ever())
        before = -1
        while before != accepted:  # until it stands still
            before = accepted
            await system_clock.sleep(0.3)
        telling.cancel()
        hanging.cancel()
        await asyncio.wait({telling, hanging})
        assert 0 < accepted <= _MOST_ACCEPTED, f"{accepted} messages were accepted for an actor that handles none"
        await system.kill(ref)


async def a_killed_worker_ends_its_actors(case: BackendCase) -> None:
    """kill -9 of a worker: whoever waits for an actor there, or watches it, is told within 3 s why; the others go on."""
    async with asyncio.timeout(PATIENCE), _system(case) as system:
        doomed, other = [await system.spawn(Resident, worker=number) for number in range(2)]
        pids = [worker.pid for worker in system.workers]
        asked, watched = asyncio.ensure_future(doomed.ask(Resident.hang)), asyncio.ensure_future(_ended(system, doomed))
        await other.ask(Resident.pid)
        os.kill(pids[0], signal.SIGKILL)
        done, _ = await asyncio.wait({asked, watched}, timeout=NOTICED)
        assert done == {asked, watched}, f"not told within {NOTICED:g} s: {'the asker' if asked not in done else 'the watcher'}"
        assert isinstance(asked.exception(), ActorLost), f"expected ActorLost for the asker, got {asked.exception()!r}"
        reason = watched.result()
        assert isinstance(reason, ActorLost), f"expected ActorLost as the reason, got {reason!r}"
        try:
            await doomed.ask(Resident.pid)
        except ActorStopped:
            pass
        else:
            raise AssertionError("an actor of a killed worker has answered")
        assert await other.ask(Resident.pid) == pids[1], "an actor on another worker does not answer any more"
    await assert_gone(pids, 0.0)


async def _ended(system: ActorSystem, ref: ActorRef[Resident]) -> object:
    return (await system.watch(ref)).reason
