"""The owner's side: starts the workers, chooses among them, hears of their loss, and ends them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import UUID

from sage_actor._core.stable_hash import stable_hash
from sage_actor.actor.open_backend import open_backend
from sage_actor.actor.remoting import SystemWorker, WorkerSettings
from sage_actor.errors import ActorError, BackendError, BackendUnavailable, FrameError, WorkerLost
from sage_actor.remote.allowed import AllowList
from sage_actor.remote.defaults import SETTINGS, Defaults
from sage_actor.remote.failures import encode_error
from sage_actor.remote.frames import Lost, Ready, Setup, StopAll, Stopped, Stopping
from sage_actor.remote.node import Node, renumbered
from sage_actor.remote.requests import release
from sage_actor.remote.spawning import Spawning

if TYPE_CHECKING:
    from sage_actor._core.actor_ref import ActorRef
    from sage_actor.actor.backend import Backend, WorkerGroup
    from sage_actor.actor.system import ActorSystem

__all__ = ["Owner", "open_owner"]

ENTRY: Final = "sage_actor.remote.worker:main"
SILENCE: Final = 10.0
"""Seconds without a word after which a worker that is to end its actors is left to the backend, which kills it."""


class Owner:
    """The workers of one system, over one group of a backend."""

    def __init__(self, system: ActorSystem, settings: WorkerSettings, backend: Backend) -> None:
        self._system = system
        self._settings = settings
        self._backend = backend
        self._group: WorkerGroup | None = None
        self._node: Node | None = None
        self._spawning: Spawning | None = None
        self._ready: dict[int, asyncio.Future[None]] = {}
        self._stopped: dict[int, asyncio.Future[None]] = {}
        self._heard = 0  # words of workers that end their actors

    @property
    def workers(self) -> tuple[SystemWorker, ...]:
        """See `Remoting`."""
        if self._node is None or self._group is None:
            if not self._backend.hosts_in_owner or self._system.base_context is None:
                return ()
            return tuple(SystemWorker(number, os.getpid(), "localhost", True) for number in range(self._settings.workers))
        links = self._node.links
        return tuple(SystemWorker(w.worker - 1, w.pid, w.host, links[w.worker].lost is None) for w in self._group.workers)

    async def start(self) -> None:
        """See `Remoting`.

        Raises:
            BackendError: the workers do not come up; nothing of them is left.
        """
        if self._backend.hosts_in_owner:
            return
        system = self._system
        name = f"{system.name}-{UUID(int=system.random.getrandbits(128)).hex[:12]}"
        self._group = await self._backend.start(self._settings.workers, group=name, entry=ENTRY)
        try:
            await self._set_up(name)
        except BaseException:
            await asyncio.shield(self._group.aclose(0.0))
            raise

    async def _set_up(self, name: str) -> None:
        group, system, settings = self._group, self._system, self._settings
        assert group is not None
        allowed = None
        if settings.serialization == "msgspec":
            allowed = AllowList((*SETTINGS, Defaults, *settings.allow))
        numbers = [worker.worker for worker in group.workers]
        node = Node(system, group.endpoint, job=stable_hash(name), peers=numbers, allowed=allowed, broken=self._broken)
        self._node = node
        self._spawning = Spawning(node)
        node.further = {Ready: self._take_ready, Stopping: self._take_stopping, Stopped: self._take_stopped, **self._spawning.further}
        system.registry.tell_others = node.offers.tell
        self._ready = {number: system.loop.create_future() for number in numbers}
        self._stopped = {number: system.loop.create_future() for number in numbers}
        group.endpoint.start(node.receive, self._lost)
        defaults = Defaults(system.restart, system.mailbox, system.family.supervision)
        form, payload = node.wire.encode(defaults, "a default of the actor system")
        for number in numbers:
            setup = Setup(
                system.name,
                len(numbers),
                system.stop_timeout,
                system.dead_letters.keep,
                system.inline_asks,
                settings.serialization,
                [] if allowed is None else allowed.names,
                form,
            )
            node.send(number, setup, payload)
        await asyncio.gather(*self._ready.values())

    # -- actors --

    def spawn(
        self, cls: Callable[..., Any], args: tuple[object, ...], worker: int | Literal["least_loaded"], options: Mapping[str, object]
    ) -> Coroutine[Any, Any, ActorRef[Any]]:
        """See `Remoting`."""
        count = self._settings.workers
        if isinstance(worker, int) and not 0 <= worker < count:
            raise ActorError(f"spawn: worker={worker}, but the workers of actor system {self._system.name!r} are 0 to {count - 1}")
        if not isinstance(worker, int) and worker != "least_loaded":
            raise ActorError(f"spawn: worker={worker!r} is neither a number nor 'least_loaded'")
        if self._backend.hosts_in_owner:
            spawn_here: Any = self._system.spawn_under
            return spawn_here(None, cls, args, **options)  # type: ignore[no-any-return]
        if self._spawning is None:
            raise ActorError(f"actor system {self._system.name!r} is not running, so it spawns nothing; use it inside `async with`")
        return self._spawning.spawn(cls, args, worker, options)

    # -- loss --

    def _lost(self, error: BackendError) -> None:
        """From the backend: one worker is gone, or what carries the frames of all."""
        if isinstance(error, WorkerLost):
            self._lose([error.worker], renumbered(error))
        elif self._node is not None:
            self._lose(list(self._node.links), error)

    def _broken(self, worker: int, error: FrameError) -> None:
        """From the node: nothing that comes from this worker can be trusted any more. If it lives, it ends when it hears of that."""
        if self._node is not None:
            form, payload = encode_error(self._node.wire, error)
            self._node.send(worker, Lost(worker, form), payload)
        self._lose([worker], error)

    def _lose(self, gone: list[int], error: BackendError) -> None:
        node = self._node
        if node is None:
            return
        gone = [worker for worker in gone if node.links[worker].lost is None]
        if not gone:
            return
        for worker in gone:
            node.lost(worker, error)
            if not self._ready[worker].done():
                self._ready[worker].set_exception(error)
            release(self._stopped[worker])
        form, payload = encode_error(node.wire, error)
        for other in node.links:
            for worker in gone:
                node.send(other, Lost(worker, form), payload)
        numbers = [worker - 1 for worker in gone]
        event = f"actor system {self._system.name!r} has lost workers {numbers}: {error}"  # in words too: not every set-up shows the values
        self._system.log.error(event, workers=numbers)

    # -- ending --

    async def stop_actors(self, drain: bool) -> None:
        """See `Remoting`: what has been sent goes first, then all workers end their actors at the same time."""
        node = self._node
        if node is None:
            return
        await node.close_standins(drain, self._system.stop_timeout)
        for worker in node.links:
            node.send(worker, StopAll(drain))
        waiting: set[asyncio.Future[None]] = {future for future in self._stopped.values() if not future.done()}
        while waiting:
            heard = self._heard
            over: asyncio.Future[None] = self._system.loop.create_future()
            alarm = self._system.clock.call_later(self._system.stop_timeout + SILENCE, partial(release, over))
            try:
                await asyncio.wait({*waiting, over}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                alarm.cancel()
            if over.done() and heard == self._heard:
                break  # their loops stand still: the backend kills them
            waiting = {future for future in waiting if not future.done()}
        if drain:
            await node.homes.delivered(self._system.stop_timeout)  # what they have sent here at their end

    async def aclose(self) -> None:
        """See `Remoting`."""
        if self._group is not None:
            await self._group.aclose()
            if self._node is not None:
                for standin in list(self._node.standins.values()):
                    standin.bury(None)
                for worker in self._node.links:
                    self._node.lost(worker, BackendUnavailable(self._backend.name, "the actor system has ended"))
                await self._node.aclose()

    # -- what workers say --

    def _take_ready(self, sender: int, head: Ready, payload: list[memoryview]) -> None:
        future = self._ready[sender]
        if not future.done():
            if head.problem:
                future.set_exception(ActorError(f"worker {sender - 1} cannot host actors: {head.problem}"))
            else:
                future.set_result(None)

    def _take_stopping(self, sender: int, head: Stopping, payload: list[memoryview]) -> None:
        self._heard += 1

    def _take_stopped(self, sender: int, head: Stopped, payload: list[memoryview]) -> None:
        release(self._stopped[sender])


def open_owner(system: ActorSystem, settings: WorkerSettings) -> Owner:
    """The workers of a system; nothing is started yet.

    Raises:
        BackendError: the backend is not known, or cannot be used.
    """
    backend = open_backend(settings.backend) if isinstance(settings.backend, str) else settings.backend
    return Owner(system, settings, backend)
