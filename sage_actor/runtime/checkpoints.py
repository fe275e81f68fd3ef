"""The coordinator of checkpoints: begins them, counts what tasks have saved, writes the manifest, tells everybody (rules F1 to F10)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sage_actor.checkpoint.manifest import Manifest, OperatorManifest
from sage_actor.checkpoint.storage import CheckpointStorage
from sage_actor.dataflow.plan import Plan, TaskSpec
from sage_actor.dataflow.settings import JobSettings
from sage_actor.errors import CheckpointError, Fenced, SageError
from sage_actor.ports import Cancellable, Clock
from sage_actor.runtime.task_snapshots import state_uid
from sage_actor.state.parts import OperatorPart
from sage_actor.telemetry.checkpoint_counters import CheckpointCounters

__all__ = ["Checkpoints", "Completed"]

EVENTS = logging.getLogger("sage_actor.checkpoints")

REMEMBERED = 1000
"""Complete checkpoints that people can look at; a job may run for years."""

Order = Callable[[str, Any, "set[int] | None"], None]
"""Tells tasks something: see `Attempt.order`."""

Wanted = list[tuple["asyncio.Future[Manifest]", bool]]
"""Who waits for a checkpoint, and whether sources are to read nothing behind it."""


@dataclass(slots=True)
class Pending:
    """A checkpoint under way: who has still to hand in a part, and what has come."""

    number: int
    begun: float
    waiting: set[int]
    parts: dict[int, list[OperatorPart]] = field(default_factory=lambda: dict[int, list[OperatorPart]]())
    wanted_by: Wanted = field(default_factory=lambda: Wanted())

    @property
    def suspends(self) -> bool:
        """Whether somebody still wants the job to end behind it."""
        return any(suspend and not future.cancelled() for future, suspend in self.wanted_by)


@dataclass(frozen=True, slots=True)
class Completed:
    """A complete checkpoint, for people: its number, how long it took (seconds), and the bytes of state it refers to."""

    number: int
    seconds: float
    nbytes: int


class Checkpoints:
    """Belongs to one attempt. At most one checkpoint is under way; everything runs on the job's loop.

    Args:
        order: tells tasks what to do.
        fail: ends the attempt with an error: a checkpoint could not be taken, or somebody else has taken over.
        counters: of the job; go on over its attempts.
    """

    def __init__(
        self,
        plan: Plan,
        settings: JobSettings,
        storage: CheckpointStorage,
        *,
        job: str,
        attempt: int,
        first: int,
        clock: Clock,
        order: Order,
        fail: Callable[[BaseException], None],
        counters: CheckpointCounters | None = None,
    ) -> None:
        self.plan = plan
        self.settings = settings
        self.storage = storage
        self.job = job
        self.attempt = attempt
        self.next = first
        self.clock = clock
        self.order = order
        self.fail = fail
        self.counters = counters or CheckpointCounters()
        self.tasks = {task.id: task for task in plan.tasks}
        self.sources = {task.id for task in plan.tasks if task.operators[0].kind == "source"}
        self.finals: dict[int, list[OperatorPart]] = {}
        self.final_numbers: dict[int, int] = {}
        self.pending: Pending | None = None
        self.writing: asyncio.Task[None] | None = None
        self.wanted: Wanted = []
        self.committed: dict[int, int] = {}
        self.failures = 0
        self.begun_at = self.ended_at = clock.monotonic()
        self.timer: Cancellable | None = None
        self.deadline: Cancellable | None = None
        self.read_at: dict[int, int] = {}
        self.counted = 0
        self.completed: deque[Completed] = deque(maxlen=REMEMBERED)
        self.heard = asyncio.Event()
        self.suspended = False
        self.closed = False

    def start(self) -> None:
        """The tasks run: begin to count time."""
        self._schedule()

    def _schedule(self) -> None:
        interval = self.settings.checkpoint_interval
        if interval is None:
            periodic = self.settings.checkpointing not in (None, "on_demand") and not self.settings.checkpoint_every
            interval = 30.0 if periodic else None
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if interval is not None and not self.closed:
            now = self.clock.monotonic()
            due = max(self.begun_at + interval, self.ended_at + self.settings.checkpoint_min_pause)
            self.timer = self.clock.call_later(max(0.0, due - now), self.trigger)

    # -- beginning ---------------------------------------------------------------------------------------------------

    def trigger(self) -> None:
        """Begin a checkpoint, unless one is under way."""
        if self.closed or self.suspended or self.pending is not None:
            return
        live = self.sources - self.finals.keys()
        waiting = self.tasks.keys() - self.finals.keys()
        if waiting and not live:
            return  # the end of input is on its way through the tasks; the last of them begins the last checkpoint
        number = self.next
        self.next += 1
        self.begun_at = self.clock.monotonic()
        pending = self.pending = Pending(number, self.clock.monotonic(), set(waiting))
        pending.wanted_by, self.wanted = [(future, suspend) for future, suspend in self.wanted if not future.done()], []
        self.counted = sum(self.read_at.values())
        self.deadline = self.clock.call_later(self.settings.checkpoint_timeout, lambda: self._time_out(number))
        if waiting:
            self.order("checkpoint", (number, pending.suspends), live)
        else:
            self._all_in(pending)

    def request(self, *, suspend: bool = False) -> asyncio.Future[Manifest]:
        """A checkpoint as soon as one can begin; with `suspend`, sources read nothing behind it until `resume`. Gives its manifest when
        complete.

        Raises:
            CheckpointError: the attempt is over.
        """
        if self.closed:
            raise CheckpointError(self.job, "it is between two attempts and has nothing to save; try again when it runs")
        future: asyncio.Future[Manifest] = asyncio.get_running_loop().create_future()
        self.wanted.append((future, suspend))
        self.trigger()
        return future

    def resume(self, number: int) -> None:
        """After a checkpoint that has suspended the sources: the job goes on after all."""
        self.suspended = False
        if not self.closed:
            self.order("abort", number, None)
            self._go_on()

    async def commits(self, number: int) -> bool:
        """Wait until every task has heard that a checkpoint is complete and has committed it; False if the attempt ends first."""
        while not (done := all(self._has_committed(task, number) for task in self.tasks)) and not self.closed:
            self.heard.clear()
            await self.heard.wait()
        return done

    async def commits_within(self, number: int, seconds: float) -> None:
        """The same, but not for longer than that: a notification may be lost."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.commits(number)

    @property
    def all_ended(self) -> bool:
        """Whether the input of every task has ended."""
        return len(self.finals) == len(self.tasks)

    def _has_committed(self, task: int, number: int) -> bool:
        """One that has ended hears of no later checkpoint than the one that has its last state."""
        return self.committed.get(task, 0) >= min(number, self.final_numbers.get(task, number))

    # -- what tasks report -------------------------------------------------------------------------------------------

    def hear(self, kind: str, payload: Any) -> None:
        """A report of a task; see `Task`."""
        if self.closed:
            return
        if kind == "read":
            self._count(*payload)
        elif kind == "saved":
            self._take(*payload)
        elif kind == "final":
            number, task, parts = payload
            self.finals[task] = parts
            self.final_numbers[task] = number
            if self.pending is not None and number <= self.pending.number:
                self._take(self.pending.number, task, parts)  # it has ended before the barrier: its last state stands in for this one
            if self.pending is None and len(self.finals) == len(self.tasks):
                self.trigger()
        elif kind == "unsaved":
            number, task, error = payload
            if self.pending is not None and (self.pending.number == number or task in self.pending.waiting):
                self._give_up(self.pending, self._explain(self.tasks[task], error))
        elif kind == "committed":
            number, task = payload
            self.committed[task] = max(number, self.committed.get(task, 0))
            self.heard.set()

    def _count(self, task: int, records: int) -> None:
        self.read_at[task] = records
        every = self.settings.checkpoint_every
        is_due = every and sum(self.read_at.values()) - self.counted >= every
        if is_due and self.clock.monotonic() - self.ended_at >= self.settings.checkpoint_min_pause:
            self.trigger()

    def _take(self, number: int, task: int, parts: list[OperatorPart]) -> None:
        pending = self.pending
        if pending is None or number != pending.number or task not in pending.waiting:
            return
        pending.waiting.discard(task)
        pending.parts[task] = parts
        if not pending.waiting:
            self._all_in(pending)

    # -- ending ------------------------------------------------------------------------------------------------------

    def _all_in(self, pending: Pending) -> None:
        self.writing = asyncio.get_running_loop().create_task(self._complete(pending), name=f"checkpoint {self.job} {pending.number}")
        self.writing.add_done_callback(self._written)

    def _written(self, writing: asyncio.Task[None]) -> None:
        if not writing.cancelled() and (error := writing.exception()) is not None:
            self.fail(error)  # of a kind that nobody knows; whether the checkpoint counts, the next attempt will see

    async def _complete(self, pending: Pending) -> None:
        manifest = self._manifest(pending)
        try:
            await self.storage.complete(manifest)
        except Fenced as error:
            self.fail(error)
            return
        except (SageError, OSError) as error:
            self._give_up(pending, error)
            return
        done = Completed(pending.number, self.clock.monotonic() - pending.begun, manifest.size)
        self.counters.complete(done.number, seconds=done.seconds, nbytes=done.nbytes, now_ms=self.clock.now_ms())
        if self.closed:
            return  # nobody waits for it any more, but the next attempt begins with it
        self._settle(pending)
        self.failures = 0
        self.completed.append(done)
        EVENTS.info(
            "checkpoint complete", extra={"job": self.job, "checkpoint": done.number, "seconds": done.seconds, "bytes": done.nbytes}
        )
        self.order("complete", pending.number, None)
        self.suspended = pending.suspends
        for future, _ in pending.wanted_by:
            if not future.done():
                future.set_result(manifest)
        if not self.suspended and any(suspend for _, suspend in pending.wanted_by):
            self.order("abort", pending.number, None)  # the sources are suspended for somebody who does not want it any more
        try:
            await self.storage.collect(self.settings.checkpoint_retained)
        except (SageError, OSError) as error:
            EVENTS.warning("old checkpoints could not be removed: %s", error, extra={"job": self.job})
        self._go_on()

    def _go_on(self) -> None:
        """After one has ended: the next is due at once if somebody waits for it, else later."""
        if self.closed:
            return
        done = self.completed[-1].number if self.completed else 0
        if self.wanted or (len(self.finals) == len(self.tasks) and max(self.final_numbers.values()) > done):
            self.trigger()
        else:
            self._schedule()

    def _manifest(self, pending: Pending) -> Manifest:
        operators: dict[str, OperatorManifest] = {}
        parts = {**self.finals, **pending.parts}
        for chain in self.plan.chains:
            tasks = [task for task in self.plan.tasks if task.chain == chain.id]
            # One that has ended since, behind its barrier, has in this checkpoint still everything before it.
            finished = [task.index for task in tasks if self.final_numbers.get(task.id, pending.number + 1) <= pending.number]
            for operator in chain.operators:
                uid = state_uid(operator)
                saved = [part for task in tasks for part in parts[task.id] if part.uid == uid]
                operators[uid] = OperatorManifest(
                    name=operator.name,
                    kind=operator.kind,
                    parallelism=chain.parallelism,
                    groups=tasks[0].groups,
                    parts=saved,
                    finished=finished,
                    table=tasks[0].table,
                )
        return Manifest(
            job=self.job,
            checkpoint=pending.number,
            attempt=self.attempt,
            time_ms=self.clock.now_ms(),
            mode="at_least_once" if self.settings.snapshot_mode == "at_least_once" else "exactly_once",
            operators=operators,
        )

    def _time_out(self, number: int) -> None:
        pending = self.pending
        if pending is not None and pending.number == number and pending.waiting:
            names = [self.tasks[task].name for task in sorted(pending.waiting)]
            shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            problem = f"checkpoint {number} was not complete after {self.settings.checkpoint_timeout:g} s; it still waited for {shown}"
            self._give_up(pending, CheckpointError(self.job, problem))

    def _explain(self, task: TaskSpec, error: BaseException) -> BaseException:
        wrapped = CheckpointError(self.job, f"task {task.name!r} could not save its state: {error}")
        wrapped.__cause__ = error
        return wrapped

    def _give_up(self, pending: Pending, error: BaseException) -> None:
        """Discard every part (F9). What tasks have written is collected with the next complete checkpoint."""
        if self.pending is not pending:
            return
        self._settle(pending)
        if self.settings.checkpointing != "on_demand" or not pending.wanted_by:  # else whoever has asked for it hears it, and that is all
            self.failures += 1
        self.counters.fail()
        EVENTS.warning("checkpoint %d given up: %s", pending.number, error, extra={"job": self.job})
        self.order("abort", pending.number, None)
        for future, _ in pending.wanted_by:
            if not future.done():
                future.set_exception(error)
                future.exception()
        if self.failures > self.settings.checkpoint_tolerated:
            self.fail(error)
        else:
            self._go_on()

    def _settle(self, pending: Pending) -> None:
        self.pending = None
        self.ended_at = self.clock.monotonic()
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None

    async def close(self) -> None:
        """The attempt is over. A manifest being written is waited for: whether it counts must be known."""
        self.closed = True
        self.heard.set()
        for timer in (self.timer, self.deadline):
            if timer is not None:
                timer.cancel()
        if self.writing is not None and not self.writing.done():
            await asyncio.wait((self.writing,))
        pending = self.pending
        for future, _ in [*self.wanted, *([] if pending is None else pending.wanted_by)]:
            if not future.done():
                future.set_exception(CheckpointError(self.job, "the attempt ended before the checkpoint was complete"))
                future.exception()
