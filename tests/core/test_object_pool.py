"""The object and buffer pools: accounts against a model, refusals, re-entry, threads."""

from __future__ import annotations

import pickle
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_actor._core.object_pool import BufferPool, ObjectPool, PoolStatistics


def assert_accounts_add_up(found: PoolStatistics) -> None:
    assert found.returned == found.reused + found.discarded + found.free


# ---------------------------------------------------------------------- objects


class Envelope:
    def __init__(self, size: int = 0) -> None:
        self.size = size


@settings(max_examples=200, deadline=None)
@given(
    steps=st.lists(st.one_of(st.just("take"), st.integers(0, 9), st.just("clear")), max_size=60),
    capacity=st.integers(1, 5),
    capacity_bytes=st.sampled_from([0, 12]),
)
def test_agrees_with_the_model(steps: list[str | int], capacity: int, capacity_bytes: int) -> None:
    pool = ObjectPool(Envelope, capacity=capacity, capacity_bytes=capacity_bytes, nbytes=lambda item: item.size)
    free: list[Envelope] = []
    taken: list[Envelope] = []
    created = reused = returned = discarded = 0
    for step in steps:
        if step == "take":
            item = pool.take()
            if free:
                assert item is free.pop()
                reused += 1
            else:
                created += 1
            taken.append(item)
        elif step == "clear":
            pool.clear()
            discarded += len(free)
            free.clear()
        elif taken:
            item = taken.pop(0)
            item.size = int(step)
            pool.give(item)
            returned += 1
            if len(free) < capacity and (not capacity_bytes or sum(other.size for other in free) + item.size <= capacity_bytes):
                free.append(item)
            else:
                discarded += 1
        found = pool.statistics()
        assert (found.created, found.reused, found.returned, found.discarded) == (created, reused, returned, discarded)
        assert found.free == len(pool) == len(free)
        assert found.free_bytes == sum(item.size for item in free)
        assert_accounts_add_up(found)


def test_reset_cleans_what_is_kept() -> None:
    pool = ObjectPool(list[int], reset=lambda item: item.clear(), capacity=1)
    first, second = pool.take(), pool.take()
    first.append(1)
    second.append(2)
    pool.give(first)
    pool.give(second)
    assert pool.take() is first
    assert first == []
    assert second == [2]


def test_an_object_whose_reset_fails_is_dropped() -> None:
    def reset(item: Envelope) -> None:
        raise LookupError("cannot clean")

    pool = ObjectPool(Envelope, reset=reset)
    with pytest.raises(LookupError, match="cannot clean"):
        pool.give(pool.take())
    found = pool.statistics()
    assert (found.free, found.discarded) == (0, 1)
    assert_accounts_add_up(found)


def test_giving_twice_in_a_row_is_refused() -> None:
    pool = ObjectPool(Envelope)
    item = pool.take()
    pool.give(item)
    with pytest.raises(ValueError, match="Envelope was given to its pool twice"):
        pool.give(item)
    assert pool.take() is item
    pool.give(item)
    assert pool.statistics().free == 1


def test_giving_from_within_reset_is_noticed() -> None:
    def reset(item: Envelope) -> None:
        if item.size == 0:
            item.size = 1
            pool.give(item)

    pool = ObjectPool(Envelope, reset=reset)
    with pytest.raises(ValueError, match="twice"):
        pool.give(Envelope())
    assert len(pool) == 1


