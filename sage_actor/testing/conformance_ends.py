"""Rules for the beginning and the end of groups: what start refuses, what cancelling leaves, what closing leaves."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine

from sage_actor.actor.backend import WorkerResources
from sage_actor.errors import BackendUnavailable
from sage_actor.ports import system_clock
from sage_actor.testing.conformance_case import (
    ENTRIES,
    GROUP,
    PATIENCE,
    BackendCase,
    assert_nothing_left,
    open_files,
    open_group,
    started_here,
)
from sage_actor.testing.conformance_frames import held_back
from sage_actor.testing.conformance_worker import burst

__all__ = [
    "a_cancelled_close_can_be_repeated",
    "a_cancelled_start_leaves_nothing",
    "a_closed_endpoint_that_was_full_leaves_nothing",
    "a_start_that_fails_leaves_nothing",
    "a_worker_that_blocks_is_killed_on_close",
    "closing_leaves_nothing",
    "closing_twice_is_harmless",
    "resources_that_nobody_has_are_refused",
]


async def closing_twice_is_harmless(case: BackendCase) -> None:
    """`aclose` twice, also at the same time, and sending afterwards, neither raises nor waits."""
    async with open_group(case, 2, "echo") as owner:
        await asyncio.gather(owner.group.aclose(), owner.group.aclose())
        await owner.group.aclose()
        owner.endpoint.send(1, [b"too late"])
        owner.endpoint.send(0, [b"too late"])
        await owner.endpoint.flush()
        await owner.endpoint.aclose()
    assert not owner.frames, "a frame was delivered after aclose"
    assert not owner.lost, f"workers that were asked to end were told as lost: {owner.lost}"


async def closing_leaves_nothing(case: BackendCase) -> None:
    """After `aclose` no process, thread, open file, or key of the group is left, and it takes less than 3 s."""
    async with open_group(case, 1, "echo"):
        pass  # whatever is loaded or opened once and kept is there from now on
    threads, files = set(threading.enumerate()), open_files()
    async with open_group(case, 2, "echo") as owner:
        for worker in owner.group.workers:
            burst(owner.endpoint, worker.worker, 1000)
        for worker in owner.group.workers:
            await owner.until_came(worker.worker, 1001)
        begun = system_clock.monotonic()
        await owner.group.aclose()
        took = system_clock.monotonic() - begun
        assert took < 3.0, f"closing took {took:.1f} s"
    assert not owner.lost, f"closing was told as a loss: {owner.lost}"
    await assert_nothing_left(case, [worker.pid for worker in owner.group.workers])
    if not case.client_stays:
        left = set(threading.enumerate()) - threads
        assert not left, f"threads are left: {left}"
        assert open_files() <= files, f"{open_files() - files} open files are left"


async def a_worker_that_blocks_is_killed_on_close(case: BackendCase) -> None:
    """A worker whose loop is blocked cannot end when asked: it is killed after 5 s, silently."""
    async with open_group(case, 1, "obey") as owner:
        owner.tell(1, "block")
        await owner.until_came(1, 1)
        begun = system_clock.monotonic()
        await owner.group.aclose()
        took = system_clock.monotonic() - begun
        assert took < 8.0, f"closing took {took:.1f} s"
    assert not owner.lost, f"closing was told as a loss: {owner.lost}"
    await assert_nothing_left(case, [owner.pid(1)])


async def a_start_that_fails_leaves_nothing(case: BackendCase) -> None:
    """An entry that cannot be imported is `BackendUnavailable` with the worker's own words."""
    async with open_group(case, 1, "echo"):
        pass  # whatever is opened once and kept is open from now on
    before = open_files()
    for entry, word in (("sage_actor.testing.no_such_module:echo", "no_such_module"), (f"{ENTRIES}:no_such_entry", "no_such_entry")):
        try:
            group = await case.create(case.address).start(2, group=GROUP, entry=entry)
        except BackendUnavailable as error:
            assert word in str(error), f"expected the worker's stderr in the message, got {error}"
        else:
            await group.aclose()
            raise AssertionError(f"the entry {entry!r} does not exist, but the group started")
    assert case.client_stays or open_files() <= before, f"{open_files() - before} open files are left"
    await assert_nothing_left(case, started_here())


