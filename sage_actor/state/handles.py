"""What a user's function holds of its state: one value, list, map or aggregate for the key in work."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from typing import Any, Generic, Protocol, TypeVar, cast, overload

from sage_actor.durations import parse_duration
from sage_actor.errors import StateError
from sage_actor.ports import Clock
from sage_actor.state.memory_table import ABSENT
from sage_actor.state.pickling import is_unchanging
from sage_actor.state.stamped import Migrate, Stamping

__all__ = ["AggregatingState", "ListState", "MapState", "ReducingState", "StateAccess", "StateAggregate", "StateDeclarer", "ValueState"]

A = TypeVar("A")
H = TypeVar("H")
K = TypeVar("K")
R = TypeVar("R")
T = TypeVar("T")
V = TypeVar("V")
T_contra = TypeVar("T_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)


class StateAggregate(Protocol[T_contra, A, R_co]):
    """What `AggregatingState` needs of an aggregation; every `AggregateFunction` is one."""

    def create(self) -> A:
        """A fresh accumulator."""
        ...

    def add(self, accumulator: A, value: T_contra, /) -> A:
        """The accumulator with the value added; may be the same object, changed."""
        ...

    def result(self, accumulator: A, /) -> R_co:
        """What the accumulator says; does not change it."""
        ...


class StateDeclarer(Protocol):
    """Where handles get their tables from; `OperatorState` is it."""

    @property
    def operator(self) -> str:
        """Name of the operator, for errors."""
        ...

    @property
    def clock(self) -> Clock:
        """Processing time."""
        ...

    def declare(self, name: str, form: str, stamping: Stamping) -> Any:
        """The table of a user's state.

        Raises:
            StateMismatch: what was saved under that name is of another form, or of a version that cannot be read.
        """
        ...

    def expose(self, name: str, read: Callable[[Any], Any]) -> None:
        """Let queries from outside see a user's state: `read` gives what it is for a key, or `ABSENT`."""
        ...


