"""How a function, an instance or a class becomes what an operator calls; its life cycle; its copies."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from functools import partial
from operator import itemgetter, methodcaller
from typing import Any

import pytest

import sage_actor as sage


async def results(describe: Any, data: Any = (1, 2, 3), **options: Any) -> list[Any]:
    async with asyncio.timeout(20), sage.Environment("functions", **options) as env:
        out = describe(env.from_collection(data)).collect()
        await env.execute()
    return list(out)


class Scale(sage.MapFunction[int, int]):
    """No super().__init__(): none is needed."""

    def __init__(self, config: Any = None, *, by: int = 1) -> None:
        self.by = config["by"] if config else by

    def map(self, value: int, /) -> int:
        return value * self.by


class Plain:
    """No base class at all."""

    def __init__(self, config: Any = None) -> None:
        self.config = config

    def execute(self, value: int) -> int:
        return value + 100


class CallMe:
    def __call__(self, value: int) -> int:
        return value - 1


class Holder:
    def method(self, value: int) -> int:
        return value * 7

    @classmethod
    def of_class(cls, value: int) -> str:
        return f"{cls.__name__}{value}"

    @staticmethod
    def static(value: int) -> int:
        return -value


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("describe", "expected"),
    [
        (lambda s: s.map(lambda x: x + 1), [2, 3, 4]),
        (lambda s: s.map(Scale), [1, 2, 3]),
        (lambda s: s.map(Scale, {"by": 3}), [3, 6, 9]),
        (lambda s: s.map(Scale, by=4), [4, 8, 12]),
        (lambda s: s.map(Scale(by=5)), [5, 10, 15]),
        (lambda s: s.map(Plain), [101, 102, 103]),
        (lambda s: s.map(Plain, {"a": 1}), [101, 102, 103]),
        (lambda s: s.map(Plain()), [101, 102, 103]),
        (lambda s: s.map(CallMe()), [0, 1, 2]),
        (lambda s: s.map(CallMe), [0, 1, 2]),
        (lambda s: s.map(Holder().method), [7, 14, 21]),
        (lambda s: s.map(Holder.of_class), ["Holder1", "Holder2", "Holder3"]),
        (lambda s: s.map(Holder.static), [-1, -2, -3]),
        (lambda s: s.map(str).map(int), [1, 2, 3]),
        (lambda s: s.map(str).map(str.upper), ["1", "2", "3"]),
        (lambda s: s.map(float), [1.0, 2.0, 3.0]),
        (lambda s: s.map(partial(pow, 2)), [2, 4, 8]),
        (lambda s: s.map(partial(max, 2)), [2, 2, 3]),
        (lambda s: s.map(lambda x: (x, x)).map(itemgetter(1)), [1, 2, 3]),
        (lambda s: s.map(methodcaller("bit_length")), [1, 2, 2]),
        (lambda s: s.map(abs).filter(bool).flat_map(range), [0, 0, 1, 0, 1, 2]),
        (lambda s: s.map([10, 11, 12, 13].__getitem__), [11, 12, 13]),
    ],
)
async def test_every_form_of_a_map(describe: Any, expected: list[Any]) -> None:
    assert await results(describe) == expected


class Keep(sage.FilterFunction[int]):
    def __init__(self, minimum: int = 2) -> None:
        self.minimum = minimum

    def filter(self, value: int, /) -> bool:
        return value >= self.minimum


class Repeat(sage.FlatMapFunction[int, int]):
    def flat_map(self, value: int, /) -> Iterator[int]:
        for _ in range(value):
            yield value


class WithContext(sage.ProcessFunction[int, str]):
    def process(self, value: int, context: sage.FunctionContext, /) -> list[str]:
        return [f"{context.job}/{context.operator_name}/{value}"]


def two_arguments(value: int, context: sage.FunctionContext) -> list[str]:
    return [f"{value} in {context.operator_name}"]


def one_argument(value: int) -> list[int] | None:
    return None if value == 2 else [value]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("describe", "expected"),
    [
        (lambda s: s.filter(Keep), [2, 3]),
        (lambda s: s.filter(Keep, minimum=3), [3]),
        (lambda s: s.filter(Keep(1)), [1, 2, 3]),
        (lambda s: s.flat_map(Repeat), [1, 2, 2, 3, 3, 3]),
        (lambda s: s.flat_map(Repeat()), [1, 2, 2, 3, 3, 3]),
        (lambda s: s.process(WithContext, name="ctx"), ["functions/ctx/1", "functions/ctx/2", "functions/ctx/3"]),
        (lambda s: s.process(two_arguments), ["1 in two_arguments", "2 in two_arguments", "3 in two_arguments"]),
        (lambda s: s.process(one_argument), [1, 3]),
        (lambda s: s.map_batch(sorted), [1, 2, 3]),
        (lambda s: s.map_batch(lambda b: tuple(b)), [1, 2, 3]),
    ],
)
async def test_other_kinds(describe: Any, expected: list[Any]) -> None:
    assert await results(describe) == expected


@pytest.mark.asyncio
async def test_instances_are_copied_for_each_task() -> None:
    class Counting(sage.MapFunction[int, tuple[int, int]]):
        def __init__(self) -> None:
            self.seen: list[int] = []

        def map(self, value: int, /) -> tuple[int, int]:
            self.seen.append(value)
            return id(self), len(self.seen)

    mine = Counting()
    out = await results(lambda s: s.rebalance().map(mine, parallelism=3), range(300), config={"batch.records": 10})
    assert mine.seen == []
    ids = {who for who, _ in out}
    assert len(ids) == 3
    assert sum(max(n for who, n in out if who == i) for i in ids) == 300


class Locked(sage.MapFunction[int, int]):
    def __init__(self) -> None:
        self.name = "x"
        self.guard = threading.Lock()

    def map(self, value: int, /) -> int:
        with self.guard:
            return value


@pytest.mark.asyncio
async def test_an_instance_that_cannot_be_copied_serves_one_task_and_is_refused_for_two() -> None:
    mine = Locked()
    assert await results(lambda s: s.map(mine)) == [1, 2, 3]
    with pytest.raises(sage.GraphError, match=r"'guard' \(lock\)"):
        await results(lambda s: s.map(mine, parallelism=2))


class Two(sage.BaseFunction):
    def process(self, value: int) -> int:
        return value

    def execute(self, value: int) -> int:
        return value


class TwoPlain:
    def filter(self, value: int) -> int:
        return value

    def __call__(self, value: int) -> int:
        return value


@pytest.mark.parametrize("given", [Two, Two()])
@pytest.mark.parametrize("kind", ["map", "filter", "flat_map", "process", "sink", "map_async", "map_batch"])
def test_two_methods_that_could_serve_are_refused_when_described(given: Any, kind: str) -> None:
    stream = sage.Environment("two").from_collection([1])
    with pytest.raises(sage.GraphError, match=r"several methods.*process, execute"):
        getattr(stream, kind)(given)


def test_two_methods_without_a_base_are_refused() -> None:
    stream = sage.Environment("two").from_collection([1])
    for given in (TwoPlain, TwoPlain()):
        with pytest.raises(sage.GraphError, match=r"filter, __call__"):
            stream.filter(given)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["map", "filter", "flat_map", "process", "sink", "map_async", "map_batch"])
@pytest.mark.parametrize("given", [5, "text", None, object(), [1]])
def test_what_is_no_function_is_refused(kind: str, given: Any) -> None:
    stream = sage.Environment("none").from_collection([1])
    with pytest.raises(sage.GraphError, match=kind):
        getattr(stream, kind)(given)


def test_a_base_class_without_its_method_is_refused() -> None:
    class Empty(sage.MapFunction[int, int]):
        pass

    stream = sage.Environment("none").from_collection([1])
    for given in (Empty, Empty()):
        with pytest.raises(sage.GraphError, match=r"'Empty' has none of the methods 'map'"):
            stream.map(given)


# -- open and close ---------------------------------------------------------------------------------------------------


class Noted(sage.MapFunction[int, int]):
    """Writes down what happens to it."""

    def __init__(self, events: list[str], *, open_fails: bool = False, map_fails: bool = False, close_fails: bool = False) -> None:
        self.events = events
        self.fails = {"open": open_fails, "map": map_fails, "close": close_fails}

    def __deepcopy__(self, memo: object) -> Noted:
        return type(self)(self.events, **{f"{k}_fails": v for k, v in self.fails.items()})

    def note(self, what: str) -> None:
        self.events.append(what)
        if self.fails[what]:
            raise RuntimeError(f"{what} failed")

    def open(self, context: sage.FunctionContext) -> None:
        self.note("open")

    def map(self, value: int, /) -> int:
        if self.fails["map"]:
            raise RuntimeError("map failed")
        return value

    def close(self) -> None:
        self.note("close")


class NotedAsync(Noted):
    async def open(self, context: sage.FunctionContext) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        self.note("open")

    async def close(self) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        self.note("close")


@pytest.mark.asyncio
@pytest.mark.parametrize("cls", [Noted, NotedAsync])
@pytest.mark.parametrize("parallelism", [1, 3])
async def test_open_and_close_once_for_each_task(cls: type[Noted], parallelism: int) -> None:
    events: list[str] = []
    await results(lambda s: s.rebalance().map(cls(events), parallelism=parallelism), range(50))
    assert events.count("open") == parallelism
    assert events.count("close") == parallelism


@pytest.mark.asyncio
@pytest.mark.parametrize("cls", [Noted, NotedAsync])
@pytest.mark.parametrize("where", ["open", "map", "close"])
async def test_close_comes_once_also_after_a_failure(cls: type[Noted], where: str) -> None:
    events: list[str] = []
    with pytest.raises(sage.OperatorError) as caught:
        await results(lambda s: s.map(lambda x: x).map(cls(events, **{f"{where}_fails": True}), name="noted").map(lambda x: x))
    assert events == ["open", "close"]
    assert caught.value.operator == "noted"
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert f"{where} failed" in str(caught.value)


@pytest.mark.asyncio
async def test_neighbours_are_closed_when_one_fails() -> None:
    events: list[str] = []
    with pytest.raises(sage.OperatorError):
        await results(lambda s: s.map(Noted(events)).map(Noted(events, map_fails=True)).disable_chaining().map(Noted(events)))
    assert events.count("open") == events.count("close") == 3


@pytest.mark.asyncio
async def test_cancelling_closes() -> None:
    events: list[str] = []
    started = asyncio.Event()

    async def hold() -> Any:
        yield 1
        started.set()
        await asyncio.Event().wait()

    async with sage.Environment("cancelled") as env:
        env.from_source(hold()).map(Noted(events)).collect()
        job = await env.submit()
        async with asyncio.timeout(10):
            await started.wait()
            job.cancel()
            with pytest.raises(sage.JobCancelled):
                await job.wait()
    assert events == ["open", "close"]


@pytest.mark.asyncio
async def test_a_class_that_cannot_be_made_names_its_operator() -> None:
    class Broken(sage.MapFunction[int, int]):
        def __init__(self) -> None:
            raise ValueError("no such model")

        def map(self, value: int, /) -> int:
            return value

    with pytest.raises(sage.OperatorError, match="no such model") as caught:
        await results(lambda s: s.map(lambda x: x).map(Broken, name="model"))
    assert caught.value.operator == "model"
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.asyncio
async def test_keywords_that_a_class_does_not_take_name_the_operator() -> None:
    with pytest.raises((sage.OperatorError, sage.GraphError), match=r"(?s)scaled.*wrong"):
        await results(lambda s: s.map(Scale, wrong=1, name="scaled"))


@pytest.mark.asyncio
async def test_the_context_tells_the_place() -> None:
    seen: list[tuple[Any, ...]] = []

    class Look(sage.MapFunction[int, int]):
        def open(self, context: sage.FunctionContext) -> None:
            seen.append((context.job, context.operator_name, context.subtask_index, context.parallelism, context.worker))
            assert context.settings["batch.records"] == 9
            context.logger.debug("opened")

        def map(self, value: int, /) -> int:
            return value

    await results(lambda s: s.rebalance().map(Look, name="look", parallelism=2), config={"batch.records": 9})
    assert sorted(seen) == [("functions", "look", 0, 2, 0), ("functions", "look", 1, 2, 0)]


# -- flags of the configuration ---------------------------------------------------------------------------------------


class Embed(sage.MapFunction[Any, Any]):
    """Takes whatever form its configuration asks for."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def map(self, value: Any, /) -> Any:
        if self.config.get("enable_vectorization"):
            assert type(value).__module__ == "numpy"
            return value * 2
        if self.config.get("batch_processing"):
            assert type(value) is list
            return [2 * v for v in value]
        return 2 * value


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "flags", [{}, {"batch_processing": True}, {"enable_vectorization": True}, {"enable_vectorization": True, "batch_processing": True}]
)
async def test_batch_and_vector_flags(flags: dict[str, bool]) -> None:
    out = await results(lambda s: s.map(Embed, {"model": "m", **flags}), range(10), config={"batch.records": 4})
    assert out == [2 * x for x in range(10)]


