"""How the mailbox of one actor behaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

from sage_actor._core.batch_queue import Overflow
from sage_actor.errors import ConfigError

__all__ = ["MailboxSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MailboxSettings:
    """Bounds of a mailbox, and what a full one does.

    Attributes:
        capacity: messages that wait at most. Signals (stop, death watch, timers) need no room.
        overflow: what `tell` and `ask` do when it is full: "wait" for room (`tell_nowait` raises `MailboxFull`), "fail" with
            `MailboxFull`, "drop_new": the message goes to the dead letters, "drop_old": the oldest waiting one does.
        stash_capacity: messages that `context.stash()` may put aside.
        priority: maps a message to a number; the least number is handled first, equal ones in the order sent. It is called once
            a message, by the sender. For a call of a method it gets the method's function. None: order of arrival.

    Raises:
        ConfigError: a capacity below 1, or an unknown `overflow`.
    """

    capacity: int = 1024
    overflow: Overflow = "wait"
    stash_capacity: int = 1000
    priority: Callable[[object], int] | None = None

    def __post_init__(self) -> None:
        if self.capacity < 1:
            raise ConfigError("mailbox.capacity", f"must be at least 1, not {self.capacity}")
        if self.stash_capacity < 0:
            raise ConfigError("mailbox.stash_capacity", f"must not be negative, not {self.stash_capacity}")
        if self.overflow not in get_args(Overflow):
            raise ConfigError("mailbox.overflow", f"{self.overflow!r} is not one of {', '.join(get_args(Overflow))}")
