"""An endpoint whose links are sockets, one for each other worker."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from sage_actor.actor.backend import Buffer, FrameHandler, LostHandler
from sage_actor.backends.loopback import Loopback
from sage_actor.backends.losses import Losses
from sage_actor.backends.socket_link import SocketLink, open_link
from sage_actor.errors import BackendError

__all__ = ["SocketEndpoint", "open_in_worker"]

_FAREWELL: Final = 1.0  # seconds that a peer has to read the end of a link before it is cut


class SocketEndpoint:
    """One worker's end of a full mesh of sockets."""

    __slots__ = ("_links", "_loopback", "losses", "worker")

    def __init__(self, worker: int, links: Mapping[int, SocketLink]) -> None:
        self.worker = worker
        self.losses = Losses()
        self._links = dict(links)
        self._loopback = Loopback(worker)

    @staticmethod
    async def open(worker: int, ends: Mapping[int, socket.socket]) -> SocketEndpoint:
        """Take over connected sockets, by the number of the worker at their other end."""
        links: dict[int, SocketLink] = {}
        try:
            for peer, end in ends.items():
                links[peer] = await open_link(peer, end)
        except BaseException:
            for link in links.values():
                link.abort()
            raise
        return SocketEndpoint(worker, links)

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
        elif to == self.worker:
            self._loopback.send(parts)

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
    """The endpoint of a worker process: `arguments` names the inherited descriptor of each link by its peer's number."""
    ends: dict[int, socket.socket] = {}
    for peer, descriptor in arguments.items():
        end = socket.socket(fileno=int(descriptor))
        end.set_inheritable(False)  # what user code starts must not keep our links open
        ends[int(peer)] = end
    return await SocketEndpoint.open(worker, ends)
