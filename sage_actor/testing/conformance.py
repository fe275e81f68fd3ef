"""What decides whether something is a backend: a list of rules, to be run on ours and on yours.

    @pytest.mark.asyncio
    @pytest.mark.parametrize("rule", backend_rules(), ids=rule_name)
    async def test_my_backend(rule):
        await rule(BackendCase("mine://somewhere"))

A rule raises `AssertionError` that says what was expected and what came. Each starts groups of its own and ends them. They
take about 15 seconds altogether for a backend whose workers start in a tenth of a second.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Final

from sage_actor.actor.backend import Backend, WorkerGroup
from sage_actor.actor.open_backend import open_backend
from sage_actor.errors import BackendError, BackendUnavailable, WorkerLost
from sage_actor.ports import offload, system_clock
from sage_actor.testing.conformance_worker import burst, numbered

__all__ = ["BackendCase", "Rule", "backend_rules", "rule_name"]

_PATIENCE: Final = 30.0  # seconds after which what never comes fails the rule instead of hanging the suite
_NOTICED: Final = 3.0  # seconds in which a loss must be told
_ENTRIES: Final = "sage_actor.testing.conformance_worker"


async def _nothing() -> Collection[str]:
    return ()


@dataclass(frozen=True, slots=True)
class BackendCase:
    """A backend under test.

    Attributes:
        address: what a user writes to choose it.
        create: from the address to the backend; a function at the top of a module, since other processes import it too.
        leftovers: names of what exists outside of processes (keys, files) because of groups; empty before any has started.
    """

    address: str
    create: Callable[[str], Backend] = open_backend
    leftovers: Callable[[], Awaitable[Collection[str]]] = _nothing


Rule = Callable[[BackendCase], Awaitable[None]]


def rule_name(rule: Rule) -> str:
    """The name of a rule, for test ids."""
    name: str = getattr(rule, "__name__", "rule")
    return name


def backend_rules(*, hosts_in_owner: bool = False) -> list[Rule]:
    """The rules for a backend that starts workers; or those for one that has none, where everything lives in the owner."""
    alone: list[Rule] = [
        a_group_without_workers_talks_to_itself,
        what_is_sent_before_start_is_kept_for_it,
        parts_may_be_changed_after_send,
        closing_twice_is_harmless,
        closing_leaves_nothing,
    ]
    with_workers: list[Rule] = [
        order_holds_in_both_directions,
        order_holds_between_workers,
        big_frames_arrive_whole,
        many_small_frames_all_arrive,
        frames_before_start_are_kept,
        flush_lets_frames_out,
        groups_do_not_mix,
        a_killed_worker_is_told,
        a_worker_that_exits_is_told,
        an_entry_that_raises_is_told,
        a_loss_before_start_is_told_at_start,
        an_entry_that_returns_is_no_loss,
        a_group_closes_after_a_loss,
        a_worker_that_blocks_is_killed_on_close,
        a_start_that_fails_leaves_nothing,
        a_cancelled_start_leaves_nothing,
        a_killed_owner_leaves_no_orphan,
    ]
    return alone if hosts_in_owner else alone + with_workers


class _Owner:
    """The owner's side of a group under test: what came, what was lost, and waiting for it."""

    def __init__(self, group: WorkerGroup) -> None:
        self.group = group
        self.endpoint = group.endpoint
        self.frames: dict[int, list[bytes]] = {}
        self.lost: list[BackendError] = []
        self._changed = asyncio.Event()

    def start(self) -> None:
        self.endpoint.start(self._receive, self._lose)

    def tell(self, worker: int, *words: str | int) -> None:
        self.endpoint.send(worker, [json.dumps(words).encode()])

    def came(self, sender: int) -> list[bytes]:
        return self.frames.get(sender, [])

    async def until(self, condition: Callable[[], bool], what: str, seconds: float = _PATIENCE) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            counts = {sender: len(frames) for sender, frames in self.frames.items()}
            raise AssertionError(f"not within {seconds} s: {what}; frames so far: {counts}, losses: {self.lost}") from None

    async def until_came(self, sender: int, count: int) -> list[bytes]:
        await self.until(lambda: len(self.came(sender)) >= count, f"{count} frames from worker {sender}")
        return self.came(sender)

    async def until_lost(self, worker: int) -> WorkerLost:
        await self.until(lambda: bool(self.lost), f"the loss of worker {worker}", _NOTICED)
        error = self.lost[0]
        assert isinstance(error, WorkerLost), f"expected WorkerLost, got {error!r}"
        assert error.worker == worker, f"expected the loss of worker {worker}, got {error}"
        assert error.pid == self.group.workers[worker - 1].pid, f"expected its process id, got {error.pid}"
        return error

    def _receive(self, sender: int, frame: memoryview) -> None:
        self.frames.setdefault(sender, []).append(bytes(frame))
        self._changed.set()

    def _lose(self, error: BackendError) -> None:
        self.lost.append(error)
        self._changed.set()


