"""The entry of a worker process: an ordinary actor system, told by frames what others want of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

from sage_actor._core.frame import decode
from sage_actor.actor.lifecycle import describe
from sage_actor.actor.remoting import SystemWorker
from sage_actor.actor.system import ActorSystem
from sage_actor.errors import ActorError, BackendError, FrameError
from sage_actor.remote.allowed import AllowList, class_named
from sage_actor.remote.classes import UndefinedClass
from sage_actor.remote.defaults import Defaults
from sage_actor.remote.failures import read_error
from sage_actor.remote.frames import Lost, Ready, Setup, StopAll, Stopped, Stopping, decode_head
from sage_actor.remote.node import Node
from sage_actor.remote.requests import release
from sage_actor.remote.spawning import Spawning

if TYPE_CHECKING:
    from sage_actor._core.actor_ref import ActorRef
    from sage_actor.actor.backend import Endpoint

__all__ = ["WorkerSide", "main"]

BEAT: Final = 0.5
"""Seconds between two words of a worker that ends its actors."""


async def main(endpoint: Endpoint) -> None:
    """A worker's life: until its group is closed, or a link of it breaks."""
    worker = WorkerSide(endpoint)
    endpoint.start(worker.receive, worker.lost)
    await worker.run()


class WorkerSide:
    """One worker: what `Remoting` asks for, and what the owner alone may say."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._node: Node | None = None
        self._spawning: Spawning | None = None
        self._count = 0
        self._early: list[tuple[int, bytes]] = []
        self._problem = ""
        self._set_up: asyncio.Future[tuple[int, Setup]] = asyncio.get_running_loop().create_future()
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def receive(self, sender: int, frame: memoryview) -> None:
        """Every frame comes in here; those that come before the owner's setup wait for it."""
        if self._node is not None:
            self._node.receive(sender, frame)
            return
        self._early.append((sender, bytes(frame)))
        if sender == 0 and not self._set_up.done():
            header, parts = decode(self._early[-1][1])
            head = decode_head(parts[0])
            if isinstance(head, Setup):
                self._set_up.set_result((header.job, head))

    def lost(self, error: BackendError) -> None:
        """Its links broke: the backend ends it, and the owner hears of it."""

    async def run(self) -> None:
        """Wait for the owner's setup, then host actors."""
        job, setup = await self._set_up
        self._count = setup.workers
        system = ActorSystem(
            setup.name, stop_timeout=setup.stop_timeout, dead_letters=setup.dead_letters, inline_asks=setup.inline_asks, inspect=False
        )
        await system.__aenter__()
        try:
            peers = [number for number in range(setup.workers + 1) if number != self._endpoint.worker]
            problem, allowed = "", None
            if setup.serialization == "msgspec":
                try:
                    allowed = AllowList([class_named(name) for name in setup.allow])
                except Exception as error:  # noqa: BLE001 - user modules, while they are imported; the owner is told
                    problem, allowed = describe(error), AllowList(())
            node = Node(system, self._endpoint, job=job, peers=peers, allowed=allowed, broken=self._break)
            self._problem = problem
            self._spawning = Spawning(node)
            node.further = {Setup: self._take_setup, StopAll: self._take_stop_all, Lost: self._take_lost, **self._spawning.further}
            system.remoting = self
            system.registry.tell_others = node.offers.tell
            self._node = node
            early, self._early = self._early, []
            for sender, kept in early:
                node.receive(sender, memoryview(kept))
            await self._broken
        finally:
            await asyncio.shield(system.aclose(drain=False))

    def _break(self, sender: int, error: FrameError) -> None:
        """What is missing cannot be made up for: this worker ends, and the owner hears of it."""
        if not self._broken.done():
            self._broken.set_exception(error)

    # -- what the owner says --

    def _take_setup(self, sender: int, head: Setup, payload: list[memoryview]) -> None:
        node = self._node
        assert node is not None
        try:
            defaults = None if self._problem else node.wire.decode(head.form, payload)
        except UndefinedClass:
            raise
        except Exception as error:  # noqa: BLE001 - user classes, while they are rebuilt; the owner is told
            defaults, self._problem = None, describe(error)
        if isinstance(defaults, Defaults):
            node.system.restart = defaults.restart
            node.system.mailbox = defaults.mailbox
            node.system.family.supervision = defaults.supervision
        node.send(0, Ready(self._problem))

    def _take_lost(self, sender: int, head: Lost, payload: list[memoryview]) -> None:
        node = self._node
        if node is None:
            return
        error = read_error(node.wire, head.form, payload, sender)
        if head.worker == self._endpoint.worker:
            self._break(sender, FrameError(f"the owner takes nothing from this worker any more: {error}"))
        else:
            node.lost(head.worker, error if isinstance(error, BackendError) else BackendError(str(error)))

    def _take_stop_all(self, sender: int, head: StopAll, payload: list[memoryview]) -> None:
        node = self._node
        if node is not None:
            node.system.start_soon(self._stop_all(node, head.drain), "end of all actors")

    async def _stop_all(self, node: Node, drain: bool) -> None:
        system = node.system
        ending = system.start_task(self._end_actors(node, drain), "end of all actors")
        while not ending.done():
            beat = system.loop.create_future()
            alarm = system.clock.call_later(BEAT, partial(release, beat))
            await asyncio.wait({ending, beat}, return_when=asyncio.FIRST_COMPLETED)
            alarm.cancel()
            node.send(0, Stopping())
        node.send(0, Stopped())

    async def _end_actors(self, node: Node, drain: bool) -> None:
        system = node.system
        if drain:
            await node.homes.delivered(system.stop_timeout)
        await system.family.stop_all(None, drain=drain)
        await node.close_standins(drain, system.stop_timeout)

    # -- what its own actors ask for --

    @property
    def workers(self) -> tuple[SystemWorker, ...]:
        """See `Remoting`; process ids are known to the owner alone."""
        links = {} if self._node is None else self._node.links
        return tuple(SystemWorker(w - 1, 0, "", w not in links or links[w].lost is None) for w in range(1, self._count + 1))

    async def start(self) -> None:
        """Never called: it runs already."""

    def spawn(
        self, cls: Callable[..., Any], args: tuple[object, ...], worker: int | Literal["least_loaded"], options: Mapping[str, object]
    ) -> Coroutine[Any, Any, ActorRef[Any]]:
        """See `Remoting`."""
        if isinstance(worker, int) and not 0 <= worker < self._count:
            raise ActorError(f"spawn: worker={worker}, but the workers of this actor system are 0 to {self._count - 1}")
        if self._spawning is None or not (isinstance(worker, int) or worker == "least_loaded"):
            raise ActorError(f"spawn: worker={worker!r} is neither a number nor 'least_loaded'")
        return self._spawning.spawn(cls, args, worker, options)

    async def stop_actors(self, drain: bool) -> None:
        """Those of other workers are the owner's."""

    async def aclose(self) -> None:
        """The backend ends this process."""
        if self._node is not None:
            await self._node.close_standins(False, 0.0)
            for worker in self._node.links:
                self._node.lost(worker, BackendError("the actor system has ended"))  # nobody waits for anything from there any more
            await self._node.aclose()
