"""One group of workers, seen from its owner."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from sage_actor import WorkerLost
from sage_actor.actor.backend import PATIENCE, WorkerInfo
from tidal_backend.child import Child
from tidal_backend.endpoints import Hub

__all__ = ["TidalGroup"]

_LAST_FRAMES = 1.0


class TidalGroup:
    """See `sage_actor.actor.backend.WorkerGroup`."""

    def __init__(self, hub: Hub) -> None:
        self.endpoint = hub
        self.children: list[Child] = []
        self._tellings: set[asyncio.Task[None]] = set()
        self._closing: asyncio.Future[None] | None = None

    @property
    def workers(self) -> Sequence[WorkerInfo]:
        """As they were started."""
        return tuple(WorkerInfo(child.worker, child.pid) for child in self.children)

    def ended(self, child: Child) -> None:
        """A process has ended; one that was asked to, or whose entry returned, is not lost."""
        if self._closing is None and child.exit_code != 0:
            task = asyncio.get_running_loop().create_task(self._tell(child))
            self._tellings.add(task)
            task.add_done_callback(self._tellings.discard)

    async def _tell(self, child: Child) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_FRAMES):
                await self.endpoint.until_read(child.worker)
        if self._closing is None:
            self.endpoint.lose(WorkerLost(child.worker, child.pid, child.exit_code, child.last_words))

    async def aclose(self, patience: float = PATIENCE) -> None:
        """Ask, wait, kill, reap, close. Idempotent; cancelling it cancels only the wait."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close(patience))
        await asyncio.shield(self._closing)

    async def _close(self, patience: float) -> None:
        for child in self.children:
            child.ask_to_end()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                for child in self.children:
                    await child.ended.wait()
        for child in self.children:
            child.kill()
        for child in self.children:
            await child.ended.wait()
        for task in self._tellings:
            task.cancel()
        await asyncio.gather(*self._tellings, return_exceptions=True)
        await self.endpoint.abort()