@contextlib.asynccontextmanager
async def _group(case: BackendCase, count: int, entry: str, *, start: bool = True) -> AsyncGenerator[_Owner, None]:
    async with asyncio.timeout(_PATIENCE):
        group = await case.create(case.address).start(count, group="conformance", entry=f"{_ENTRIES}:{entry}")
    try:
        owner = _Owner(group)
        if start:
            owner.start()
        yield owner
    finally:
        async with asyncio.timeout(_PATIENCE):
            await group.aclose()


async def a_group_without_workers_talks_to_itself(case: BackendCase) -> None:
    """A group of none has no workers, delivers to itself in order and later, and drops what goes to nobody."""
    async with _group(case, 0, "echo") as owner:
        assert list(owner.group.workers) == [], f"expected no workers, got {owner.group.workers}"
        owner.endpoint.send(7, [b"to nobody"])
        burst(owner.endpoint, 0, 100)
        assert not owner.frames, "a frame was delivered inside send"
        came = await owner.until_came(0, 101)
        assert came[:-1] == [numbered(number) for number in range(100)], "frames to itself are not in order"


async def what_is_sent_before_start_is_kept_for_it(case: BackendCase) -> None:
    """What an owner sends to itself waits for its `start`."""
    async with _group(case, 0, "echo", start=False) as owner:
        owner.endpoint.send(0, [b"early"])
        await asyncio.sleep(0)
        owner.start()
        owner.endpoint.send(0, [b"later"])
        assert await owner.until_came(0, 2) == [b"early", b"later"]


async def parts_may_be_changed_after_send(case: BackendCase) -> None:
    """Parts are joined in order, of any buffer type; changing them after `send` changes nothing that was sent."""
    async with _group(case, 1, "echo") as owner:
        to = 1 if owner.group.workers else 0
        mutable, doubles = bytearray(b"before"), array.array("d", [1.0, 2.0])
        owner.endpoint.send(to, [b"<", mutable, b"", memoryview(doubles), memoryview(b"|>")[1:]])
        owner.endpoint.send(to, [mutable])
        owner.endpoint.send(to, [])
        expected = [b"<before" + doubles.tobytes() + b">", b"before", b""]
        mutable[:] = b"after!"
        doubles[0] = 9.0
        came = await owner.until_came(to, 3)
        assert came == expected, f"expected {expected}, got {came}"


async def closing_twice_is_harmless(case: BackendCase) -> None:
    """`aclose` twice, also at the same time, and sending afterwards, neither raises nor waits."""
    async with _group(case, 2, "echo") as owner:
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
    async with _group(case, 1, "echo"):
        pass  # whatever is loaded or opened once and kept is there from now on
    threads, files = set(threading.enumerate()), _open_files()
    async with _group(case, 2, "echo") as owner:
        for worker in owner.group.workers:
            burst(owner.endpoint, worker.worker, 1000)
        for worker in owner.group.workers:
            await owner.until_came(worker.worker, 1001)
        begun = system_clock.monotonic()
        await owner.group.aclose()
        took = system_clock.monotonic() - begun
        assert took < 3.0, f"closing took {took:.1f} s"
    assert not owner.lost, f"closing was told as a loss: {owner.lost}"
    await _assert_gone([worker.pid for worker in owner.group.workers], 0.0)
    left = set(threading.enumerate()) - threads
    assert not left, f"threads are left: {left}"
    assert _open_files() <= files, f"{_open_files() - files} open files are left"
    names = await case.leftovers()
    assert not names, f"left behind: {names}"


