"""A backend whose workers are processes of a simulation: the real worker code, links with seeded delays, crashes."""

from __future__ import annotations

import asyncio
import importlib
import random
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from sage_actor.actor.backend import PATIENCE, Buffer, Endpoint, FrameHandler, LostHandler, WorkerInfo, WorkerResources
from sage_actor.errors import WorkerLost
from sage_actor.testing.simulated_process import PROCESS, SimulatedProcess
from sage_actor.testing.simulated_processes import Processes

__all__ = ["SimulatedBackend", "SimulatedEndpoint", "SimulatedGroup"]

_LOSS_SECONDS: Final = 0.5
"""The longest that it takes until the owner hears of a lost worker."""
_ORPHAN_SECONDS: Final = 1.0
"""The longest that a worker lives on after its owner."""

Entry = Callable[[Endpoint], Coroutine[Any, Any, None]]


class SimulatedBackend:
    """Starts workers as processes of the running simulation, children of whoever asks.

    Args:
        processes: of this run.
        chance: decides delays.
        delay: the longest that a frame is under way, in seconds.
        meddle: what arrives in place of a frame.
    """

    name = "simulated"
    hosts_in_owner = False

    def __init__(
        self,
        processes: Processes,
        chance: random.Random,
        delay: float = 0.01,
        meddle: Callable[[bytes], Sequence[bytes]] = lambda frame: (frame,),
    ) -> None:
        self.processes = processes
        self.chance = chance
        self.delay = delay
        self.meddle = meddle
        self.groups: list[SimulatedGroup] = []

    async def start(self, count: int, *, group: str, entry: str, resources: Sequence[WorkerResources] = ()) -> SimulatedGroup:
        """See `Backend.start`. Simulated workers have what they ask for."""
        module, _, function = entry.partition(":")
        main: Entry = getattr(importlib.import_module(module), function)
        made = SimulatedGroup(self, PROCESS.get(), count)
        self.groups.append(made)
        await asyncio.sleep(self.pause())
        made.begin(main)
        return made

    def pause(self) -> float:
        """How long the next frame is under way."""
        return self.chance.random() * self.delay


class SimulatedEndpoint:
    """One end of the links between the workers of a group; see `Endpoint`."""

    def __init__(self, group: SimulatedGroup, worker: int) -> None:
        self.group = group
        self.worker = worker
        self.process: SimulatedProcess | None = None
        self.closed = False
        self._early: deque[tuple[int, bytes]] = deque()
        self._receive: FrameHandler | None = None
        self.lost: LostHandler | None = None
        self._links: dict[int, deque[bytes]] = {}
        self._latest: dict[int, float] = {}

    def start(self, receive: FrameHandler, lost: LostHandler) -> None:
        self._receive = receive
        self.lost = lost
        asyncio.get_running_loop().call_soon(self._deliver_early)

    def _deliver_early(self) -> None:
        while self._early and self._receive is not None:
            sender, frame = self._early.popleft()
            self._receive(sender, memoryview(frame))

    def send(self, to: int, parts: Sequence[Buffer]) -> None:
        """One frame, in order; from a dead process, to a dead or closed one: dropped."""
        target = self.group.endpoints.get(to)
        if target is None or self.closed or (self.process is not None and not self.process.alive):
            return
        loop = asyncio.get_running_loop()
        for frame in self.group.backend.meddle(b"".join(parts)):
            self._links.setdefault(to, deque()).append(frame)
            when = max(loop.time() + self.group.backend.pause(), self._latest.get(to, 0.0))
            self._latest[to] = when
            context = None if target.process is None else target.process.context.copy()
            loop.call_at(when, self._arrive, target, context=context)

    def _arrive(self, target: SimulatedEndpoint) -> None:
        frame = self._links[target.worker].popleft()  # the oldest, whichever of several timers of one instant this is
        if target.closed:
            return
        if target._early or target._receive is None:
            target._early.append((self.worker, frame))
        else:
            target._receive(self.worker, memoryview(frame))

    async def flush(self) -> None:
        """Frames leave at once; only their arrival takes time."""

    async def aclose(self) -> None:
        self.closed = True


class SimulatedGroup:
    """The workers of one job; see `WorkerGroup`."""

    def __init__(self, backend: SimulatedBackend, owner: SimulatedProcess | None, count: int) -> None:
        self.backend = backend
        self.owner = owner
        self.endpoints = {worker: SimulatedEndpoint(self, worker) for worker in range(count + 1)}
        self.endpoints[0].process = owner
        self.workers: Sequence[WorkerInfo] = tuple(WorkerInfo(worker, 1000 + worker) for worker in range(1, count + 1))
        self.closing = False
        self.mains: dict[int, asyncio.Task[None]] = {}

    @property
    def endpoint(self) -> SimulatedEndpoint:
        """The owner's own end."""
        return self.endpoints[0]

    @property
    def processes(self) -> list[SimulatedProcess]:
        """Those of the workers, in the order of their numbers."""
        return [end.process for end in self.endpoints.values() if end.process is not None and end.worker]

    def begin(self, main: Entry) -> None:
        """Start the workers. They outlive their owner by a little, as real ones do until they notice."""
        for worker in self.workers:
            self._begin(worker.worker, main)
        if self.owner is not None:
            self.owner.at_end.append(self._orphaned)

    def _begin(self, worker: int, main: Entry) -> None:
        endpoint = self.endpoints[worker]

        async def serve() -> None:
            self.mains[worker] = asyncio.ensure_future(main(endpoint))
            await asyncio.wait((self.mains[worker],))
            if not self.mains[worker].cancelled():
                self.mains[worker].result()

        owner = "world" if self.owner is None else self.owner.name
        process = self.backend.processes.start(f"{owner} worker {worker}", serve, parent=self.owner)
        endpoint.process = process
        process.at_end.append(lambda: self._ended(worker, process))

    def _ended(self, worker: int, process: SimulatedProcess) -> None:
        self.endpoints[worker].closed = True
        processes, owner = self.backend.processes, self.endpoints[0]

        def tell() -> None:
            outcome = process.ended.result() if process.ended.done() else None
            if not self.closing and owner.lost is not None and (outcome is None or outcome.how != "returned"):
                owner.lost(WorkerLost(worker, 1000 + worker, -9))

        context = None if self.owner is None else self.owner.context.copy()
        processes.loop.call_later(self.backend.chance.random() * _LOSS_SECONDS, tell, context=context)

    def _orphaned(self) -> None:
        for process in self.processes:
            seconds = self.backend.chance.choice((0.0, self.backend.chance.random() * _ORPHAN_SECONDS))
            self.backend.processes.call_later(seconds, lambda process=process: self.backend.processes.crash(process))  # type: ignore[misc]

    async def aclose(self, patience: float = PATIENCE) -> None:
        """Cancel the entries, wait, kill those that are left."""
        if not self.closing:
            self.closing = True
            loop = asyncio.get_running_loop()
            for worker, process in enumerate(self.processes, 1):
                main = self.mains.get(worker)
                if main is not None and process.alive:
                    loop.call_later(self.backend.pause(), main.cancel, context=process.context.copy())
            ends = [asyncio.ensure_future(asyncio.shield(process.ended)) for process in self.processes]
            if ends:
                _, left = await asyncio.wait(ends, timeout=patience)
                for end in left:
                    end.cancel()
            for process in self.processes:
                self.backend.processes.crash(process)
        await self.endpoint.aclose()
