"""Functions with two inputs: of connected streams, and of a stream beside a broadcast one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any, Generic, NoReturn, TypeVar

from sage_actor.dataflow.context import FunctionContext
from sage_actor.dataflow.functions import BaseFunction, FlatMapFunction, MapFunction
from sage_actor.dataflow.process_functions import Aside, KeyedContext, ProcessContext, Timers
from sage_actor.errors import StateError

__all__ = [
    "BroadcastContext",
    "BroadcastProcessFunction",
    "CoFlatMapFunction",
    "CoMapFunction",
    "CoProcessFunction",
    "KeyedCoProcessFunction",
    "ReadOnlyBroadcastContext",
    "ReadOnlyBroadcastState",
]

A_contra = TypeVar("A_contra", contravariant=True)
B_contra = TypeVar("B_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)


class CoMapFunction(MapFunction[A_contra, R_co], Generic[A_contra, B_contra, R_co]):
    """One record in from either of two streams, one out. ``map`` takes those of the first, ``map_second`` those of the other.

    On keyed streams ``open(context)`` may declare state in ``context.state``; both methods then see the state of the record's key.
    """

    def map_second(self, value: B_contra, /) -> R_co:
        """Return the result for one record of the second stream."""
        raise NotImplementedError(f"{type(self).__name__} must implement map_second(value)")


class CoFlatMapFunction(FlatMapFunction[A_contra, R_co], Generic[A_contra, B_contra, R_co]):
    """One record in from either of two streams, any number out. See `CoMapFunction`."""

    def flat_map_second(self, value: B_contra, /) -> Iterable[R_co]:
        """Return the results for one record of the second stream."""
        raise NotImplementedError(f"{type(self).__name__} must implement flat_map_second(value)")


class CoProcessFunction(BaseFunction, Generic[A_contra, B_contra, R_co]):
    """One record of either of two streams and its context in, any number of results out. ``context.output`` reaches side outputs.

    Records of one stream come in its order; nothing is promised between the two.
    """

    def process(self, value: A_contra, context: ProcessContext, /) -> Iterable[R_co] | None:
        """Return the results for one record of the first stream, or None for none."""
        raise NotImplementedError(f"{type(self).__name__} must implement process(value, context)")

    def process_second(self, value: B_contra, context: ProcessContext, /) -> Iterable[R_co] | None:
        """Return the results for one record of the second stream, or None for none."""
        raise NotImplementedError(f"{type(self).__name__} must implement process_second(value, context)")


class KeyedCoProcessFunction(BaseFunction, Generic[A_contra, B_contra, R_co]):
    """The same on two keyed streams, with state and timers of the record's key, which both sides share; see `KeyedProcessFunction`."""

    def process(self, value: A_contra, context: KeyedContext, /) -> Iterable[R_co] | None:
        """Return the results for one record of the first stream, or None for none."""
        raise NotImplementedError(f"{type(self).__name__} must implement process(value, context)")

    def process_second(self, value: B_contra, context: KeyedContext, /) -> Iterable[R_co] | None:
        """Return the results for one record of the second stream, or None for none."""
        raise NotImplementedError(f"{type(self).__name__} must implement process_second(value, context)")

    def on_timer(self, timestamp: int, context: KeyedContext, /) -> Iterable[R_co] | None:
        """A timer set for ``context.key`` is due. Results carry the timer's time as their timestamp."""
        raise NotImplementedError(f"{type(self).__name__} sets timers but does not implement on_timer(timestamp, context)")


class ReadOnlyBroadcastState(Mapping[Any, Any]):
    """Broadcast state as the main stream sees it. Changes of the broadcast side show at once; an attempt to change it is refused."""

    __slots__ = ("_content", "_operator")

    def __init__(self, content: Mapping[Any, Any], operator: str) -> None:
        self._content = content
        self._operator = operator

    def __getitem__(self, key: Any) -> Any:
        return self._content[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._content)

    def __len__(self) -> int:
        return len(self._content)

    def __setitem__(self, key: Any, value: Any) -> NoReturn:
        raise self._refusal()

    def __delitem__(self, key: Any) -> NoReturn:
        raise self._refusal()

    def __repr__(self) -> str:
        return f"<read-only {dict(self._content)!r}>"

    def _refusal(self) -> StateError:
        return StateError(
            self._operator,
            "broadcast",
            "broadcast state is changed only in process_broadcast: each task sees other records of the main stream, so the copies of "
            "the tasks would differ",
        )


class ReadOnlyBroadcastContext(KeyedContext):
    """What the main side of a broadcast process function learns with each record.

    Attributes:
        broadcast: the broadcast state; read only.
        key, state, timers: as in `KeyedContext`, where the main stream is keyed; of no use otherwise.
    """

    __slots__ = ("broadcast",)

    broadcast: Mapping[Any, Any]

    def __init__(self, keyed: KeyedContext, aside: Aside, state: Any, timers: Timers, broadcast: Mapping[Any, Any]) -> None:
        super().__init__(keyed, aside, state, timers)
        self.broadcast = broadcast


class BroadcastContext(ProcessContext):
    """What the broadcast side learns with each record.

    Attributes:
        broadcast: the broadcast state of this task, to be changed in a way that depends on nothing but the broadcast records: then
            all tasks have the same.
    """

    __slots__ = ("broadcast",)

    broadcast: MutableMapping[Any, Any]

    def __init__(self, place: FunctionContext, aside: Aside, broadcast: MutableMapping[Any, Any]) -> None:
        super().__init__(place, aside)
        self.broadcast = broadcast


class BroadcastProcessFunction(BaseFunction, Generic[A_contra, B_contra, R_co]):
    """A stream beside one that every task reads whole: rules, rates, switches (rule F38).

    All tasks get all broadcast records, each in the order of its sender; nothing is promised about when, relative to the main
    stream or to other tasks. Each task saves its copy of the state. On a keyed main stream there are state, timers and
    ``on_timer(timestamp, context)`` as in `KeyedProcessFunction`.
    """

    def process(self, value: A_contra, context: ReadOnlyBroadcastContext, /) -> Iterable[R_co] | None:
        """Return the results for one record of the main stream, or None for none."""
        raise NotImplementedError(f"{type(self).__name__} must implement process(value, context)")

    def process_broadcast(self, value: B_contra, context: BroadcastContext, /) -> Iterable[R_co] | None:
        """Take one broadcast record; return results, or None for none. With several tasks each of them emits them."""
        raise NotImplementedError(f"{type(self).__name__} must implement process_broadcast(value, context)")
