"""Two streams of different types side by side, for operators that see both."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar, overload

from sage_actor.dataflow.co_functions import (
    BroadcastProcessFunction,
    CoFlatMapFunction,
    CoMapFunction,
    CoProcessFunction,
    KeyedCoProcessFunction,
)
from sage_actor.dataflow.functions import FunctionSpec, check_plain
from sage_actor.dataflow.graph import Edge, Partition
from sage_actor.dataflow.policies import OnError
from sage_actor.dataflow.resources import Resources
from sage_actor.errors import GraphError
from sage_actor.stream.datastream import DataStream
from sage_actor.stream.keyed import KeyedStream

__all__ = ["ConnectedStreams", "connect_broadcast"]

A = TypeVar("A")
B = TypeVar("B")
R = TypeVar("R")
K = TypeVar("K")


class ConnectedStreams(Generic[A, B]):
    """Two streams whose records one operator takes, each in its own order; nothing is promised about the order between them.

    Event time of the operator is the lesser one of both (F18). If both are keyed (before, or by `key_by` here), equal keys of
    both meet in one task and share their state.
    """

    def __init__(self, first: DataStream[A], second: DataStream[B]) -> None:
        if isinstance(first, KeyedStream) != isinstance(second, KeyedStream):
            raise GraphError(
                "connect: one stream is keyed and the other is not; key both, or none: a.connect(b).key_by(key_of_a, key_of_b)"
            )
        self._first = first
        self._second = second

    def key_by(self, first: Callable[[A], K], second: Callable[[B], K]) -> ConnectedStreams[A, B]:
        """Key both streams: records with equal keys meet."""
        return ConnectedStreams(self._first.key_by(first), self._second.key_by(second))

    @overload
    def map(
        self,
        function: Callable[[A], R],
        second: Callable[[B], R],
        /,
        *,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
    ) -> DataStream[R]: ...
    @overload
    def map(
        self,
        function: CoMapFunction[A, B, R] | type[CoMapFunction[A, B, R]],
        /,
        *,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
    ) -> DataStream[R]: ...
    def map(
        self,
        function: Any,
        second: Any = None,
        /,
        *,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
    ) -> DataStream[Any]:
        """One result per record: ``function`` for the first stream, ``second`` for the other, or a `CoMapFunction` for both."""
        if second is None:
            return self._add("map", function, CoMapFunction, name, parallelism, resources, on_error)
        self._check(function, second, name or "map")
        return self._add("map", MapPair(function, second), CoMapFunction, name, parallelism, resources, on_error)

    @overload
    def flat_map(
        self,
        function: Callable[[A], Iterable[R]],
        second: Callable[[B], Iterable[R]],
        /,
        *,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
    ) -> DataStream[R]: ...
    @overload
    def flat_map(
        self,
        function: CoFlatMapFunction[A, B, R] | type[CoFlatMapFunction[A, B, R]],
        /,
        *,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
    ) -> DataStream[R]: ...
    def flat_map(
        self,
        function: Any,
        second: Any = None,
        /,
        *,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
    ) -> DataStream[Any]:
        """Any number of results per record: two functions, or a `CoFlatMapFunction`."""
        if second is None:
            return self._add("flat_map", function, CoFlatMapFunction, name, parallelism, resources, on_error)
        self._check(function, second, name or "flat_map")
        return self._add("flat_map", FlatMapPair(function, second), CoFlatMapFunction, name, parallelism, resources, on_error)

    def process(
        self,
        function: CoProcessFunction[A, B, R]
        | type[CoProcessFunction[A, B, R]]
        | KeyedCoProcessFunction[A, B, R]
        | type[KeyedCoProcessFunction[A, B, R]],
        /,
        *,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
    ) -> DataStream[R]:
        """Any number of results per record, with a context: side outputs and, on keyed streams, state and timers.

        Raises:
            GraphError: a `KeyedCoProcessFunction` on streams that are not keyed.
        """
        if is_a(function, KeyedCoProcessFunction) and not self._keyed:
            raise GraphError(
                f"operator {name or 'process'!r}: a KeyedCoProcessFunction needs keys; call key_by(...) on the connected streams"
            )
        return self._add("process", function, (CoProcessFunction, KeyedCoProcessFunction), name, parallelism, resources, on_error)

    @property
    def _keyed(self) -> bool:
        return isinstance(self._first, KeyedStream)

    def _check(self, first: object, second: object, label: str) -> None:
        for function in (first, second):
            check_plain(function, label)
            self._first._env.late_bindings.check(FunctionSpec("map", function), label)

    def _add(
        self,
        form: str,
        function: Any,
        base: type | tuple[type, ...],
        name: str | None,
        parallelism: int | None,
        resources: Resources | None,
        on_error: OnError | None,
    ) -> DataStream[Any]:
        if not is_a(function, base):
            wanted = " or ".join(cls.__name__ for cls in (base if isinstance(base, tuple) else (base,)))
            two = "two functions, or " if form != "process" else ""
            raise GraphError(f"operator {name or form!r}: connected streams take {two}a {wanted}, not {function!r}")
        options = {"form": form, "keyed": self._keyed}
        spec = FunctionSpec(form, function)
        operator = self._first._add_two("co", self._second, name, form, spec, parallelism, on_error, options, resources=resources)
        return DataStream(self._first._env, [Edge(operator.id)])


def connect_broadcast(
    main: DataStream[A],
    control: DataStream[B],
    function: BroadcastProcessFunction[A, B, R] | type[BroadcastProcessFunction[A, B, R]],
    name: str | None,
    parallelism: int | None,
    resources: Resources | None,
    on_error: OnError | None,
) -> DataStream[R]:
    """Run a function on `main` beside `control`, all records of which reach every task.

    Raises:
        GraphError: not a `BroadcastProcessFunction`.
    """
    if not is_a(function, BroadcastProcessFunction):
        raise GraphError(f"operator {name or 'broadcast'!r}: connect_broadcast takes a BroadcastProcessFunction, not {function!r}")
    everywhere = DataStream[B](control._env, control._dealt(Partition("broadcast")))
    spec = FunctionSpec("process", function)
    options = {"keyed": isinstance(main, KeyedStream)}
    operator = main._add_two("broadcast", everywhere, name, "broadcast", spec, parallelism, on_error, options, resources=resources)
    return DataStream(main._env, [Edge(operator.id)])


def is_a(function: object, base: type | tuple[type, ...]) -> bool:
    """Whether it is an instance or a subclass of `base`."""
    return isinstance(function, base) or (isinstance(function, type) and issubclass(function, base))


class MapPair(CoMapFunction[Any, Any, Any]):
    """Two functions as one object."""

    def __init__(self, first: Callable[[Any], Any], second: Callable[[Any], Any]) -> None:
        self.first = first
        self.second = second

    def map(self, value: Any, /) -> Any:
        return self.first(value)

    def map_second(self, value: Any, /) -> Any:
        return self.second(value)


class FlatMapPair(CoFlatMapFunction[Any, Any, Any]):
    """Two functions as one object."""

    def __init__(self, first: Callable[[Any], Iterable[Any]], second: Callable[[Any], Iterable[Any]]) -> None:
        self.first = first
        self.second = second

    def flat_map(self, value: Any, /) -> Iterable[Any]:
        return self.first(value)

    def flat_map_second(self, value: Any, /) -> Iterable[Any]:
        return self.second(value)
