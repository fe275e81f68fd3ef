"""Named places in the life of a checkpoint, and the end of the process, by SIGKILL, where one of them is passed.

Nothing in the product knows of this: `arm` wraps its classes from outside, in a process whose environment asks for it
(``SAGE_KILL9``, a JSON object, see `Order`).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, cast

__all__ = ["POINTS", "Order", "arm"]

F = TypeVar("F", bound=Callable[..., Any])

POINTS: Final = {
    "before the state is synced": "a part is written, not synced, and has no name",
    "after the state is synced": "a part is durable; nobody knows of it",
    "before the acknowledgement": "all parts of a task are durable; the coordinator does not know",
    "after the acknowledgement": "the report is on its way",
    "before pre-commit": "the barrier has reached a sink",
    "after pre-commit": "a sink has promised, nothing is saved of it",
    "before the manifest": "everybody has acknowledged",
    "before the manifest's name": "the manifest is written and synced, under a hidden name",
    "after the manifest": "the checkpoint is complete, nobody has been told",
    "before a commit": "a sink has been told and has done nothing",
    "within a commit": "some files of a transaction are visible, others not",
    "after a commit": "a sink has committed and said so to nobody",
    "between two sinks' commits": "one sink has committed a checkpoint and others have not",
    "while old checkpoints are removed": "a file of theirs is gone, others not",
    "after taking over": "an attempt is in the log and has done nothing",
    "while state is restored": "some operators of a task have their state again",
    "before a sink recovers": "it will commit what was prepared, and abort the rest",
    "after a sink has recovered": "what was prepared is committed; no record has been read",
}
"""Every kill-point, and what is true there."""


@dataclass(slots=True)
class Order:
    """What ``SAGE_KILL9`` says.

    Attributes:
        point: one of `POINTS`, or "" for none.
        passage: at which passage of this process, from 1.
        victim: "self": the process that passes; "job": all of it, the owner first; "stop": nobody, but the process that passes sleeps
            (SIGSTOP) until it is woken.
        marker: a file that is created at the kill, so that there is only one even if workers are started anew.
        full: while this file exists, whatever checkpoints write is refused for want of room.
    """

    point: str = ""
    passage: int = 1
    victim: str = "job"
    marker: str = ""
    full: str = ""
    passed: int = 0

    def reach(self, point: str) -> None:
        """The process is at this place; perhaps it does not come any further."""
        if not point or point != self.point:
            return
        self.passed += 1
        if self.passed < self.passage:
            return
        try:
            os.close(os.open(self.marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return
        if self.victim == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
            return
        if self.victim == "job" and _is_worker():
            with suppress(ProcessLookupError):
                os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


def _is_worker() -> bool:
    return any(argument.endswith("worker_boot.py") for argument in sys.orig_argv)


def _around(cls: type, name: str, wrap: Callable[[Any], Any]) -> None:
    setattr(cls, name, wrap(getattr(cls, name)))


def arm() -> None:
    """Wrap the product's classes as the environment orders."""
    order = Order(**json.loads(os.environ["SAGE_KILL9"]))
    assert order.point in POINTS or not order.point, order.point
    _arm_disk(order)
    _arm_manifest(order)
    _arm_tasks(order)
    _arm_sinks(order)


def _arm_disk(order: Order) -> None:
    from sage_actor.checkpoint import local_disk

    def finish(original: Callable[[Any, list[bytes]], None]) -> Callable[[Any, list[bytes]], None]:
        def wrapped(new: Any, content: list[bytes]) -> None:
            is_state = "/parts/" in new._path
            if is_state:
                order.reach("before the state is synced")
            if order.full and Path(order.full).exists():
                raise OSError(28, "No space left on device", new._path)
            original(new, content)
            if is_state:
                order.reach("after the state is synced")

        return wrapped

    def link(original: Callable[..., None]) -> Callable[..., None]:
        def wrapped(source: str, target: str, *, durable: bool) -> None:
            order.reach("before the state is synced" if durable else "")
            original(source, target, durable=durable)
            order.reach("after the state is synced" if durable else "")

        return wrapped

    def remove(original: Callable[..., Any]) -> Callable[..., Any]:
        async def wrapped(disk: Any, path: str) -> None:
            await original(disk, path)
            order.reach("while old checkpoints are removed")

        return wrapped

    _around(cast("Any", local_disk)._NewFile, "finish", finish)
    _around(local_disk.LocalDisk, "remove", remove)
    module = cast("Any", local_disk)
    module._link = link(module._link)


