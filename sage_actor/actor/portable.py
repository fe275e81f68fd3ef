"""Values and exceptions that cross a process border: by cloudpickle; an exception as itself if it survives the trip, else as text."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any, cast

from sage_actor.errors import SageError

__all__ = ["RemoteError", "dump", "portable_error"]


def dump(value: object, buffers: Callable[[pickle.PickleBuffer], Any] | None = None) -> bytes:
    """cloudpickle, protocol 5: functions and classes of scripts travel by value."""
    import cloudpickle

    pickler: Any = cloudpickle
    return cast("bytes", pickler.dumps(value, protocol=5, buffer_callback=buffers))


class RemoteError(SageError):
    """Stands for an exception of another process that cannot be pickled; carries its type and text."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(kind, text)
        self.kind = kind
        self.text = text

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


def portable_error(error: BaseException) -> BaseException:
    """The error itself if pickling gives an equal one back, else a `RemoteError` with its text."""
    try:
        copied = pickle.loads(dump(error))
    except Exception:  # noqa: BLE001 - a user's exception class may raise anything while it is rebuilt
        return RemoteError(type(error).__name__, str(error))
    return error if type(copied).__name__ == type(error).__name__ else RemoteError(type(error).__name__, str(error))
