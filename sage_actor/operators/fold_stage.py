"""Keyed aggregations: the loop over a batch runs in Cython, one table look-up per record."""

from __future__ import annotations

import copy
import pickle
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

from sage_actor._core.batch import Batch
from sage_actor._core.keyed import KeyedFold
from sage_actor._core.stable_hash import stable_hash
from sage_actor.dataflow.graph import Operator
from sage_actor.dataflow.policies import Retry
from sage_actor.errors import OperatorError, UnstableKey
from sage_actor.operators.stages import Emit, Stage, Turns, as_list, compute_keys
from sage_actor.state.spill import SpilledTable
from sage_actor.state.store import Entries

if TYPE_CHECKING:
    from sage_actor.operators.setting import TaskSetting

__all__ = ["FoldStage"]

IMMUTABLE = (int, float, complex, str, bytes, bool, frozenset, type(None))


class FoldStage(Stage):
    """count, sum, min, max, reduce, fold and aggregate over a keyed stream.

    The state is one table per task, keyed by the record's key; running results are one per record, final ones come at
    the end of input, in order of first appearance. A mutable accumulator is shallow-copied for each running result, so
    that a result already handed on never changes.
    """

    def __init__(self, operators: list[Operator], setting: TaskSetting) -> None:
        super().__init__(operators, setting)
        operator = operators[0]
        options = operator.options
        self.kind: Any = options["fold"]
        self.opened = False
        self.final = options["emit"] == "final"
        self.selector = options["selector"]
        self.key = operator.inputs[0].partition.key
        self.turns = Turns(setting.settings.batch_records, setting.flush)
        function = options["function"]
        if self.kind == "aggregate":
            self.aggregate = copy.deepcopy(function)
            self.table = KeyedFold("fold", self.aggregate.add, self.aggregate.create)
        elif self.kind in ("reduce", "fold"):
            self.table = KeyedFold(self.kind, function, options["initial"])
        else:
            self.table = KeyedFold(self.kind)
        self.failed_at = 0
        self.spilled: SpilledTable | None = None
        self.one_by_one = not self.final and (self.kind == "aggregate" or (self.kind == "fold" and is_mutable(options["initial"])))

    async def open(self) -> None:
        if self.setting.settings.state_backend != "memory":
            # More keys than memory holds: what was used lately is folded in C, the rest waits on disk.
            state = await self.setting.open_state(self.operators[0])
            self.spilled = SpilledTable(self.table, state.table("fold"))
        elif self.setting.checkpointing:
            state = await self.setting.open_state(self.operators[0])
            mutable = self.kind in ("reduce", "fold", "aggregate", "min", "max")
            state.attach("fold", CopiedFold(self.table) if mutable else self.table)
        if self.kind == "aggregate":
            self.opened = True
            await self._hook(lambda: self.aggregate.open(self.context(self.operators[0])))

    async def _hook(self, hook: Callable[[], Any]) -> None:
        try:
            result = hook()
            if result is not None:
                await result
        except Exception as error:
            raise self.faults.error(0, error, -1, None, known=False) from error

    async def process(self, batch: Batch, emit: Emit) -> None:
        values = as_list(batch.values)
        start, total = 0, len(values)
        while start < total:
            part = values if start == 0 and total <= self.turns.size else values[start : start + self.turns.size]
            begun = time.perf_counter()
            self.faults.begin(batch, start, len(part))
            keys = self._keys(part) if self.faults.keys is None else self.faults.keys
            if len(keys) > len(part):
                keys = keys[: len(part)]
            self.faults.keys = keys
            out: list[Any] | None = None if self.final else []
            counters = self.counters[0]
            if self.spilled is not None:
                await self._prefetch(keys)
            try:
                self._fold(keys, part, out)
            except OperatorError:
                counters.records_in += self.failed_at + 1
                if out:  # what came before the failure goes on
                    counters.records_out += len(out)
                    await emit(self._result(out, batch, start, self.failed_at))
                raise
            counters.records_in += len(part)
            self.turns.learn(len(part), time.perf_counter() - begun, self.setting.settings.batch_records)
            if out:
                counters.records_out += len(out)
                await emit(self._result(out, batch, start, len(part)))
            if self.faults.dropped:
                self.faults.dropped.clear()
                await self.faults.flush()
            start += len(part)
            await self.turns.breathe()

    async def _prefetch(self, keys: list[Any]) -> None:
        assert self.spilled is not None
        try:
            await self.spilled.prefetch(keys)
        except UnstableKey as error:
            index = next((at for at, key in enumerate(keys) if not is_stable(key)), 0)
            raise self._key_error(error, index, keys[index]) from error

    async def prepare(self, checkpoint: int) -> None:
        if self.spilled is not None:
            await self.spilled.save()

    def _result(self, out: list[Any], batch: Batch, start: int, taken: int) -> Batch:
        """One result for each record that was taken and not dropped: it has the record's place and time."""
        result = Batch(out)
        gone = set(self.faults.dropped)
        if batch.position >= 0 and not gone:
            result.position = batch.position + start
        for column in ("timestamps", "watermarks"):
            values = getattr(batch, column)
            if values is not None:
                values = values[start : start + taken]
                setattr(result, column, [value for at, value in enumerate(values) if at not in gone] if gone else values)
        return result

    def _keys(self, values: list[Any]) -> list[Any]:
        assert self.key is not None
        return compute_keys(self.key, values, lambda error, index: self._key_error(error, index, values[index]))

    def _key_error(self, error: Exception, index: int, value: Any) -> BaseException:
        self.counters[0].errors += 1
        return self.faults.error(0, error, index, value)

    def _select(self, values: list[Any]) -> list[Any]:
        selector = self.selector
        return values if selector is None else [selector(value) for value in values]

    def _fold(self, keys: list[Any], values: list[Any], out: list[Any] | None) -> None:
        if self.one_by_one:
            assert out is not None
            self._fold_one_by_one(keys, values, out)
            return
        table = self.table
        start = 0
        if self.selector is not None:
            try:
                values = self._select(values)
            except Exception:  # noqa: BLE001 - found again, with its record, one by one
                self._select_one_by_one(keys, values, out)
                return
        while True:
            try:
                table.run(keys, None if self.kind == "count" else values, start, out)
            except Exception as error:  # noqa: BLE001 - the user's function: its policy decides
                index = table.index
                self._refuse(error, index, values[index])
                start = index + 1
                continue
            return

    def _select_one_by_one(self, keys: list[Any], values: list[Any], out: list[Any] | None) -> None:
        for index, value in enumerate(values):
            try:
                chosen = self.selector(value)
                self.table.run([keys[index]], [chosen], 0, out)
            except Exception as error:  # noqa: BLE001 - the user's function: its policy decides
                self._refuse(error, index, value)

    def _fold_one_by_one(self, keys: list[Any], values: list[Any], out: list[Any]) -> None:
        table = self.table
        latest: list[Any] = []
        for index, value in enumerate(values):
            try:
                table.run([keys[index]], [value], 0, latest)
                key, accumulator = latest.pop()
                out.append((key, self.aggregate.result(accumulator) if self.kind == "aggregate" else copy.copy(accumulator)))
            except Exception as error:  # noqa: BLE001 - the user's function: its policy decides
                self._refuse(error, index, value)

    def _refuse(self, error: BaseException, index: int, value: Any) -> None:
        """Apply the policy; a fold cannot wait in the middle of a batch, so a retry counts as a failure without a pause."""
        self.failed_at = index
        policy = self.operators[0].on_error
        tries = policy.attempts if isinstance(policy, Retry) else 1
        self.faults.settle(0, error, index, value, tries)

    async def end(self, emit: Emit) -> None:
        if not self.final:
            return
        results = await self._results()
        if self.kind == "aggregate":
            try:
                results = [(key, self.aggregate.result(accumulator)) for key, accumulator in results]
            except Exception as error:
                self.counters[0].errors += 1
                raise self.faults.error(0, error, -1, None, known=False) from error
        self.counters[0].records_out += len(results)
        step = self.setting.settings.batch_records
        for start in range(0, len(results), step):
            await emit(Batch(results[start : start + step]))

    async def _results(self) -> list[Any]:
        """Final results in order of first appearance; in no order where they are on disk."""
        if self.spilled is None:
            return self.table.results()
        await self.spilled.save()
        pairs = list(self.spilled.table.items())
        return [accumulator for _, accumulator in pairs] if self.kind == "reduce" else pairs

    async def close(self) -> None:
        if self.opened:
            self.opened = False
            await self._hook(self.aggregate.close)


def is_stable(key: Any) -> bool:
    """Whether it may be a key."""
    try:
        stable_hash(key)
    except UnstableKey:
        return False
    return True


class CopiedFold:
    """A fold whose accumulators a user's function may change in place: what changes before it was saved is copied first."""

    def __init__(self, table: KeyedFold) -> None:
        self.table = table

    def freeze(self, *, full: bool) -> Iterator[Entries]:
        frozen = self.table.freeze(full)
        frozen.copy = copied
        return frozen

    def load(self, entries: Entries) -> None:
        self.table.load(entries)


def copied(accumulator: Any) -> Any:
    """A copy that nobody else can change; plain values stand for themselves."""
    if isinstance(accumulator, IMMUTABLE):
        return cast("object", accumulator)
    return pickle.loads(pickle.dumps(accumulator, protocol=5))


def is_mutable(initial: Any) -> bool:
    """Whether a fold's accumulator could change after it was emitted."""
    value: Any = initial()
    if value.__class__ is tuple:
        return not all(isinstance(part, IMMUTABLE) for part in value)
    return not isinstance(value, IMMUTABLE)
