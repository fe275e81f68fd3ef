"""Connected streams: two inputs of different types, one object that sees both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import sage_actor as sage
from sage_actor.dataflow.co_functions import CoFlatMapFunction, CoMapFunction, CoProcessFunction, KeyedCoProcessFunction
from sage_actor.dataflow.output_tag import OutputTag
from sage_actor.dataflow.process_functions import KeyedContext, ProcessContext
from sage_actor.dataflow.watermarks import Monotonic
from sage_actor.errors import GraphError, OperatorError

SKIPPED: OutputTag[str] = OutputTag("skipped")
Describe = Callable[[Any, Any], Any]


def run(describe: Describe, numbers: list[Any], texts: list[Any], parallelism: int = 1) -> list[Any]:
    async def job() -> list[Any]:
        async with sage.Environment("connected", parallelism=parallelism) as env:
            result = describe(env.from_collection(numbers), env.from_collection(texts)).collect()
            await env.execute()
        return list(result)

    return asyncio.run(job())


class Shout(CoMapFunction[int, str, str]):
    def map(self, value: int, /) -> str:
        return str(value)

    def map_second(self, value: str, /) -> str:
        return value.upper()


class Letters(CoFlatMapFunction[int, str, str]):
    def flat_map(self, value: int, /) -> list[str]:
        return ["."] * value

    def flat_map_second(self, value: str, /) -> Iterator[str]:
        yield from value


class Sorting(CoProcessFunction[int, str, str]):
    """Also keeps what open() makes."""

    def open(self, context: sage.FunctionContext) -> None:
        self.seen: list[object] = []

    def process(self, value: int, context: ProcessContext, /) -> list[str] | None:
        self.seen.append(value)
        return [f"{value}:{context.operator_name}"] if value else None

    def process_second(self, value: str, context: ProcessContext, /) -> Iterator[str]:
        if value:
            yield value
        else:
            context.output(SKIPPED, "empty")


@pytest.mark.parametrize("parallelism", [1, 3])
@pytest.mark.parametrize(
    ("describe", "expected"),
    [
        (lambda a, b: a.connect(b).map(lambda n: n + 1, lambda t: t + "!"), [1, 2, 3, "x!", "yz!"]),
        (lambda a, b: a.connect(b).map(Shout()), ["0", "1", "2", "X", "YZ"]),
        (lambda a, b: a.connect(b).map(Shout), ["0", "1", "2", "X", "YZ"]),
        (lambda a, b: a.connect(b).flat_map(lambda n: [n] * n, lambda t: t), [1, 2, 2, "x", "y", "z"]),
        (lambda a, b: a.connect(b).flat_map(Letters()), [".", ".", ".", "x", "y", "z"]),
        (lambda a, b: a.connect(b).process(Sorting(), name="sorting"), ["1:sorting", "2:sorting", "x", "yz"]),
        (lambda a, b: a.connect(b).key_by(lambda n: n, len).map(Shout()), ["0", "1", "2", "X", "YZ"]),
    ],
)
def test_each_input_has_its_function(describe: Describe, expected: list[Any], parallelism: int) -> None:
    assert sorted(run(describe, [0, 1, 2], ["x", "yz"], parallelism), key=str) == sorted(expected, key=str)


@pytest.mark.parametrize(("numbers", "texts"), [([], []), ([1], []), ([], ["a"]), ([1], ["a"])])
def test_empty_inputs(numbers: list[int], texts: list[str]) -> None:
    assert sorted(run(lambda a, b: a.connect(b).map(str, str), numbers, texts)) == sorted(map(str, [*numbers, *texts]))


def test_each_input_keeps_its_order() -> None:
    result = run(lambda a, b: a.connect(b).map(lambda n: ("n", n), lambda n: ("t", n)), list(range(5000)), list(range(3000)))
    for side, length in (("n", 5000), ("t", 3000)):
        assert [number for name, number in result if name == side] == list(range(length))


def test_side_outputs() -> None:
    async def job() -> tuple[list[str], list[str]]:
        async with sage.Environment("sides") as env:
            results = env.from_collection([0, 5]).connect(env.from_collection(["", "x", ""])).process(Sorting(), name="sorting")
            kept, skipped = results.collect(), results.side_output(SKIPPED).collect()
            await env.execute()
        return sorted(kept), list(skipped)

    assert asyncio.run(job()) == (["5:sorting", "x"], ["empty", "empty"])


class Paid(KeyedCoProcessFunction[tuple[str, int], tuple[str, int], tuple[str, str, int]]):
    """Orders wait 10 ms of event time for their payment; both sides share state and timers."""

    def open(self, context: Any) -> None:
        self.ordered = context.state.value("ordered")
        self.paid = context.state.value("paid")

    def process(self, value: tuple[str, int], context: KeyedContext, /) -> list[tuple[str, str, int]]:
        if self.paid.get() is not None:
            return [(context.key, "paid before", value[1])]
        self.ordered.set(value[1])
        context.timers.event_time(value[1] + 10)
        return []

    def process_second(self, value: tuple[str, int], context: KeyedContext, /) -> list[tuple[str, str, int]]:
        self.paid.set(value[1])
        ordered = self.ordered.get()
        if ordered is None:
            return []
        context.timers.delete_event_time(ordered + 10)
        return [(context.key, "paid", value[1])]

    def on_timer(self, timestamp: int, context: KeyedContext, /) -> list[tuple[str, str, int]]:
        return [(context.key, "unpaid", timestamp)]


@pytest.mark.rule("F18")
@pytest.mark.parametrize("parallelism", [1, 4])
def test_state_and_timers_are_shared_by_both_inputs(parallelism: int) -> None:
    def describe(orders: Any, payments: Any) -> Any:
        timed = [stream.assign_timestamps(lambda r: r[1], Monotonic()) for stream in (orders, payments)]
        return timed[0].connect(timed[1]).key_by(lambda r: r[0], lambda r: r[0]).process(Paid())

    orders = [("a", 1), ("b", 2), ("c", 3), ("d", 40)]
    payments = [("a", 5), ("c", 12), ("d", 42)]
    result = sorted(run(describe, orders, payments, parallelism))
    # whichever side of a key is read first: a, c and d are paid, b is not
    assert [(key, what.removesuffix(" before")) for key, what, _ in result] == [
        ("a", "paid"),
        ("b", "unpaid"),
        ("c", "paid"),
        ("d", "paid"),
    ]
    assert ("b", "unpaid", 12) in result


def fail(value: Any) -> Any:
    raise ValueError(f"not {value!r}")


@pytest.mark.parametrize(
    "describe",
    [
        lambda a, b: a.connect(b).map(str, fail, name="mapping", on_error="skip"),
        lambda a, b: a.connect(b).flat_map(lambda n: [str(n)], fail, name="mapping", on_error="skip"),
    ],
)
def test_a_failing_record_follows_the_policy(describe: Describe) -> None:
    assert run(describe, [1, 2], ["x"]) == ["1", "2"]


def test_a_failure_names_the_operator() -> None:
    with pytest.raises(OperatorError, match=r"'mapping'.*not 'x'"):
        run(lambda a, b: a.connect(b).map(str, fail, name="mapping"), [], ["x"])


REFUSED: list[tuple[Describe, str]] = [
    (lambda a, b: a.connect(b).map(str), "two functions"),
    (lambda a, b: a.connect(b).map(str, 5), "function"),
    (lambda a, b: a.connect(b).process(str), "CoProcessFunction"),
    (lambda a, b: a.connect(b).process(Paid()), "key_by"),
    (lambda a, b: a.key_by(str).connect(b), "key both"),
]


@pytest.mark.parametrize(("describe", "text"), REFUSED)
def test_refused(describe: Describe, text: str) -> None:
    env = sage.LocalEnvironment("refused")
    stream = env.from_collection([1])
    with pytest.raises(GraphError, match=text):
        describe(stream, stream)
    stream.print()  # whatever was described so far has an end
