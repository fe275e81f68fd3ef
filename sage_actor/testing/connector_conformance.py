"""What a Source or a Sink must hold to. Ours pass it; run it on yours.

    @pytest.mark.asyncio
    @pytest.mark.parametrize("rule", SOURCE_RULES, ids=rule_name)
    async def test_my_source(rule):
        await rule(SourceCase(make=lambda: MySource("..."), expected=["a", "b", "c"]))

A rule raises `AssertionError` that says what was expected and what came. Rules make a source or sink of their own each
time, so ``make`` must give equal ones, and what they read must not change meanwhile.
"""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from sage_actor.dataflow.context import FunctionContext
from sage_actor.dataflow.sink import Sink
from sage_actor.dataflow.source import NotReady, Source
from sage_actor.errors import SageError

__all__ = ["SINK_RULES", "SOURCE_RULES", "SinkCase", "SourceCase", "rule_name"]

T = TypeVar("T")

_PATIENCE: Final = 30.0  # seconds after which a read that never answers fails the rule instead of hanging the suite


def _context(index: int = 0, count: int = 1) -> FunctionContext:
    return FunctionContext(job="conformance", operator_name="connector", subtask_index=index, parallelism=count)


@dataclass(frozen=True, slots=True)
class SourceCase(Generic[T]):
    """A bounded source under test.

    Attributes:
        make: gives a new source, not opened.
        expected: all its records at parallelism 1, in order.
        resumable: whether it has positions.
        splits: the numbers of tasks among which it must be able to divide its records.
        rescalable: whether what is left can go on at another number of tasks of these (`Source.splits` and `assign`).
        cancel_turns: a read is cancelled after 0 to this many turns of the loop.
    """

    make: Callable[[], Source[T]]
    expected: Sequence[T]
    resumable: bool = True
    splits: Sequence[int] = (1,)
    rescalable: bool = False
    cancel_turns: int = 8


@dataclass(frozen=True, slots=True)
class SinkCase(Generic[T]):
    """A sink under test.

    Attributes:
        make: gives a new sink, not opened, with an empty target.
        batches: what to write.
        read_back: all records in the target, in the form in which ``batches`` has them. May block.
    """

    make: Callable[[], Sink[T]]
    batches: Sequence[Sequence[T]]
    read_back: Callable[[], Sequence[T]]

    def records(self) -> list[T]:
        """All records of all batches."""
        return [record for batch in self.batches for record in batch]


def rule_name(rule: Callable[..., object]) -> str:
    """For the ids of parametrised tests."""
    return rule.__name__


def _same(got: Sequence[object], expected: Sequence[object], what: str) -> None:
    if list(got) == list(expected):
        return
    for index, (one, other) in enumerate(zip(got, expected, strict=False)):
        if one != other:
            raise AssertionError(f"{what}: record {index} is {one!r}, expected {other!r}")
    raise AssertionError(f"{what}: {len(got)} records came, expected {len(expected)}")


def _holds(condition: object, what: str) -> None:
    if not condition:
        raise AssertionError(what)


async def _open(case: SourceCase[T], position: object = None, index: int = 0, count: int = 1) -> Source[T]:
    source = case.make()
    await source.open(_context(index, count))
    if position is not None:
        await source.seek(position)
    return source


async def _rest(source: Source[T], limit: int = 7) -> list[T]:
    records: list[T] = []
    async with asyncio.timeout(_PATIENCE):
        while (batch := await source.read(limit)) is not None:
            _holds(1 <= len(batch) <= limit, f"read({limit}) returned {len(batch)} records")
            records.extend(batch)
    return records


async def reads_in_order(case: SourceCase[T]) -> None:
    """The records come in order, whatever the limit, and never more than it."""
    for limit in (1, 2, 7, 100_000):
        source = await _open(case)
        try:
            _same(await _rest(source, limit), case.expected, f"read({limit})")
        finally:
            await source.close()