@pytest.mark.asyncio
async def test_flags_as_keywords_need_no_parameter() -> None:
    class Total(sage.BaseFunction):
        def __init__(self, by: int) -> None:
            self.by = by

        def process(self, values: list[int]) -> list[int]:
            return [v * self.by for v in values]

    assert await results(lambda s: s.map(Total, by=2, batch_processing=True)) == [2, 4, 6]


@pytest.mark.asyncio
async def test_cached_results_call_once_for_equal_input() -> None:
    calls: list[int] = []

    class Slow(sage.MapFunction[Any, Any]):
        def __init__(self, config: Any) -> None:
            pass

        def map(self, value: Any, /) -> Any:
            calls.append(value)
            return value

    assert await results(lambda s: s.map(Slow, {"cache_results": True}), [1, 2, 1, 1, 2]) == [1, 2, 1, 1, 2]
    assert calls == [1, 2]
    with pytest.raises(sage.OperatorError, match="unhashable") as caught:
        await results(lambda s: s.map(Slow, {"cache_results": True}, name="slow"), [1, []])
    assert (caught.value.operator, caught.value.position) == ("slow", 1)


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["filter", "flat_map", "process"])
async def test_async_functions_where_none_can_be_awaited_are_refused(kind: str) -> None:
    async def late(value: int) -> list[int]:
        return [value]

    with pytest.raises(sage.GraphError, match=r"late.*map_async"):
        await results(lambda s: getattr(s, kind)(late))


