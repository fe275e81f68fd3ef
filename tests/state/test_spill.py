"""Folds that spill: the results are those of a plain dict, however few accumulators may stay in memory."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_actor._core.keyed import KeyedFold
from sage_actor.errors import ConfigError
from sage_actor.state.memory_table import MemoryTable
from sage_actor.state.spill import SpilledTable

BATCHES = st.lists(
    st.one_of(
        st.lists(st.tuples(st.one_of(st.integers(0, 30), st.sampled_from(["a", 1.0, True])), st.integers()), max_size=12), st.just("save")
    ),
    max_size=25,
)


def append(accumulator: list[int], value: int) -> list[int]:
    accumulator.append(value)
    return accumulator


def frozen_content(table: MemoryTable, frozen: Any) -> dict[Any, Any]:
    return {key: list(value) if isinstance(value, list) else value for part in frozen for key, value in part}


@pytest.mark.parametrize("kind", ["sum", "fold"])
@settings(max_examples=80, deadline=None)
@given(batches=BATCHES, most=st.integers(1, 40))
def test_a_fold_that_spills_is_a_fold(kind: Any, batches: list[Any], most: int) -> None:
    async def run() -> None:
        fold = KeyedFold("sum") if kind == "sum" else KeyedFold("fold", append, list)
        table = MemoryTable()
        spilled = SpilledTable(fold, table, most=most)
        model: dict[Any, Any] = {}
        frozen: Any = None
        expected: Any = None
        largest = 0
        for batch in [*batches, "save"]:
            if batch == "save":
                await spilled.save()
                assert dict(table.items()) == model
                if frozen is not None:
                    assert frozen_content(table, frozen) == expected
                frozen = table.freeze(full=True)
                expected = {key: list(value) if isinstance(value, list) else value for key, value in model.items()}
                continue
            keys, values = [key for key, _ in batch], [value for _, value in batch]
            await spilled.prefetch(keys)
            fold.run(keys, values, 0, None)
            for key, value in batch:
                model[key] = model.get(key, 0) + value if kind == "sum" else [*model.get(key, []), value]
            largest = max(largest, len(set(keys)))
            assert len(spilled) <= most + largest
            assert len(fold) == len(spilled)

    asyncio.run(run())


@pytest.mark.asyncio
async def test_more_than_one_slice_is_saved_whole() -> None:
    fold, table = KeyedFold("count"), MemoryTable()
    spilled = SpilledTable(fold, table, most=5000)
    keys = [*range(4321), *range(1000)]
    await spilled.prefetch(keys)
    fold.run(keys, None, 0, None)
    await spilled.save()
    assert dict(table.items()) == {key: 2 if key < 1000 else 1 for key in range(4321)}


@pytest.mark.asyncio
async def test_what_was_used_lately_stays() -> None:
    fold = KeyedFold("count")
    spilled = SpilledTable(fold, MemoryTable(), most=10)
    for number in range(100):
        keys = ["hot", number]
        await spilled.prefetch(keys)
        fold.run(keys, None, 0, None)
        assert "hot" in dict(fold.items())
    assert dict(fold.items())["hot"] == 100


@pytest.mark.asyncio
async def test_a_cancelled_prefetch_loses_nothing() -> None:
    fold, table = KeyedFold("count"), MemoryTable()
    spilled = SpilledTable(fold, table, most=1000)
    for turn in range(10):
        keys = list(range(turn * 500, turn * 500 + 800))
        moving = asyncio.ensure_future(spilled.prefetch(keys))
        for _ in range(turn % 4):
            await asyncio.sleep(0)
        moving.cancel()
        await asyncio.wait((moving,))
        await spilled.prefetch(keys)
        fold.run(keys, None, 0, None)
    await spilled.save()
    expected: dict[int, int] = {}
    for turn in range(10):
        for key in range(turn * 500, turn * 500 + 800):
            expected[key] = expected.get(key, 0) + 1
    assert dict(table.items()) == expected


def test_a_bound_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        SpilledTable(KeyedFold("count"), MemoryTable(), most=0)
