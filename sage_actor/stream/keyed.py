"""Keyed streams and their aggregations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from sage_actor.dataflow.functions import AggregateFunction, BaseFunction, FunctionSpec, ProcessFunction, check_plain
from sage_actor.dataflow.graph import Edge
from sage_actor.dataflow.policies import OnError
from sage_actor.dataflow.resources import Resources
from sage_actor.errors import GraphError
from sage_actor.stream.datastream import DataStream

if TYPE_CHECKING:
    from sage_actor.dataflow.pattern import Pattern
    from sage_actor.dataflow.process_functions import KeyedProcessFunction
    from sage_actor.dataflow.windows import Session, Sliding, Tumbling, WindowAssigner
    from sage_actor.stream.joined import AsOfKind, JoinedStream, JoinKind
    from sage_actor.stream.patterns import PatternStream
    from sage_actor.stream.windowed import WindowedStream

__all__ = ["Emit", "KeyedStream", "constant"]

K = TypeVar("K")
T = TypeVar("T")
U = TypeVar("U")
A = TypeVar("A")
R = TypeVar("R")

Emit = Literal["update", "final"]


class KeyedStream(DataStream[T], Generic[K, T]):
    """A stream grouped by key. Records of one key stay in order (per sender) and meet in one task.

    Aggregations emit one update per record; ``emit="final"`` emits once per key, in order of first appearance, when a
    bounded input ends (and needs one).
    """

    def count(
        self, *, emit: Emit = "update", name: str | None = None, parallelism: int | None = None, resources: Resources | None = None
    ) -> DataStream[tuple[K, int]]:
        """Count the records: ``(key, n)``."""
        return self._fold("count", None, None, None, emit, name, parallelism, resources, None)

    def sum(
        self,
        value: Callable[[T], R] | None = None,
        *,
        emit: Emit = "update",
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
    ) -> DataStream[tuple[K, R]]:
        """Sum the records, or what `value` takes from them: ``(key, total)``. Starts from the first value."""
        return self._fold("sum", None, None, value, emit, name, parallelism, resources, on_error)

    def min(
        self,
        value: Callable[[T], R] | None = None,
        *,
        emit: Emit = "update",
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
    ) -> DataStream[tuple[K, R]]:
        """The smallest value so far: ``(key, least)``; of equal ones the first."""
        return self._fold("min", None, None, value, emit, name, parallelism, resources, on_error)

    def max(
        self,
        value: Callable[[T], R] | None = None,
        *,
        emit: Emit = "update",
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
    ) -> DataStream[tuple[K, R]]:
        """The largest value so far: ``(key, greatest)``; of equal ones the first."""
        return self._fold("max", None, None, value, emit, name, parallelism, resources, on_error)

    def reduce(
        self,
        function: Callable[[T, T], T],
        *,
        emit: Emit = "update",
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
    ) -> DataStream[T]:
        """Combine the records of a key: ``function(so_far, record)``; emits the combined record. The first stands for itself."""
        return self._fold("reduce", function, None, None, emit, name, parallelism, resources, on_error)

    def fold(
        self,
        initial: Callable[[], A] | A,
        function: Callable[[A, T], A],
        *,
        emit: Emit = "update",
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
    ) -> DataStream[tuple[K, A]]:
        """Fold the records of a key into an accumulator: ``(key, accumulator)``.

        `initial` is called for each new key; a plain value must be immutable (a shared list would leak between keys).
        """
        make: Callable[[], Any] = initial if callable(initial) else constant(initial)
        return self._fold("fold", function, make, None, emit, name, parallelism, resources, on_error)

    def aggregate(
        self,
        function: AggregateFunction[T, Any, R] | type[AggregateFunction[T, Any, R]],
        *,
        emit: Emit = "update",
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
    ) -> DataStream[tuple[K, R]]:
        """Aggregate with an `AggregateFunction`: ``(key, result)``."""
        instance = function() if isinstance(function, type) else function
        if not isinstance(instance, AggregateFunction):
            raise GraphError(
                f"aggregate needs an AggregateFunction (create, add, result), not {function!r}; or use fold(initial, function)"
            )
        return self._fold("aggregate", instance, None, None, emit, name, parallelism, resources, on_error)

    # -- event time, joins, functions with state ----------------------------------------------------------------------

    def window(self, window: WindowAssigner, /) -> WindowedStream[K, T]:
        """Group the records of each key into windows."""
        from sage_actor.stream.windowed import WindowedStream

        return WindowedStream(self, window)

    @overload
    def join(
        self,
        other: KeyedStream[K, U],
        /,
        *,
        window: Tumbling | Sliding | Session,
        how: Literal["inner"] = "inner",
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
    ) -> JoinedStream[tuple[T, U]]: ...
    @overload
    def join(
        self,
        other: KeyedStream[K, U],
        /,
        *,
        window: Tumbling | Sliding | Session,
        how: Literal["left"],
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
    ) -> JoinedStream[tuple[T, U | None]]: ...
    @overload
    def join(
        self,
        other: KeyedStream[K, U],
        /,
        *,
        window: Tumbling | Sliding | Session,
        how: Literal["right"],
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
    ) -> JoinedStream[tuple[T | None, U]]: ...
    @overload
    def join(
        self,
        other: KeyedStream[K, U],
        /,
        *,
        window: Tumbling | Sliding | Session,
        how: Literal["outer"],
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
    ) -> JoinedStream[tuple[T | None, U | None]]: ...
    def join(
        self,
        other: KeyedStream[K, U],
        /,
        *,
        window: Tumbling | Sliding | Session,
        how: JoinKind = "inner",
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
    ) -> JoinedStream[Any]:
        """All pairs of records of one key in the same window; None stands for the missing side of an outer join."""
        from sage_actor.stream.joined import window_join

        return window_join(self, other, window, how, name, parallelism, resources)

    def interval_join(
        self,
        other: KeyedStream[K, U],
        /,
        *,
        lower: str | int,
        upper: str | int,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
    ) -> JoinedStream[tuple[T, U]]:
        """Each record with those of the other stream whose time is in [its own + lower, its own + upper], bounds included (F22)."""
        from sage_actor.stream.joined import interval_join

        return interval_join(self, other, lower, upper, name, parallelism, resources)

    @overload
    def as_of_join(
        self,
        other: KeyedStream[K, U],
        /,
        *,
        within: str | int | None = None,
        how: Literal["inner"] = "inner",
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
    ) -> JoinedStream[tuple[T, U]]: ...
    @overload
    def as_of_join(
        self,
        other: KeyedStream[K, U],
        /,
        *,
        within: str | int | None = None,
        how: Literal["left"],
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
    ) -> JoinedStream[tuple[T, U | None]]: ...
    def as_of_join(
        self,
        other: KeyedStream[K, U],
        /,
        *,
        within: str | int | None = None,
        how: AsOfKind = "inner",
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
    ) -> JoinedStream[Any]:
        """Each record with the newest one of the other stream that is not newer than itself: the price as of the order."""
        from sage_actor.stream.joined import as_of_join

        return as_of_join(self, other, within, how, name, parallelism, resources)

    def pattern(
        self,
        pattern: Pattern[T],
        /,
        *,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
    ) -> PatternStream[K, T]:
        """Sequences of events of one key that match a `Pattern` (complex event processing)."""
        from sage_actor.stream.patterns import PatternStream, checked

        operator = self._add("pattern", name, "pattern", None, parallelism, on_error, {"pattern": checked(pattern)}, resources=resources)
        return PatternStream(self._env, [Edge(operator.id)])

    @overload
    def process(
        self,
        function: KeyedProcessFunction[T, R] | type[KeyedProcessFunction[T, R]],
        config: Mapping[str, Any] | None = None,
        /,
        *,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
        **keywords: Any,
    ) -> DataStream[R]: ...
    @overload
    def process(
        self,
        function: Callable[..., Iterable[R] | None] | ProcessFunction[T, R] | type[BaseFunction] | BaseFunction,
        config: Mapping[str, Any] | None = None,
        /,
        *,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
        **keywords: Any,
    ) -> DataStream[R]: ...
    def process(
        self,
        function: Any,
        config: Mapping[str, Any] | None = None,
        /,
        *,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
        **keywords: Any,
    ) -> DataStream[Any]:
        """Any number of results for each record, with state and timers of its key: see `KeyedProcessFunction`.

        A function or class that wants neither key nor context is treated as on an un-keyed stream.
        """
        from sage_actor.dataflow.process_functions import is_keyed_process

        if not is_keyed_process(function):
            return super().process(function, config, name=name, parallelism=parallelism, resources=resources, on_error=on_error, **keywords)
        spec = FunctionSpec("process", function, config, keywords)
        return self._step("keyed_process", spec, name, parallelism, on_error, resources=resources)

    def _fold(
        self,
        kind: str,
        function: Any,
        initial: Callable[[], Any] | None,
        selector: Callable[[T], Any] | None,
        emit: Emit,
        name: str | None,
        parallelism: int | None,
        resources: Resources | None,
        on_error: OnError | None,
    ) -> DataStream[Any]:
        if emit not in ("update", "final"):
            raise GraphError(f"{kind}: emit must be 'update' or 'final', not {emit!r}")
        if kind in ("reduce", "fold"):
            check_plain(function, kind)
        if selector is not None:
            check_plain(selector, kind)
        options = {"fold": kind, "function": function, "initial": initial, "selector": selector, "emit": emit}
        operator = self._add("fold", name, kind, None, parallelism, on_error, options, resources=resources)
        return DataStream(self._env, [Edge(operator.id)])


IMMUTABLE = (int, float, complex, str, bytes, bool, tuple, frozenset, type(None))


def constant(value: Any) -> Callable[[], Any]:
    """A factory for an immutable start value."""
    if not isinstance(value, IMMUTABLE):
        raise GraphError(f"fold: the initial value {value!r} is mutable and would be shared by all keys; pass a function that makes it")
    return Constant(value)


class Constant:
    """A picklable ``lambda: value``."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self) -> Any:
        return self.value
