"""The actors of a system as a tree with their counts: drawn on a terminal, plain columns when piped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from sage_actor.actor.inspection import printable
from sage_actor.actor.statistics import ActorStatistics, SystemStatistics
from sage_actor.cli.tables import print_table

__all__ = ["Change", "Changes", "draw_tree", "print_tree", "summary_of", "time_text"]

NONE = "·"
LEAST_NAME = 12
STATES = {"restarting": "yellow", "starting": "yellow", "draining": "magenta", "stopping": "magenta", "passive": "dim", "stopped": "dim"}


@dataclass(frozen=True, slots=True)
class Change:
    """What became of an actor since an earlier look.

    Attributes:
        per_second: messages handled a second since the last look.
        still_for: seconds in which no message was done with.
    """

    per_second: float
    still_for: float


Changes = Mapping[str, Change]
"""By the actor's path; an actor that was not there at the last look has none."""

_Text = Callable[[ActorStatistics, Change | None], str]


@dataclass(frozen=True, slots=True)
class _Column:
    """One thing about an actor: its name on a terminal, in two lines, and when piped; its text; its style."""

    above: str
    short: str
    name: str
    text: _Text
    style: _Text


def _state(actor: ActorStatistics, change: Change | None) -> str:
    if actor.state != "running" or not actor.in_hand:
        return actor.state
    return "busy" if change is None or change.still_for < 1 else f"busy {time_text(change.still_for)}"


def _age(actor: ActorStatistics, change: Change | None) -> str:
    if actor.mailbox_age > 0 or not actor.queued:
        return time_text(actor.mailbox_age)
    return "?" if change is None or change.still_for < 1 else f">{time_text(change.still_for)}"


def _age_style(actor: ActorStatistics, change: Change | None) -> str:
    least = max(actor.mailbox_age, change.still_for if change is not None and actor.queued else 0.0)
    return "red" if least >= 10 else "yellow" if least >= 1 else "dim"


def _rate(actor: ActorStatistics, change: Change | None) -> str:
    return NONE if change is None else f"{change.per_second:,.0f}"


def _unstyled(actor: ActorStatistics, change: Change | None) -> str:
    return ""


def _count(name: str, style: str) -> tuple[_Text, _Text]:
    def text(actor: ActorStatistics, change: Change | None) -> str:
        count: int = getattr(actor, name)
        return f"{count:,}" if count else NONE

    return text, lambda actor, change: style


def _time(name: str, place: int) -> tuple[_Text, _Text]:
    def text(actor: ActorStatistics, change: Change | None) -> str:
        times: tuple[float, float] = getattr(actor, name)
        return time_text(times[place])

    return text, _unstyled


STATE = _Column("", "state", "state", _state, lambda actor, change: STATES.get(actor.state, ""))
RATE = _Column("", "/s", "per second", _rate, _unstyled)
COLUMNS = (
    STATE,
    _Column("", "queued", "queued", *_count("queued", "bold")),
    _Column("", "age", "age", _age, _age_style),
    _Column("", "handled", "handled", *_count("handled", "")),
    _Column("", "fails", "failures", *_count("failed", "red")),
    _Column("re-", "starts", "restarts", *_count("restarts", "yellow")),
    _Column("", "dead", "dead letters", *_count("dead_lettered", "red")),
    _Column("wait", "p50", "wait p50", *_time("wait", 0)),
    _Column("", "p99", "wait p99", *_time("wait", 1)),
    _Column("serve", "p50", "service p50", *_time("service", 0)),
    _Column("", "p99", "service p99", *_time("service", 1)),
)


