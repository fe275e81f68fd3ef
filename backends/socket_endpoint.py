"""An endpoint whose links are sockets, one for each other worker, with shared memory beside them for large frames."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from sage_actor.actor.backend import Buffer, FrameHandler, LostHandler
from sage_actor.backends.loopback import Loopback
from sage_actor.backends.losses import Losses
from sage_actor.backends.segment_borrower import SegmentBorrower
from sage_actor.backends.segment_lender import SegmentLender
from sage_actor.backends.socket_link import SocketLink, open_link
from sage_actor.errors import BackendError

__all__ = ["SocketEndpoint", "open_in_worker"]

_SWEEP: Final = 1.0  # seconds between two looks whether large frames have been given back
_FAREWELL: Final = 1.0  # seconds that a peer has to read the end of a link before it is cut


class SocketEndpoint:
    """One worker's end of a full mesh of sockets."""

    __slots__ = ("_failed", "_lender", "_links", "_loop", "_loopback", "_segments", "_sweeping", "losses", "worker")

    def __init__(self, worker: int, failed: Callable[[BackendError], None] | None) -> None:
        self.worker = worker
        self.losses = Losses()
        self._links: dict[int, SocketLink] = {}
        self._segments: list[int] = []
        self._lender: SegmentLender | None = None
        self._loop = asyncio.get_running_loop()
        self._sweeping: asyncio.TimerHandle | None = None
        self._loopback = Loopback(worker)
        self._failed = failed

    @staticmethod
    async def open(
        worker: int, ends: Mapping[int, socket.socket], segments: Sequence[int] = (), failed: Callable[[BackendError], None] | None = None
    ) -> SocketEndpoint:
        """Take over connected sockets, by the number of the worker at their other end.

        Args:
            segments: descriptors of the segment files of all workers, in the order of their numbers; taken over too. Empty
                where there are none.
            failed: told, beside the handler of losses, when a link breaks though its peer lives.

        Raises:
            OSError: no address space; then nothing was taken over but the sockets, which are closed.
        """
        endpoint = SocketEndpoint(worker, failed)
        try:
            endpoint._lender = lender = SegmentLender(segments[worker]) if segments else None
            for peer, end in ends.items():
                borrower = SegmentBorrower(peer, segments[peer]) if segments else None
                endpoint._links[peer] = await open_link(peer, end, lender, borrower, endpoint._broken)
        except BaseException:
            for peer, end in ends.items():
                if peer in endpoint._links:
                    endpoint._links[peer].abort()
                else:
                    end.close()
            raise
        endpoint._segments = list(segments)
        return endpoint

    def _broken(self, error: BackendError) -> None:
        for link in self._links.values():
            link.abort()  # after a gap nothing arrives any more, from nobody
        self.losses.report(error)
        if self._failed is not None:
            self._failed(error)

    def start(self, receive: FrameHandler, lost: LostHandler) -> None:
        """Begin delivering; see `Endpoint.start`."""
        for peer, link in self._links.items():
            link.start(functools.partial(receive, peer))
        self._loopback.start(receive)
        self.losses.start(lost)

    def send(self, to: int, parts: Sequence[Buffer]) -> None:
        """Send one frame at the end of this turn of the loop; see `Endpoint.send`."""
        link = self._links.get(to)
        if link is not None:
            link.send(parts)
            if self._sweeping is None and self._lender is not None and self._lender.is_swollen:
                self._sweeping = self._loop.call_later(_SWEEP, self._sweep)
        elif to == self.worker:
            self._loopback.send(parts)

    def _sweep(self) -> None:
        """A burst of large frames must not hold its memory for ever."""
        self._sweeping = None
        if self._lender is not None:
            self._lender.sweep()
            if self._lender.is_swollen:
                self._sweeping = self._loop.call_later(_SWEEP, self._sweep)

    def keep_for_reuse(self, nbytes: int) -> None:
        """Keep at most so many bytes of shared memory for the frames to come; see `PoolingEndpoint`."""
        if self._lender is not None:
            self._lender.keep_for_reuse(nbytes)

    async def flush(self) -> None:
        """Return when the kernel has taken everything sent so far."""
        for link in self._links.values():
            await link.flush()

    async def aclose(self) -> None:
        """Flush, then close all links. Idempotent. Flushing waits as long as a peer neither reads nor ends."""
        self.losses.close()
        await self.flush()
        self._loopback.close()
        for link in self._links.values():
            link.end()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL):
                await self._closed()
        await self.abort()

    async def abort(self) -> None:
        """Close all links without flushing. Idempotent."""
        self.losses.close()
        self._loopback.close()
        for link in self._links.values():
            link.abort()
        await self._closed()
        self._lender = None
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        segments, self._segments = self._segments, []
        for descriptor in segments:
            os.close(descriptor)  # frames that somebody still holds stay as they are: mappings keep their pages

    def after_last_frame(self, worker: int, callback: Callable[[], None]) -> None:
        """Call back once everything that an ended worker managed to send has been delivered."""
        link = self._links.get(worker)
        if link is None:
            callback()
        else:
            link.when_closed(callback)

    async def _closed(self) -> None:
        for link in self._links.values():
            await link.wait_closed()


async def open_in_worker(worker: int, arguments: Mapping[str, str], failed: Callable[[BackendError], None]) -> SocketEndpoint:
    """The endpoint of a worker process.

    `arguments` names the inherited descriptor of each link by its peer's number, and under "segments" those of the segment
    files, by comma, in the order of the workers.
    """
    segments = [int(descriptor) for descriptor in arguments.get("segments", "").split(",") if descriptor]
    ends: dict[int, socket.socket] = {}
    for peer, descriptor in arguments.items():
        if peer != "segments":
            ends[int(peer)] = socket.socket(fileno=int(descriptor))
    for inherited in (*segments, *(end.fileno() for end in ends.values())):
        os.set_inheritable(inherited, False)  # what user code starts must not keep our links open
    return await SocketEndpoint.open(worker, ends, segments, failed)