async def order_holds_in_both_directions(case: BackendCase) -> None:
    """Owner to worker and back, each pair in order."""
    async with _group(case, 2, "echo") as owner:
        for number in range(3000):
            owner.endpoint.send(1, [numbered(number)])
            owner.endpoint.send(2, [numbered(number + 1)])
            if number % 100 == 0:
                await asyncio.sleep(0)
        for worker, first in ((1, 0), (2, 1)):
            came = await owner.until_came(worker, 3000)
            assert came == [numbered(number + first) for number in range(3000)], f"frames of worker {worker} are not in order"


async def order_holds_between_workers(case: BackendCase) -> None:
    """Worker to worker, all pairs at once, each in order; a worker may send to itself."""
    async with _group(case, 3, "obey") as owner:
        pairs = [(sender, receiver) for sender in (1, 2, 3) for receiver in (1, 2, 3)]
        for sender, receiver in pairs:
            owner.tell(sender, "burst", receiver, 2000)
        for receiver in (1, 2, 3):
            reports = sorted(json.loads(frame) for frame in await owner.until_came(receiver, 3))
            expected = [[sender, 2000, True] for sender in (1, 2, 3)]
            assert reports == expected, f"worker {receiver} should have seen {expected}, saw {reports}"


async def big_frames_arrive_whole(case: BackendCase) -> None:
    """Frames of 8 MB, among small ones, both ways."""
    frames = [b"small", os.urandom(8_000_000), b"", os.urandom(8_000_001), b"small again"]
    async with _group(case, 1, "echo") as owner:
        for frame in frames:
            owner.endpoint.send(1, [frame[:5], frame[5:]])
        came = await owner.until_came(1, len(frames))
        sizes = [len(frame) for frame in came]
        assert came == frames, f"expected sizes {[len(frame) for frame in frames]}, got {sizes} (or other content)"


async def many_small_frames_all_arrive(case: BackendCase) -> None:
    """20,000 frames in one turn of the loop, none lost, none twice."""
    async with _group(case, 1, "echo") as owner:
        for number in range(20_000):
            owner.endpoint.send(1, [b"%d" % number])
        came = await owner.until_came(1, 20_000)
        assert came == [b"%d" % number for number in range(20_000)], "frames are missing, repeated or out of order"


async def frames_before_start_are_kept(case: BackendCase) -> None:
    """Neither side loses what arrives before it has started."""
    async with _group(case, 1, "late", start=False) as owner:
        for number in range(100):
            owner.endpoint.send(1, [numbered(number)])
        await system_clock.sleep(0.3)  # the worker's early frames lie here unread meanwhile
        owner.start()
        came = await owner.until_came(1, 200)
        assert came == [numbered(number) for number in range(100)] * 2, "frames sent before start are lost or out of order"


async def flush_lets_frames_out(case: BackendCase) -> None:
    """`flush` returns, also when its wait was cancelled before; nothing is lost by that."""
    async with _group(case, 1, "echo") as owner:
        frame = bytes(1_000_000)
        for _ in range(20):
            owner.endpoint.send(1, [frame])
            waiting = asyncio.ensure_future(owner.endpoint.flush())
            await asyncio.sleep(0)
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await waiting
        async with asyncio.timeout(_PATIENCE):
            await owner.endpoint.flush()
        assert await owner.until_came(1, 20) == [frame] * 20