async def a_cancelled_start_leaves_nothing(case: BackendCase) -> None:
    """Cancelling `start`, after some turns of the loop and at several points of the time that it takes, ends what it has begun."""
    begun = system_clock.monotonic()
    async with open_group(case, 2, "echo"):
        whole = system_clock.monotonic() - begun
    for turns, seconds in ((1, 0.0), (2, 0.0), (5, 0.0), (20, 0.0), (1, whole / 4), (1, whole / 2), (1, whole * 0.9)):
        starting = asyncio.ensure_future(case.create(case.address).start(2, group=GROUP, entry=f"{ENTRIES}:echo"))
        for _ in range(turns):
            await asyncio.sleep(0)
        if seconds:
            await asyncio.wait({starting}, timeout=seconds)
        starting.cancel()
        try:
            group = await starting
        except asyncio.CancelledError:
            continue
        await group.aclose()  # it was faster
    await assert_nothing_left(case, started_here())


async def a_cancelled_close_can_be_repeated(case: BackendCase) -> None:
    """Cancelling `aclose` of a group cancels a wait: called again, it ends everything that is left."""
    for turns in (1, 3, 10, 50):
        async with open_group(case, 1, "echo") as owner:
            owner.endpoint.send(1, [bytes(100_000)])
            await cancelled_after(turns, owner.group.aclose())
            async with asyncio.timeout(PATIENCE):
                await owner.group.aclose()
            assert not owner.lost, f"a group that was closed in two goes told a loss: {owner.lost}"
        await assert_nothing_left(case, [owner.pid(1), *started_here()])


async def cancelled_after(turns: int, waiting: Coroutine[object, object, None]) -> None:
    """Begin to wait, and cancel that after some turns of the loop; it may have been faster."""
    task = asyncio.ensure_future(waiting)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def a_closed_endpoint_that_was_full_leaves_nothing(case: BackendCase) -> None:
    """With 30 MB on their way to a worker that reads nothing, waits can be cancelled at any time, and the group ends all the same."""
    async with open_group(case, 2, "obey") as owner, held_back() as hold:
        owner.tell(1, "hold", hold.path)
        await owner.until_came(1, 1)
        await hold.until_still()
        for _ in range(30):
            owner.endpoint.send(1, [bytes(1_000_000)])
        for turns in (1, 2, 5, 20):
            await cancelled_after(turns, owner.endpoint.flush())
        await cancelled_after(20, owner.endpoint.aclose())
        async with asyncio.timeout(PATIENCE):
            await owner.group.aclose(0.2)
        assert not owner.lost, f"closing was told as a loss: {owner.lost}"
    await assert_nothing_left(case, [owner.pid(1), owner.pid(2), *started_here()])


async def resources_that_nobody_has_are_refused(case: BackendCase) -> None:
    """Asking for what cannot be given raises `BackendUnavailable` that names resource and backend, and starts nothing."""
    backend = case.create(case.address)
    for resource, asked in {
        "unobtainium": WorkerResources(custom={"unobtainium": 1.0}),
        "gpu": WorkerResources(num_gpus=10_000.0),
        "cpu": WorkerResources(num_cpus=1_000_000.0),
    }.items():
        try:
            async with asyncio.timeout(PATIENCE):
                group = await backend.start(1, group=GROUP, entry=f"{ENTRIES}:echo", resources=[asked])
        except BackendUnavailable as error:
            assert resource in str(error).lower(), f"expected {resource!r} in the message, got: {error}"
            assert backend.name in str(error), f"expected the backend's name {backend.name!r} in the message, got: {error}"
        else:
            await group.aclose()
            raise AssertionError(f"nobody has {asked}, but the group started")
    await assert_nothing_left(case, started_here())
