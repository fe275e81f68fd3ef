"""The state of one task: opened, restored, frozen at barriers, and written behind the running pipeline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sage_actor.checkpoint.storage import part_prefix
from sage_actor.dataflow.graph import Operator
from sage_actor.dataflow.key_table import KeyTable
from sage_actor.dataflow.plan import TaskSpec
from sage_actor.dataflow.settings import JobSettings
from sage_actor.errors import CheckpointError, SageError
from sage_actor.ports import Clock
from sage_actor.state.operator_state import OperatorState
from sage_actor.state.parts import OperatorPart, PartStorage

if TYPE_CHECKING:
    from sage_actor.state.operator_state import FrozenState

__all__ = ["Report", "Restored", "SnapshotSetting", "TaskSnapshots", "state_uid"]


@dataclass(frozen=True, slots=True)
class Restored:
    """What a checkpoint holds of one operator: the parts of all its former tasks, and which of them had finished."""

    parts: Sequence[OperatorPart]
    finished: frozenset[int]
    parallelism: int
    table: KeyTable | None = None

    def is_divided_as(self, spec: TaskSpec) -> bool:
        """Whether its tasks are those of a plan, with the same key groups."""
        return self.parallelism == spec.parallelism and self.table == spec.table

    @property
    def all_finished(self) -> bool:
        """Whether the input of every task had ended."""
        return len(self.finished) == self.parallelism


@dataclass(frozen=True, slots=True)
class SnapshotSetting:
    """How the tasks of one attempt on one worker keep state.

    Attributes:
        mode: "exactly_once", "at_least_once", or "": state is kept but never saved.
        attempt: its number.
        checkpoint: the one that `restored` comes from.
        parts: the folder of the storage for what this attempt saves.
        storage: where parts are written to and read from; None without checkpoints.
        restored: by uid, what to begin with.
        folder: scratch space of this worker, for stores on disk.
        url: by which another process opens the same storage.
    """

    mode: str = ""
    attempt: int = 1
    storage: PartStorage | None = None
    restored: Mapping[str, Restored] = field(default_factory=lambda: dict[str, Restored]())
    checkpoint: int | None = None
    parts: str = ""
    folder: str | None = None
    url: str | None = None

    def shipped(self) -> SnapshotSetting:
        """What travels to a worker, which opens the storage by its `url`."""
        return replace(self, storage=None, folder=None)


Report = Callable[[str, Any], None]


class TaskSnapshots:
    """All operator states of one task.

    `freeze` is called between two batches and costs in proportion to what has changed; `save` then writes in the
    background, and reports ("saved", (checkpoint, task, parts)) or ("unsaved", (checkpoint, task, error)).
    """

    def __init__(self, job: str, spec: TaskSpec, settings: JobSettings, setting: SnapshotSetting, clock: Clock, report: Report) -> None:
        self.job = job
        self.spec = spec
        self.settings = settings
        self.setting = setting
        self.clock = clock
        self.report = report
        self.states: dict[str, OperatorState] = {}
        self.saving: asyncio.Task[None] | None = None
        self.all_saving: set[asyncio.Task[None]] = set()
        self.latest = setting.checkpoint or 0
        self.restored_bytes = 0

    @property
    def finished_before(self) -> bool:
        """Whether this task had finished already when the checkpoint that it starts from was taken."""
        restored = self.setting.restored.get(state_uid(self.spec.operators[-1]))
        if restored is None:
            return False
        if restored.is_divided_as(self.spec):
            return self.spec.index in restored.finished
        return restored.all_finished

    @property
    def is_restored(self) -> bool:
        """Whether the attempt started from a checkpoint."""
        return bool(self.setting.restored)

    def knows(self, operator: Operator) -> bool:
        """Whether that checkpoint has the operator; one that was added since begins at its beginning."""
        return state_uid(operator) in self.setting.restored

    async def open_state(self, operator: Operator) -> OperatorState:
        """The state of one operator, restored if there is something to restore."""
        uid = state_uid(operator)
        known = self.states.get(uid)
        if known is not None:
            return known
        setting, spec = self.setting, self.spec
        restored = setting.restored.get(uid)
        state = await OperatorState.restore(
            self._parts(restored) if restored is not None else (),
            setting.storage,
            uid=uid,
            index=spec.index,
            parallelism=spec.parallelism,
            groups=spec.groups,
            own=spec.key_groups,
            # what sources and sinks keep is a list or two
            backend="memory" if operator.kind in ("source", "sink") else self.settings.state_backend,
            folder=None if setting.folder is None else f"{setting.folder}/{spec.id}-{operator.id}",
            clock=self.clock,
            operator=operator.name,
            job=self.job,
        )
        self.states[uid] = state
        if restored is not None:
            own = [part for part in restored.parts if part.first <= state.last and part.last >= state.first]
            self.restored_bytes += sum(file.size for part in own for file in part.files)
        return state

    def check_claimed(self) -> None:
        """All stages are open: what was saved and is wanted by nobody must not get lost unnoticed.

        Raises:
            StateMismatch: there is some, and the settings do not allow it.
        """
        for state in self.states.values():
            state.check_claimed(allow_unmatched=self.settings.allow_unmatched)

    def _parts(self, restored: Restored) -> list[OperatorPart]:
        """What a finished task left behind has been handed on; in another division of the keys it must not come up again."""
        if restored.is_divided_as(self.spec) or restored.all_finished:
            return list(restored.parts)
        if self.spec.operators[0].kind == "source" or self.spec.operators[-1].kind == "sink":
            return list(restored.parts)
        return [part for part in restored.parts if part.index not in restored.finished]

    def freeze(self, checkpoint: int) -> list[tuple[OperatorState, FrozenState]]:
        """The content of every state as of now."""
        self.latest = checkpoint
        saving = self.saving
        if saving is not None and not saving.done():
            saving.cancel()  # its checkpoint has been given up; the states notice, and give everything this time
        return [(state, state.freeze(checkpoint)) for state in self.states.values()]

    def save(self, checkpoint: int, frozen: list[tuple[OperatorState, FrozenState]], kind: str = "saved") -> None:
        """Write what was frozen, in the background."""
        before = self.saving
        self.saving = asyncio.get_running_loop().create_task(
            self._save(checkpoint, frozen, kind, before), name=f"save {self.spec.name} {checkpoint}"
        )
        self.all_saving.add(self.saving)
        self.saving.add_done_callback(self._saving_ended)

    def _saving_ended(self, saving: asyncio.Task[None]) -> None:
        self.all_saving.discard(saving)
        if not saving.cancelled() and (error := saving.exception()) is not None:
            self._fail("its state", error)  # an error of a kind that nobody knows

    def _fail(self, what: str, error: BaseException) -> None:
        failure = CheckpointError(self.job, f"task {self.spec.name!r} could not save {what}: {type(error).__name__}: {error}")
        failure.__cause__ = error
        self.report("failed", (self.spec.id, failure))

    async def _save(
        self, checkpoint: int, frozen: list[tuple[OperatorState, FrozenState]], kind: str, before: asyncio.Task[None] | None
    ) -> None:
        if before is not None and not before.done():
            await asyncio.wait((before,))
        storage = self.setting.storage
        assert storage is not None
        parts: list[OperatorPart] = []
        try:
            for state, content in frozen:
                prefix = part_prefix(self.setting.parts, checkpoint, state.uid, self.spec.index)
                parts.append(await state.write(content, storage, prefix))
        except (SageError, OSError) as error:
            if kind == "final":  # no other will follow it
                self._fail("its last state", error)
            else:
                self.report("unsaved", (checkpoint, self.spec.id, error))
            return
        self.report(kind, (checkpoint, self.spec.id, parts))

    async def settle(self) -> None:
        """Wait until what was frozen last has been written, or could not be."""
        if self.all_saving:
            await asyncio.wait(list(self.all_saving))

    async def close(self) -> None:
        """Stop writing, and let the states go."""
        # One that was cancelled may still hold a file, and the one behind it waits for it.
        saving = list(self.all_saving)
        for task in saving:
            task.cancel()
        if saving:
            await asyncio.wait(saving)
        for state in self.states.values():
            await state.close()


def state_uid(operator: Operator) -> str:
    """What saved state of an operator is found by: its uid, else its name."""
    return operator.uid or operator.name
