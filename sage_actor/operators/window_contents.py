"""One window of one key, in memory and in a snapshot; and how tables of windows give a snapshot without a copy of all they hold."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Generic, Protocol, TypeVar

from sage_actor.dataflow.watermarks import MIN_WATERMARK
from sage_actor.errors import SageError
from sage_actor.state.pickling import dump, is_unchanging, load
from sage_actor.state.store import DELETED, SLICE, Entries

__all__ = ["ON_TRIGGER", "OVER", "TURN", "Content", "Frozen", "Part", "freeze_content", "thaw_content"]

TURN: Final = 500
"""How many timers, or results, the tables in Python handle before they let others have their turn."""

ON_TRIGGER: Final = 0
"""A time that the window's trigger asked for; comes before the removal that is due at the same time."""
OVER: Final = 1
"""The window is to be removed."""


class Content:
    """A window: what it holds, and what its trigger noted and asked for. `id` names it for good among those of its key."""

    __slots__ = ("accumulator", "alarms", "end", "freezes", "id", "key", "latest", "live", "memory", "records", "saved", "start", "timers")

    def __init__(self, key: Any, number: int, start: int, end: int) -> None:
        self.key = key
        self.id = number
        self.start = start
        self.end = end
        self.accumulator: Any = None
        self.records = 0
        self.latest = MIN_WATERMARK
        self.memory: dict[str, Any] = {}
        self.timers: set[int] = set()
        self.alarms: set[int] = set()
        self.live = False
        self.saved = False
        self.freezes = 0


def freeze_content(content: Content, listed: bool) -> tuple[Any, Any]:
    """The window as an entry of a snapshot: unaffected by what happens to it from now on."""
    content.saved = True
    accumulator = content.accumulator
    pickled = False
    if listed:
        accumulator = None if accumulator is None else accumulator[:]
    elif not is_unchanging(accumulator):
        accumulator, pickled = dump(accumulator), True
    notes = dump(content.memory) if content.memory else b""
    times = (tuple(sorted(content.timers)), tuple(sorted(content.alarms)))
    value = (content.start, content.end, pickled, accumulator, content.records, content.latest, notes, times)
    return (content.key, content.id), value


def thaw_content(key: Any, number: int, value: Any) -> Content:
    """The window of an entry."""
    start, end, pickled, accumulator, records, latest, notes, (timers, alarms) = value
    content = Content(key, number, start, end)
    content.accumulator = load(accumulator) if pickled else accumulator
    content.records, content.latest = records, latest
    content.memory = load(notes) if notes else {}
    content.timers, content.alarms = set(timers), set(alarms)
    content.saved = True
    return content


class Part(Protocol):
    """What `Frozen` gives one by one.

    Attributes:
        freezes: how many freezes it need not be given to any more: those before it was made, and those that have it.
    """

    freezes: int


P = TypeVar("P", bound=Part)


class Frozen(Generic[P]):
    """The content of a table as of one freeze: each part is put into its saved form when its turn comes, or right before it changes.

    So a freeze costs a list of what is open (all of it) or nothing (what has changed), never a look at each part.
    """

    def __init__(
        self,
        number: int,
        removed: Iterable[Any],
        everything: Iterable[Iterable[P]] | None,
        changed: dict[P, None],
        freeze: Callable[[P], tuple[Any, Any]],
    ) -> None:
        """Args:
        number: of freezes of this table with this one.
        removed: keys of removed entries; they come first.
        everything: groups of parts, each looked at when its turn comes, made after the freeze or gone meanwhile or not; None if only
            `changed` is to be given.
        changed: belongs to this object from now on.
        freeze: the saved form of a part.
        """
        self._number = number
        self._kept: deque[tuple[Any, Any]] = deque()
        self._changed: dict[P, None] | None = changed if everything is None else None
        self._freeze = freeze
        self._replaced = False
        self._entries: Iterator[tuple[Any, Any]] | None = self._all(removed, everything or ())

    def keep(self, part: P) -> None:
        """The part is about to change, or to go."""
        if self._entries is None:
            return
        if self._changed is None:
            if part.freezes < self._number:
                part.freezes = self._number
                self._kept.append(self._freeze(part))
        elif part in self._changed:
            del self._changed[part]
            self._kept.append(self._freeze(part))

    def _all(self, removed: Iterable[Any], everything: Iterable[Iterable[P]]) -> Iterator[tuple[Any, Any]]:
        for key in removed:
            yield key, DELETED
        for group in everything:
            for part in group:
                if part.freezes < self._number:
                    part.freezes = self._number
                    yield self._freeze(part)
        while self._changed:
            part, _ = self._changed.popitem()
            yield self._freeze(part)

    def __iter__(self) -> Iterator[Entries]:
        return self

    def __next__(self) -> Entries:
        if self._replaced:
            raise SageError("frozen windows were read on after the windows had been frozen again")
        part: Entries = []
        while self._entries is not None and len(part) < SLICE:
            entry = next(self._entries, None)
            if entry is None:
                break
            part.append(entry)
        while self._kept and len(part) < SLICE:
            part.append(self._kept.popleft())
        if not part:
            self.close()
            raise StopIteration
        return part

    def close(self) -> None:
        """Let go of what was not read."""
        self._entries = None
        self._changed = None
        self._kept.clear()

    def replace(self) -> None:
        """The table is frozen again: reading on from this fails, unless all has been read."""
        if self._entries is not None:
            self._replaced = True
            self.close()
