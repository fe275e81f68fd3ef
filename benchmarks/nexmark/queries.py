"""The 23 queries by name: how each is described, and how what it emits is compared with the oracle's rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sage_actor as sage
from benchmarks.nexmark import joins, rows, totals, windows
from benchmarks.nexmark.events import Event, row

__all__ = ["CONFIG", "QUERIES", "Query"]

CONFIG = {"object.reuse": True}
"""Nobody changes an event: where a stream branches, both branches get the same objects (Flink's configuration says so, too)."""

Row = tuple[Any, ...]


def as_it_is(record: Any) -> Row:
    """The record is a row already."""
    return tuple(record)


def window_row(result: Any) -> Row:
    """What q11 and its like emit, in the oracle's order of columns."""
    return (result.key, result.value, result.start, result.end)


def joined_row(pair: Any) -> Row:
    """A bid's columns and, without its number, its auction's."""
    return (*row(pair[0]), *row(pair[1])[1:])


@dataclass(frozen=True, slots=True)
class Query:
    """One query.

    Attributes:
        build: from the stream of events to the stream of answers.
        to_row: from what is emitted to the oracle's row.
        side: the records of a second stream that `build` wants beside the events; None if it wants none.
        key_columns: how many leading columns say which row an update replaces; 0 where rows are only ever added.
    """

    name: str
    build: Callable[..., sage.DataStream[Any]]
    to_row: Callable[[Any], Row] = as_it_is
    key_columns: int = 0
    side: Sequence[object] | None = None

    def on(self, env: sage.Environment, events: sage.DataStream[Event]) -> sage.DataStream[Any]:
        """Describe the query in an environment."""
        return self.build(events) if self.side is None else self.build(events, env.from_collection(self.side))

    def rows(self, emitted: Iterable[Any]) -> list[Row]:
        """What stands at the end: all rows, or the last one of each key."""
        found = [self.to_row(record) for record in emitted]
        if not self.key_columns:
            return found
        return list({row[: self.key_columns]: row for row in found}.values())


QUERIES: dict[str, Query] = {
    query.name: query
    for query in (
        Query("q0", rows.q0, row),
        Query("q1", rows.q1),
        Query("q2", rows.q2),
        Query("q3", joins.q3),
        Query("q4", joins.q4, key_columns=1),
        Query("q5", windows.q5),
        Query("q6", joins.q6),
        Query("q7", windows.q7),
        Query("q8", windows.q8),
        Query("q9", joins.q9),
        Query("q10", rows.q10),
        Query("q11", windows.q11, window_row),
        Query("q12", windows.q12, lambda result: (result.key, result.value, result.start)),
        Query("q13", joins.q13, side=joins.SIDE),
        Query("q14", rows.q14),
        Query("q15", totals.q15, key_columns=1),
        Query("q16", totals.q16, key_columns=2),
        Query("q17", totals.q17, key_columns=2),
        Query("q18", totals.q18, row, key_columns=2),
        Query("q19", totals.q19, key_columns=2),
        Query("q20", joins.q20, joined_row),
        Query("q21", rows.q21),
        Query("q22", rows.q22),
    )
}
