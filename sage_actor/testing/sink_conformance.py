"""What a sink must hold to that says it is exactly once. Ours pass it; run it on yours.

    @pytest.mark.asyncio
    @pytest.mark.parametrize("rule", EXACTLY_ONCE_RULES, ids=rule_name)
    async def test_my_sink(rule, tmp_path):
        await rule(ExactlyOnceCase(make=lambda: MySink(tmp_path), clear=..., batches=[["a"], ["b", "c"]], read_back=...))

A rule plays a job that takes checkpoints: it writes, prepares, completes and commits, is killed at any point of that, and goes on
from its last complete checkpoint. To be killed means here that the instance is dropped as it is, without `Sink.close`, and that a
new one gets what the checkpoint holds; the dropped ones are closed at the very end, when nothing of them may matter any more.

A rule raises `AssertionError` that says what was expected and what came.
"""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from sage_actor.dataflow.context import FunctionContext
from sage_actor.dataflow.sink import Sink, SinkRecovery
from sage_actor.errors import SageError

__all__ = ["EXACTLY_ONCE_RULES", "ExactlyOnceCase"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ExactlyOnceCase(Generic[T]):
    """A sink under test.

    Attributes:
        make: gives a new sink, not opened, always with the same target.
        clear: empties the target, and what the sink keeps beside it. May block.
        batches: what to write; at least three, not empty, all records distinct.
        read_back: the records in the target that a reader sees, in the form in which ``batches`` has them. May block.
        leftovers: what the sink keeps beside what a reader sees; nothing of it may be left when a job has ended. May block.
        ordered: whether ``read_back`` gives the records of a task in the order in which they were written.
        turns: a job is killed after 0 to this many turns of the loop during a call.
    """

    make: Callable[[], Sink[T]]
    clear: Callable[[], object]
    batches: Sequence[Sequence[T]]
    read_back: Callable[[], Sequence[T]]
    leftovers: Callable[[], Sequence[object]] = tuple
    ordered: bool = True
    turns: int = 3


@dataclass(frozen=True, slots=True)
class _Schedule:
    """When checkpoints complete and commits are heard of: one in ``complete`` and ``commit``; the last one always."""

    complete: int = 1
    commit: int = 1


_SCHEDULES: Final = (_Schedule(), _Schedule(complete=2), _Schedule(commit=2))


class _Killed(Exception):
    pass


@dataclass(slots=True)
class _Saved(Generic[T]):
    checkpoint: int | None
    written: int
    pending: bytes  # pickled, as a checkpoint would have it

    def stored(self) -> list[tuple[int, object]]:
        pairs: list[tuple[int, object]] = pickle.loads(self.pending)
        return pairs


class _Job(Generic[T]):
    """One task that writes the batches, a checkpoint after each; counts its steps and is killed at some of them."""

    def __init__(self, case: ExactlyOnceCase[T], schedule: _Schedule, kills: Iterable[int] = (), turns: int | None = None) -> None:
        self.case = case
        self.schedule = schedule
        self.kills = frozenset(kills)
        self.turns = turns
        self.step = 0
        self.attempt = 0
        self.checkpoint = 0
        self.saved: _Saved[T] = _Saved(None, 0, pickle.dumps([]))
        self.dropped: list[Sink[T]] = []
        self.what = f"{schedule}, killed at steps {sorted(self.kills)}" + ("" if turns is None else f", {turns} turns into the call")

    async def run(self) -> None:
        """Go on until everything is committed."""
        try:
            while True:
                try:
                    await self.attempt_once()
                    break
                except _Killed:
                    self.check("killed", at_most=True)
        finally:
            for sink in self.dropped:
                with suppress(SageError):  # one that was replaced may be told so
                    await sink.close()
        self.check("ended")
        left = list(self.case.leftovers())
        if left:
            raise AssertionError(f"{self.what}: the job has ended and left {left!r}")

    async def attempt_once(self) -> None:
        case, schedule = self.case, self.schedule
        self.attempt += 1
        sink = case.make()
        self.dropped.append(sink)
        context = _context()
        await self.call(sink.open(context))
        stored = self.saved.stored()
        await self.call(sink.recover(stored, SinkRecovery(context, self.attempt, self.saved.checkpoint)))
        self.check("recovered")
        written, pending = self.saved.written, list[tuple[int, object]]()
        while written < len(case.batches) or pending:
            if written < len(case.batches):
                await self.call(sink.write(list(case.batches[written])))
                written += 1
            last = written == len(case.batches)
            self.checkpoint += 1
            prepared = await self.call(sink.prepare(self.checkpoint))
            if prepared is not None:
                pending.append((self.checkpoint, prepared))
            self.check("prepared", at_most=True)
            if last or not self.checkpoint % schedule.complete:
                await self.call(_nothing())  # the manifest is being written
                self.saved = _Saved(self.checkpoint, written, pickle.dumps(pending))
                self.check("complete", at_most=True)
                if last or not self.checkpoint % schedule.commit:
                    for number, transaction in pending:
                        await self.call(sink.commit(number, transaction))
                    pending.clear()
                    self.check("committed")
        self.dropped.pop()
        await sink.close()

    async def call(self, action: Awaitable[R]) -> R:
        """Do it, unless the job is killed now: before it, or, with turns, during it."""
        self.step += 1
        if self.step not in self.kills:
            return await action
        task = asyncio.ensure_future(action)
        for _ in range(self.turns or 0):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,))
        if not task.cancelled():
            task.exception()
        raise _Killed

    def check(self, when: str, *, at_most: bool = False) -> None:
        """What is visible is what belongs to the last complete checkpoint, or (at_most) a part of that."""
        case = self.case
        got = list(case.read_back())
        expected = [record for batch in case.batches[: self.saved.written] for record in batch]
        where = f"{self.what}: {when}, attempt {self.attempt}, checkpoint {self.saved.checkpoint}"
        if not case.ordered:
            got, expected = sorted(got, key=repr), sorted(expected, key=repr)
        if at_most and case.ordered and got == expected[: len(got)]:
            return
        if at_most and not case.ordered and set(map(repr, got)) <= set(map(repr, expected)) and len(set(map(repr, got))) == len(got):
            return
        if got != expected:
            raise AssertionError(f"{where}: {got!r} is visible, expected {expected!r}")


