"""What went wrong with a group, told once each to the handler of its endpoint, or kept until there is one."""

from __future__ import annotations

from sage_actor.actor.backend import LostHandler
from sage_actor.errors import BackendError, WorkerLost

__all__ = ["Losses"]


class Losses:
    """Keeps errors until a handler is given, then passes each on at once. Silent after `close`, and after links broke."""

    __slots__ = ("_closed", "_handler", "_kept")

    def __init__(self) -> None:
        self._kept: list[BackendError] = []
        self._handler: LostHandler | None = None
        self._closed = False

    def start(self, handler: LostHandler) -> None:
        """Give the handler, which gets what was kept at once, in order."""
        self._handler = handler
        kept, self._kept = self._kept, []
        for error in kept:
            self.report(error)

    def report(self, error: BackendError) -> None:
        """Pass an error on, or keep it."""
        if self._closed:
            return
        if self._handler is None:
            self._kept.append(error)
            return
        if not isinstance(error, WorkerLost):
            self._closed = True  # the links are gone: what follows is only a consequence of it
        self._handler(error)

    def close(self) -> None:
        """A group that is being closed loses its workers on purpose."""
        self._closed = True
