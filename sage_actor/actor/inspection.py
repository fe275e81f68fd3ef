"""What can be told about a living system to somebody who looks at it from outside: plain values, made on the system's loop."""

from __future__ import annotations

import reprlib
import traceback
from collections.abc import Iterator, Sized
from dataclasses import dataclass, fields, is_dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from sage_actor._core.reply import Call, Reply
from sage_actor.actor.statistics import ActorStatistics, counts_of

if TYPE_CHECKING:
    from sage_actor.actor.dead_letters import UndeliveredMessage
    from sage_actor.actor.lifecycle import Lifecycle
    from sage_actor.actor.system import ActorSystem

__all__ = [
    "ActorReport",
    "DeadLetterReport",
    "DeadLettersReport",
    "FailureReport",
    "TimerReport",
    "dead_letters_report",
    "encodable",
    "in_tree_order",
    "printable",
    "report_of",
    "shortened",
]

MOST_LISTED = 50
"""Messages, dead letters, children and watchers that a report lists; their number it tells in full."""

_LONGEST = 200
_LONGEST_TRACEBACK = 20_000
_LONGEST_STRING = 80
_MOST_BITS = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerReport:
    """A timer that will tick.

    Attributes:
        key: its name.
        due_in: seconds until its next tick.
        every: its period in seconds; None if it ticks once.
    """

    key: str
    due_in: float
    every: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureReport:
    """The last failure of an actor.

    Attributes:
        error: type and text of the exception.
        traceback: as Python prints it, causes included; of a very long one the end.
    """

    error: str
    traceback: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorReport:
    """One actor from close by. Texts made from the program's own objects are shortened.

    Attributes:
        statistics: its counts, without its children.
        children: paths of its children, first started first; of many the first `MOST_LISTED`.
        children_total: how many there are.
        waiting: what waits in its mailbox, oldest first, of much the first `MOST_LISTED`.
        timers: those that will tick.
        watchers: paths of the actors that watch it.
        watchers_total: how many there are, watchers that are no actors included.
        restart: its restart strategy.
        supervision: how it supervises its children.
        failures: the failures that its restart strategy remembers, as seconds since each, oldest first.
        last_failure: None if it never failed.
    """

    statistics: ActorStatistics
    children: tuple[str, ...]
    children_total: int
    waiting: tuple[str, ...]
    timers: tuple[TimerReport, ...]
    watchers: tuple[str, ...]
    watchers_total: int
    restart: str
    supervision: str
    failures: tuple[float, ...]
    last_failure: FailureReport | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterReport:
    """One dead letter.

    Attributes:
        actor: path of the actor it was for.
        message: what was sent.
        reason: why it was not handled.
        asked: whether somebody waited for an answer.
        at_ms: when, in milliseconds since the epoch.
    """

    actor: str
    message: str
    reason: str
    asked: bool
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLettersReport:
    """The last `MOST_LISTED` dead letters of a system, oldest first, and how many there have been."""

    total: int
    last: tuple[DeadLetterReport, ...]


def in_tree_order(system: ActorSystem) -> Iterator[Lifecycle]:
    """The living actors, each before its children, siblings in the order of their starts.

    The tree may change while it is gone through: what is added below an actor that was passed is left out.
    """
    pending = system.family.children[::-1]
    while pending:
        lifecycle = pending.pop()
        yield lifecycle
        pending += lifecycle.children[::-1]


def report_of(lifecycle: Lifecycle) -> ActorReport:
    """Look at one actor from close by. Calls ``__repr__`` of its messages."""
    now = lifecycle.system.clock.monotonic()
    cell = lifecycle.cell
    children = lifecycle.children
    watchers = lifecycle.deathwatch.watchers
    timers = lifecycle.actor_context._timers
    active = () if timers is None else tuple(timers._timers.values())
    return ActorReport(
        statistics=counts_of(lifecycle),
        children=tuple(encodable(child.path) for child in children[:MOST_LISTED]),
        children_total=len(children),
        waiting=tuple(_message_text(item) for item in islice(cell.pending_messages(), MOST_LISTED)),
        timers=tuple(TimerReport(key=_cut(timer.key), due_in=max(0.0, timer.due - now), every=timer.every) for timer in active),
        watchers=tuple(encodable(watcher.path) for watcher in watchers[:MOST_LISTED]),
        watchers_total=len(watchers) + len(lifecycle.deathwatch._outside),
        restart=shortened(lifecycle.strategy),
        supervision=shortened(lifecycle.family.supervision),
        failures=tuple(max(0.0, now - at) for at in lifecycle.failures),
        last_failure=None if lifecycle.last_error is None else _failure_report(lifecycle.last_error),
    )