def draw_tree(console: Console, pid: int, statistics: SystemStatistics, changes: Changes | None, lines: int = 0) -> RenderableType:
    """A system for a terminal, as wide as its console and at most that many lines high (0: as many as there are actors).

    Args:
        console: where it will be shown.
        pid: the system's process.
        statistics: what to show.
        changes: what became of the actors since the last look; None if this is the only one.
        lines: how high it may become.
    """
    rows = list(_rows(statistics, ascii_only=console.options.ascii_only))
    shown = rows if not lines or len(rows) + 3 <= lines else rows[: max(1, lines - 4)]
    columns, cells = _cells(shown, changes)
    widths = [max([len(column.above), len(column.short), *(len(line[index]) for line in cells)]) for index, column in enumerate(columns)]
    longest = max([LEAST_NAME, *(len(name) for name, _ in shown)])
    gap = 2 if longest + sum(widths) + 2 * len(widths) <= console.width else 1
    longest = max(LEAST_NAME, min(longest, console.width - sum(widths) - gap * len(widths)))
    table = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("\nactor", width=longest, no_wrap=True)
    for width, column in zip(widths, columns, strict=True):
        table.add_column(f"{column.above}\n{column.short}", width=width, no_wrap=True, justify="left" if column is STATE else "right")
    for (name, actor), line in zip(shown, cells, strict=True):
        change = None if changes is None else changes.get(actor.path)
        texts = [Text(text, "dim" if text == NONE else column.style(actor, change)) for text, column in zip(line, columns, strict=True)]
        table.add_row(Text(name, no_wrap=True, overflow="ellipsis"), *texts)
    parts: list[RenderableType] = [Text(summary_of(pid, statistics), "bold", overflow="fold"), table]
    if len(shown) < len(rows):
        parts.append(Text(f"and {len(rows) - len(shown):,} more, for which there is no room here", "dim"))
    return Group(*parts)


def print_tree(console: Console, pid: int, statistics: SystemStatistics, changes: Changes | None) -> None:
    """Print a system the way the console's other end can use; nothing is cut."""
    if console.is_terminal:
        console.print(draw_tree(console, pid, statistics, changes))
        return
    rows = list(_rows(statistics, ascii_only=console.options.ascii_only))
    columns, cells = _cells(rows, changes)
    lines = [[name, *line] for (name, _), line in zip(rows, cells, strict=True)]
    print_table(console, summary_of(pid, statistics), ("actor", *(column.name for column in columns)), lines)


def summary_of(pid: int, statistics: SystemStatistics) -> str:
    """One line about a whole system."""
    named = (
        (statistics.living, "actor"),
        (statistics.failures, "failure"),
        (statistics.restarts, "restart"),
        (statistics.dead_letters, "dead letter"),
    )
    counts = [f"{count:,} {name}{'' if count == 1 else 's'}" for count, name in named]
    counts[0] += f" ({statistics.spawned:,} spawned)"
    return f"{printable(statistics.name)}: process {pid}, {', '.join(counts)}"


def time_text(seconds: float) -> str:
    """A time in at most five characters."""
    if seconds <= 0:
        return NONE
    for size, unit, factor in ((1e-3, "µs", 1e6), (1.0, "ms", 1e3), (60.0, "s", 1.0), (3600.0, "m", 1 / 60), (86_400.0, "h", 1 / 3600)):
        if seconds < size:
            value = seconds * factor
            return f"{value:.1f}{unit}" if value < 9.95 else f"{value:.0f}{unit}"
    return f"{seconds / 86_400:.0f}d"


def _cells(rows: Sequence[tuple[str, ActorStatistics]], changes: Changes | None) -> tuple[tuple[_Column, ...], list[list[str]]]:
    """The columns, and their text for each row; how fast an actor works only a second look can tell."""
    if changes is None:
        return COLUMNS, [[column.text(actor, None) for column in COLUMNS] for _, actor in rows]
    columns = (*COLUMNS[:4], RATE, *COLUMNS[4:])
    return columns, [[column.text(actor, changes.get(actor.path)) for column in columns] for _, actor in rows]


def _rows(statistics: SystemStatistics, *, ascii_only: bool) -> Iterator[tuple[str, ActorStatistics]]:
    """Each actor with its name behind the lines of the tree."""
    branch, last, through = ("|- ", "`- ", "|  ") if ascii_only else ("├ ", "└ ", "│ ")
    pending = [("", "", actor) for actor in reversed(statistics.actors)]
    while pending:
        before, below, actor = pending.pop()
        yield before + printable(actor.path.rpartition("/")[2]), actor
        for index, child in enumerate(reversed(actor.children)):
            own, under = (last, " " * len(last)) if index == 0 else (branch, through)
            pending.append((below + own, below + under, child))
