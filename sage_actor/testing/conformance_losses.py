"""Rules for workers that end without being asked to, and for what a worker or a group of an earlier life must not do any more."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from functools import partial

from sage_actor.ports import offload
from sage_actor.testing.conformance_case import ENTRIES, GROUP, NOTICED, BackendCase, assert_gone, assert_nothing_left, lives, open_group
from sage_actor.testing.conformance_worker import flooding, numbered

__all__ = [
    "a_group_closes_after_a_loss",
    "a_killed_owner_leaves_no_orphan",
    "a_killed_worker_is_told",
    "a_loss_before_start_is_told_at_start",
    "a_sleeper_that_wakes_reaches_nobody",
    "a_worker_that_exits_is_told",
    "an_entry_that_raises_is_told",
    "an_entry_that_returns_is_no_loss",
    "what_an_earlier_group_left_unread_reaches_nobody",
    "what_was_flushed_outlives_its_worker",
]


async def a_killed_worker_is_told(case: BackendCase) -> None:
    """kill -9 is told once, within 3 s, with exit code and last words; the others live on, sending to it is harmless."""
    async with open_group(case, 2, "obey") as owner:
        owner.tell(1, "say", "words before the end")
        await owner.until_came(1, 1)
        os.kill(owner.pid(1), signal.SIGKILL)
        error = await owner.until_lost(1)
        owner.assert_exit(error, -9)
        owner.assert_words(error, "words before the end")
        owner.tell(1, "echo", "nobody hears this")
        owner.tell(2, "echo", "alive")
        assert await owner.until_came(2, 1) == [b"alive"]
        assert len(owner.lost) == 1, f"told more than once: {owner.lost}"


async def a_worker_that_exits_is_told(case: BackendCase) -> None:
    """An exit of its own, by `os._exit` or `sys.exit`, is told with its status and the end of its stderr."""
    for how, status in (("exit", 3), ("leave", 4)):
        async with open_group(case, 1, "obey") as owner:
            owner.tell(1, "say", "x" * 10_000 + "the last of it")
            await owner.until_came(1, 1)
            owner.tell(1, how, status)
            error = await owner.until_lost(1)
            owner.assert_exit(error, status)
            owner.assert_words(error, "xxthe last of it")
            assert len(error.last_words) <= 4096, f"expected at most 4096 characters of last words, got {len(error.last_words)}"


async def what_was_flushed_outlives_its_worker(case: BackendCase) -> None:
    """A worker that ends at once behind a `flush` of 32 MB is told as lost after all of it has come."""
    async with open_group(case, 1, "obey") as owner:
        for _ in range(4):
            owner.tell(1, "give", 8_000_000)
        owner.tell(1, "end", 5)
        await owner.until(lambda: bool(owner.lost), "the loss of worker 1")  # it has 32 MB to make and to send before
        owner.assert_exit(await owner.until_lost(1), 5)
        sizes = [len(frame) for frame in owner.came(1)]
        assert sizes == [8_000_000] * 4 + [len(b"ending")], f"expected four frames of 8 MB and a last one before the loss, got {sizes}"


async def an_entry_that_raises_is_told(case: BackendCase) -> None:
    """Exit code 1 and the traceback, after every frame that it had sent."""
    async with open_group(case, 1, "raising") as owner:
        error = await owner.until_lost(1)
        owner.assert_exit(error, 1)
        owner.assert_words(error, "this entry fails on purpose")
        *flood, last = owner.came(1) or [b""]
        whole = flood == [flooding(number, 200_000) for number in range(50)] and last == b"before it failed"
        assert whole, f"expected all 51 frames before the loss, got {len(owner.came(1))}, the last one {last[:20]!r}"


async def a_loss_before_start_is_told_at_start(case: BackendCase) -> None:
    """A worker that is gone before the owner's `start` is told then."""
    async with open_group(case, 1, "echo", start=False) as owner:
        pid = owner.pid(1)
        os.kill(pid, signal.SIGKILL)
        await assert_gone([pid], NOTICED)
        owner.start()
        error = await owner.until_lost(1)
        owner.assert_exit(error, -9)


