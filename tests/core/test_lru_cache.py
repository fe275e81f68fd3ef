"""The LRU cache against a plain-Python model, and what a model cannot say: re-entry, threads, single flight."""

from __future__ import annotations

import gc
import pickle
import random
import subprocess
import sys
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_actor._core.lru_cache import CacheStatistics, LRUCache

NEVER = float("inf")


def until(condition: Callable[[], bool]) -> None:
    """Let other threads run until the condition holds; ten seconds are the safety net."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "the awaited state never came"
        threading.Event().wait(0.0005)


class ManualClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Model:
    """What the cache promises, as plainly as it can be said."""

    def __init__(self, capacity: int, capacity_bytes: int, ttl: float, clock: ManualClock) -> None:
        self.capacity, self.capacity_bytes, self.ttl, self.clock = capacity, capacity_bytes, ttl, clock
        self.entries: OrderedDict[int, tuple[int, float]] = OrderedDict()  # oldest first: value (which is its size), expiry
        self.hits = self.misses = self.evictions = self.expirations = 0

    @property
    def bytes(self) -> int:
        return sum(value for value, _ in self.entries.values())

    def get(self, key: int) -> int | None:
        if key in self.entries:
            value, expires = self.entries[key]
            if expires > self.clock.now:
                self.entries.move_to_end(key)
                self.hits += 1
                return value
            del self.entries[key]
            self.expirations += 1
        self.misses += 1
        return None

    def put(self, key: int, value: int, ttl: float | None) -> None:
        if self.capacity_bytes and value > self.capacity_bytes:
            if self.entries.pop(key, None) is not None:
                self.evictions += 1
            return
        lifetime = self.ttl if ttl is None else ttl
        self.entries.pop(key, None)
        self.entries[key] = (value, self.clock.now + lifetime if lifetime else NEVER)
        while len(self.entries) > self.capacity or (self.capacity_bytes and self.bytes > self.capacity_bytes):
            _, (_, expires) = self.entries.popitem(last=False)
            if expires <= self.clock.now:
                self.expirations += 1
            else:
                self.evictions += 1

    def pop(self, key: int) -> int | None:
        entry = self.entries.pop(key, None)
        if entry is None:
            return None
        if entry[1] <= self.clock.now:
            self.expirations += 1
            return None
        return entry[0]

    def contains(self, key: int) -> bool:
        return key in self.entries and self.entries[key][1] > self.clock.now


keys = st.integers(0, 7)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("get"), keys),
        st.tuples(st.just("put"), keys, st.integers(0, 12), st.sampled_from([None, None, 0, 1, 5])),
        st.tuples(st.just("pop"), keys),
        st.tuples(st.just("contains"), keys),
        st.tuples(st.just("advance"), st.sampled_from([0.5, 1, 3])),
        st.tuples(st.just("clear")),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(steps=steps, capacity=st.integers(1, 6), capacity_bytes=st.sampled_from([0, 0, 10, 25]), ttl=st.sampled_from([0.0, 2.0]))
def test_agrees_with_the_model(steps: list[tuple[Any, ...]], capacity: int, capacity_bytes: int, ttl: float) -> None:
    clock = ManualClock()
    model = Model(capacity, capacity_bytes, ttl, clock)
    cache = LRUCache[int, int](capacity, capacity_bytes=capacity_bytes, ttl=ttl, sizeof=int, clock=clock)
    for name, *arguments in steps:
        match name:
            case "get":
                assert cache.get(arguments[0]) == model.get(arguments[0])
            case "put":
                key, value, override = arguments
                cache.put(key, value, ttl=override)
                model.put(key, value, override)
            case "pop":
                assert cache.pop(arguments[0]) == model.pop(arguments[0])
            case "contains":
                assert (arguments[0] in cache) == model.contains(arguments[0])
            case "advance":
                clock.now += arguments[0]
            case _:
                cache.clear()
                model.entries.clear()
        found = cache.statistics()
        assert (found.hits, found.misses, found.evictions, found.expirations) == (
            model.hits,
            model.misses,
            model.evictions,
            model.expirations,
        )
        assert found.entries == len(cache) == len(model.entries)
        assert found.bytes == model.bytes


# ---------------------------------------------------------------------- values and sizes


leaves = st.none() | st.integers() | st.text() | st.binary()
plain_values = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
@given(value=plain_values)
@settings(max_examples=40, deadline=None)
def test_compressed_values_come_back_equal(compression: Literal["lz4", "zstd"], value: object) -> None:
    cache = LRUCache[str, object](compression=compression)
    cache.put("key", value)
    assert cache.get("key") == value
    assert cache.pop("key") == value


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_compressed_values_are_copies_counted_at_their_compressed_size(compression: Literal["lz4", "zstd"]) -> None:
    cache = LRUCache[str, list[bytes]](compression=compression, capacity_bytes=10_000)
    value = [b"a" * 100_000]
    cache.put("key", value)
    assert 0 < cache.statistics().bytes < 10_000
    found = cache.get("key")
    assert found == value
    assert found is not value
    noise = random.Random(1).randbytes(20_000)
    cache.put("noise", [noise])
    assert "noise" not in cache


def test_zstd_compresses_from_many_threads() -> None:
    cache = LRUCache[int, bytes](compression="zstd")

    def work(number: int) -> bool:
        value = bytes([number]) * 50_000
        for _ in range(20):
            cache.put(number, value)
            if cache.get(number) != value:
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(8)))


def test_a_value_that_cannot_be_pickled_says_what_to_do() -> None:
    cache = LRUCache[str, object](compression="lz4")
    cache.put("key", 1)
    with pytest.raises((TypeError, AttributeError)) as caught:
        cache.put("key", threading.Lock())
    assert "compression='none'" in caught.value.__notes__[0]
    assert cache.get("key") == 1


@pytest.mark.parametrize(
    "value",
    [b"x" * 5000, ["y" * 5000], {"key": b"z" * 5000}, (b"x" * 5000,), {b"x" * 5000}, memoryview(b"m" * 5000)],
    ids=["bytes", "list", "dict", "tuple", "set", "memoryview"],
)
def test_default_size_reaches_one_level_deep(value: object) -> None:
    cache = LRUCache[str, object](capacity_bytes=1 << 20)
    cache.put("key", value)
    assert 5000 <= cache.statistics().bytes < 6000


def test_default_size_sees_the_fields_of_an_object() -> None:
    class Page:
        def __init__(self) -> None:
            self.body = b"b" * 5000

    cache = LRUCache[str, Page](capacity_bytes=1 << 20)
    cache.put("key", Page())
    assert 5000 <= cache.statistics().bytes < 6000


def test_nothing_is_measured_without_a_bound() -> None:
    cache = LRUCache[str, bytes]()
    cache.put("key", b"x" * 1000)
    assert cache.statistics().bytes == 0


def test_too_large_a_value_is_not_kept_and_displaces_the_old_one() -> None:
    cache = LRUCache[str, int](capacity_bytes=10, sizeof=int)
    cache.put("key", 5)
    cache.put("key", 11)
    assert cache.get("key") is None
    assert cache.statistics().bytes == 0


def test_none_is_a_value() -> None:
    cache = LRUCache[str, None]()
    cache.put("key", None)
    assert cache.get("key", "absent") is None
    assert cache.pop("key", "absent") is None
    assert cache.pop("key", "absent") == "absent"


def test_the_default_clock_runs() -> None:
    cache = LRUCache[str, int](ttl=1e-9)
    cache.put("key", 1)
    until(lambda: "key" not in cache)
    assert cache.get("key") is None


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"capacity": 0}, "capacity"),
        ({"capacity_bytes": -1}, "capacity_bytes"),
        ({"ttl": -1.0}, "ttl"),
        ({"ttl": float("nan")}, "ttl"),
        ({"compression": "zip"}, "compression"),
    ],
)
def test_impossible_arguments_are_named(arguments: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        LRUCache(**arguments)


def test_unknown_arguments_and_negative_sizes_are_refused() -> None:
    with pytest.raises(TypeError, match="bogus"):
        LRUCache(bogus=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    negative = LRUCache[str, int](sizeof=lambda value: -1)
    with pytest.raises(ValueError, match="sizeof"):
        negative.put("key", 1)
    assert len(negative) == 0
    with pytest.raises(TypeError):
        LRUCache[Any, int]().get([])


# ---------------------------------------------------------------------- keys and destructors that run Python


class Restless:
    """A key whose comparison does something to the cache that asks."""

    def __init__(self, number: int, act: Callable[[], None]) -> None:
        self.number = number
        self.act = act

    def __hash__(self) -> int:
        return self.number % 3

    def __eq__(self, other: object) -> bool:
        self.act()
        return isinstance(other, Restless) and self.number == other.number


class Parting:
    """A value whose end does something to the cache."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.act = act

    def __del__(self) -> None:
        self.act()