def _arm_manifest(order: Order) -> None:
    from sage_actor.checkpoint import local_disk
    from sage_actor.checkpoint.storage import CheckpointStorage

    completing: list[object] = []

    def complete(original: Callable[..., Any]) -> Callable[..., Any]:
        async def wrapped(storage: Any, manifest: Any) -> None:
            order.reach("before the manifest")
            completing.append(manifest)
            try:
                await original(storage, manifest)
            finally:
                completing.pop()
            order.reach("after the manifest")

        return wrapped

    def name(original: Callable[[str, str], None]) -> Callable[[str, str], None]:
        def wrapped(temporary: str, path: str) -> None:
            if completing and "/log/" in path:
                order.reach("before the manifest's name")
            original(temporary, path)

        return wrapped

    def begin(original: Callable[..., Any]) -> Callable[..., Any]:
        async def wrapped(*arguments: Any, **keywords: Any) -> Any:
            start = await original(*arguments, **keywords)
            order.reach("after taking over")
            return start

        return wrapped

    _around(CheckpointStorage, "complete", complete)
    _around(CheckpointStorage, "begin_attempt", begin)
    module = cast("Any", local_disk)
    module._name = name(module._name)


def _arm_tasks(order: Order) -> None:
    from sage_actor.runtime.task_snapshots import TaskSnapshots
    from sage_actor.state.operator_state import OperatorState

    def init(original: Callable[..., None]) -> Callable[..., None]:
        def wrapped(snapshots: Any, *arguments: Any, **keywords: Any) -> None:
            original(snapshots, *arguments, **keywords)
            report = snapshots.report

            def reported(kind: str, payload: Any) -> None:
                if kind in ("saved", "final"):
                    order.reach("before the acknowledgement")
                report(kind, payload)
                if kind in ("saved", "final"):
                    # What was sent may leave in this turn of the loop, or stay behind.
                    asyncio.get_running_loop().call_soon(order.reach, "after the acknowledgement")

            snapshots.report = reported

        return wrapped

    restore = OperatorState.restore

    async def restored(parts: Any, *arguments: Any, **keywords: Any) -> Any:
        state = await restore(parts, *arguments, **keywords)
        if parts:
            order.reach("while state is restored")
        return state

    _around(TaskSnapshots, "__init__", init)
    cast("Any", OperatorState).restore = restored


def _arm_sinks(order: Order) -> None:
    from sage_actor.dataflow.two_phase_commit import TwoPhaseCommitSink
    from sage_actor.operators.sink_stage import SinkStage

    committed: set[int] = set()

    def completed(original: Callable[..., Any]) -> Callable[..., Any]:
        async def wrapped(stage: Any, checkpoint: int) -> None:
            waiting = any(number <= checkpoint for number, _ in stage.pending)
            if waiting:
                order.reach("before a commit")
            await original(stage, checkpoint)
            if waiting:
                order.reach("after a commit")
                if checkpoint not in committed:
                    committed.add(checkpoint)
                    order.reach("between two sinks' commits")

        return wrapped

    def two(before: str, after: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
            async def wrapped(*arguments: Any, **keywords: Any) -> Any:
                order.reach(before)
                answer = await original(*arguments, **keywords)
                order.reach(after)
                return answer

            return wrapped

        return wrap

    rename = os.rename

    def renamed(source: Any, target: Any, *arguments: Any, **keywords: Any) -> None:
        rename(source, target, *arguments, **keywords)
        if os.path.basename(str(source)).startswith(".") and str(target).endswith(".jsonl"):
            order.reach("within a commit")

    _around(SinkStage, "completed", completed)
    _around(TwoPhaseCommitSink, "prepare", two("before pre-commit", "after pre-commit"))
    _around(TwoPhaseCommitSink, "recover", two("before a sink recovers", "after a sink has recovered"))
    cast("Any", os).rename = renamed
