"""The link of a worker to itself: frames go through a list, never through a kernel."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from sage_actor.actor.backend import Buffer, FrameHandler
from sage_actor.backends.handler_errors import report_handler_error

__all__ = ["Loopback"]


class Loopback:
    """Delivers on a later turn of the loop what was sent, in order, as any other link does; never inside `send`."""

    __slots__ = ("_closed", "_frames", "_loop", "_receive", "_scheduled", "_worker")

    def __init__(self, worker: int) -> None:
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        self._receive: FrameHandler | None = None
        self._frames: list[bytes] = []
        self._scheduled = False
        self._closed = False

    def start(self, receive: FrameHandler) -> None:
        """Begin delivering; what was sent before is delivered first."""
        self._receive = receive
        self._schedule()

    def send(self, parts: Sequence[Buffer]) -> None:
        """Queue one frame; dropped after `close`."""
        if not self._closed:
            self._frames.append(b"".join(parts))
            self._schedule()

    def close(self) -> None:
        """Drop what was not delivered yet. Idempotent."""
        self._closed = True
        self._frames.clear()

    def _schedule(self) -> None:
        if self._receive is not None and self._frames and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        self._scheduled = False
        frames, self._frames = self._frames, []
        receive = self._receive
        if receive is None or self._closed:
            return
        for frame in frames:
            try:
                receive(self._worker, memoryview(frame))
            except Exception as error:  # noqa: BLE001  the handler belongs to the layer above
                report_handler_error(self._worker, error)
