"""Dealing a task's output to the tasks that read it."""

from __future__ import annotations

import copy
import time
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sage_actor._core.batch import Batch, Marker
from sage_actor._core.stable_hash import split_by_key, stable_hash
from sage_actor.dataflow.graph import Partition
from sage_actor.errors import OperatorError, UnstableKey
from sage_actor.operators.stages import as_list, compute_keys, short
from sage_actor.runtime.channels import Channel

if TYPE_CHECKING:
    from sage_actor.dataflow.plan import OutputSpec
    from sage_actor.operators.setting import TaskSetting

__all__ = ["ENOUGH", "Router", "batch_copy", "copy_records", "cut"]

ENOUGH = 1024
"""Records gathered for one receiver before they are sent without waiting for the end of the turn."""


class Router:
    """One output of a task: splits batches over channels and gathers small ones until the turn ends.

    Order per channel is the order of `add`. `blocked_ns` counts the time spent waiting for credit, `counts` the records of each key
    group where somebody wants to know.
    """

    def __init__(self, output: OutputSpec, channels: list[Channel], setting: TaskSetting) -> None:
        partition: Partition = output.partition
        self.partition = partition
        self.channels = channels
        self.groups = output.groups
        self.table = None if output.table is None else array("H", output.table)
        self.consumer = output.consumer
        self.setting = setting
        counted = partition.kind == "hash" and len(channels) > 1 and setting.settings.balancing == "key_group"
        self.counts = array("Q", bytes(8 * output.groups)) if counted else None
        self.waiting: list[Batch | None] = [None] * len(channels)
        self.next = setting.index % len(channels)
        self.blocked_ns = 0
        # A channel never has more under way than its bound says: batches are gathered to at most half of it, and cut to it.
        self.most = setting.settings.buffer_records
        self.enough = min(ENOUGH, max(1, self.most // 2))
        self.kind: str = partition.kind
        if len(channels) == 1 and self.kind not in ("hash", "custom", "broadcast"):
            self.kind = "single"

    async def add(self, batch: Batch) -> None:
        """Take over a batch."""
        kind = self.kind
        if kind == "single":
            await self._give(0, batch)
        elif kind == "hash":
            batch.keys = self._keys(batch)
            if len(self.channels) == 1:
                await self._give(0, batch)
                return
            try:
                parts = split_by_key(batch, self.groups, len(self.channels), self.table, self.counts)
            except UnstableKey as error:
                raise self._error(error, batch, first_unstable(batch.keys)) from error
            for i, part in enumerate(parts):
                if part is not None:
                    await self._give(i, part)
        elif kind == "broadcast":
            for i in range(1, len(self.channels)):
                await self._give(i, batch_copy(batch, reuse=self.setting.settings.object_reuse, place=self.consumer))
            await self._give(0, batch)
        elif kind in ("rebalance", "forward"):
            await self._deal(batch)
        else:
            await self._scatter(batch)

    async def _deal(self, batch: Batch) -> None:
        """Contiguous equal parts, beginning with another receiver each time."""
        total, n = len(batch), len(self.channels)
        size = max(1, -(-total // n))
        for start in range(0, total, size):
            part = batch if size >= total else cut(batch, start, min(start + size, total))
            await self._give(self.next, part)
            self.next = (self.next + 1) % n

    async def _scatter(self, batch: Batch) -> None:
        n = len(self.channels)
        values = batch.values
        rows: list[list[int]] = [[] for _ in range(n)]
        if self.kind == "shuffle":
            choose = self.setting.random.randrange
            for i in range(len(values)):
                rows[choose(n)].append(i)
        else:
            function = self.partition.function
            assert function is not None
            keys = self._keys(batch)
            for i, key in enumerate(keys):
                try:
                    target = function(key, n)
                    if not 0 <= target < n:
                        raise ValueError(f"the partitioner answered {target!r} for key {key!r}; it must be 0 <= i < {n}")
                except Exception as error:
                    raise self._error(error, batch, i) from error
                rows[target].append(i)
        for target, row in enumerate(rows):
            if row:
                await self._give(target, pick(batch, row))

    def _keys(self, batch: Batch) -> list[Any]:
        assert self.partition.key is not None
        values = as_list(batch.values)
        keys = compute_keys(self.partition.key, values, lambda error, index: self._error(error, batch, index))
        return keys[:] if keys is values else keys  # the columns of a batch grow independently

    def _error(self, error: BaseException, batch: Batch, offset: int) -> OperatorError:
        name = f"{'key_by' if self.kind == 'hash' else 'partition_custom'} of {self.consumer}"
        position = None if batch.position < 0 else batch.position + offset
        text = f"{type(error).__name__}: {error}"
        return OperatorError(self.setting.job, name, text, None, position, short(batch.values[offset]), self.setting.index)

    async def _give(self, target: int, batch: Batch) -> None:
        waiting = self.waiting[target]
        if waiting is None:
            if len(batch) < self.enough:
                self.waiting[target] = batch
                return
        elif waiting.extend(batch):
            if len(waiting) < self.enough:
                return
            self.waiting[target] = None
            batch = waiting
        else:
            self.waiting[target] = None
            await self._send(target, waiting)
        await self._send(target, batch)

    async def _send(self, target: int, batch: Batch) -> None:
        channel = self.channels[target]
        if len(batch) > self.most:
            for start in range(0, len(batch), self.most):
                await self._send(target, cut(batch, start, start + self.most))
            return
        if not channel.offer(batch):
            begun = time.perf_counter_ns()
            await channel.put(batch)
            self.blocked_ns += time.perf_counter_ns() - begun

    async def flush(self) -> None:
        """Send what was gathered: the turn ends."""
        for target, batch in enumerate(self.waiting):
            if batch is not None:
                self.waiting[target] = None
                await self._send(target, batch)

    async def mark(self, marker: Marker) -> None:
        """Send a marker to every receiver, behind all records."""
        await self.flush()
        for channel in self.channels:
            channel.mark(marker)


def first_unstable(keys: Sequence[Any]) -> int:
    """Index of the first key that has no stable hash."""
    for index, key in enumerate(keys):
        try:
            stable_hash(key)
        except UnstableKey:
            return index
    return 0


def cut(batch: Batch, start: int, stop: int) -> Batch:
    """Rows start to stop of a batch."""
    return Batch(
        batch.values[start:stop],
        None if batch.keys is None else batch.keys[start:stop],
        None if batch.timestamps is None else batch.timestamps[start:stop],
        None if batch.tags is None else batch.tags[start:stop],
        -1 if batch.position < 0 else batch.position + start,
        None if batch.watermarks is None else batch.watermarks[start:stop],
    )


def pick(batch: Batch, rows: list[int]) -> Batch:
    """The given rows of a batch."""
    values, keys, timestamps, tags, watermarks = batch.values, batch.keys, batch.timestamps, batch.tags, batch.watermarks
    return Batch(
        [values[i] for i in rows],
        None if keys is None else [keys[i] for i in rows],
        None if timestamps is None else [timestamps[i] for i in rows],
        None if tags is None else [tags[i] for i in rows],
        watermarks=None if watermarks is None else [watermarks[i] for i in rows],
    )


ATOMIC = frozenset((int, float, complex, str, bytes, bool, type(None), range, type(Ellipsis)))


def copy_records(values: Any, place: str) -> Any:
    """Deep copies, so that one branch never sees another's mutation; immutable records are shared.

    Raises:
        TypeError: a record cannot be copied; names its type and the setting that shares instead.
    """
    if hasattr(values, "dtype"):
        return values.copy()
    return [value if value.__class__ in ATOMIC else copy_record(value, place) for value in values]


def copy_record(value: Any, place: str) -> Any:
    """One deep copy; flat tuples of atoms are returned as they are."""
    if value.__class__ is tuple and all(part.__class__ in ATOMIC for part in value):
        return value
    try:
        return copy.deepcopy(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(
            f"the stream branches into {place!r} and a record of type {type(value).__name__!r} cannot be copied for it ({error}); "
            "set 'object.reuse': True to share records between branches"
        ) from error


def batch_copy(batch: Batch, *, reuse: bool, place: str) -> Batch:
    """The batch for one more branch."""
    values = batch.values if reuse else copy_records(batch.values, place)
    if values is batch.values and values.__class__ is list:
        values = values[:]
    return Batch(
        values,
        None if batch.keys is None else list(batch.keys),
        None if batch.timestamps is None else list(batch.timestamps),
        None if batch.tags is None else list(batch.tags),
        batch.position,
        None if batch.watermarks is None else list(batch.watermarks),
    )
