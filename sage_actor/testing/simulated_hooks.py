"""Where the faults of a simulation reach into the runtime: its methods, wrapped for the time of a run."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any, Final

from sage_actor.checkpoint.part_names import checkpoint_of
from sage_actor.checkpoint.storage import AttemptStart, CheckpointStorage
from sage_actor.operators import sink_stage
from sage_actor.runtime import source_loop
from sage_actor.runtime.task_host import TaskHost
from sage_actor.runtime.task_snapshots import TaskSnapshots
from sage_actor.testing.simulated_process import PROCESS
from sage_actor.testing.simulated_source import SlowSource

if TYPE_CHECKING:
    from sage_actor.checkpoint.manifest import Manifest
    from sage_actor.dataflow.graph import Operator
    from sage_actor.dataflow.sink import Sink
    from sage_actor.operators.stages import Stage
    from sage_actor.state.operator_state import OperatorState
    from sage_actor.testing.simulated_site import Site

__all__ = ["hooked"]

_SAVED: Final = ("saved", "final")


@contextlib.contextmanager
def hooked(site: Site, *, slow_sources: bool = False) -> Generator[None, None, None]:
    """Inside, the kill-points and messages of every job pass through `site`.

    Args:
        site: of the run.
        slow_sources: sources give little at a time, with pauses, and do not end before the last planned kill.
    """
    replaced: list[tuple[object, str, Any]] = []

    def replace(owner: object, name: str, made: Callable[[Any], Any]) -> None:
        original = getattr(owner, name)
        replaced.append((owner, name, original))
        setattr(owner, name, made(original))

    replace(CheckpointStorage, "begin_attempt", lambda original: _begin_attempt(site, original))
    replace(CheckpointStorage, "complete", lambda original: _complete(site, original))
    replace(TaskHost, "__init__", lambda original: _make_host(site, original))
    replace(TaskHost, "order", lambda original: _order(site, original))
    replace(TaskSnapshots, "open_state", lambda original: _open_state(site, original))
    replace(sink_stage, "make_sink", lambda original: _make_sink(site, original))
    if slow_sources:
        replace(source_loop, "make_source", lambda original: _make_source(site, original))
    try:
        yield
    finally:
        for owner, name, original in reversed(replaced):
            setattr(owner, name, original)


def _begin_attempt(site: Site, original: Any) -> Any:
    async def begin_attempt(storage: CheckpointStorage, *, resume: bool, restore: str | None = None) -> AttemptStart:
        start: AttemptStart = await original(storage, resume=resume, restore=restore)
        site.took_over.append(PROCESS.get())
        site.counts["skipped"] += len(start.skipped)
        if start.manifest is not None:
            site.counts["restores"] += 1
        return start

    return begin_attempt


def _complete(site: Site, original: Any) -> Any:
    async def complete(storage: CheckpointStorage, manifest: Manifest) -> None:
        await site.pass_through("before manifest")
        await original(storage, manifest)
        site.counts["checkpoints"] += 1
        files = [ref for operator in manifest.operators.values() for part in operator.parts for ref in part.files]
        own = [ref for ref in files if checkpoint_of(ref.name.rpartition("/")[2]) == manifest.checkpoint]
        site.newest = [site.disk.logged, *(storage.path_of(ref.name) for ref in own)]
        await site.pass_through("after manifest, before notification")

    return complete


def _make_host(site: Site, original: Any) -> Any:
    def make(host: TaskHost, worker: int, job: Any, settings: Any, endpoint: Any, report: Any, snapshots: Any = None) -> None:
        def watched(kind: str, payload: Any) -> None:
            if kind not in _SAVED:
                report(kind, payload)
                return
            if site.passed("before acknowledgement") or (kind == "saved" and site.occurs("acknowledgement")):
                return
            report(kind, payload)
            site.passed("after acknowledgement")

        original(host, worker, job, settings, endpoint, watched, snapshots)
        site.hosts.append((host, PROCESS.get()))

    return make


def _order(site: Site, original: Any) -> Any:
    def order(host: TaskHost, kind: str, payload: Any, tasks: set[int] | None) -> None:
        fault = site.occurs("notification") if kind == "complete" else None
        if fault is None:
            original(host, kind, payload, tasks)
        elif fault.amount:
            site.loop.call_later(fault.amount, original, host, kind, payload, tasks)

    return order


def _open_state(site: Site, original: Any) -> Any:
    async def open_state(snapshots: TaskSnapshots, operator: Operator) -> OperatorState:
        state: OperatorState = await original(snapshots, operator)
        if snapshots.is_restored:
            await site.pass_through("during restore")
        return state

    return open_state


def _make_source(site: Site, original: Any) -> Any:
    def make_source(options: Mapping[str, Any]) -> SlowSource:
        return SlowSource(original(options), lambda: site.is_holding)

    return make_source


def _make_sink(site: Site, original: Any) -> Any:
    prepared: Counter[int] = Counter()  # of each checkpoint, how many sinks have something to commit
    committed: Counter[int] = Counter()

    def make_sink(operator: Operator, stage: Stage) -> Sink[Any]:
        sink: Any = original(operator, stage)
        kind: Any = sink.__class__
        prepare: Callable[[Any, int], Awaitable[Any]] = kind.prepare
        commit: Callable[[Any, int, object], Awaitable[None]] = kind.commit

        async def watched_prepare(checkpoint: int) -> object:
            await site.pass_through("before pre-commit")
            answer = await prepare(sink, checkpoint)
            prepared[checkpoint] += answer is not None
            return answer

        async def watched_commit(checkpoint: int, transaction: object) -> None:
            await site.pass_through("before commit")
            await commit(sink, checkpoint, transaction)
            committed[checkpoint] += 1
            await site.pass_through("after commit")
            if committed[checkpoint] < prepared[checkpoint]:
                await site.pass_through("between the commits of two sinks")

        sink.prepare = watched_prepare
        sink.commit = watched_commit
        return sink  # type: ignore[no-any-return]

    return make_sink