@pytest.mark.parametrize("seed", [*range(12), 101])  # 101 once crashed: a destructor between insertion and linking
def test_stays_whole_when_keys_and_values_reenter(seed: int) -> None:
    chance = random.Random(seed)
    cache = LRUCache[Restless, object](4, capacity_bytes=40, sizeof=lambda value: 7)
    depth = 0

    def disturb() -> None:
        nonlocal depth
        if depth >= 2 or chance.random() < 0.7:
            return
        depth += 1
        step()
        depth -= 1

    def step() -> None:
        key = Restless(chance.randrange(9), disturb)
        match chance.randrange(12):
            case 0 | 1 | 2 | 3 | 4:
                cache.put(key, Parting(disturb))
            case 5 | 6 | 7:
                cache.get(key)
            case 8:
                cache.pop(key)
            case 9:
                assert (key in cache) in (True, False)
            case 10:
                cache.get_or_load(Restless(chance.randrange(100, 9999), disturb), lambda: Parting(disturb))
            case _:
                if chance.random() < 0.3:
                    cache.clear()

    for _ in range(400):
        step()
        found = cache.statistics()
        assert found.entries <= 4
        assert found.bytes == 7 * found.entries
    depth = 99
    cache.clear()
    gc.collect()
    for number in range(6):
        cache.put(Restless(number, lambda: None), number)
    assert [number for number in range(6) if Restless(number, lambda: None) in cache] == [2, 3, 4, 5]


