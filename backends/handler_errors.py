"""What becomes of an exception that a frame handler raises: on every link the same."""

from __future__ import annotations

import asyncio

__all__ = ["report_handler_error"]


def report_handler_error(sender: int, error: Exception) -> None:
    """Hand it to the loop's exception handler. The frame counts as delivered; those after it are delivered too."""
    asyncio.get_running_loop().call_exception_handler(
        {"message": f"the handler of frames raised on a frame from worker {sender}", "exception": error}
    )
