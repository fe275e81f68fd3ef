"""Spawning on workers: both ends, and the choice of the one with the least to do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

from sage_actor.actor.instance import factory_name
from sage_actor.actor.lifecycle import describe
from sage_actor.errors import ActorError, BackendUnavailable, SageError, SerializationError
from sage_actor.remote.classes import UndefinedClass
from sage_actor.remote.frames import Cancel, Load, Spawn, Stop
from sage_actor.remote.requests import Question, release

if TYPE_CHECKING:
    from sage_actor._core.actor_ref import ActorRef
    from sage_actor.remote.node import Node
    from sage_actor.remote.standin import Standin

__all__ = ["Spawning"]

PATIENCE: Final = 0.5
"""Seconds that a worker has to say how much there is to do; one that does not counts as the busiest."""


class Spawning:
    """What one process does for it."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.further: dict[type, Callable[[int, Any, list[memoryview]], None]] = {Spawn: self._take_spawn, Load: self._take_load}

    # -- who asks for it --

    async def spawn(
        self, cls: Callable[..., Any], args: tuple[object, ...], worker: int | Literal["least_loaded"], options: Mapping[str, object]
    ) -> ActorRef[Any]:
        """Spawn on a worker, given by its number or chosen."""
        node = self._node
        target = await self._least_loaded() if worker == "least_loaded" else worker + 1
        if target == node.worker:
            spawn_here: Any = node.system.spawn_under
            made: ActorRef[Any] = await spawn_here(None, cls, args, **options)
            return made
        lost = node.links[target].lost
        if lost is not None:
            raise lost
        form, payload = node.wire.encode((cls, args, dict(options)), f"spawn of {factory_name(cls)!r}")
        ref: ActorRef[Any] = await self._ask(target, lambda number: Spawn(number, form), payload, self._stop_late)
        return ref

    def _stop_late(self, ref: ActorRef[Any]) -> None:
        """The spawn was cancelled, and the actor lives."""
        standin: Standin = ref.cell.lifecycle
        self._node.send(standin.worker, Stop(standin.number, False, self._node.system.stop_timeout, False))

    async def _ask(
        self, worker: int, head: Callable[[int], Spawn | Load], payload: Any = (), late: Callable[[Any], None] | None = None
    ) -> Any:
        node = self._node
        question = Question(worker, node.loop.create_future(), late)
        number = node.requests.add(question)
        node.send(worker, head(number), payload)
        try:
            return await question.answer
        except asyncio.CancelledError:
            answer = question.answer
            if answer.cancelled():
                node.send(worker, Cancel(number))
            elif answer.exception() is None and late is not None:  # it has come in this very turn
                late(answer.result())
            raise

    async def _least_loaded(self) -> int:
        node = self._node
        living = [worker for worker, link in node.links.items() if link.lost is None and worker != 0]
        candidates = [*living, node.worker] if node.worker != 0 else living
        if not candidates:
            raise BackendUnavailable("the actor system's", "all its workers are lost", "leave it, and start another")
        asking = {node.loop.create_task(self._ask(worker, Load)): worker for worker in living}
        over = node.loop.create_future()
        alarm = node.system.clock.call_later(PATIENCE, partial(release, over))
        loads: dict[int, tuple[int, int]] = {} if node.worker == 0 else {node.worker: self._load()}
        try:
            waiting: set[asyncio.Future[Any]] = {*asking}
            while waiting and not over.done():
                done, waiting = await asyncio.wait({*waiting, over}, return_when=asyncio.FIRST_COMPLETED)
                waiting.discard(over)
                for task in done - {over}:
                    if not task.cancelled() and task.exception() is None:
                        queued, actors = task.result()
                        loads[asking[task]] = (queued, actors)  # type: ignore[index]
        finally:
            alarm.cancel()
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        candidates = [worker for worker in candidates if worker == node.worker or node.links[worker].lost is None]
        if not candidates:
            raise BackendUnavailable("the actor system's", "all its workers are lost", "leave it, and start another")
        return min(candidates, key=lambda worker: (worker not in loads, loads.get(worker, (0, 0)), worker))

    def _load(self) -> tuple[int, int]:
        """What waits or is in hand here, and how many actors live."""
        everyone = self._node.system.everyone()
        return sum(lifecycle.cell.queued + lifecycle.cell.in_hand for lifecycle in everyone), len(everyone)

    # -- who does it --

    def _take_load(self, sender: int, head: Load, payload: list[memoryview]) -> None:
        self._node.answer(sender, head.request, list(self._load()), None)

    def _take_spawn(self, sender: int, head: Spawn, payload: list[memoryview]) -> None:
        node = self._node
        try:
            cls, args, options = node.wire.decode(head.form, payload)
        except UndefinedClass:
            raise
        except Exception as error:  # noqa: BLE001 - user classes, while they are rebuilt
            node.answer(sender, head.request, None, self._unreadable(error))
            return
        task = node.system.start_task(self._spawn(sender, head.request, cls, tuple(args), options), f"spawn for worker {sender}")
        key = (sender, head.request)
        node.homes.serving[key] = task
        task.add_done_callback(partial(self._served, key))

    def _served(self, key: tuple[int, int], task: asyncio.Task[None]) -> None:
        self._node.homes.serving.pop(key, None)
        if task.cancelled():
            self._node.answer(*key, None, ActorError("the spawn was cancelled"))

    async def _spawn(self, sender: int, request: int, cls: Any, args: tuple[object, ...], options: dict[str, Any]) -> None:
        node = self._node
        try:
            ref = await node.system.spawn_under(None, cls, args, **options)
        except Exception as error:  # noqa: BLE001 - constructors and on_start are user code; whoever spawns is told
            node.answer(sender, request, None, error)
        else:
            node.answer(sender, request, ref, None)

    def _unreadable(self, error: Exception) -> SageError:
        if isinstance(error, SerializationError):
            return error
        return ActorError(
            f"worker {self._node.worker - 1} cannot load the actor ({describe(error)}); its module must be importable by every worker "
            "(sys.path, PYTHONPATH), or the class defined in the main script"
        )