class StateAccess:
    """The states of one function, each of them one per key: ``context.state``. Declare them in ``open``.

    Every kind takes these options. ``ttl`` ("1h", or seconds): the state of a key is gone that long after it was last written,
    in processing time; it is never seen again, and its memory is given back as other keys are written to, or at the next full
    snapshot. ``version`` and ``migrate``: raise the version when values look different from now on; one that was written
    under an older version is read as ``migrate(old_version, value)``. Values must pickle. A value that is changed in place
    must be set again, or the change is not saved.

    Attributes:
        key: the key in work, set by the operator before each call.
    """

    def __init__(self, declarer: StateDeclarer) -> None:
        self._declarer = declarer
        self._handles: dict[str, tuple[object, Any]] = {}
        self.key: Any = ABSENT

    @overload
    def value(self, name: str, *, ttl: str | float | None = None, version: int = 1, migrate: Migrate | None = None) -> ValueState[Any]: ...
    @overload
    def value(
        self, name: str, *, default: V, ttl: str | float | None = None, version: int = 1, migrate: Migrate | None = None
    ) -> ValueState[V]: ...
    def value(
        self, name: str, *, default: Any = None, ttl: str | float | None = None, version: int = 1, migrate: Migrate | None = None
    ) -> ValueState[Any]:
        """One value per key, `default` (a copy of it, if it can be changed) where none was set.

        Raises:
            StateMismatch: what was saved under that name is of another kind, or of a version that cannot be read.
            StateError: the name is declared already, in another way.
            ConfigError: the ttl is no duration.
        """
        return self._handle(ValueState[Any], "value state", name, (default,), ttl, version, migrate)

    def list(self, name: str, *, ttl: str | float | None = None, version: int = 1, migrate: Migrate | None = None) -> ListState[Any]:
        """A list per key. It is one value: saved whole, alive as long as the last write to it says, migrated whole.

        Raises:
            StateMismatch, StateError, ConfigError: as for `value`.
        """
        return self._handle(ListState[Any], "list state", name, (), ttl, version, migrate)

    def map(self, name: str, *, ttl: str | float | None = None, version: int = 1, migrate: Migrate | None = None) -> MapState[Any, Any]:
        """A mapping per key. Each of its entries is saved, lives and is migrated by itself.

        Raises:
            StateMismatch, StateError, ConfigError: as for `value`.
        """
        return self._handle(MapState[Any, Any], "map state", name, (), ttl, version, migrate)

    def reducing(
        self, name: str, function: Callable[[V, V], V], *, ttl: str | float | None = None, version: int = 1, migrate: Migrate | None = None
    ) -> ReducingState[V]:
        """One value per key, to which others are added by ``function(value, added)``; the first one is taken as it is.

        Raises:
            StateMismatch, StateError, ConfigError: as for `value`.
        """
        return self._handle(ReducingState, "reducing state", name, (function,), ttl, version, migrate)

    def aggregating(
        self,
        name: str,
        aggregate: StateAggregate[T, A, R],
        *,
        ttl: str | float | None = None,
        version: int = 1,
        migrate: Migrate | None = None,
    ) -> AggregatingState[T, R]:
        """One accumulator per key; `get` gives its result. ``migrate`` is given accumulators.

        Raises:
            StateMismatch, StateError, ConfigError: as for `value`.
        """
        return self._handle(AggregatingState, "aggregating state", name, (aggregate,), ttl, version, migrate)

    def _handle(
        self,
        cls: Callable[..., H],
        form: str,
        name: str,
        arguments: tuple[Any, ...],
        ttl: str | float | None,
        version: int,
        migrate: Migrate | None,
    ) -> H:
        declarer = self._declarer
        declared = (form, ttl, version)
        known = self._handles.get(name)
        if known is not None:
            if known[0] != declared:
                raise StateError(declarer.operator, name, f"it is declared twice, as {known[0]} and as {declared}")
            return cast("H", known[1])
        if isinstance(version, bool) or not isinstance(version, int) or version < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise StateError(declarer.operator, name, f"a version is a whole number from 1 on, not {version!r}")
        seconds = None if ttl is None else parse_duration(ttl, key=f"ttl of state {name!r}")
        stamping = Stamping(declarer.operator, name, declarer.clock, seconds, version, migrate)
        handle = cls(self, declarer.declare(name, form, stamping), stamping, *arguments)
        self._handles[name] = (declared, handle)
        declarer.expose(name, cast("_Handle", handle).peek)
        return handle


class _Handle:
    """What handles have in common: the table, and the key in work."""

    __slots__ = ("_access", "_stamping", "_table")

    def __init__(self, access: StateAccess, table: Any, stamping: Stamping) -> None:
        self._access = access
        self._table = table
        self._stamping = stamping

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._stamping.state!r}>"

    def _key(self) -> Any:
        key = self._access.key
        if key is ABSENT:
            raise StateError(
                self._stamping.operator,
                self._stamping.state,
                "no key is in work here; state is read and set while a record or a timer is handled",
            )
        return key

    def clear(self) -> None:
        """Forget what there is for the key in work."""
        self._table.delete(self._key())

    def peek(self, key: Any) -> Any:
        """What there is for any key, for queries from outside; `ABSENT` if nothing. Changes nothing, not even what has expired."""
        stored = self._table.get(key, ABSENT)
        return ABSENT if stored is ABSENT else self._stamping.unwrap(stored)

    def _load(self) -> Any:
        stored = self._table.get(self._key(), ABSENT)
        if stored is ABSENT:
            return ABSENT
        value = self._stamping.unwrap(stored)
        if value is ABSENT:
            self._table.delete(self._access.key)
        return value

    def _store(self, value: Any) -> None:
        self._table.put(self._key(), self._stamping.wrap(value))


class ValueState(_Handle, Generic[V]):
    """One value per key."""

    __slots__ = ("_copied", "_default")

    def __init__(self, access: StateAccess, table: Any, stamping: Stamping, default: Any) -> None:
        super().__init__(access, table, stamping)
        self._default = default
        self._copied = not is_unchanging(default)

    def get(self) -> V:
        """The value of the key in work, or the default."""
        value = self._load()
        if value is ABSENT:
            value = copy.deepcopy(self._default) if self._copied else self._default
        return value  # type: ignore[no-any-return]

    def set(self, value: V) -> None:
        """Set the value; its time to live begins anew."""
        self._store(value)


