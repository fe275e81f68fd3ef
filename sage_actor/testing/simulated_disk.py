"""A disk in memory that loses, tears, fills up and dawdles as a seed says, and knows what a crash of the machine would leave."""

from __future__ import annotations

import asyncio
import errno
import os
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Callable
from dataclasses import dataclass
from random import Random
from typing import Final, Literal

from sage_actor.checkpoint.disk import blocks_of, parent_of
from sage_actor.ports import Clock

__all__ = ["DiskFaults", "SimulatedDisk"]

FaultKind = Literal["full", "failing", "slow", "torn"]

_BLOCK: Final = 4096  # small, so that a file of a test is read in several blocks


@dataclass(slots=True, kw_only=True)
class DiskFaults:
    """How likely each fault is, for every step that can have it. May be changed at any time.

    Attributes:
        full: a write is refused for want of room; nothing of the file stays.
        failing: an operation fails with an input/output error.
        slow: an operation takes up to `slow_seconds` of the clock.
        torn: a new file is reported as written, and a part of it is missing at once.
        slow_seconds: see above.
    """

    full: float = 0.0
    failing: float = 0.0
    slow: float = 0.0
    torn: float = 0.0
    slow_seconds: float = 10.0


@dataclass(slots=True)
class _File:
    content: bytes
    durable: bool = False


