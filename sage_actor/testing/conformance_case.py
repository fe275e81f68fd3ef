"""What the rules for backends are made of: the backend under test, a group seen from its owner, and looking at processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Generator
from dataclasses import dataclass
from typing import Final

from sage_actor import plugins
from sage_actor.actor.backend import Backend, WorkerGroup
from sage_actor.actor.open_backend import BACKENDS, open_backend
from sage_actor.errors import BackendError, WorkerLost
from sage_actor.ports import system_clock

__all__ = [
    "ENTRIES",
    "GROUP",
    "NOTICED",
    "PATIENCE",
    "BackendCase",
    "Owner",
    "Rule",
    "address_of",
    "assert_gone",
    "assert_nothing_left",
    "lives",
    "open_files",
    "open_group",
    "resident_bytes",
    "started_here",
]

PATIENCE: Final = 30.0
"""Seconds after which what never comes fails the rule instead of hanging the suite."""

NOTICED: Final = 3.0
"""Seconds in which a loss must be told."""

ENTRIES: Final = "sage_actor.testing.conformance_worker"
"""The module whose functions the workers run."""


GROUP: Final = f"conformance-{os.getpid()}"
"""The name of the groups: all have the same, which must not matter, and another process has another one."""


async def _nothing() -> Collection[str]:
    return ()


async def _no_bytes() -> int:
    return 0


@dataclass(frozen=True, slots=True)
class BackendCase:
    """A backend under test, and what it cannot give although its frames and workers are right.

    Attributes:
        address: what a user writes to choose it.
        create: from the address to the backend; a function at the top of a module, since other processes import it too.
        leftovers: names of what exists outside of processes (keys, files) because of groups; empty before any has started.
        held: bytes that lie in what carries the frames (a server, a file) at this moment; 0 where nothing does.
        exit_codes: whether a loss says how the process ended; False where a cluster starts the workers and only says that
            they are gone. `WorkerLost.exit_code` may be None then.
        last_words: whether a loss has the end of the worker's stderr; False where a cluster keeps that elsewhere.
        client_stays: a client library lives in the owner from the first group on, with threads and files of its own that come and
            go as it likes; those are not counted then.
    """

    address: str
    create: Callable[[str], Backend] = open_backend
    leftovers: Callable[[], Awaitable[Collection[str]]] = _nothing
    held: Callable[[], Awaitable[int]] = _no_bytes
    exit_codes: bool = True
    last_words: bool = True
    client_stays: bool = False


Rule = Callable[[BackendCase], Awaitable[None]]
"""Raises `AssertionError` that says what was expected and what came."""


@contextlib.contextmanager
def address_of(case: BackendCase) -> Generator[str, None, None]:
    """What to write as ``backend=`` so that it is the backend of the case: its address, or inside the block one that stands for it."""
    if case.create is open_backend:
        yield case.address
        return
    loaded: dict[tuple[str, str], object] = vars(plugins)["_loaded"]
    known = (BACKENDS, "conformance")

    def create(address: str) -> Backend:
        return case.create(case.address)

    loaded[known] = create
    try:
        yield "conformance://under-test"
    finally:
        del loaded[known]


# -- a group and its owner --------------------------------------------------------------------------------------------


class Owner:
    """The owner's side of a group under test: what came, what was lost, and waiting for it."""

    def __init__(self, case: BackendCase, group: WorkerGroup) -> None:
        self.case = case
        self.group = group
        self.endpoint = group.endpoint
        self.frames: dict[int, list[bytes]] = {}
        self.lost: list[BackendError] = []
        self._changed = asyncio.Event()

    def start(self) -> None:
        """Begin to take frames."""
        self.endpoint.start(self._receive, self._lose)

    def tell(self, worker: int, *words: str | float) -> None:
        """An order for the entry `obey`."""
        self.endpoint.send(worker, [json.dumps(words).encode()])

    def tell_all(self, *words: str | float) -> None:
        """The same order to every worker."""
        for worker in self.group.workers:
            self.tell(worker.worker, *words)

    def pid(self, worker: int) -> int:
        """The process of a worker."""
        return self.group.workers[worker - 1].pid

    def came(self, sender: int) -> list[bytes]:
        """Frames from a worker, in order."""
        return self.frames.get(sender, [])

    async def until(self, condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
        """Wait until something is so; it is looked at whenever a frame or a loss has come."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            counts = {sender: len(frames) for sender, frames in self.frames.items()}
            raise AssertionError(f"not within {seconds} s: {what}; frames so far: {counts}, losses: {self.lost}") from None

    async def until_came(self, sender: int, count: int) -> list[bytes]:
        """Wait for so many frames of a worker; its own loss, and that of the links, ends the wait."""

        def ends_it(error: BackendError) -> bool:
            return not isinstance(error, WorkerLost) or error.worker == sender

        await self.until(lambda: len(self.came(sender)) >= count or any(map(ends_it, self.lost)), f"{count} frames from worker {sender}")
        assert len(self.came(sender)) >= count, f"expected {count} frames from worker {sender}, got {len(self.came(sender))}, {self.lost}"
        return self.came(sender)

    async def until_lost(self, worker: int) -> WorkerLost:
        """Wait, for as long as it may take, until the loss of a worker is told."""
        await self.until(lambda: bool(self.lost), f"the loss of worker {worker}", NOTICED)
        error = self.lost[0]
        assert isinstance(error, WorkerLost), f"expected WorkerLost, got {error!r}"
        assert error.worker == worker, f"expected the loss of worker {worker}, got {error}"
        assert error.pid == self.pid(worker), f"expected its process id, got {error.pid}"
        return error

    def assert_exit(self, error: WorkerLost, expected: int) -> None:
        """A loss says how the process ended, where the backend can know."""
        codes = (expected,) if self.case.exit_codes else (expected, None)
        assert error.exit_code in codes, f"expected exit code {expected}, got {error.exit_code}"

    def assert_words(self, error: WorkerLost, expected: str) -> None:
        """A loss has the last words, where the backend can know them."""
        if self.case.last_words:
            assert expected in error.last_words, f"expected its last words {expected!r}, got {error.last_words!r}"

    def _receive(self, sender: int, frame: memoryview) -> None:
        self.frames.setdefault(sender, []).append(bytes(frame))
        self._changed.set()

    def _lose(self, error: BackendError) -> None:
        self.lost.append(error)
        self._changed.set()


@contextlib.asynccontextmanager
async def open_group(case: BackendCase, count: int, entry: str, *, start: bool = True) -> AsyncGenerator[Owner, None]:
    """A group whose workers run one of the entries of `conformance_worker`, closed with the block."""
    async with asyncio.timeout(PATIENCE):
        group = await case.create(case.address).start(count, group=GROUP, entry=f"{ENTRIES}:{entry}")
    try:
        owner = Owner(case, group)
        if start:
            owner.start()
        yield owner
    finally:
        async with asyncio.timeout(PATIENCE):
            await group.aclose()


# -- looking at processes ---------------------------------------------------------------------------------------------


def lives(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not reaped yet does not."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except (FileNotFoundError, ProcessLookupError):
        return False


async def assert_gone(pids: Collection[int], seconds: float) -> None:
    """No such process runs, in so many seconds at the latest."""
    deadline = system_clock.monotonic() + seconds
    while left := [pid for pid in pids if lives(pid)]:
        assert system_clock.monotonic() < deadline, f"processes are left: {left}"
        await system_clock.sleep(0.01)


async def assert_nothing_left(case: BackendCase, pids: Collection[int] = ()) -> None:
    """None of the processes, and nothing outside of processes."""
    await assert_gone(pids, 0.0)
    names = await case.leftovers()
    assert not names, f"left behind: {names}"


def started_here() -> list[int]:
    """Processes of the suite's groups that live, whoever started them: a group's name stands in the titles of its workers."""
    wanted, own = GROUP.encode(), os.getpid()
    found: list[int] = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != own:
            with contextlib.suppress(OSError), open(f"/proc/{entry}/cmdline", "rb") as file:
                if any(word.startswith(wanted) for word in file.read().split(b"\0")) and lives(int(entry)):
                    found.append(int(entry))
    return found


def open_files() -> int:
    """How many files this process has open."""
    return len(os.listdir("/proc/self/fd"))


def resident_bytes(pid: int) -> int:
    """Memory that a process occupies; 0 if it has ended."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
