"""Must check cleanly: windows, joins, state and side outputs keep their types. Never run; the checkers read it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_type

import sage_actor as sage

Order = tuple[str, int, float]
LATE: sage.OutputTag[Order] = sage.OutputTag("late")


class Totals(sage.KeyedProcessFunction[Order, tuple[str, float]]):
    """State and timers."""

    def open(self, context: sage.FunctionContext) -> None:
        self.total: sage.ValueState[float] = context.state.value("total", default=0.0)

    def process(self, value: Order, context: sage.KeyedContext, /) -> Iterator[tuple[str, float]]:
        self.total.set(self.total.get() + value[2])
        context.timers.event_time(value[1] + 1000)
        yield value[0], self.total.get()

    def on_timer(self, timestamp: int, context: sage.KeyedContext, /) -> Iterator[tuple[str, float]]:
        yield "timer", self.total.get()


async def flows(env: sage.Environment) -> None:
    source: list[Order] = [("ann", 1, 2.0)]
    orders = env.from_collection(source).assign_timestamps(lambda o: o[1], sage.BoundedDisorder("2s"))
    assert_type(orders, sage.DataStream[Order])
    keyed = orders.key_by(lambda o: o[0])
    assert_type(keyed, sage.KeyedStream[str, Order])
    windows = keyed.window(sage.Tumbling("10s")).late_output(LATE)
    assert_type(windows.count(), sage.DataStream[sage.WindowResult[str, int]])
    assert_type(windows.sum(lambda o: o[2]), sage.DataStream[sage.WindowResult[str, float]])
    assert_type(windows.count().side_output(LATE), sage.DataStream[Order])
    assert_type(orders.window_all(sage.Sliding("10s", every="5s")).count(), sage.DataStream[sage.WindowResult[None, int]])
    assert_type(keyed.process(Totals()), sage.DataStream[tuple[str, float]])
    assert_type(keyed.process(Totals), sage.DataStream[tuple[str, float]])
    names = env.from_collection([("ann", 5)]).assign_timestamps(lambda n: n[1]).key_by(lambda n: n[0])
    assert_type(keyed.join(names, window=sage.Tumbling("1m")), sage.JoinedStream[tuple[Order, tuple[str, int]]])
    assert_type(keyed.join(names, window=sage.Tumbling("1m"), how="left"), sage.JoinedStream[tuple[Order, tuple[str, int] | None]])
    assert_type(keyed.interval_join(names, lower="0s", upper="5s"), sage.JoinedStream[tuple[Order, tuple[str, int]]])
    assert_type(keyed.as_of_join(names, how="left"), sage.JoinedStream[tuple[Order, tuple[str, int] | None]])
    async for pair in keyed.count().committed():
        assert_type(pair, tuple[str, int])