async def groups_do_not_mix(case: BackendCase) -> None:
    """Two groups of the same name side by side: each has its own workers, frames and end."""
    async with _group(case, 1, "echo") as first, _group(case, 1, "echo") as second:
        assert first.group.workers[0].pid != second.group.workers[0].pid
        first.endpoint.send(1, [b"first"])
        second.endpoint.send(1, [b"second"])
        assert await first.until_came(1, 1) == [b"first"]
        await first.group.aclose()
        second.endpoint.send(1, [b"still there"])
        assert await second.until_came(1, 2) == [b"second", b"still there"]
        assert not second.lost, f"the end of one group was told to the other: {second.lost}"


async def a_killed_worker_is_told(case: BackendCase) -> None:
    """kill -9 is told once, within 3 s, with exit code and last words; the others live on, sending to it is harmless."""
    async with _group(case, 2, "obey") as owner:
        owner.tell(1, "say", "words before the end")
        await owner.until_came(1, 1)
        os.kill(owner.group.workers[0].pid, signal.SIGKILL)
        error = await owner.until_lost(1)
        assert error.exit_code == -9, f"expected exit code -9, got {error.exit_code}"
        assert "words before the end" in error.last_words, f"expected its last words, got {error.last_words!r}"
        owner.tell(1, "echo", "nobody hears this")
        owner.tell(2, "echo", "alive")
        assert await owner.until_came(2, 1) == [b"alive"]
        assert len(owner.lost) == 1, f"told more than once: {owner.lost}"


async def a_worker_that_exits_is_told(case: BackendCase) -> None:
    """An exit of its own, by `os._exit` or `sys.exit`, is told with its status and the end of its stderr."""
    for how, status in (("exit", 3), ("leave", 4)):
        async with _group(case, 1, "obey") as owner:
            owner.tell(1, "say", "x" * 10_000 + "the last of it")
            await owner.until_came(1, 1)
            owner.tell(1, how, status)
            error = await owner.until_lost(1)
            assert error.exit_code == status, f"expected exit code {status}, got {error.exit_code}"
            assert error.last_words.rstrip().endswith("the last of it"), f"expected its last words, got {error.last_words!r}"
            assert len(error.last_words) <= 4096, f"expected at most 4096 characters of last words, got {len(error.last_words)}"


async def an_entry_that_raises_is_told(case: BackendCase) -> None:
    """Exit code 1 and the traceback, after every frame that it had sent."""
    async with _group(case, 1, "raising") as owner:
        error = await owner.until_lost(1)
        assert error.exit_code == 1, f"expected exit code 1, got {error.exit_code}"
        assert "this entry fails on purpose" in error.last_words, f"expected the traceback, got {error.last_words!r}"
        assert owner.came(1) == [b"before it failed"], f"expected its last frame before the loss, got {owner.came(1)}"


async def a_loss_before_start_is_told_at_start(case: BackendCase) -> None:
    """A worker that is gone before the owner's `start` is told then."""
    async with _group(case, 1, "echo", start=False) as owner:
        pid = owner.group.workers[0].pid
        os.kill(pid, signal.SIGKILL)
        await _assert_gone([pid], _NOTICED)
        owner.start()
        error = await owner.until_lost(1)
        assert error.exit_code == -9, f"expected exit code -9, got {error.exit_code}"


async def an_entry_that_returns_is_no_loss(case: BackendCase) -> None:
    """Its frames all arrive, its process ends, nobody is told."""
    async with _group(case, 1, "returning") as owner:
        came = await owner.until_came(1, 100)
        assert came == [numbered(number) for number in range(100)]
        await _assert_gone([owner.group.workers[0].pid], _NOTICED)
        await owner.group.aclose()
        assert not owner.lost, f"a worker that had done its work was told as lost: {owner.lost}"


async def a_group_closes_after_a_loss(case: BackendCase) -> None:
    """`aclose` after a loss ends the others, and leaves nothing."""
    async with _group(case, 2, "echo") as owner:
        os.kill(owner.group.workers[0].pid, signal.SIGKILL)
        await owner.until_lost(1)
        await owner.group.aclose()
    await _assert_gone([worker.pid for worker in owner.group.workers], 0.0)
    names = await case.leftovers()
    assert not names, f"left behind: {names}"


