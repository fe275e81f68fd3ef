"""A group of workers that are Ray actors: bringing them up, watching them, ending them."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final, cast

from sage_actor.actor.backend import PATIENCE, WorkerInfo, WorkerResources
from sage_actor.backends.ray_actor import RayActor
from sage_actor.backends.ray_api import Ray, Reference, shown_reason
from sage_actor.backends.ray_connection import RayConnection
from sage_actor.backends.ray_endpoint import RayEndpoint, calling_link
from sage_actor.backends.ray_worker import RaySetup, RayWorker, code_version
from sage_actor.errors import BackendError, BackendUnavailable

__all__ = ["RayGroup"]

_START: Final = 60.0  # seconds for a worker to import its entry; a new node, a cold disk and a big entry are slow
_GONE: Final = 2.0  # seconds for the processes of killed actors to end


class RayGroup:
    """The workers of one job as Ray actors. Implements `WorkerGroup`; holds the connection from the start to the end."""

    def __init__(self, backend: str, group: str, connection: RayConnection, ray: Ray) -> None:
        self._backend = backend
        self._group = group
        self._connection = connection
        self._ray = ray
        self._actors: list[RayActor] = []
        self.endpoint = RayEndpoint(0, ended=lambda worker, news: self._actors[worker - 1].tell_end(news))
        self._closing: asyncio.Future[None] | None = None
        self._endings: set[asyncio.Future[None]] = set()

    @property
    def workers(self) -> Sequence[WorkerInfo]:
        """The workers as they were started; lost ones stay listed."""
        return tuple(WorkerInfo(actor.worker, actor.pid, actor.host) for actor in self._actors)

    async def open(self, count: int, entry: str, resources: Sequence[WorkerResources]) -> None:
        """Start the workers, and return when the entry of each runs.

        Raises:
            BackendUnavailable: one does not come up, or the cluster lacks a resource.
        """
        wanted = list(resources) or [WorkerResources()] * count
        if len(wanted) != count:
            raise BackendUnavailable(
                self._backend, f"resources of {len(wanted)} workers were given for {count}", "give those of each worker"
            )
        _refuse_what_is_not_there(self._backend, wanted, await self._connection.call(self._ray.cluster_resources))
        actor_class = self._ray.remote(RayWorker)
        for worker, each in enumerate(wanted, 1):
            handle = await self._connection.call(partial(actor_class.options(**_options(each, count)).remote, self._group, worker))
            self._actors.append(RayActor(worker, handle, failed=self._failed, ended=self._ended))
        pairs = zip(self._actors, wanted, strict=True)
        answers = await self._ask_all([actor.handle.introduce.remote(self._setup(actor, entry, each.memory)) for actor, each in pairs])
        for actor, answer in zip(self._actors, answers, strict=True):
            word, *rest = cast("tuple[str, object]", answer)
            if word != "ready":
                raise BackendUnavailable(
                    self._backend, f"worker {actor.worker} of group {self._group!r} does not start; it said:\n{rest[0]}"
                )
            actor.introduced(*cast("tuple[int, int, str, str, str]", tuple(rest)))
            self.endpoint.open_link(actor.worker, calling_link(self.endpoint, actor.worker, actor.handle))
        handles = {actor.worker: actor.handle for actor in self._actors}
        await self._ask_all(
            [
                actor.handle.begin.remote({peer: handle for peer, handle in handles.items() if peer != actor.worker})
                for actor in self._actors
            ]
        )
        for actor in self._actors:
            actor.collect_into(self.endpoint)

    def _setup(self, actor: RayActor, entry: str, memory: int | None) -> RaySetup:
        return RaySetup(worker=actor.worker, version=code_version(), path=list(sys.path), entry=entry, memory=memory)

    async def _ask_all(self, references: Sequence[Reference]) -> list[object]:
        answers: list[object] = []
        try:
            async with asyncio.timeout(_START):
                for coming in [reference.future() for reference in references]:
                    answers.append(await asyncio.shield(asyncio.wrap_future(coming)))  # noqa: PERF401 - how many have answered is told below
        except TimeoutError:
            reason = f"worker {len(answers) + 1} of group {self._group!r} does not answer within {_START:.0f} s"
            raise BackendUnavailable(self._backend, reason, "is the cluster full? `ray status` shows what is free and what waits") from None
        except Exception as error:
            reason = f"worker {len(answers) + 1} of group {self._group!r} does not start: {type(error).__name__}: {shown_reason(error)}"
            raise BackendUnavailable(self._backend, reason, "sage-actor must be installed on every node of the cluster") from error
        return answers

    def _failed(self, error: BackendError) -> None:
        if self._closing is None:
            self.endpoint.losses.report(error)

    def _ended(self, actor: RayActor) -> None:
        if self._closing is not None:
            return
        if not (actor.left or actor.failed):
            self.endpoint.losses.report(actor.lost())
        # Its process outlives its entry: it is ours to end.
        ending = asyncio.ensure_future(self._kill([actor]))
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)

    async def aclose(self, patience: float = PATIENCE) -> None:
        """End every worker, kill what has not ended after `patience` seconds; see `WorkerGroup.aclose`.

        Cancelling it cancels only the wait: the group ends all the same, and another call waits for that.
        """
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close(patience))
        await asyncio.shield(self._closing)

    async def kill(self) -> None:
        """End every worker at once, without asking. Idempotent."""
        await self.aclose(0.0)

    async def _close(self, patience: float) -> None:
        self.endpoint.losses.close()
        try:
            if patience:
                for actor in self._actors:
                    actor.ask_to_end()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(patience):
                        for actor in self._actors:
                            await actor.ended.wait()
        finally:
            try:
                await asyncio.gather(*self._endings)
                await self._kill(self._actors)
            finally:
                for actor in self._actors:
                    actor.close()
                self.endpoint.abort()
                self._connection.release()

    async def _kill(self, actors: Sequence[RayActor]) -> None:
        """End their processes; returns when they are gone."""

        def kill() -> None:
            for actor in actors:
                with contextlib.suppress(Exception):  # it has ended, or Ray was shut down and its actors with it
                    self._ray.kill(actor.handle)

        async def wait_gone() -> None:
            for actor in actors:
                await actor.wait_gone()

        try:
            async with asyncio.timeout(_GONE):
                await self._connection.call(kill)
                await wait_gone()
        except TimeoutError:
            # Ray kills through an actor's node. Where that has ended, we still reach what runs on this machine.
            for actor in actors:
                actor.kill_here()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GONE):
                    await wait_gone()


def _options(resources: WorkerResources, count: int) -> dict[str, object]:
    """The options of one actor. Without a word about cores it takes none: a worker that mostly waits must not block a cluster."""
    options: dict[str, object] = {
        "num_cpus": resources.num_cpus or 0,
        "scheduling_strategy": "SPREAD",
        "max_concurrency": 1000 + 10 * count,  # calls of peers are short, but those of `collect` stay open
        "enable_task_events": False,
    }
    if resources.num_gpus:
        options["num_gpus"] = resources.num_gpus
    if resources.memory:
        options["memory"] = resources.memory
    if resources.custom:
        options["resources"] = dict(resources.custom)
    return options


def _refuse_what_is_not_there(backend: str, wanted: Sequence[WorkerResources], present: Mapping[str, float]) -> None:
    """
    Raises:
        BackendUnavailable: all nodes together have less of a resource than the workers ask for: no waiting would help.
    """
    sums: dict[str, float] = {}
    for each in wanted:
        named = {"CPU": each.num_cpus or 0, "GPU": each.num_gpus or 0, "memory": each.memory or 0, **each.custom}
        for name, amount in named.items():
            sums[name] = sums.get(name, 0) + amount
    for name, amount in sums.items():
        if amount > present.get(name, 0):
            raise BackendUnavailable(
                backend,
                f"{len(wanted)} workers ask for {amount:g} of {name!r} together, and the cluster has {present.get(name, 0):g}",
                "ask for less, or have the cluster grow before (`ray status` shows what it has)",
            )