async def reads_without_waiting(case: SourceCase[T]) -> None:
    """`read_nowait` and `read`, mixed, return the same records in the same order."""
    source = await _open(case)
    records: list[T] = []
    try:
        async with asyncio.timeout(_PATIENCE):
            while True:
                batch = source.read_nowait(3)
                if isinstance(batch, NotReady):
                    batch = await source.read(2)
                if batch is None:
                    break
                _holds(1 <= len(batch) <= 3, f"read_nowait(3) returned {len(batch)} records")
                records.extend(batch)
    finally:
        await source.close()
    _same(records, case.expected, "read_nowait")


async def ends_for_good(case: SourceCase[T]) -> None:
    """After the last record every read answers None, at once and again."""
    source = await _open(case)
    try:
        await _rest(source)
        for _ in range(3):
            _holds(await source.read(1) is None, "a read after the end returned something")
            _holds(isinstance(source.read_nowait(1), NotReady | None), "a read_nowait after the end returned records")
    finally:
        await source.close()


async def resumes_at_every_cut(case: SourceCase[T]) -> None:
    """A new source, moved to the position after record k, goes on with record k + 1, for every k."""
    if not case.resumable:
        return
    source = await _open(case)
    positions = [source.position()]
    try:
        async with asyncio.timeout(_PATIENCE):
            while await source.read(1) is not None:
                positions.append(source.position())
    finally:
        await source.close()
    _holds(len(positions) == len(case.expected) + 1, f"{len(positions) - 1} records came, expected {len(case.expected)}")
    for cut, position in enumerate(positions):
        resumed = await _open(case, position)
        try:
            _same(await _rest(resumed), case.expected[cut:], f"resumed after {cut} records")
        finally:
            await resumed.close()


async def resumes_again_and_again(case: SourceCase[T]) -> None:
    """Positions taken by a source that was itself resumed are as good; right after `seek` it is where it was moved to."""
    if not case.resumable:
        return
    records: list[T] = []
    position: object = None
    for steps in range(len(case.expected) + 1):
        source = await _open(case, position)
        try:
            if steps % 2:  # also: a source that is moved and never read
                position = source.position()
                continue
            batch = await source.read(3)
            records.extend(batch or ())
            position = source.position()
            if batch is None:
                break
        finally:
            await source.close()
    resumed = await _open(case, position)
    try:
        records.extend(await _rest(resumed))
    finally:
        await resumed.close()
    _same(records, case.expected, "read a few at a time, each by a new source")


async def position_is_of_what_was_returned(case: SourceCase[T]) -> None:
    """What was read ahead does not count: the position stays the same while nobody reads."""
    if not case.resumable or not case.expected:
        return
    source = await _open(case)
    try:
        first = await source.read(1)
        position = source.position()
        for _ in range(50):
            await asyncio.sleep(0)
        _holds(source.position() == position, "the position moved though nothing was read")
    finally:
        await source.close()
    resumed = await _open(case, position)
    try:
        _same([*(first or ()), *await _rest(resumed)], case.expected, "resumed after one record")
    finally:
        await resumed.close()


async def cancelled_read_loses_nothing(case: SourceCase[T]) -> None:
    """A read may be cancelled at any moment: what it would have returned comes with the next one."""
    for turns in range(case.cancel_turns):
        source = await _open(case)
        records: list[T] = []
        try:
            while True:
                reading = asyncio.ensure_future(source.read(2))
                for _ in range(turns):
                    await asyncio.sleep(0)
                reading.cancel()
                await asyncio.wait((reading,))
                if not reading.cancelled():
                    batch = reading.result()
                else:
                    async with asyncio.timeout(_PATIENCE):
                        batch = await source.read(2)
                if batch is None:
                    break
                records.extend(batch)
        finally:
            await source.close()
        _same(records, case.expected, f"reads cancelled after {turns} turns of the loop")


