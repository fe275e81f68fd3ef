"""Joins of two keyed streams by event time, as streams of pairs."""

from __future__ import annotations

from typing import Any, Final, Literal, Self, TypeVar

from sage_actor.dataflow.graph import Edge
from sage_actor.dataflow.output_tag import OutputTag
from sage_actor.dataflow.resources import Resources
from sage_actor.dataflow.watermarks import milliseconds
from sage_actor.dataflow.windows import Session, Sliding, Tumbling
from sage_actor.errors import GraphError
from sage_actor.stream.datastream import DataStream
from sage_actor.stream.keyed import KeyedStream

__all__ = ["AsOfKind", "JoinKind", "JoinedStream", "as_of_join", "interval_join", "window_join"]

K = TypeVar("K")
T = TypeVar("T")
U = TypeVar("U")
P = TypeVar("P")

JoinKind = Literal["inner", "left", "right", "outer"]
AsOfKind = Literal["inner", "left"]

LARGEST_BOUND: Final = 2**60


class JoinedStream(DataStream[P]):
    """Pairs of a left and a right record of one key."""

    def late_output(self, tag: OutputTag[Any]) -> Self:
        """Put records of either side that come behind the watermark into a side output; without it they are dropped, and counted."""
        self._last("late_output").options["late"] = tag
        return self


def window_join(
    left: KeyedStream[K, T],
    right: KeyedStream[K, U],
    window: Tumbling | Sliding | Session,
    how: JoinKind,
    name: str | None,
    parallelism: int | None,
    resources: Resources | None,
) -> JoinedStream[Any]:
    """All pairs of records of one key in the same window, once event time has reached its end.

    Raises:
        GraphError: not a window of event time, `how` is none of the four, or `right` is not keyed.
    """
    place = f"operator {name or 'join'!r}"
    if how not in ("inner", "left", "right", "outer"):
        raise GraphError(f'{place}: how is "inner", "left", "right" or "outer", not {how!r}')
    if not isinstance(window, Tumbling | Sliding | Session):
        raise GraphError(f"{place}: a join takes a window of time (Tumbling, Sliding or Session), not {window!r}")
    if window.time != "event":
        raise GraphError(f"{place}: joins go by event time, so that their results can be repeated; leave time= of the window out")
    options: dict[str, Any] = {"how": how}
    if isinstance(window, Session):
        kind = "session_join"
        options["gap"] = window.span
    else:
        kind = "join"
        options |= {"size": window.span, "every": window.step, "offset": window.shift}
    return _joined(kind, left, right, name, "join", parallelism, resources, options)


def interval_join(
    left: KeyedStream[K, T],
    right: KeyedStream[K, U],
    lower: str | int,
    upper: str | int,
    name: str | None,
    parallelism: int | None,
    resources: Resources | None,
) -> JoinedStream[tuple[T, U]]:
    """Each left record with the right ones of its key whose time is in [left + lower, left + upper].

    Raises:
        GraphError: `lower` is above `upper`, or `right` is not keyed.
    """
    place = f"operator {name or 'interval_join'!r}"
    bounds = milliseconds(lower, f"{place}: lower"), milliseconds(upper, f"{place}: upper")
    if bounds[0] > bounds[1]:
        raise GraphError(f"{place}: lower ({lower!r}) is above upper ({upper!r}), so nothing would ever match")
    if max(abs(bound) for bound in bounds) > LARGEST_BOUND:
        raise GraphError(f"{place}: a bound is at most 2**60 ms, not {lower!r} and {upper!r}")
    return _joined("interval_join", left, right, name, "interval_join", parallelism, resources, {"lower": bounds[0], "upper": bounds[1]})


def as_of_join(
    left: KeyedStream[K, T],
    right: KeyedStream[K, U],
    within: str | int | None,
    how: AsOfKind,
    name: str | None,
    parallelism: int | None,
    resources: Resources | None,
) -> JoinedStream[Any]:
    """Each left record with the newest right one of its key that is not newer, decided when event time has passed the left one.

    Raises:
        GraphError: `within` is negative, `how` is neither of the two, or `right` is not keyed.
    """
    place = f"operator {name or 'as_of_join'!r}"
    if how not in ("inner", "left"):
        raise GraphError(f'{place}: how is "inner" or "left", not {how!r}')
    reach = None if within is None else milliseconds(within, f"{place}: within")
    if reach is not None and not 0 <= reach <= LARGEST_BOUND:
        raise GraphError(f"{place}: within must lie between 0 and 2**60 ms, not {within!r}")
    return _joined("as_of_join", left, right, name, "as_of_join", parallelism, resources, {"within": reach, "how": how})


def _joined(
    kind: str,
    left: KeyedStream[Any, Any],
    right: KeyedStream[Any, Any],
    name: str | None,
    default_name: str,
    parallelism: int | None,
    resources: Resources | None,
    options: dict[str, Any],
) -> JoinedStream[Any]:
    if not isinstance(right, KeyedStream):  # pyright: ignore[reportUnnecessaryIsInstance] - users without a type checker
        raise GraphError(f"operator {name or default_name!r}: the other stream of a join must be keyed too; call key_by on it before")
    operator = left._add_two(kind, right, name, default_name, None, parallelism, None, options, resources=resources)
    return JoinedStream(left._env, [Edge(operator.id)])