R = TypeVar("R")


async def _nothing() -> None:
    await asyncio.sleep(0)


def _context(index: int = 0, count: int = 1) -> FunctionContext:
    return FunctionContext(job="conformance", operator_name="sink", subtask_index=index, parallelism=count)


async def _steps(case: ExactlyOnceCase[T], schedule: _Schedule) -> int:
    case.clear()
    job = _Job(case, schedule)
    await job.run()
    return job.step


async def shows_a_checkpoint_when_it_is_complete(case: ExactlyOnceCase[T]) -> None:
    """Nothing is visible before its checkpoint is complete, everything after the commit, also where several are committed at once."""
    for schedule in _SCHEDULES:
        await _steps(case, schedule)


async def survives_a_kill_between_any_two_calls(case: ExactlyOnceCase[T]) -> None:
    """Killed once, before any of the calls."""
    for schedule in _SCHEDULES:
        for step in range(1, await _steps(case, schedule) + 1):
            case.clear()
            await _Job(case, schedule, [step]).run()


async def survives_a_kill_during_any_call(case: ExactlyOnceCase[T]) -> None:
    """Killed once, some turns of the loop into any of the calls."""
    steps = await _steps(case, _SCHEDULES[0])
    for turns in range(1, case.turns + 1):
        for step in range(1, steps + 1):
            case.clear()
            await _Job(case, _SCHEDULES[0], [step], turns).run()


async def survives_kill_after_kill(case: ExactlyOnceCase[T]) -> None:
    """Killed again and again, also while it recovers."""
    for schedule in _SCHEDULES:
        for distance in (7, 8, 9, 11):
            case.clear()
            await _Job(case, schedule, [*range(distance, 20 * distance, distance), distance + 1, 2 * distance + 2]).run()


async def commits_once_however_often_asked(case: ExactlyOnceCase[T]) -> None:
    """The same checkpoint restored three times over commits its records once."""
    case.clear()
    sinks: list[Sink[T]] = []
    sink = await _recovered(case, sinks, 1, None, [])
    await sink.write(list(case.batches[0]))
    prepared = await sink.prepare(1)
    await sink.commit(1, pickle.loads(pickle.dumps(prepared)))
    await sink.commit(1, prepared)
    for attempt in (2, 3, 4):
        await _recovered(case, sinks, attempt, 1, [(1, pickle.loads(pickle.dumps(prepared)))])
    got = list(case.read_back())
    for sink in sinks:
        with suppress(SageError):
            await sink.close()
    if sorted(map(repr, got)) != sorted(map(repr, case.batches[0])):
        raise AssertionError(f"committed again and again, {got!r} is visible, expected {list(case.batches[0])!r}")


async def _recovered(
    case: ExactlyOnceCase[T], sinks: list[Sink[T]], attempt: int, checkpoint: int | None, stored: Sequence[tuple[int, object]]
) -> Sink[T]:
    sink = case.make()
    sinks.append(sink)
    await sink.open(_context())
    await sink.recover(stored, SinkRecovery(_context(), attempt, checkpoint))
    return sink


