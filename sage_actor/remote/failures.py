"""How errors travel: with their cause, each as itself if it survives the trip, else as a `RemoteError` with its text."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from sage_actor.actor.portable import RemoteError

if TYPE_CHECKING:
    from sage_actor.actor.backend import Buffer
    from sage_actor.remote.wire import Wire

__all__ = ["encode_error", "read_error"]


def encode_error(wire: Wire, error: BaseException) -> tuple[int, list[Buffer]]:
    """Form and parts of an error; there are some for every error, whatever its class does."""
    cause = error.__cause__
    trace = "" if cause is None else "".join(traceback.format_exception(cause)).rstrip()
    parts = [_portable(wire, error), None if cause is None else _portable(wire, cause), _sendable(trace)]
    return wire.encode(parts, "an error")


def read_error(wire: Wire, form: int, payload: list[memoryview], worker: int) -> BaseException | None:
    """The error that `worker` has sent, its traceback there as a note of the cause; None if it sent None.

    Raises:
        Exception: what `Wire.decode` does.
    """
    parts = wire.decode(form, payload)
    if parts is None:
        return None
    error: BaseException = parts[0]
    cause: BaseException | None = parts[1]
    if cause is not None:
        if parts[2]:
            cause.add_note(f"in {'the owner' if worker == 0 else f'worker {worker - 1}'}:\n{parts[2]}")
        error.__cause__ = cause
    return error


def _portable(wire: Wire, error: BaseException) -> BaseException:
    try:
        form, payload = wire.encode(error, "an error")
        copied = wire.decode(form, payload)
    except Exception:  # noqa: BLE001 - a user's exception class may raise anything while it is taken apart or rebuilt
        copied = None
    return error if type(copied) is type(error) else RemoteError(_sendable(type(error).__name__), _text_of(error))


def _text_of(error: BaseException) -> str:
    try:
        return _sendable(str(error))
    except Exception:  # noqa: BLE001 - a user's __str__; whoever waits is told all the same
        return "it cannot be told in words"


def _sendable(text: str) -> str:
    """Half a surrogate, as in the name of a file, cannot travel in every form."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
