"""The two kinds of ends: the owner's, through which everything passes, and a worker's."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Sequence

from sage_actor import BackendError
from sage_actor.actor.backend import Buffer, FrameHandler, LostHandler
from tidal_backend.link import HELLO, READY, Link

__all__ = ["Hub", "Spoke"]


class Inbox:
    """Keeps frames until there is a handler, then delivers each on a turn of its own or the one in which it came."""

    def __init__(self) -> None:
        self._kept: list[tuple[int, memoryview]] = []
        self._receive: FrameHandler | None = None
        self.closed = False

    def start(self, receive: FrameHandler) -> None:
        self._receive = receive
        asyncio.get_running_loop().call_soon(self._deliver_kept)

    def put(self, sender: int, frame: memoryview) -> None:
        if self._receive is None or self._kept:
            self._kept.append((sender, frame))
        else:
            self._deliver(sender, frame)

    def put_later(self, sender: int, frame: memoryview) -> None:
        """Never inside the call: what a worker sends to itself."""
        self._kept.append((sender, frame))
        if self._receive is not None:
            asyncio.get_running_loop().call_soon(self._deliver_kept)

    def _deliver_kept(self) -> None:
        kept, self._kept = self._kept, []
        for sender, frame in kept:
            self._deliver(sender, frame)

    def _deliver(self, sender: int, frame: memoryview) -> None:
        if self.closed or self._receive is None:
            return
        try:
            self._receive(sender, frame)
        except Exception as error:  # noqa: BLE001 - the handler belongs to the layer above
            context = {"message": f"the handler of frames raised on a frame from worker {sender}", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)


class Hub:
    """The owner's end: takes the connections of the workers and passes on what is not for itself.

    What a worker is slow to read waits here; the credit of the layer above bounds it, as it bounds every link.
    """

    worker = 0

    def __init__(self, count: int, token: bytes) -> None:
        self._count = count
        self._token = token
        self._links: dict[int, Link] = {}
        self._all: list[Link] = []
        self._ready: set[int] = set()
        self._server: asyncio.Server | None = None
        self._inbox = Inbox()
        self._lost: LostHandler | None = None
        self._kept_losses: list[BackendError] = []
        self.all_ready = asyncio.Event()
        if not count:
            self.all_ready.set()

    async def listen(self) -> int:
        """Open the hub; returns its port."""
        self._server = await asyncio.get_running_loop().create_server(self._connected, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def stop_listening(self) -> None:
        """Everybody is there."""
        if self._server is not None:
            self._server.close()

    def is_ready(self, worker: int) -> bool:
        """Whether its entry runs."""
        return worker in self._ready

    def start(self, receive: FrameHandler, lost: LostHandler) -> None:
        """Begin delivering; see `sage_actor.actor.backend.Endpoint`."""
        self._inbox.start(receive)
        self._lost = lost
        kept, self._kept_losses = self._kept_losses, []
        for error in kept:
            lost(error)

    def send(self, to: int, parts: Sequence[Buffer]) -> None:
        """Send a frame; to nobody is dropped."""
        if self._inbox.closed:
            return
        if to == 0:
            self._inbox.put_later(0, memoryview(b"".join(parts)))
        elif (link := self._links.get(to)) is not None:
            link.send(0, to, parts)

    async def flush(self) -> None:
        """Return when the kernel has taken everything."""
        for link in list(self._links.values()):
            await link.flush()

    async def aclose(self) -> None:
        """Flush, then close all links. Idempotent."""
        await self.flush()
        await self.abort()

    async def abort(self) -> None:
        """Close all links, and the hub, without flushing. Idempotent."""
        self._inbox.closed = True
        self.stop_listening()
        for link in self._all:
            link.abort()
        for link in self._all:
            await link.closed.wait()

    async def until_read(self, worker: int) -> None:
        """Wait until everything that an ended worker managed to send has come."""
        link = self._links.get(worker)
        if link is not None:
            await link.closed.wait()

    def lose(self, error: BackendError) -> None:
        """Tell a loss, now or at the start."""
        if self._lost is None:
            self._kept_losses.append(error)
        elif not self._inbox.closed:
            self._lost(error)

    def _connected(self) -> Link:
        link = Link(self._arrived, lambda link: None)
        self._all.append(link)
        return link

    def _arrived(self, link: Link, sender: int, receiver: int, frame: memoryview) -> None:
        if receiver == HELLO:
            if hmac.compare_digest(bytes(frame), self._token) and 1 <= sender <= self._count and sender not in self._links:
                self._links[sender] = link
            else:
                link.abort()  # somebody else on this machine
        elif self._links.get(sender) is not link:
            link.abort()
        elif receiver == READY:
            self._ready.add(sender)
            if len(self._ready) == self._count:
                self.all_ready.set()
        elif receiver == 0:
            self._inbox.put(sender, frame)
        elif (to := self._links.get(receiver)) is not None:
            to.send(sender, receiver, [frame])


class Spoke:
    """A worker's end: one connection, to the hub."""

    def __init__(self, worker: int, link_lost: asyncio.Event) -> None:
        self.worker = worker
        self._inbox = Inbox()
        self.link = Link(self._arrived, lambda link: link_lost.set())

    def start(self, receive: FrameHandler, lost: LostHandler) -> None:
        """Begin delivering; `lost` is never called: without its hub a worker ends."""
        self._inbox.start(receive)

    def send(self, to: int, parts: Sequence[Buffer]) -> None:
        """Send a frame."""
        if to == self.worker:
            self._inbox.put_later(to, memoryview(b"".join(parts)))
        elif to >= 0:
            self.link.send(self.worker, to, parts)

    async def flush(self) -> None:
        """Return when the kernel has taken everything."""
        await self.link.flush()

    async def aclose(self) -> None:
        """Flush, then close. Idempotent."""
        self._inbox.closed = True
        await self.link.flush()
        self.link.end()
        await self.link.closed.wait()

    def _arrived(self, link: Link, sender: int, receiver: int, frame: memoryview) -> None:
        self._inbox.put(sender, frame)
