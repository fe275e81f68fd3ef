"""Keyed state of async functions: what a call writes is kept apart until its result is handed on (F33a).

So a snapshot holds all of a call's writes or none, and a call that is made again after a restore counts once. Calls of one key
run one after the other, each after the one before it was handed on; so they see each other's writes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from sage_actor.dataflow.context import FunctionContext
from sage_actor.ports import Clock
from sage_actor.state.handles import StateAccess, StateDeclarer
from sage_actor.state.memory_table import ABSENT
from sage_actor.state.pickling import is_unchanging
from sage_actor.state.stamped import Stamping
from sage_actor.state.store import DELETED

__all__ = ["CALL", "AsyncContext", "CallAccess", "CallWrites"]


class CallWrites:
    """One call: its key, and what it has written so far."""

    __slots__ = ("key", "writes")

    def __init__(self, key: Any) -> None:
        self.key = key
        self.writes: dict[BufferedTable | BufferedNested, dict[Any, Any]] = {}

    def apply(self) -> None:
        """Make the writes real, in their order."""
        for table, changes in self.writes.items():
            table.apply(self.key, changes)
        self.writes = {}


CALL: ContextVar[CallWrites | None] = ContextVar("sage_actor call", default=None)
"""The call on whose behalf code runs."""


class CallAccess(StateAccess):
    """``context.state`` of an async function: the key in work is that of the call."""

    def __init__(self, declarer: StateDeclarer) -> None:
        super().__init__(CallDeclarer(declarer))

    @property
    def is_used(self) -> bool:
        """Whether the function has declared any state."""
        return bool(self._handles)

    @property
    def key(self) -> Any:
        call = CALL.get()
        return ABSENT if call is None else call.key

    @key.setter
    def key(self, key: Any) -> None:
        """The base class sets one when it is made; there is none then."""


class CallDeclarer:
    """Hands on what handles ask for, with tables that keep writes apart."""

    def __init__(self, inner: StateDeclarer) -> None:
        self.inner = inner

    @property
    def operator(self) -> str:
        return self.inner.operator

    @property
    def clock(self) -> Clock:
        return self.inner.clock

    def declare(self, name: str, form: str, stamping: Stamping) -> Any:
        table = self.inner.declare(name, form, stamping)
        return BufferedNested(table) if form == "map state" else BufferedTable(table)

    def expose(self, name: str, read: Callable[[Any], Any]) -> None:
        self.inner.expose(name, read)


def own(value: Any) -> Any:
    """A call may change what it reads; nobody else sees that before it is set."""
    return value if is_unchanging(value) else copy.deepcopy(value)


class BufferedTable:
    """A keyed table as one call sees it."""

    def __init__(self, table: Any) -> None:
        self.table = table

    def _changes(self) -> dict[Any, Any] | None:
        call = CALL.get()
        return None if call is None else call.writes.setdefault(self, {})

    def get(self, key: Any, default: Any = None) -> Any:
        changes = self._changes()
        if changes:
            value = changes[""]
            return default if value is DELETED else value
        value = self.table.get(key, default)
        return default if value is default else own(value)

    def put(self, key: Any, value: Any) -> None:
        changes = self._changes()
        assert changes is not None
        changes[""] = value

    def delete(self, key: Any) -> None:
        self.put(key, DELETED)

    def apply(self, key: Any, changes: dict[Any, Any]) -> None:
        """Write what a call has left."""
        for value in changes.values():
            if value is DELETED:
                self.table.delete(key)
            else:
                self.table.put(key, value)


class BufferedNested:
    """A nested table as one call sees it."""

    def __init__(self, table: Any) -> None:
        self.table = table

    def _changes(self) -> dict[Any, Any]:
        call = CALL.get()
        return {} if call is None else call.writes.setdefault(self, {})

    def get(self, key: Any, sub: Any, default: Any = None) -> Any:
        changes = self._changes()
        if sub in changes:
            return default if changes[sub] is DELETED else changes[sub]
        value = self.table.get(key, sub, default)
        return default if value is default else own(value)

    def put(self, key: Any, sub: Any, value: Any) -> None:
        self._changes()[sub] = value

    def delete(self, key: Any, sub: Any) -> None:
        self._changes()[sub] = DELETED

    def scan(self, key: Any) -> Iterator[tuple[Any, Any]]:
        changes = dict(self._changes())
        for sub, stored in self.table.scan(key):
            value = changes.pop(sub, stored)
            if value is not DELETED:
                yield sub, own(value)
        for sub, value in changes.items():
            if value is not DELETED:
                yield sub, value

    def count(self, key: Any) -> int:
        return sum(1 for _ in self.scan(key))

    def clear(self, key: Any) -> None:
        for sub, _ in list(self.scan(key)):
            self.delete(key, sub)

    def apply(self, key: Any, changes: dict[Any, Any]) -> None:
        """Write what a call has left."""
        for sub, value in changes.items():
            if value is DELETED:
                self.table.delete(key, sub)
            else:
                self.table.put(key, sub, value)


class AsyncContext(FunctionContext):
    """Handed to ``open`` of an async function on a keyed stream: with state of the key of each call."""

    __slots__ = ("_state",)

    _state: StateAccess

    def __init__(self, place: FunctionContext, state: StateAccess) -> None:
        super().__init__(
            place.job, place.operator_name, place.subtask_index, place.parallelism, place.worker, place.settings, place.restored
        )
        object.__setattr__(self, "_state", state)

    @property
    def state(self) -> StateAccess:
        """Handles of the state of the key of the call; declare them in ``open``."""
        return self._state