async def shares_cover_everything_once(case: SourceCase[T]) -> None:
    """The tasks of a parallel source together return each record exactly once, each task in order."""
    for count in case.splits:
        shares: list[list[T]] = []
        for index in range(count):
            source = await _open(case, index=index, count=count)
            try:
                shares.append(await _rest(source))
            finally:
                await source.close()
        merged = sorted(repr(record) for share in shares for record in share)
        _same(merged, sorted(map(repr, case.expected)), f"{count} tasks together")


async def _some(source: Source[T], most: int) -> list[T]:
    records: list[T] = []
    async with asyncio.timeout(_PATIENCE):
        while len(records) < most and (batch := await source.read(most - len(records))) is not None:
            records.extend(batch)
    return records


async def splits_go_on_in_order(case: SourceCase[T]) -> None:
    """One task, stopped after any record, saved and restored: the next one goes on with what follows, in the same order."""
    if not case.resumable:
        return
    for cut in range(len(case.expected) + 1):
        source = await _open(case)
        try:
            records = await _some(source, cut)
            splits = pickle.loads(pickle.dumps(list(source.splits())))
        finally:
            await source.close()
        resumed = await _open(case)
        try:
            await resumed.assign(splits)
            _same([*records, *await _rest(resumed)], case.expected, f"restored after {cut} records")
        finally:
            await resumed.close()


async def splits_are_of_what_was_returned(case: SourceCase[T]) -> None:
    """A barrier neither awaits nor cancels a read (rule F2a): splits taken while one waits are those before it."""
    if not case.resumable:
        return
    for cut in range(len(case.expected)):
        source = await _open(case)
        try:
            records = await _some(source, cut)
            reading = asyncio.ensure_future(source.read(2))
            for _ in range(cut % 4):
                await asyncio.sleep(0)
            if reading.done():
                records.extend(reading.result() or ())
            splits = list(source.splits())
            async with asyncio.timeout(_PATIENCE):
                await reading
        finally:
            await source.close()
        resumed = await _open(case)
        try:
            await resumed.assign(splits)
            _same([*records, *await _rest(resumed)], case.expected, f"restored after {cut} records, during a read")
        finally:
            await resumed.close()


