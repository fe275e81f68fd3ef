"""Which of the ready callbacks a simulated loop runs next."""

from __future__ import annotations

import asyncio
import functools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Final

__all__ = ["Chooser", "Schedule", "callback_of", "name_of", "owner_of"]

_FIFO_SHARE: Final = 0.1
_PLAIN_FUNCTIONS: Final = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How far one seed strays from first in, first out.

    Strength varies from seed to seed, because bugs differ in what shows them: some need everything stirred, some asyncio's
    own order apart from one task that comes very late. Seed 0, and about a tenth of the others, keep to first in, first out.

    Whatever is drawn, callbacks of one owner keep their order among themselves, since programs rely on it: the callbacks of one
    future, the methods of one object, and plain functions.

    Attributes:
        window: how many of the oldest ready callbacks may be chosen from; 1 is first in, first out.
        stir: the chance that a step chooses, and does not simply take the oldest.
        hold: the chance that what was chosen is set aside, one callback at a time, while others run.
        patience: how many steps it is set aside at most, and how often in a row the oldest may be passed over by choice.
    """

    window: int = 1
    stir: float = 0.0
    hold: float = 0.0
    patience: int = 0

    @classmethod
    def drawn(cls, seed: int, chance: random.Random) -> Schedule:
        """The schedule of a seed; `chance` is seeded with it."""
        if seed == 0 or chance.random() < _FIFO_SHARE:
            return cls()
        return cls(
            window=chance.choice((2, 3, 4, 8, 16)),
            stir=chance.choice((0.0, 0.1, 0.3, 1.0, 1.0)),
            hold=chance.choice((0.02, 0.1, 0.3)),
            patience=chance.choice((4, 16, 64)),
        )


class Chooser:
    """Takes one ready callback after the other as a schedule wants it."""

    def __init__(self, schedule: Schedule, chance: random.Random) -> None:
        self._schedule = schedule
        self._chance = chance
        self._passed_over = 0
        self._held: asyncio.Handle | None = None  # stays among the ready ones: who looks at them sees that it is not done
        self._held_for = 0

    def take(self, ready: deque[asyncio.Handle]) -> asyncio.Handle:
        """Take the callback to run next off `ready`, which is not empty."""
        if self._schedule.window == 1 or len(ready) == 1:
            self._held = None
            return ready.popleft()
        self._held_for -= 1
        if self._held_for <= 0:
            self._held = None
        at = self._choose(ready)
        if self._held is None and self._chance.random() < self._schedule.hold:
            self._held = ready[at]
            self._held_for = 1 + int(self._chance.random() * self._schedule.patience)
            at = self._choose(ready)
        handle = ready[at]
        del ready[at]
        if handle is self._held:
            self._held = None
        return handle

    def _choose(self, ready: deque[asyncio.Handle]) -> int:
        """A place in `ready`: not that of the held one, unless it must come before what was chosen."""
        oldest = 1 if ready[0] is self._held else 0
        at = oldest
        depth = min(len(ready) - oldest, self._schedule.window)
        if self._passed_over < self._schedule.patience and self._chance.random() < self._schedule.stir:
            at += int(self._chance.random() * depth)
            if ready[at] is self._held:
                at = oldest
        self._passed_over = self._passed_over + 1 if at > oldest else 0
        if not at:
            return 0
        owner = owner_of(ready[at])
        return next(place for place, handle in enumerate(ready) if place == at or owner_of(handle) is owner)


def callback_of(handle: asyncio.Handle) -> Callable[..., object] | None:
    """What a handle will call, partial application taken off; None once it is cancelled."""
    callback: Callable[..., object] | None = getattr(handle, "_callback", None)
    while isinstance(callback, functools.partial):
        callback = callback.func
    return callback


def owner_of(handle: asyncio.Handle) -> object:
    """Whose order a callback belongs to: the future that calls back, else the object it is bound to."""
    arguments = handle._args
    if arguments and asyncio.isfuture(arguments[0]):
        return arguments[0]
    callback = callback_of(handle)
    owner: object = getattr(callback, "__self__", None)  # tasks: the wrapper of a step has one too
    if owner is not None:
        return owner
    return _PLAIN_FUNCTIONS if callback is None or isinstance(callback, FunctionType) else callback


def name_of(callback: Callable[..., object] | None) -> str:
    """A name that is the same in every run and every process."""
    name: object = getattr(callback, "__qualname__", None)
    return name if isinstance(name, str) else type(callback).__qualname__
