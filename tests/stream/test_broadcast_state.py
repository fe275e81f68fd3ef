"""Broadcast state: every task gets every control record and keeps its own copy (rule F38)."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

import sage_actor as sage
from sage_actor.dataflow.co_functions import BroadcastContext, BroadcastProcessFunction, ReadOnlyBroadcastContext
from sage_actor.errors import GraphError, OperatorError, StateError


class Rates(BroadcastProcessFunction[tuple[str, int], tuple[str, int], tuple[str, int]]):
    """Control records set a rate; records are emitted with the rate known when they come (0 if none)."""

    def process(self, value: tuple[str, int], context: ReadOnlyBroadcastContext, /) -> list[tuple[str, int]]:
        return [(value[0], context.broadcast.get(value[0], 0))]

    def process_broadcast(self, value: tuple[str, int], context: BroadcastContext, /) -> list[tuple[str, int]]:
        context.broadcast[value[0]] = value[1]
        return [("rate", context.subtask_index)]


class Meddling(Rates):
    def process(self, value: tuple[str, int], context: ReadOnlyBroadcastContext, /) -> list[tuple[str, int]]:
        context.broadcast["x"] = 1  # type: ignore[index]
        return []


def run(function: Any, rows: list[Any], control: list[Any], parallelism: int, *, keyed: bool, **options: Any) -> list[Any]:
    async def job() -> list[Any]:
        async with sage.Environment("broadcast", parallelism=parallelism) as env:
            main: Any = env.from_collection(rows)
            if keyed:
                main = main.key_by(lambda r: r[0])
            result = main.connect_broadcast(env.from_collection(control), function, **options).collect()
            await env.execute()
        return list(result)

    return asyncio.run(job())


@pytest.mark.rule("F38")
@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("parallelism", [1, 4])
def test_every_task_gets_every_control_record(parallelism: int, *, keyed: bool) -> None:
    rows = [(key, n) for n in range(10) for key in "abcdefgh"]
    control = [("a", 1), ("b", 2), ("a", 3)]
    result = run(Rates(), rows, control, parallelism, keyed=keyed)
    assert Counter(record for record in result if record[0] == "rate") == {("rate", index): 3 for index in range(parallelism)}
    answers = [record for record in result if record[0] != "rate"]
    assert Counter(key for key, _ in answers) == Counter(key for key, _ in rows)
    assert {rate for key, rate in answers if key == "a"} <= {0, 1, 3}
    assert {rate for key, rate in answers if key not in "ab"} == {0}
    if keyed:  # the records of a key meet one copy, which changes in the order of its sender
        seen = [rate for key, rate in answers if key == "a"]
        assert seen == sorted(seen)


@pytest.mark.rule("F38")
@pytest.mark.parametrize("keyed", [False, True])
def test_the_main_side_cannot_write(*, keyed: bool) -> None:
    with pytest.raises(OperatorError, match=r"'meddling'.*process_broadcast") as caught:
        run(Meddling(), [("a", 1)], [], 2, keyed=keyed, name="meddling")
    assert isinstance(caught.value.__cause__, StateError)


class Counting(BroadcastProcessFunction[tuple[str, int], str, Any]):
    """State of the key beside the broadcast one."""

    def open(self, context: Any) -> None:
        self.count = context.state.value("count", default=0)
        assert not context.broadcast

    def process(self, value: tuple[str, int], context: ReadOnlyBroadcastContext, /) -> list[Any]:
        self.count.set(self.count.get() + 1)
        return [(context.key, self.count.get())]

    def process_broadcast(self, value: str, context: BroadcastContext, /) -> None:
        context.broadcast.clear()


def test_a_keyed_main_stream_has_state() -> None:
    result = run(Counting(), [("a", 1), ("b", 1), ("a", 1)], ["x"], 3, keyed=True)
    assert sorted(result) == [("a", 1), ("a", 2), ("b", 1)]


def test_only_such_a_function_is_taken() -> None:
    env = sage.LocalEnvironment("refused")
    stream = env.from_collection([1])
    with pytest.raises(GraphError, match="BroadcastProcessFunction"):
        stream.connect_broadcast(stream, lambda value: [value])  # type: ignore[arg-type]
    stream.print()
