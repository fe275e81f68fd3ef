"""Values of a user's state as they lie in a table: with version and time where those matter, bare where they do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from sage_actor.errors import StateMismatch
from sage_actor.ports import Clock
from sage_actor.state.memory_table import ABSENT

__all__ = ["Migrate", "Stamped", "Stamping"]

Migrate = Callable[[int, Any], Any]
"""(version under which the value was written, value) -> the value as the present version has it."""

FIRST_VERSION: Final = 1


class Stamped(NamedTuple):
    """A value with the version under which it was written, and when (milliseconds since the epoch; None: nobody kept the time)."""

    value: Any
    version: int
    written: int | None


class Stamping:
    """How one state wraps and reads its values: its version, its time to live."""

    def __init__(self, operator: str, state: str, clock: Clock, ttl: float | None, version: int, migrate: Migrate | None) -> None:
        """Args:
        operator, state: for errors.
        clock: processing time, in which a value lives.
        ttl: seconds since the last write after which a value is gone; None: never.
        version, migrate: see `StateAccess`.
        """
        self.operator = operator
        self.state = state
        self.version = version
        self.lifetime = None if ttl is None else max(1, round(ttl * 1000))
        self._clock = clock
        self._migrate = migrate
        self._bare = ttl is None and version == FIRST_VERSION

    def wrap(self, value: Any) -> Any:
        """The value as it is to be stored, written now."""
        if self._bare:
            return value
        return Stamped(value, self.version, None if self.lifetime is None else self._clock.now_ms())

    def unwrap(self, stored: Any) -> Any:
        """The value of what is stored, brought to the present version; `ABSENT` if it has expired.

        Raises:
            StateMismatch: it was written under a newer version, or an older one and there is no ``migrate``.
        """
        if type(stored) is Stamped:
            if self.lifetime is not None and self.expired(stored):
                return ABSENT
            value, version, _ = stored
        else:
            value, version = stored, FIRST_VERSION
        if version == self.version:
            return value
        self.check(version)
        assert self._migrate is not None
        return self._migrate(version, value)

    def expired(self, stored: Any) -> bool:
        """Whether its time is over. What has no time does not expire."""
        if self.lifetime is None or type(stored) is not Stamped or stored.written is None:
            return False
        return self._clock.now_ms() - stored.written >= self.lifetime

    def stamp(self, stored: Any) -> Any:
        """What is stored, with the time of now, under the version that it has."""
        value, version = (stored.value, stored.version) if type(stored) is Stamped else (stored, FIRST_VERSION)
        return Stamped(value, version, self._clock.now_ms())

    def check(self, saved: int) -> None:
        """Refuse a saved version that cannot be read.

        Raises:
            StateMismatch: see `unwrap`.
        """
        if saved > self.version:
            raise StateMismatch(
                self.operator,
                f"state {self.state!r} was written under version {saved}, and this program knows version {self.version}",
                "run the newer program, or restore an older checkpoint",
            )
        if saved < self.version and self._migrate is None:
            raise StateMismatch(
                self.operator,
                f"state {self.state!r} was written under version {saved}, and this program has version {self.version}",
                "say how to read the old values: migrate=lambda old_version, value: ...",
            )