async def is_not_disturbed_by_the_dead(case: ExactlyOnceCase[T]) -> None:
    """An instance that was replaced and goes on writing, preparing, committing what is complete, and closes, changes nothing."""
    case.clear()
    first, second, third = case.batches[:3]
    sinks: list[Sink[T]] = []
    zombie = await _recovered(case, sinks, 1, None, [])
    await zombie.write(list(first))
    stored = (1, await zombie.prepare(1))
    await zombie.write(list(third))  # begun, and of no checkpoint
    sink = await _recovered(case, sinks, 2, 1, [stored])
    await sink.write(list(second))
    actions: list[Callable[[], Awaitable[object]]] = [
        lambda: zombie.commit(*stored),
        lambda: zombie.write(list(third)),
        lambda: zombie.prepare(2),
        lambda: zombie.write(list(second)),
        zombie.close,
    ]
    for action in actions:
        with suppress(SageError, OSError):
            await action()
    prepared = await sink.prepare(2)
    await sink.commit(2, prepared)
    await sink.close()
    got = sorted(map(repr, case.read_back()))
    expected = sorted(map(repr, [*first, *second]))
    if got != expected:
        raise AssertionError(f"with a dead one that still writes, {got} is visible, expected {expected}")


async def goes_on_with_fewer_or_more_tasks(case: ExactlyOnceCase[T]) -> None:
    """What tasks had prepared is committed by those that follow them, and what they had begun is given up by them."""
    for counts in ((2, 1, 3), (3, 1, 2), (2, 2, 2), (1, 3, 1)):
        case.clear()
        records = [record for batch in case.batches for record in batch]
        left, expected = list(records), list[T]()
        stored: list[tuple[int, object]] = []
        sinks: list[Sink[T]] = []
        for attempt, count in enumerate((*counts, 1), 1):
            tasks: list[Sink[T]] = []
            for index in range(count):
                sink = await _recovered_task(case, stored, attempt, index, count)
                tasks.append(sink)
                # Before the next task recovers: it must not take this for something that was left behind.
                if left and attempt <= len(counts):
                    expected.append(left[0])
                    await sink.write([left.pop(0)])
            stored = [(attempt, transaction) for sink in tasks if (transaction := await sink.prepare(attempt)) is not None]
            for sink in tasks if attempt <= len(counts) else ():
                await sink.write(records[:1])  # begun, then killed
            sinks.extend(tasks)
        for sink in sinks:
            with suppress(SageError):
                await sink.close()
        got = list(case.read_back())
        if sorted(map(repr, got)) != sorted(map(repr, expected)):
            raise AssertionError(f"{counts} tasks one after the other: {got!r} is visible, expected {expected!r}")
        if case.leftovers():
            raise AssertionError(f"{counts} tasks one after the other left {list(case.leftovers())!r}")


async def _recovered_task(case: ExactlyOnceCase[T], stored: Sequence[tuple[int, object]], attempt: int, index: int, count: int) -> Sink[T]:
    sink, context = case.make(), _context(index, count)
    await sink.open(context)
    pairs: list[tuple[int, object]] = pickle.loads(pickle.dumps(stored))
    own = [pair for at, pair in enumerate(pairs) if at % count == index]
    others = [pair for at, pair in enumerate(pairs) if at % count != index]
    await sink.recover(own, SinkRecovery(context, attempt, attempt - 1 or None, others))
    return sink


async def shows_all_at_the_end_without_checkpoints(case: ExactlyOnceCase[T]) -> None:
    """Without checkpoints everything is visible after `flush`; and nothing of a job that failed before."""
    for fails in (True, False):
        case.clear()
        sink = case.make()
        await sink.close()
        await sink.open(_context())
        for batch in case.batches:
            await sink.write(list(batch))
        if not fails:
            await sink.flush()
        await sink.close()
        await sink.close()
        got = sorted(map(repr, case.read_back()))
        expected = [] if fails else sorted(repr(record) for batch in case.batches for record in batch)
        if got != expected:
            raise AssertionError(f"without checkpoints, {'failed' if fails else 'ended'}: {got} is visible, expected {expected}")
        if case.leftovers():
            raise AssertionError(f"without checkpoints it left {list(case.leftovers())!r}")


EXACTLY_ONCE_RULES: Final[Sequence[Callable[[ExactlyOnceCase[object]], Awaitable[None]]]] = (
    shows_a_checkpoint_when_it_is_complete,
    survives_a_kill_between_any_two_calls,
    survives_a_kill_during_any_call,
    survives_kill_after_kill,
    commits_once_however_often_asked,
    is_not_disturbed_by_the_dead,
    goes_on_with_fewer_or_more_tasks,
    shows_all_at_the_end_without_checkpoints,
)