def dead_letters_report(system: ActorSystem) -> DeadLettersReport:
    """The last dead letters. Calls ``__repr__`` of their messages."""
    return DeadLettersReport(
        total=system.dead_letters.total, last=tuple(_dead_letter_report(letter) for letter in system.dead_letters[-MOST_LISTED:])
    )


def shortened(value: object) -> str:
    """What `repr` says, or what can be said instead: one line of at most 200 characters."""
    try:
        text = _bounded.repr(value)
    except Exception as error:  # noqa: BLE001 - __repr__ of the program's own objects
        text = f"<{type(value).__name__}, whose repr raised {type(error).__name__}>"
    return _cut(text)


def printable(text: str, *, but: str = "") -> str:
    """A text that does nothing to a terminal: what cannot be shown is escaped, all but the characters of `but`."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() or sign in but else sign.encode("unicode_escape").decode("ascii") for sign in text)


def encodable(text: str) -> str:
    """A text that UTF-8 takes: what was made from a file name may hold halves of characters."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _message_text(item: object) -> str:
    if not isinstance(item, Call):
        return shortened(item)
    asked = "ask " if isinstance(item, Reply) else ""
    if item.handler is None:
        return _cut(asked + shortened(item.message))
    return _cut(asked + _call_text(item.handler.name, item.message, item.options))


def _call_text(method: str, arguments: tuple[object, ...], options: dict[str, object] | None) -> str:
    given = [shortened(argument) for argument in arguments[:10]]
    given += [f"{name}={shortened(value)}" for name, value in islice((options or {}).items(), 10)]
    return f"{method}({', '.join(given)})"


def _dead_letter_report(letter: UndeliveredMessage) -> DeadLetterReport:
    message: Any = letter.message
    return DeadLetterReport(
        actor=encodable(letter.ref.path),
        message=_cut(_call_text(letter.method, message, None)) if letter.method else shortened(message),
        reason=_cut(letter.reason),
        asked=letter.asked,
        at_ms=letter.at_ms,
    )


def _failure_report(error: BaseException) -> FailureReport:
    name = type(error).__name__
    try:
        text = str(error)
        lines = "".join(traceback.format_exception(error))
    except Exception as own:  # noqa: BLE001 - __str__ of the program's own exceptions
        return FailureReport(error=f"{name}, whose text raised {type(own).__name__}", traceback="")
    if len(lines) > _LONGEST_TRACEBACK:
        lines = f"[{len(lines) - _LONGEST_TRACEBACK:,} characters left out]\n{lines[-_LONGEST_TRACEBACK:]}"
    return FailureReport(error=_cut(f"{name}: {text}" if text else name), traceback=printable(lines, but="\n"))


def _cut(text: str) -> str:
    shown = printable(text[: _LONGEST + 1])
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…"


class _Bounded(reprlib.Repr):
    """`reprlib`, which goes only so far into big containers; and as far into dataclasses, bytes and big numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 4
        self.maxstring = _LONGEST_STRING
        self.maxother = self.maxlong = _LONGEST
        self.maxtuple = self.maxlist = self.maxdict = self.maxset = self.maxfrozenset = self.maxdeque = self.maxarray = 10

    def repr_bytes(self, x: bytes | bytearray, level: int) -> str:
        return repr(bytes(x[:_LONGEST_STRING])) + ("..." if len(x) > _LONGEST_STRING else "")

    repr_bytearray = repr_bytes

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if x.bit_length() <= _MOST_BITS else f"<int of {x.bit_length():,} bits>"

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        # reprlib would sort all of it first.
        pairs = [f"{self.repr1(key, level - 1)}: {self.repr1(x[key], level - 1)}" for key in islice(x, self.maxdict if level > 0 else 0)]
        return f"{{{', '.join(pairs)}{self._rest(x, pairs)}}}"

    def repr_set(self, x: set[Any] | frozenset[Any], level: int) -> str:
        shown = [self.repr1(each, level - 1) for each in islice(x, self.maxset if level > 0 else 0)]
        return f"{type(x).__name__}({', '.join(shown)}{self._rest(x, shown)})"

    repr_frozenset = repr_set

    def repr_instance(self, x: Any, level: int) -> str:
        # The __repr__ that is generated for a dataclass writes out all of every field; one that its author wrote knows better.
        if level <= 0 or not is_dataclass(x) or not hasattr(type(x).__repr__, "__wrapped__"):
            return super().repr_instance(x, level)
        shown = (f"{field.name}={self.repr1(getattr(x, field.name), level - 1)}" for field in fields(x) if field.repr)
        return f"{type(x).__name__}({', '.join(shown)})"

    @staticmethod
    def _rest(whole: Sized, shown: Sized) -> str:
        return "" if len(shown) == len(whole) else ", ..." if shown else "..."


_bounded = _Bounded()
