"""Exceptions that cross a process border: the original if it survives the trip, else its text."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from sage_actor.dataflow.policies import DeadLetter
from sage_actor.errors import OperatorError, SageError

__all__ = ["RemoteError", "dump", "pack_error", "portable_error", "portable_letters", "unpack_error"]


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


def portable_letters(values: Any) -> list[Any]:
    """Dead letters and errors, each fit to travel. Errors must go through pickle; dead letters may also stay here."""
    return [
        replace(cast("DeadLetter[Any]", v), error=portable_error(v.error)) if isinstance(v, DeadLetter) else Travelling(v) for v in values
    ]


class Travelling:
    """An error on its way to another process, where it arrives as itself, cause included."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> tuple[Callable[[bytes], BaseException], tuple[bytes]]:
        return unpack_error, (pack_error(self.error),)


def pack_error(error: BaseException) -> bytes:
    """An error with its cause and traceback text, for the job's owner."""
    cause = error.__cause__
    if isinstance(error, OperatorError) and cause is not None and not error.traceback:
        text = "".join(traceback.format_exception(cause))
        error = OperatorError(error.job, error.operator, error.message, error.key, error.position, error.value, error.task, text)
    parts = (portable_error(error), None if cause is None else portable_error(cause))
    return dump(parts)


def unpack_error(data: bytes) -> BaseException:
    """The error that `pack_error` packed, with its cause."""
    error, cause = pickle.loads(data)
    error.__cause__ = cause
    return error  # type: ignore[no-any-return]