class SimulatedDisk:
    """`Disk` in memory. A simulation puts it where `current_disk` finds it: on its loop, as ``sage_disk``.

    Written is not yet durable: only fsync (of the file, then of the folder) makes it so, and `crash` decides by chance what becomes
    of the rest. Every operation passes through several steps, and before each the loop's other tasks may run: so of operations of
    different owners every order of their steps can happen.

    Args:
        random: decides everything that is left to chance.
        clock: on which slow operations are slow.
        faults: what goes wrong; nothing, unless said here or later.

    Attributes:
        faults: may be changed at any time.
        hits: how often each fault was brought about, by kind; under "crash" how often `crash` was called.
        before_step: called with the step's name and its path before each step; what it raises the operation raises. For tests that
            crash at a place of their choice.
    """

    name = "simulated disk"
    fence = "exact: one step creates a name if it is absent"

    def __init__(self, random: Random, clock: Clock, faults: DiskFaults | None = None) -> None:
        self.faults = DiskFaults() if faults is None else faults
        self.hits: Counter[str] = Counter()
        self.before_step: Callable[[str, str], object] | None = None
        self._random = random
        self._clock = clock
        self._files: dict[str, _File] = {}  # what programs see
        self._named: dict[str, _File] = {}  # what the synced folders say
        self._folders: set[str] = {""}
        self._crashes = 0
        self._numbers = 0

    # -- what a test does to it --

    def crash(self) -> None:
        """The machine goes down and comes up again.

        What was synced is there. A name that was not synced into its folder may be gone or stay (a removed one may be back),
        content that was not synced may be whole, torn or gone. Operations under way fail.
        """
        self.hits["crash"] += 1
        self._crashes += 1
        left: dict[str, _File] = {}
        for path in sorted(self._files.keys() | self._named.keys()):
            seen, named = self._files.get(path), self._named.get(path)
            file = seen if seen is named or self._random.random() < 0.5 else named
            if file is None:
                continue
            if not file.durable:
                file = _File(file.content[: self._random.randint(0, len(file.content))])
            file.durable = True
            left[path] = file
        self._files = left
        self._named = dict(left)

    def tear(self, path: str) -> None:
        """Damage a file that is there: a part at its end goes missing, whatever was synced."""
        file = self._files[path]
        file.content = file.content[: self._random.randint(0, max(0, len(file.content) - 1))]

    def paths(self) -> list[str]:
        """Every file, unfinished ones too, sorted."""
        return sorted(self._files)

    # -- Disk --

    async def create_new(self, path: str, blocks: AsyncIterable[bytes], *, fsync: bool = True) -> None:
        crashes = self._crashes
        await self.make_folder(parent_of(path))
        folder, _, name = path.rpartition("/")
        self._numbers += 1
        temporary = f"{folder}/.{name}.{self._numbers:x}.tmp"
        await self._step("open", path, crashes, "full")
        file = self._files[temporary] = _File(b"")
        try:
            async for block in blocks:
                await self._step("write", path, crashes, "full")
                file.content += block
            if fsync:
                await self._step("fsync", path, crashes)
                file.durable = True
            await self._step("link", path, crashes)
            self._check_free(path)
            if len(file.content) > 1 and self._strikes("torn"):
                file.content = file.content[: self._random.randint(0, len(file.content) - 1)]
            self._files[path] = file
            if fsync:
                await self._step("fsync folder", path, crashes)
                self._named[path] = file
        finally:
            if crashes == self._crashes:
                self._files.pop(temporary, None)

    async def read(self, path: str) -> AsyncIterator[bytes]:
        crashes = self._crashes
        await self._step("open", path, crashes)
        file = self._files.get(path)
        if file is None:
            raise self._missing(path)
        position = 0
        while block := file.content[position : position + _BLOCK]:
            await self._step("read", path, crashes)
            position += len(block)
            yield block

    async def list(self, folder: str) -> list[str]:
        await self._step("list", folder, self._crashes)
        if folder in self._files:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), folder)
        start = f"{folder}/"
        inside = {path[len(start) :].partition("/")[0] for path in (*self._files, *self._folders) if path.startswith(start)}
        return sorted(inside)

    async def size(self, path: str) -> int | None:
        await self._step("stat", path, self._crashes)
        file = self._files.get(path)
        return None if file is None else len(file.content)

    async def remove(self, path: str) -> None:
        await self._step("remove", path, self._crashes)
        self._files.pop(path, None)
        if self._random.random() < 0.5:  # when the name is gone for good nobody has asked for
            self._named.pop(path, None)

    async def link_or_copy(self, source: str, target: str) -> None:
        crashes = self._crashes
        await self.make_folder(parent_of(target))
        await self._step("link", target, crashes)
        file = self._files.get(source)
        if file is None:
            raise self._missing(source)
        self._check_free(target)
        self._files[target] = file
        await self._step("fsync", target, crashes)
        file.durable = True
        await self._step("fsync folder", target, crashes)
        self._named[target] = file

    async def take_in(self, local: str, target: str) -> None:
        await self.create_new(target, blocks_of(_read_local(local)))

    async def bring_out(self, source: str, local: str) -> None:
        content = b"".join([block async for block in self.read(source)])
        _write_local(local, content)

    async def make_folder(self, path: str) -> None:
        while path not in self._folders:
            await self._step("make folder", path, self._crashes, "full")
            if path in self._files:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
            above = parent_of(path)
            if above and above not in self._folders:
                await self.make_folder(above)
            self._folders.add(path)

    async def remove_folder(self, path: str) -> None:
        await self._step("remove folder", path, self._crashes)
        start = f"{path}/"
        if not any(other.startswith(start) for other in (*self._files, *self._folders)):
            self._folders.discard(path)

    # -- chance --

    async def _step(self, step: str, path: str, crashes: int, *faults: FaultKind) -> None:
        """The instant before something happens: others may run, and things may go wrong."""
        for _ in range(self._random.randrange(3)):
            await asyncio.sleep(0)
        if self._strikes("slow"):
            await self._clock.sleep(self._random.random() * self.faults.slow_seconds)
        if self.before_step is not None:
            self.before_step(step, path)
        if crashes != self._crashes:
            raise OSError(errno.EIO, "the machine has crashed meanwhile", path)
        if "full" in faults and self._strikes("full"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        if self._strikes("failing"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    def _strikes(self, kind: FaultKind) -> bool:
        chance: float = getattr(self.faults, kind)
        if chance <= 0.0 or self._random.random() >= chance:
            return False
        self.hits[kind] += 1
        return True

    def _check_free(self, path: str) -> None:
        if path in self._files or path in self._folders:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        if parent_of(path) in self._files:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)

    @staticmethod
    def _missing(path: str) -> FileNotFoundError:
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


def _read_local(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _write_local(path: str, content: bytes) -> None:
    with open(path, "xb") as file:
        file.write(content)
