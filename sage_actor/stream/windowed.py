"""Windowed streams: what is done with the records of each window."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar

from sage_actor.dataflow.functions import AggregateFunction, check_plain
from sage_actor.dataflow.graph import Edge
from sage_actor.dataflow.output_tag import OutputTag
from sage_actor.dataflow.policies import OnError
from sage_actor.dataflow.resources import Resources
from sage_actor.dataflow.triggers import Trigger
from sage_actor.dataflow.watermarks import milliseconds
from sage_actor.dataflow.windows import LARGEST_SPAN, Count, Global, Session, Sliding, TimeSpan, Tumbling, WindowAssigner, WindowResult
from sage_actor.errors import GraphError
from sage_actor.stream.datastream import DataStream
from sage_actor.stream.keyed import constant

__all__ = ["WindowedStream", "window_all"]

K = TypeVar("K")
T = TypeVar("T")
A = TypeVar("A")
R = TypeVar("R")
EVENT_TRIGGERS = (Tumbling, Sliding, Session)


class WindowedStream(Generic[K, T]):
    """The records of a keyed stream, or of a whole one, dealt to windows. Say when and how late (`trigger`, `allowed_lateness`,
    `late_output`; each gives a new description), then what: `count`, `sum`, `reduce`, ...

    Results are `WindowResult` (key, start, end, value), one per window and key when event time reaches the window's last
    millisecond; that is their timestamp too. With allowed lateness a late record gives an updated result at once. Records all of
    whose windows are over are counted as late and dropped, or go to `late_output`. Windows without records give nothing.
    """

    def __init__(self, stream: DataStream[T], assigner: WindowAssigner, *, whole: bool = False) -> None:
        if not isinstance(assigner, Tumbling | Sliding | Session | Count | Global):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise GraphError(f"window takes Tumbling, Sliding, Session, Count or Global, not {assigner!r}")
        self._stream = stream
        self._assigner = assigner
        self._whole = whole
        self._trigger: Trigger | None = None
        self._lateness = 0
        self._late_output: OutputTag[Any] | None = None

    def _copy(self) -> Self:
        copied = type(self)(self._stream, self._assigner, whole=self._whole)
        copied._trigger, copied._lateness, copied._late_output = self._trigger, self._lateness, self._late_output
        return copied

    def _by_event_time(self, what: str) -> None:
        if isinstance(self._assigner, Count | Global) or self._assigner.time == "processing":
            raise GraphError(f"{what} is for windows of event time; nothing is ever late for {self._assigner!r}")

    def trigger(self, trigger: Trigger) -> Self:
        """Let a trigger decide when windows give results, instead of once when their time is over.

        Raises:
            GraphError: the windows count records: they are complete when they are full.
        """
        if isinstance(self._assigner, Count):
            raise GraphError("trigger: Count windows give their result when they are full; use Global() with a CountTrigger")
        copied = self._copy()
        copied._trigger = trigger
        return copied

    def allowed_lateness(self, lateness: str | int) -> Self:
        """Keep windows for so long after their result, and give an updated one for each record that still comes.

        Raises:
            GraphError: not a duration, or the windows do not go by event time.
        """
        self._by_event_time("allowed_lateness")
        copied = self._copy()
        copied._lateness = milliseconds(lateness, "allowed_lateness")
        if not 0 <= copied._lateness <= LARGEST_SPAN:
            raise GraphError(f"allowed_lateness: a duration of 0 ms to 2**60 ms, not {lateness!r}")
        return copied

    def late_output(self, tag: OutputTag[T]) -> Self:
        """Send records that are late for all their windows to the side output of that tag, with ``stream.side_output(tag)``.

        Raises:
            GraphError: the windows do not go by event time.
        """
        self._by_event_time("late_output")
        copied = self._copy()
        copied._late_output = tag
        return copied

    # -- what is computed ------------------------------------------------------------------------------------------

    def count(
        self, *, name: str | None = None, parallelism: int | None = None, resources: Resources | None = None
    ) -> DataStream[WindowResult[K, int]]:
        """How many records each window has."""
        return self._compute("count", name, parallelism, resources, None)

    def sum(
        self,
        value: Callable[[T], R] | None = None,
        *,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
    ) -> DataStream[WindowResult[K, R]]:
        """The sum of the records, or of what `value` takes from them, by ``+``. The order in which they are added is not promised."""
        return self._compute("sum", name, parallelism, resources, on_error, selector=value)

    def min(
        self,
        value: Callable[[T], R] | None = None,
        *,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
    ) -> DataStream[WindowResult[K, R]]:
        """The smallest record, or the smallest of what `value` takes from them."""
        return self._compute("min", name, parallelism, resources, on_error, selector=value)

    def max(
        self,
        value: Callable[[T], R] | None = None,
        *,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
    ) -> DataStream[WindowResult[K, R]]:
        """The largest record, or the largest of what `value` takes from them."""
        return self._compute("max", name, parallelism, resources, on_error, selector=value)

    def mean(
        self,
        value: Callable[[T], float] | None = None,
        *,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
    ) -> DataStream[WindowResult[K, float]]:
        """The arithmetic mean of the records, or of what `value` takes from them."""
        return self._compute(
            "aggregate", name, parallelism, resources, on_error, function=Mean(), selector=value, default_name="window_mean"
        )

    def reduce(
        self,
        function: Callable[[T, T], T],
        *,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
    ) -> DataStream[WindowResult[K, T]]:
        """The records of each window combined: ``function(so_far, record)``. It must be associative: sessions merge."""
        check_plain(function, "reduce")
        return self._compute("reduce", name, parallelism, resources, on_error, function=function)

    def fold(
        self,
        initial: Callable[[], A] | A,
        function: Callable[[A, T], A],
        *,
        merge: Callable[[A, A], A] | None = None,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
    ) -> DataStream[WindowResult[K, A]]:
        """The records of each window folded into an accumulator.

        Args:
            initial: called for each new window; a plain value must be immutable.
            function: ``function(accumulator, record)``.
            merge: one accumulator for two; without it, sessions keep their records until the result is due.
        """
        check_plain(function, "fold")
        if merge is not None:
            check_plain(merge, "fold: merge")
        make: Callable[[], Any] = initial if callable(initial) else constant(initial)
        return self._compute("fold", name, parallelism, resources, on_error, function=function, initial=make, merge=merge)

    def aggregate(
        self,
        function: AggregateFunction[T, Any, R] | type[AggregateFunction[T, Any, R]],
        *,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
    ) -> DataStream[WindowResult[K, R]]:
        """An `AggregateFunction` over each window. With a method ``merge(a, b)`` sessions need not keep their records."""
        instance = function() if isinstance(function, type) else function
        if not isinstance(instance, AggregateFunction):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise GraphError(f"aggregate needs an AggregateFunction (create, add, result), not {function!r}")
        return self._compute("aggregate", name, parallelism, resources, on_error, function=instance)

    def apply(
        self,
        function: Callable[[K, TimeSpan, list[T]], R],
        *,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
    ) -> DataStream[WindowResult[K, R]]:
        """``function(key, window, records)`` over all records of each window, which are kept until then, in order of arrival."""
        check_plain(function, "apply")
        return self._compute("apply", name, parallelism, resources, on_error, function=function)

    def _compute(
        self,
        kind: str,
        name: str | None,
        parallelism: int | None,
        resources: Resources | None,
        on_error: OnError | None,
        *,
        function: Any = None,
        initial: Callable[[], Any] | None = None,
        merge: Callable[[Any, Any], Any] | None = None,
        selector: Callable[[T], Any] | None = None,
        default_name: str | None = None,
    ) -> DataStream[Any]:
        if selector is not None:
            check_plain(selector, kind)
        if self._whole and parallelism not in (None, 1):
            raise GraphError(f"window_all: the windows of a whole stream have one task, not {parallelism}; use key_by first")
        assigner = self._assigner
        options = {
            "assigner": assigner,
            "aggregate": kind,
            "function": function,
            "initial": initial,
            "merge": merge,
            "selector": selector,
            "trigger": self._trigger,
            "lateness": self._lateness,
            "late_output": self._late_output,
            "whole": self._whole,
            "needs_time": isinstance(assigner, EVENT_TRIGGERS) and assigner.time == "event",
        }
        stream = self._stream
        operator = stream._add(  # pyright: ignore[reportPrivateUsage]
            "window",
            name,
            default_name or f"window_{kind}",
            None,
            1 if self._whole else parallelism,
            on_error,
            options,
            resources=resources,
        )
        return DataStream(stream._env, [Edge(operator.id)])  # pyright: ignore[reportPrivateUsage]


def window_all(stream: DataStream[T], assigner: WindowAssigner) -> WindowedStream[None, T]:
    """The windows of a whole stream, whose records all meet in one task; the results' key is None."""
    return WindowedStream(stream, assigner, whole=True)


class Mean(AggregateFunction[Any, tuple[Any, int], float]):
    """Sum and count."""

    def create(self) -> tuple[Any, int]:
        """Nothing yet."""
        return 0, 0

    def add(self, accumulator: tuple[Any, int], value: Any, /) -> tuple[Any, int]:
        """One more."""
        return accumulator[0] + value, accumulator[1] + 1

    def merge(self, one: tuple[Any, int], other: tuple[Any, int]) -> tuple[Any, int]:
        """Both."""
        return one[0] + other[0], one[1] + other[1]

    def result(self, accumulator: tuple[Any, int], /) -> float:
        """The mean."""
        return float(accumulator[0] / accumulator[1])