@pytest.mark.parametrize(
    ("arguments", "name"), [({"capacity": 0}, "capacity"), ({"capacity_bytes": -1}, "capacity_bytes"), ({"capacity_bytes": 5}, "nbytes")]
)
def test_impossible_arguments_are_named(arguments: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        ObjectPool(list, **arguments)
    with pytest.raises(TypeError, match="create"):
        ObjectPool(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    negative = ObjectPool(list[int], nbytes=lambda item: -1)
    with pytest.raises(ValueError, match="nbytes"):
        negative.give([])


def hammer(work: Callable[[random.Random], None]) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    start = threading.Barrier(4)

    def run(seed: int) -> None:
        start.wait(10)
        work(random.Random(seed))

    try:
        with ThreadPoolExecutor(4) as pool:
            for outcome in [pool.submit(run, seed) for seed in range(4)]:
                outcome.result(60)
    finally:
        sys.setswitchinterval(interval)


def test_threads_never_share_an_object() -> None:
    pool = ObjectPool(list[int], reset=lambda item: item.clear(), capacity=3, nbytes=lambda item: 8, capacity_bytes=24)

    def work(chance: random.Random) -> None:
        for _ in range(10_000):
            item = pool.take()
            assert item == []
            item.append(1)
            assert item == [1]
            pool.give(item)

    hammer(work)
    found = pool.statistics()
    assert found.free <= 3
    assert found.free_bytes == 8 * found.free
    assert found.created + found.reused == found.returned == 40_000
    assert_accounts_add_up(found)


# ---------------------------------------------------------------------- buffers


@given(st.integers(0, 1 << 20))
@settings(max_examples=60, deadline=None)
def test_buffers_come_in_powers_of_two(nbytes: int) -> None:
    buffer = BufferPool().take(nbytes)
    assert len(buffer) >= max(nbytes, 64)
    assert len(buffer) & (len(buffer) - 1) == 0
    assert len(buffer) == 64 or len(buffer) < 2 * nbytes


def test_buffers_are_reused_within_the_bound() -> None:
    pool = BufferPool(capacity_bytes=4096)
    small, large, huge = pool.take(1000), pool.take(2000), pool.take(5000)
    for buffer in (small, large, huge):
        pool.give(buffer)
    found = pool.statistics()
    assert (found.free, found.free_bytes, found.discarded) == (2, 1024 + 2048, 1)
    assert pool.take(600) is small
    assert pool.take(1025) is large
    pool.give(large)
    pool.clear()
    assert pool.statistics().free_bytes == 0
    assert_accounts_add_up(pool.statistics())


def test_a_buffer_somebody_still_views_is_not_reused() -> None:
    pool = BufferPool()
    buffer = pool.take(64)
    view = memoryview(buffer)
    pool.give(buffer)
    assert pool.take(64) is not buffer
    view.release()
    pool.give(buffer)
    assert pool.take(64) is buffer


def test_foreign_resized_and_doubly_given_buffers_are_refused() -> None:
    pool = BufferPool()
    buffer = pool.take(64)
    pool.give(buffer)
    with pytest.raises(ValueError, match="twice"):
        pool.give(buffer)
    resized = pool.take(100)
    resized.append(1)
    with pytest.raises(ValueError, match="129 bytes"):
        pool.give(resized)
    with pytest.raises(ValueError, match="ndarray that is not from this pool"):
        pool.give(np.zeros(3))
    with pytest.raises(ValueError, match="str"):
        pool.give("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="-1"):
        pool.take(-1)
    with pytest.raises(MemoryError, match="size class"):
        pool.take(1 << 50)
    with pytest.raises(ValueError, match="capacity_bytes"):
        BufferPool(capacity_bytes=0)


@pytest.mark.parametrize("dtype", ["float64", "int8", np.complex128, np.dtype([("a", "i4"), ("b", "f8")])], ids=str)
@pytest.mark.parametrize("shape", [(10,), (3, 4), (2, 3, 5), (0,), ()])
def test_arrays_go_round(shape: tuple[int, ...], dtype: Any) -> None:
    pool = BufferPool()
    array = pool.take_array(shape, dtype)
    assert array.shape == shape
    assert array.dtype == np.dtype(dtype)
    assert array.flags.writeable
    assert array.flags.c_contiguous
    assert array.ctypes.data % 16 == 0
    array[...] = np.zeros(shape, dtype)
    pool.give(array)
    again = pool.take_array(shape, dtype)
    assert again.ctypes.data == array.ctypes.data
    assert pool.statistics().reused == 1


def test_a_loop_that_gives_its_arrays_back_allocates_twice_at_most() -> None:
    pool = BufferPool()
    for _ in range(20):
        array = pool.take_array((100,))
        array[:] = 1.0
        pool.give(array)
    assert pool.statistics().created <= 2


def test_a_reshaped_array_can_be_given_back_and_the_buffer_cannot_be_resized_under_it() -> None:
    pool = BufferPool()
    array = pool.take_array((4, 4), "int32")
    pool.give(array.reshape(16)[2:])
    buffer = pool.take(64)
    with pytest.raises(BufferError):
        buffer.append(1)
    array[...] = 3
    assert buffer == np.full(16, 3, "int32").tobytes()


def test_arrays_of_objects_and_impossible_shapes_are_refused() -> None:
    pool = BufferPool()
    with pytest.raises(ValueError, match="object"):
        pool.take_array((3,), object)
    with pytest.raises(ValueError, match="shape"):
        pool.take_array((3, -1))
    with pytest.raises((OverflowError, MemoryError)):
        pool.take_array((1 << 62, 1 << 62))


def test_threads_never_share_a_buffer() -> None:
    pool = BufferPool(capacity_bytes=1024)

    def work(chance: random.Random) -> None:
        for _ in range(10_000):
            size = chance.choice([64, 128, 256])
            buffer = pool.take(size)
            mark = chance.randrange(256)
            buffer[:] = bytes([mark]) * size
            assert buffer.count(mark) == size
            pool.give(buffer)

    hammer(work)
    found = pool.statistics()
    assert found.free_bytes <= 1024
    assert_accounts_add_up(found)


def test_import_loads_no_numpy() -> None:
    code = "import sys, sage_actor._core.object_pool; print('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"


def test_statistics_are_readable() -> None:
    assert "created=1" in repr(PoolStatistics(1, 2, 3, 4, 5, 6))


@pytest.mark.parametrize("pool", [ObjectPool(bytearray), BufferPool()], ids=["objects", "buffers"])
def test_cannot_be_pickled(pool: object) -> None:
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(pool)
