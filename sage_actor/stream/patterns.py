"""The matches of a pattern as a stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, cast

from sage_actor.dataflow.functions import check_plain
from sage_actor.dataflow.output_tag import OutputTag
from sage_actor.dataflow.pattern import Pattern
from sage_actor.dataflow.policies import OnError
from sage_actor.dataflow.resources import Resources
from sage_actor.errors import GraphError
from sage_actor.stream.datastream import DataStream

__all__ = ["PatternStream", "checked"]

K = TypeVar("K")
T = TypeVar("T")
R = TypeVar("R")


class PatternStream(DataStream[tuple[K, dict[str, list[T]]]], Generic[K, T]):
    """Matches, each as ``(key, {step name: events})``; steps that were left out are not in it."""

    def select(
        self,
        function: Callable[[K, dict[str, list[T]]], R],
        *,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
    ) -> DataStream[R]:
        """What a function of the key and of the events by step makes of each match."""
        check_plain(function, "select")
        return self.map(Selection(function), name=name, parallelism=parallelism, resources=resources, on_error=on_error)

    def timeout_output(self, tag: OutputTag[tuple[K, dict[str, list[T]]]]) -> Self:
        """Put beginnings from which nothing came before `Pattern.within` ended them into a side output, as ``(key, {step name: events})``.

        Raises:
            GraphError: the pattern has no `within`.
        """
        operator = self._last("timeout_output")
        pattern: Pattern[Any] = operator.options["pattern"]
        if pattern.span is None:
            raise GraphError(f"operator {operator.name!r}: nothing times out without within(...) in the pattern")
        operator.options["timeouts"] = tag
        return self

    def late_output(self, tag: OutputTag[T]) -> Self:
        """Put events that come behind the watermark into a side output; without it they are dropped, and counted."""
        self._last("late_output").options["late"] = tag
        return self


class Selection:
    """A picklable ``lambda match: function(*match)``."""

    __slots__ = ("__name__", "function")

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        self.function = function
        self.__name__ = getattr(function, "__name__", "select")

    def __call__(self, match: tuple[Any, dict[str, list[Any]]], /) -> Any:
        return self.function(match[0], match[1])


def checked(pattern: object) -> Pattern[Any]:
    """The pattern, if it is one and can match.

    Raises:
        GraphError: not a `Pattern`, or one that contradicts itself.
    """
    if not isinstance(pattern, Pattern):
        raise GraphError(f"pattern needs a Pattern, such as Pattern.begin('a').where(...).then('b'), not {pattern!r}")
    found = cast("Pattern[Any]", pattern)
    found.check()
    return found