async def an_entry_that_returns_is_no_loss(case: BackendCase) -> None:
    """Its frames all arrive, its process ends, nobody is told."""
    async with open_group(case, 1, "returning") as owner:
        came = await owner.until_came(1, 100)
        assert came == [numbered(number) for number in range(100)]
        await assert_gone([owner.group.workers[0].pid], NOTICED)
        await owner.group.aclose()
        assert not owner.lost, f"a worker that had done its work was told as lost: {owner.lost}"


async def a_group_closes_after_a_loss(case: BackendCase) -> None:
    """`aclose` after a loss ends the others, and leaves nothing."""
    async with open_group(case, 2, "echo") as owner:
        os.kill(owner.pid(1), signal.SIGKILL)
        await owner.until_lost(1)
        await owner.group.aclose()
    await assert_nothing_left(case, [worker.pid for worker in owner.group.workers])


async def what_an_earlier_group_left_unread_reaches_nobody(case: BackendCase) -> None:
    """A group of the same name, started after one whose workers read nothing and were killed, gets none of those frames."""
    async with open_group(case, 2, "deaf") as owner:
        for worker in (1, 2):
            for number in range(100):
                owner.endpoint.send(worker, [numbered(number)])
        await owner.endpoint.flush()
        os.kill(owner.pid(1), signal.SIGKILL)
        await owner.until_lost(1)
        async with open_group(case, 2, "echo") as again:
            for worker in (1, 2):
                again.endpoint.send(worker, [b"new"])
                assert await again.until_came(worker, 1) == [b"new"], f"worker {worker} answered {again.came(worker)}"
    await assert_nothing_left(case, [worker.pid for worker in owner.group.workers])


async def a_killed_owner_leaves_no_orphan(case: BackendCase) -> None:
    """When the owner is killed with -9 its workers end by themselves within 3 s."""
    async with other_owner(case) as (owner, pids):
        owner.kill()
        await offload(owner.wait)
        await assert_gone(pids, NOTICED)


async def a_sleeper_that_wakes_reaches_nobody(case: BackendCase) -> None:
    """A worker that sleeps (SIGSTOP) while its owner is killed and a group of the same name starts ends when it wakes, unheard."""
    async with other_owner(case) as (owner, pids):
        os.kill(pids[0], signal.SIGSTOP)
        try:
            owner.kill()
            await offload(owner.wait)
            async with open_group(case, 2, "echo") as again:
                with suppress(ProcessLookupError):  # whoever watches for the owner may kill it in its sleep
                    os.kill(pids[0], signal.SIGCONT)
                await assert_gone(pids, NOTICED)
                for worker in (1, 2):
                    again.endpoint.send(worker, [b"new"])
                    assert await again.until_came(worker, 1) == [b"new"], f"worker {worker} answered {again.came(worker)}"
                assert not again.lost, f"the end of an earlier worker was told to a later group: {again.lost}"
        finally:
            for pid in filter(lives, pids):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@asynccontextmanager
async def other_owner(case: BackendCase) -> AsyncGenerator[tuple[subprocess.Popen[bytes], list[int]], None]:
    """Another process that owns a group of two, and the process ids of its workers; killed with the block."""
    create = f"{case.create.__module__}:{case.create.__name__}"
    program = f"import sys; sys.path[:] = {sys.path!r}; from {ENTRIES} import own; own({create!r}, {case.address!r}, {GROUP!r})"
    owner = await offload(partial(_run, program))
    assert owner.stdout is not None
    try:
        async with asyncio.timeout(60.0):
            pids: list[int] = json.loads(await offload(owner.stdout.readline))
        assert len(pids) == 2 and all(map(lives, pids)), f"expected two living workers, got {pids}"
        yield owner, pids
    finally:
        owner.kill()
        await offload(owner.wait)
        owner.stdout.close()


def _run(program: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
