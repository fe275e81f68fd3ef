"""Values of state as bytes: pickle, and cloudpickle for what only that can (functions and classes of a worker's own script)."""

from __future__ import annotations

import datetime as dt
import decimal
import pickle
import uuid
from typing import Any, Final, cast

from sage_actor.actor.portable import dump as dump_by_value

__all__ = ["dump", "is_unchanging", "load"]

_UNCHANGING: Final = frozenset(
    {int, float, complex, str, bytes, bool, type(None), decimal.Decimal, dt.date, dt.datetime, dt.time, dt.timedelta, uuid.UUID}
)


def is_unchanging(value: object) -> bool:
    """Whether nobody can change the value in place: plain values, and tuples of such."""
    if type(value) in _UNCHANGING:
        return True
    return isinstance(value, tuple) and all(map(is_unchanging, cast("tuple[object, ...]", value)))


def dump(value: object) -> bytes:
    """Pickle, protocol 5. Raises whatever pickling raises if neither way can."""
    try:
        return pickle.dumps(value, protocol=5)
    except Exception:  # noqa: BLE001 - the classes of values are the user's
        return dump_by_value(value)


def load(data: bytes | memoryview) -> Any:
    """The value. Raises whatever the classes in it raise."""
    return pickle.loads(data)