class ListState(_Handle, Generic[V]):
    """A list per key."""

    __slots__ = ()

    def _items(self) -> list[V]:
        items = self._load()
        return [] if items is ABSENT else items

    def append(self, value: V) -> None:
        """Add at the end."""
        items = self._items()
        items.append(value)
        self._store(items)

    def extend(self, values: Iterable[V]) -> None:
        """Add several at the end; adding none changes nothing."""
        added = list(values)
        if added:
            self._store([*self._items(), *added])

    def set(self, values: Iterable[V]) -> None:
        """Replace all items; by none, it is cleared."""
        items = list(values)
        if items:
            self._store(items)
        else:
            self.clear()

    def __iter__(self) -> Iterator[V]:
        """The items as they are now; the list may be changed meanwhile."""
        return iter(list(self._items()))

    def __len__(self) -> int:
        return len(self._items())

    def __getitem__(self, index: int) -> V:
        return self._items()[index]


class MapState(_Handle, MutableMapping[K, V]):
    """A mapping per key, in the order in which its entries were added. Entries must not be added or removed during a walk."""

    __slots__ = ()

    def __getitem__(self, sub: K) -> V:
        stored = self._table.get(self._key(), sub, ABSENT)
        if stored is ABSENT:
            raise KeyError(sub)
        value: Any = self._stamping.unwrap(stored)
        if value is ABSENT:
            self._table.delete(self._access.key, sub)
            raise KeyError(sub)
        return value  # type: ignore[no-any-return]

    def __setitem__(self, sub: K, value: V) -> None:
        self._table.put(self._key(), sub, self._stamping.wrap(value))

    def __delitem__(self, sub: K) -> None:
        self[sub]
        self._table.delete(self._access.key, sub)

    def __iter__(self) -> Iterator[K]:
        expired = self._stamping.expired
        return (sub for sub, stored in self._table.scan(self._key()) if not expired(stored))

    def __len__(self) -> int:
        if self._stamping.lifetime is None:
            return int(self._table.count(self._key()))
        return sum(1 for _ in self)

    def clear(self) -> None:
        """Remove all entries of the key in work."""
        self._table.clear(self._key())

    def peek(self, key: Any) -> Any:
        """A dict of the entries of any key; see `_Handle.peek`."""
        unwrap = self._stamping.unwrap
        entries = ((sub, unwrap(stored)) for sub, stored in self._table.scan(key))
        return {sub: value for sub, value in entries if value is not ABSENT} or ABSENT


class ReducingState(_Handle, Generic[V]):
    """One value per key that others are added to."""

    __slots__ = ("_function",)

    def __init__(self, access: StateAccess, table: Any, stamping: Stamping, function: Callable[[V, V], V]) -> None:
        super().__init__(access, table, stamping)
        self._function = function

    def add(self, value: V) -> None:
        """Add a value; the time to live begins anew."""
        before = self._load()
        self._store(value if before is ABSENT else self._function(before, value))

    def get(self) -> V | None:
        """What was added so far, or None."""
        value = self._load()
        return None if value is ABSENT else value


class AggregatingState(_Handle, Generic[T, R]):
    """One accumulator per key."""

    __slots__ = ("_aggregate",)

    def __init__(self, access: StateAccess, table: Any, stamping: Stamping, aggregate: StateAggregate[T, Any, R]) -> None:
        super().__init__(access, table, stamping)
        self._aggregate = aggregate

    def add(self, value: T) -> None:
        """Add a value; the time to live begins anew."""
        before = self._load()
        self._store(self._aggregate.add(self._aggregate.create() if before is ABSENT else before, value))

    def get(self) -> R | None:
        """The result of what was added so far, or None if nothing was."""
        accumulator = self._load()
        return None if accumulator is ABSENT else self._aggregate.result(accumulator)

    def peek(self, key: Any) -> Any:
        """The result for any key; see `_Handle.peek`."""
        accumulator = super().peek(key)
        return ABSENT if accumulator is ABSENT else self._aggregate.result(accumulator)