async def splits_move_between_tasks(case: SourceCase[T]) -> None:
    """From any number of tasks to any other, again and again: each record is read by one of them, once."""
    if not (case.resumable and case.rescalable):
        return
    for first in case.splits:
        for second in case.splits:
            records: list[T] = []
            shares: list[list[object] | None] = [None] * first
            for turn, count in enumerate((first, second, first, 1)):
                if turn:
                    left = [split for share in shares for split in share or ()]
                    shares = [left[index * len(left) // count : (index + 1) * len(left) // count] for index in range(count)]
                for index in range(count):
                    source = await _open(case, index=index, count=count)
                    try:
                        share = shares[index]
                        if share is not None:
                            await source.assign(share)
                        records.extend(await _rest(source) if turn == 3 else await _some(source, index + 1))
                        shares[index] = pickle.loads(pickle.dumps(list(source.splits())))
                    finally:
                        await source.close()
            _same(sorted(map(repr, records)), sorted(map(repr, case.expected)), f"{first}, {second}, {first} and 1 tasks")


async def source_closes_at_any_time(case: SourceCase[T]) -> None:
    """`close` works without `open`, twice, after a part was read, and while a cancelled read is still under way."""
    source = case.make()
    await source.close()
    for turns in range(4):
        source = await _open(case)
        reading = asyncio.ensure_future(source.read(1))
        for _ in range(turns):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait((reading,))
        async with asyncio.timeout(_PATIENCE):
            await source.close()
            await source.close()


async def refuses_foreign_positions(case: SourceCase[T]) -> None:
    """A position of something else is refused with an error of ours, not misread."""
    if not case.resumable:
        return
    for position in ({"nonsense": 1}, "nonsense", -1, ["nonsense"]):
        source = case.make()
        await source.open(_context())
        try:
            await source.seek(position)
        except SageError:
            pass
        else:
            raise AssertionError(f"seek({position!r}) was accepted")
        finally:
            await source.close()


SOURCE_RULES: Final[Sequence[Callable[[SourceCase[object]], Awaitable[None]]]] = (
    reads_in_order,
    reads_without_waiting,
    ends_for_good,
    resumes_at_every_cut,
    resumes_again_and_again,
    position_is_of_what_was_returned,
    cancelled_read_loses_nothing,
    shares_cover_everything_once,
    splits_go_on_in_order,
    splits_are_of_what_was_returned,
    splits_move_between_tasks,
    source_closes_at_any_time,
    refuses_foreign_positions,
)


async def writes_in_order(case: SinkCase[T]) -> None:
    """After `flush` and `close` the target holds every record, in order."""
    sink = case.make()
    await sink.open(_context())
    try:
        for batch in case.batches:
            await sink.write(list(batch))
        await sink.flush()
    finally:
        await sink.close()
    _same(case.read_back(), case.records(), "written")


async def flush_makes_visible(case: SinkCase[T]) -> None:
    """After each `flush` everything written so far is in the target, though the sink is still open."""
    sink = case.make()
    await sink.open(_context())
    written: list[T] = []
    try:
        for batch in case.batches:
            await sink.write(list(batch))
            written.extend(batch)
            await sink.flush()
            _same(case.read_back(), written, "flushed")
    finally:
        await sink.close()
    _same(case.read_back(), written, "closed")


async def cancelled_write_is_whole_or_nothing(case: SinkCase[T]) -> None:
    """A cancelled write has taken all of its batch or none of it, and order holds for what follows.

    Consecutive batches of the case should differ, else the rule cannot tell them apart.
    """
    for turns in range(4):
        sink = case.make()
        await sink.open(_context())
        certain: list[bool] = []
        try:
            for batch in case.batches:
                writing = asyncio.ensure_future(sink.write(list(batch)))
                for _ in range(turns):
                    await asyncio.sleep(0)
                writing.cancel()
                await asyncio.wait((writing,))
                certain.append(not writing.cancelled())
                if certain[-1]:
                    writing.result()
            await sink.flush()
        finally:
            await sink.close()
        left = list(case.read_back())
        for batch, sure in zip(case.batches, certain, strict=True):
            if left[: len(batch)] == list(batch):
                left = left[len(batch) :]
            elif sure:
                raise AssertionError(f"{list(batch)!r} is not in the target though its write returned; there is: {left!r}")
        _same(left, [], f"writes cancelled after {turns} turns of the loop left parts of batches")


async def sink_closes_at_any_time(case: SinkCase[T]) -> None:
    """`close` works without `open`, twice, and without `flush`, and then nothing that was written is lost."""
    sink = case.make()
    await sink.close()
    sink = case.make()
    await sink.open(_context())
    for batch in case.batches:
        await sink.write(list(batch))
    async with asyncio.timeout(_PATIENCE):
        await sink.close()
        await sink.close()
    _same(case.read_back(), case.records(), "closed without flush")


async def accepts_empty_batches(case: SinkCase[T]) -> None:
    """An empty batch writes nothing and disturbs nothing."""
    sink = case.make()
    await sink.open(_context())
    try:
        await sink.write([])
        for batch in case.batches:
            await sink.write(list(batch))
            await sink.write([])
        await sink.flush()
    finally:
        await sink.close()
    _same(case.read_back(), case.records(), "written")


SINK_RULES: Final[Sequence[Callable[[SinkCase[object]], Awaitable[None]]]] = (
    writes_in_order,
    flush_makes_visible,
    cancelled_write_is_whole_or_nothing,
    sink_closes_at_any_time,
    accepts_empty_batches,
)
