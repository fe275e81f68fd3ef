"""Calls into a file system: off the loop, and never abandoned."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from sage_actor.ports import offload

__all__ = ["to_end"]

R = TypeVar("R")


async def to_end(function: Callable[[], R]) -> R:
    """Run a blocking function off the loop and wait for its end, also if this wait is cancelled; then the cancellation is raised.

    So nothing touches a file that a forgotten thread still writes, and nothing appears after a call has been given up.
    """
    running = asyncio.ensure_future(offload(function))
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait((running,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not running.cancelled():
            running.exception()  # looked at: nobody else will
        raise cancelled
    return running.result()
