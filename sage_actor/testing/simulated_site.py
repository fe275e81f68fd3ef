"""The place of one simulated run: its disk, its processes, and the faults that happen there."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter, deque
from collections.abc import AsyncIterable, AsyncIterator, Generator, Sequence
from typing import TYPE_CHECKING, Final

from sage_actor import plugins
from sage_actor._core.frame import DATA, MARKER, decode
from sage_actor.actor.open_backend import BACKENDS
from sage_actor.runtime.placed_worker import NUMBER
from sage_actor.testing.simulated_backend import SimulatedBackend
from sage_actor.testing.simulated_disk import DiskFaults, SimulatedDisk
from sage_actor.testing.simulated_faults import COUNTED, PlannedFault
from sage_actor.testing.simulated_process import PROCESS, SimulatedProcess
from sage_actor.testing.simulated_processes import Processes, stand_still
from sage_actor.testing.simulation_loop import SimulationLoop

if TYPE_CHECKING:
    from sage_actor.runtime.task_host import TaskHost

__all__ = ["Site"]


MAGIC: Final = b"SGAF"
_LIMIT: Final = 20.0
"""Virtual seconds after which nothing waits for the planned kills any more."""


class Site:
    """Made inside a running simulation. Carries out the faults, and counts what a run went through.

    Attributes:
        processes, disk, backend: of this run; the disk and backend ``simulated`` are found by jobs on this loop.
        happened: each fault that struck, and what it led to, in order and in words.
        kills: how often a process was killed, by point and scope.
        counts: ``crashes``, ``zombies``, ``checkpoints``, ``restores``, ``damaged`` files, and checkpoints ``skipped`` for them.
        hosts: what runs tasks, with the process each is in.
        took_over: the process of each attempt that has begun.
        newest: the files that the newest checkpoint stands on and no older one: what it wrote itself.
    """

    def __init__(self, seed: int, faults: Sequence[PlannedFault]) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulationLoop)
        self.loop = loop
        self.chance = random.Random(f"site {seed}")
        self.processes = Processes(loop)
        self.disk = _Disk(self)
        self.backend = SimulatedBackend(self.processes, self.chance, self.chance.choice((0.001, 0.01, 0.1)), self._meddle)
        self.happened: list[str] = []
        self.kills: Counter[tuple[str, str]] = Counter()
        self.counts: Counter[str] = Counter()
        self.hosts: list[tuple[TaskHost, SimulatedProcess | None]] = []
        self.took_over: list[SimulatedProcess | None] = []
        self.newest: list[str] = []
        self._kills = deque(fault for fault in faults if fault.kind == "kill")
        self._occasions = {kind: deque(fault for fault in faults if fault.kind == kind) for kind in COUNTED}
        self._timed = [fault for fault in faults if fault.kind not in COUNTED and fault.kind != "kill"]
        self._passages: Counter[str] = Counter()
        self._frames: dict[tuple[int, int], tuple[int, bytes]] = {}  # the last attempt's, by channel and sequence

    @contextlib.contextmanager
    def open(self) -> Generator[None, None, None]:
        """Inside, jobs on this loop find disk and backend, and the faults bound to a time strike."""
        self.loop.sage_disk = self.disk  # type: ignore[attr-defined]
        loaded: dict[tuple[str, str], object] = vars(plugins)["_loaded"]
        loaded[BACKENDS, "simulated"] = self._backend_of
        timers = [self.processes.call_later(fault.at, lambda fault=fault: self._strike(fault)) for fault in self._timed]  # type: ignore[misc]
        try:
            yield
        finally:
            for timer in timers:
                timer.cancel()
            del loaded[BACKENDS, "simulated"]
            for process in self.processes.alive():
                self.processes.crash(process)

    def _backend_of(self, address: object) -> SimulatedBackend:
        return self.backend

    @property
    def is_holding(self) -> bool:
        """Whether sources hold their last records back, so that what is planned can still happen."""
        return bool(self._kills) and self.loop.time() < _LIMIT

    # -- faults at places ------------------------------------------------------------------------------------------------

    def passed(self, point: str) -> bool:
        """The running process passes a point; True if it was killed there, and must do nothing more."""
        if not self.counts["checkpoints"] or not self._kills or self._kills[0].point != point:
            return False
        process = PROCESS.get()
        if process is None or not process.alive:
            return False
        kill = self._kills[0]
        if kill.scope == "torn" and self.counts["checkpoints"] < 2:
            return False  # nothing to fall back to
        self._passages[point] += 1
        if self._passages[point] < kill.at:
            return False
        self._kills.popleft()
        self._passages.clear()
        self.kills[point, kill.scope] += 1
        self.happened.append(f"{self.loop.time():.3f} {process.name}: {kill}")
        self.crash(process, kill.scope)
        return not process.alive

    async def pass_through(self, point: str) -> None:
        """The same; never returns if the process was killed, and only later if it stands still."""
        if self.passed(point):
            await stand_still()
        process = PROCESS.get()
        if process is not None and process.stalled:
            await asyncio.sleep(0)

    def occurs(self, kind: str) -> PlannedFault | None:
        """The fault of that kind that strikes at this occasion, if one does."""
        planned = self._occasions[kind]
        if not planned:
            return None
        self._passages[kind] += 1
        if self._passages[kind] < planned[0].at:
            return None
        self._passages[kind] = 0
        fault = planned.popleft()
        self.happened.append(f"{self.loop.time():.3f} {fault}")
        return fault

    def _meddle(self, frame: bytes) -> Sequence[bytes]:
        # Between two places a worker's number stands before the frame.
        header, _ = decode(frame if frame.startswith(MAGIC) else memoryview(frame)[NUMBER:])
        if header.kind not in (DATA, MARKER):
            return (frame,)
        place = (header.channel, header.sequence)
        attempt, old = self._frames.get(place, (header.attempt, b""))
        self._frames[place] = (header.attempt, frame)
        if attempt < header.attempt and self.occurs("old frame"):
            return (old, frame)
        if self.occurs("doubled frame"):
            return (frame, frame)
        # Behind records there is always a marker, which shows the gap.
        return () if header.kind == DATA and self.occurs("lost frame") else (frame,)

    def crash(self, process: SimulatedProcess, scope: str) -> None:
        """Kill a process, the job that it belongs to, or the machine with all jobs; or make the job a zombie."""
        owner = next((other for other in self.processes.all if process in other.children), process)
        if scope == "zombie":
            self.counts["zombies"] += 1
            self.processes.stall(owner, None)
            return
        self.counts["crashes"] += 1
        if scope == "process":
            self.processes.crash(process)
        elif scope == "job":
            self.processes.crash(owner)
            if process is not owner:
                self.processes.crash(process)
        else:
            for other in self.processes.alive():
                self.processes.crash(other)
            self.disk.crash()
            if scope == "torn":
                self._damage()

    def _damage(self) -> None:
        there = self.disk.paths()
        candidates = [path for path in self.newest if path in there]
        if candidates:
            self.disk.tear(self.chance.choice(candidates))
            self.counts["damaged"] += 1

    # -- faults at times ---------------------------------------------------------------------------------------------------

    def _strike(self, fault: PlannedFault) -> None:
        self.happened.append(f"{self.loop.time():.3f} {fault}")
        if fault.kind == "clock":
            self.loop.sage_clock.jump(int(fault.amount))
        elif fault.kind == "task":
            self._end_a_task()
        elif fault.kind == "stall":
            self._stall(fault)
        else:
            setattr(self.disk.faults, fault.kind, 0.5)
            self.processes.call_later(fault.amount, lambda: setattr(self.disk.faults, fault.kind, 0.0))

    def _end_a_task(self) -> None:
        running = [
            task
            for host, process in self.hosts
            if (process is None or process.alive) and not host.ending
            for task in host.running.values()
            if not task.done()
        ]
        if running:
            self.chance.choice(running).cancel("a fault of the simulation")

    def _stall(self, fault: PlannedFault) -> None:
        workers = [process for group in self.backend.groups for process in group.processes if process.alive]
        owners = [process for process in self.processes.alive() if process not in workers]
        candidates = [p for p in (workers if fault.scope == "process" and workers else owners) if not p.stalled]
        if candidates:
            self.processes.stall(self.chance.choice(candidates), fault.amount)


class _Disk(SimulatedDisk):
    """Passes kill-points where it writes parts of checkpoints."""

    def __init__(self, site: Site) -> None:
        super().__init__(random.Random(site.chance.getrandbits(64)), site.loop.sage_clock, DiskFaults(slow_seconds=0.3))
        self._site = site
        self.logged = ""  # the last file that is not a part: within `complete` that of the manifest

    async def create_new(self, path: str, blocks: AsyncIterable[bytes], *, fsync: bool = True) -> None:
        if "/parts/" not in path:
            await super().create_new(path, blocks, fsync=fsync)
            self.logged = path
            return
        await super().create_new(path, self._watched(blocks), fsync=fsync)
        await self._site.pass_through("after state fsync")

    async def _watched(self, blocks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        async for block in blocks:
            yield block
        await self._site.pass_through("before state fsync")
