"""Functions that see one record with its key, time, state and timers, and may answer later."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

from sage_actor.dataflow.context import FunctionContext
from sage_actor.dataflow.functions import BaseFunction
from sage_actor.dataflow.output_tag import OutputTag
from sage_actor.dataflow.watermarks import MIN_WATERMARK

if TYPE_CHECKING:
    from sage_actor.state.handles import StateAccess

__all__ = ["Aside", "KeyedContext", "KeyedProcessFunction", "ProcessContext", "Timers", "is_keyed_process"]

T_contra = TypeVar("T_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)
V = TypeVar("V")

Aside = Callable[[OutputTag[Any], Any, int | None], None]
"""Takes a record for a side output: tag, value, timestamp."""


class Timers(Protocol):
    """The timers of the present key. Each is unique by time, namespace and domain: setting one twice makes it fire once.

    They are part of the state: they survive crashes and rescaling. Times are whole milliseconds since the epoch.
    """

    def now(self) -> int:
        """Processing time: what the job's clock shows."""
        ...

    def event_time(self, time: int, namespace: str | None = None) -> None:
        """Have ``on_timer`` called when event time reaches `time`, before that watermark goes on; at once, after the present call, if it
        has been reached.

        Raises:
            StateError: the records have no timestamps, or `time` is not a whole number.
        """
        ...

    def processing_time(self, time: int, namespace: str | None = None) -> None:
        """Have ``on_timer`` called when the clock shows `time` or later. One that falls due while the job is down fires after it is
        restored; one that still waits when a bounded input ends never fires.

        Raises:
            StateError: `time` is not a whole number.
        """
        ...

    def delete_event_time(self, time: int, namespace: str | None = None) -> None:
        """Call a timer of event time off; without effect if there is none."""
        ...

    def delete_processing_time(self, time: int, namespace: str | None = None) -> None:
        """Call a timer of processing time off; without effect if there is none."""
        ...


class ProcessContext(FunctionContext):
    """What a process function learns with each record, beside its place. One object serves all calls: take from it what is to be kept.

    Attributes:
        timestamp: event time of the record in milliseconds, or of the timer; None without `assign_timestamps`.
        watermark: how far event time has come.
    """

    __slots__ = ("_aside", "timestamp", "watermark")

    timestamp: int | None
    watermark: int

    def __init__(self, place: FunctionContext, aside: Aside) -> None:
        for column in dataclasses.fields(FunctionContext):
            object.__setattr__(self, column.name, getattr(place, column.name))
        self._aside = aside
        self.timestamp = None
        self.watermark = MIN_WATERMARK

    # The base is frozen; the attributes here change with each record, and the base's guard would cost more than all else.
    __setattr__ = object.__setattr__

    def output(self, tag: OutputTag[V], value: V) -> None:
        """Put a record into a side output; read it with ``stream.side_output(tag)``. Dropped where nobody reads that tag.

        What a call has put aside before it raised does not count.
        """
        self._aside(tag, value, self.timestamp)


class KeyedContext(ProcessContext):
    """What a process function on a keyed stream learns with each record and each timer.

    Attributes:
        key: the key in work; None in ``open``.
        state: handles of the state of that key; declare them in ``open``.
        timers: the timers of that key.
    """

    __slots__ = ("_state", "key", "timers")

    key: Any
    timers: Timers

    def __init__(self, place: FunctionContext, aside: Aside, state: StateAccess, timers: Timers) -> None:
        super().__init__(place, aside)
        self.key = None
        self._state = state
        self.timers = timers

    @property
    def state(self) -> StateAccess:
        """Handles of this function's state."""
        return self._state


class KeyedProcessFunction(BaseFunction, Generic[T_contra, R_co]):
    """One record of a keyed stream in, any number of results out, with state and timers of the record's key.

    ``process`` and ``on_timer`` are called one at a time; what they return (an iterable, a generator, or None) is emitted before
    the next call. State changes and timers of a call that raised stay; its results and side outputs do not, unless its
    ``on_error`` is "fail", where results up to the failure may have gone on.
    """

    def process(self, value: T_contra, context: KeyedContext, /) -> Iterable[R_co] | None:
        """Return the results for one record, or None for none."""
        raise NotImplementedError(f"{type(self).__name__} must implement process(value, context)")

    def on_timer(self, timestamp: int, context: KeyedContext, /) -> Iterable[R_co] | None:
        """A timer set for ``context.key`` is due. Results carry the timer's time as their timestamp."""
        raise NotImplementedError(f"{type(self).__name__} sets timers but does not implement on_timer(timestamp, context)")


def is_keyed_process(target: object) -> bool:
    """Whether what was given to ``process`` on a keyed stream wants key, state and timers.

    That is a `KeyedProcessFunction`, any object with an ``on_timer``, or a plain function of two arguments.
    """
    cls = cast("type[object]", target if isinstance(target, type) else type(target))
    if issubclass(cls, KeyedProcessFunction) or callable(getattr(cls, "on_timer", None)):
        return True
    if isinstance(target, type | BaseFunction) or not callable(target):
        return False
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return False
    return sum(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters) >= 2
