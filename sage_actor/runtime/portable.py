"""Failures of a job that cross a process border, with cause and traceback, and dead letters with their errors."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from sage_actor.actor.portable import dump, portable_error
from sage_actor.dataflow.policies import DeadLetter
from sage_actor.errors import OperatorError

__all__ = ["pack_error", "portable_letters", "unpack_error"]


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
