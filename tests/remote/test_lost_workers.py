"""What becomes of actors, and of those who wait for them, when their worker is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

import cloudpickle
import pytest

import sage_actor as sage
from sage_actor.errors import ActorLost, WorkerLost

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Worker(sage.Actor):
    """Waits, watches, and says where it is."""

    def __init__(self) -> None:
        self.ended: asyncio.Queue[sage.Terminated] = asyncio.Queue()

    def pid(self) -> int:
        return os.getpid()

    async def hang(self) -> None:
        await asyncio.Event().wait()

    def watch(self, ref: sage.ActorRef[Any]) -> None:
        self.context.watch(ref)

    async def on_terminated(self, ended: sage.Terminated) -> None:
        self.ended.put_nowait(ended)

    async def told(self) -> tuple[str, int, str]:
        ended = await self.ended.get()
        reason = ended.reason
        assert isinstance(reason, ActorLost)
        return ended.ref.path, reason.worker, str(reason)

    async def try_asking(self, ref: sage.ActorRef[Any]) -> str:
        try:
            await ref.ask(Worker.pid)
        except sage.ActorStopped as stopped:
            return str(stopped)
        return "answered"


@pytest.mark.asyncio
@pytest.mark.rule("A22")
async def test_a_killed_worker_takes_its_actors_along_and_everybody_is_told(backend: str) -> None:
    async with sage.ActorSystem("far", backend=backend, workers=2) as system:
        doomed = await system.spawn(Worker, worker=0)
        other = await system.spawn(Worker, worker=1, concurrency=2)
        await other.ask(Worker.watch, doomed)
        watched = system.watch(doomed)
        asked = [doomed.ask(Worker.hang) for _ in range(3)]
        timed = doomed.ask(Worker.hang, timeout=60)
        os.kill(system.workers[0].pid, signal.SIGKILL)

        for ask in (*asked, timed):
            with pytest.raises(ActorLost) as lost:
                await ask
            assert (lost.value.actor, lost.value.worker) == ("Worker-1@0", 0)
            cause = lost.value.__cause__
            assert isinstance(cause, WorkerLost)
            assert (cause.worker, cause.exit_code if backend == "process" else -9) == (0, -9)
        reason = (await watched).reason
        assert isinstance(reason, ActorLost)
        path, worker, text = await other.ask(Worker.told)
        assert (path, worker) == ("Worker-1@0", 0)
        assert "worker 0" in text

        assert not doomed.alive
        assert not await doomed.tell("late")
        assert system.dead_letters[-1].message == "late"
        with pytest.raises(sage.ActorStopped, match="lost"):
            await doomed.ask(Worker.pid)
        assert "lost" in await other.ask(Worker.try_asking, doomed)
        with pytest.raises(WorkerLost):
            await system.spawn(Worker, worker=0)
        assert [worker.alive for worker in system.workers] == [False, True]
        anew = await system.spawn(Worker, worker="least_loaded")
        assert await anew.ask(Worker.pid) == system.workers[1].pid
        await system.stop(doomed)


@pytest.mark.asyncio
async def test_what_was_not_sent_to_a_lost_worker_is_a_dead_letter() -> None:
    async with sage.ActorSystem("far", backend="process", workers=1) as system:
        full = await system.spawn(Worker, worker=0, mailbox=sage.MailboxSettings(capacity=1))
        hanging = full.ask(Worker.hang)
        accepted = 0
        while True:  # until mailbox, window and outbox are full
            await asyncio.sleep(0)
            try:
                full.tell_nowait(accepted)
            except sage.MailboxFull:
                if full.cell.queued == 1024:
                    break
            else:
                accepted += 1
        waits_for_room = asyncio.ensure_future(full.ask(Worker.pid))
        os.kill(system.workers[0].pid, signal.SIGKILL)
        with pytest.raises(ActorLost):
            await hanging
        with pytest.raises(sage.ActorStopped):
            await waits_for_room
        letters = [letter.message for letter in system.dead_letters if letter.ref is full]
        assert letters[-1000:] == list(range(accepted - 1000, accepted))


@pytest.mark.asyncio
async def test_leaving_is_not_held_up_by_a_worker_that_is_gone() -> None:
    async with sage.ActorSystem("far", backend="process", workers=2) as system:
        gone, stays = [await system.spawn(Worker, worker=i) for i in range(2)]
        pids = [worker.pid for worker in system.workers]
        os.kill(pids[0], signal.SIGKILL)
        assert await stays.ask(Worker.pid) == pids[1]
        asked = stays.ask(Worker.pid)
    assert await asked == pids[1]
    assert not gone.alive
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