def test_a_key_whose_hash_changes_empties_the_cache_instead_of_hanging_it() -> None:
    class Shifty:
        code = 1

        def __hash__(self) -> int:
            return self.code

    cache = LRUCache[object, int](2)
    key = Shifty()
    cache.put(key, 0)
    key.code = 2
    cache.put("one", 1)
    cache.put("two", 2)
    assert len(cache) == 0
    cache.put("three", 3)
    assert cache.get("three") == 3


def test_a_failing_comparison_passes_on_and_changes_nothing() -> None:
    def fail() -> None:
        raise LookupError("no comparison")

    cache = LRUCache[Restless, int](4)
    cache.put(Restless(1, fail), 1)
    other = Restless(4, lambda: None)
    calls: list[Callable[[], object]] = [
        lambda: cache.get(other),
        lambda: cache.put(other, 2),
        lambda: cache.pop(other),
        lambda: other in cache,
    ]
    for call in calls:
        with pytest.raises(LookupError):
            call()
    assert len(cache) == 1


def test_cycles_through_the_cache_are_collected() -> None:
    class Holder:
        cache: LRUCache[str, object]

    holder = Holder()
    holder.cache = LRUCache[str, object]()
    for number in range(10):
        holder.cache.put(str(number), holder)
    gone = weakref.ref(holder.cache)
    del holder
    gc.collect()
    assert gone() is None


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("hasty_threads")
@pytest.mark.parametrize("python_keys", [False, True], ids=["plain keys", "python keys"])
def test_threads_share_a_cache(python_keys: bool) -> None:
    clock = ManualClock()
    cache = LRUCache[object, tuple[int, int]](16, capacity_bytes=400, ttl=5, sizeof=lambda value: value[1], clock=clock)
    start = threading.Barrier(4)

    def work(seed: int) -> None:
        chance = random.Random(seed)
        start.wait(10)
        for _ in range(10_000):
            number = chance.randrange(40)
            key: object = Restless(number, lambda: None) if python_keys else number
            match chance.randrange(8):
                case 0 | 1 | 2:
                    cache.put(key, (number, chance.randrange(60)), ttl=chance.choice([None, 1, 0]))
                case 3:
                    cache.pop(key)
                case 4:
                    assert cache.get_or_load(key, partial(tuple[int, int], (number, 10)))[0] == number
                case 5:
                    clock.now += 0.01
                    if chance.random() < 0.02:
                        cache.clear()
                case _:
                    found = cache.get(key)
                    assert found is None or found[0] == number

    with ThreadPoolExecutor(4) as pool:
        for outcome in [pool.submit(work, seed) for seed in range(4)]:
            outcome.result(60)
    found = cache.statistics()
    assert found.entries <= 16
    assert found.bytes <= 400
    popped = [cache.pop(Restless(number, lambda: None) if python_keys else number) for number in range(40)]
    assert len(cache) == 0
    assert cache.statistics().bytes == 0
    assert len([value for value in popped if value is not None]) <= found.entries


# ---------------------------------------------------------------------- surroundings


def test_import_loads_no_compression_library() -> None:
    code = "import sys, sage_actor._core.lru_cache; print(sorted({'lz4', 'zstandard', 'numpy'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_statistics_are_readable() -> None:
    assert "hits=1" in repr(CacheStatistics(1, 2, 3, 4, 5, 6, 7, 8))
    assert "0 of 1024" in repr(LRUCache[str, int]())


def test_cannot_be_pickled_or_copied() -> None:
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(LRUCache[str, int]())


def test_a_subclass_that_forgets_its_base_still_answers() -> None:
    class Forgetful(LRUCache[str, int]):
        def __init__(self) -> None:  # pyright: ignore[reportMissingSuperCall]
            pass

    assert Forgetful().get("key") is None