@pytest.mark.parametrize(
    "describe",
    [
        lambda s, f: s.key_by(f),
        lambda s, f: s.key_by(lambda x: x).reduce(f),
        lambda s, f: s.key_by(lambda x: x).fold(0, f),
        lambda s, f: s.key_by(lambda x: x).sum(f),
        lambda s, f: s.iterate(f, until=bool),
        lambda s, f: s.iterate(abs, until=f),
        lambda s, f: s.partition_custom(f, lambda x: x),
        lambda s, f: s.partition_custom(lambda k, n: 0, f),
    ],
)
def test_async_functions_in_other_places_are_refused_when_described(describe: Any) -> None:
    async def late(*values: int) -> int:
        return 0

    with pytest.raises(sage.GraphError, match="async"):
        describe(sage.Environment("late").from_collection([1]), late)
    with pytest.raises(sage.GraphError):
        describe(sage.Environment("late").from_collection([1]), 5)


@pytest.mark.asyncio
async def test_vectorized_batches_are_arrays_from_end_to_end() -> None:
    np = pytest.importorskip("numpy")
    kinds: set[str] = set()

    def double(values: Any) -> Any:
        kinds.add(type(values).__name__)
        return values * 2

    data = np.arange(1000)
    assert await results(lambda s: s.map_batch(double, vectorized=True).map_batch(double, vectorized=True), data) == [
        4 * x for x in range(1000)
    ]
    assert kinds == {"ndarray"}
    kinds.clear()
    assert await results(lambda s: s.map_batch(lambda b: [type(b).__name__] * len(b)), data[:3]) == ["list"] * 3
    assert await results(lambda s: s.map(lambda x: type(x).__name__), data[:2]) == ["int"] * 2
    rows = await results(lambda s: s.map_batch(lambda b: b.sum(axis=1), vectorized=True), np.ones((5, 3)))
    assert rows == [3.0] * 5


@pytest.mark.asyncio
@pytest.mark.parametrize("answer", [None, 5, "abc", {1: 1, 2: 2, 3: 3}, {1, 2, 3}, [1], [1, 2, 3, 4]])
async def test_a_batch_function_that_does_not_answer_one_for_one_fails(answer: Any) -> None:
    with pytest.raises(sage.OperatorError, match="map_batch"):
        await results(lambda s: s.map_batch(lambda batch: answer))


@pytest.mark.asyncio
async def test_an_async_batch_function_is_awaited() -> None:
    async def double(batch: list[int]) -> list[int]:
        await asyncio.sleep(0)
        return [2 * x for x in batch]

    assert await results(lambda s: s.map_batch(double)) == [2, 4, 6]


def test_a_message_hashes_by_key_then_value() -> None:
    assert sage.Message(1, "k").get_hash() == sage.Message(2, "k").get_hash()
    assert sage.Message(1).get_hash() == sage.Message(1.0).get_hash()
    assert sage.Message(1, "k").get_hash() != sage.Message(1).get_hash()