async def a_worker_that_blocks_is_killed_on_close(case: BackendCase) -> None:
    """A worker whose loop is blocked cannot end when asked: it is killed after 5 s, silently."""
    async with _group(case, 1, "obey") as owner:
        owner.tell(1, "block")
        await owner.until_came(1, 1)
        begun = system_clock.monotonic()
        await owner.group.aclose()
        took = system_clock.monotonic() - begun
        assert took < 8.0, f"closing took {took:.1f} s"
    assert not owner.lost, f"closing was told as a loss: {owner.lost}"
    await _assert_gone([owner.group.workers[0].pid], 0.0)


async def a_start_that_fails_leaves_nothing(case: BackendCase) -> None:
    """An entry that cannot be imported is `BackendUnavailable` with the worker's own words."""
    async with _group(case, 1, "echo"):
        pass  # whatever is opened once and kept is open from now on
    before = _open_files()
    for entry, word in (("sage_actor.testing.no_such_module:echo", "no_such_module"), (f"{_ENTRIES}:no_such_entry", "no_such_entry")):
        try:
            group = await case.create(case.address).start(2, group="conformance", entry=entry)
        except BackendUnavailable as error:
            assert word in str(error), f"expected the worker's stderr in the message, got {error}"
        else:
            await group.aclose()
            raise AssertionError(f"the entry {entry!r} does not exist, but the group started")
    assert _open_files() <= before, f"{_open_files() - before} open files are left"
    names = await case.leftovers()
    assert not names, f"left behind: {names}"


async def a_cancelled_start_leaves_nothing(case: BackendCase) -> None:
    """Cancelling `start` at various points ends what it has started."""
    children = _children()
    for turns in (1, 2, 5, 20):
        starting = asyncio.ensure_future(case.create(case.address).start(2, group="conformance", entry=f"{_ENTRIES}:echo"))
        for _ in range(turns):
            await asyncio.sleep(0)
        starting.cancel()
        try:
            group = await starting
        except asyncio.CancelledError:
            continue
        await group.aclose()  # it was faster
    left = _children() - children
    assert not left, f"processes are left: {left}"
    names = await case.leftovers()
    assert not names, f"left behind: {names}"


async def a_killed_owner_leaves_no_orphan(case: BackendCase) -> None:
    """When the owner is killed with -9 its workers end by themselves within 3 s."""
    create = f"{case.create.__module__}:{case.create.__name__}"
    program = f"import sys; sys.path[:] = {sys.path!r}; from {_ENTRIES} import own; own({create!r}, {case.address!r})"
    owner = await offload(functools.partial(subprocess.Popen[bytes], [sys.executable, "-c", program], stdout=subprocess.PIPE))
    try:
        assert owner.stdout is not None
        pids: list[int] = json.loads(await offload(owner.stdout.readline))
        assert len(pids) == 2 and all(map(_lives, pids)), f"expected two living workers, got {pids}"
    finally:
        owner.kill()
        await offload(owner.wait)
        if owner.stdout is not None:
            owner.stdout.close()
    await _assert_gone(pids, _NOTICED)


def _lives(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not reaped yet does not."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except FileNotFoundError:
        return False


async def _assert_gone(pids: Collection[int], seconds: float) -> None:
    deadline = system_clock.monotonic() + seconds
    while left := [pid for pid in pids if _lives(pid)]:
        assert system_clock.monotonic() < deadline, f"processes are left: {left}"
        await system_clock.sleep(0.01)


def _children() -> set[int]:
    """Processes that this one has started and that have not ended."""
    own = os.getpid()
    found: set[int] = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/stat", "rb") as file:
                state, parent = file.read().rpartition(b")")[2].split()[:2]
                if int(parent) == own and state not in (b"Z", b"X"):
                    found.add(int(entry))
    return found


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))
