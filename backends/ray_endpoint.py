"""An endpoint whose links are calls of Ray actors, one numbered sequence of them for each direction between two workers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from sage_actor.actor.backend import Buffer, FrameHandler, LostHandler
from sage_actor.backends.loopback import Loopback
from sage_actor.backends.losses import Losses
from sage_actor.backends.ray_api import WorkerHandle, is_death
from sage_actor.backends.ray_link import RayInbound, RayLink
from sage_actor.backends.ray_parcel import Parcel, head_of
from sage_actor.errors import BackendError, BackendUnavailable

__all__ = ["RayEndpoint", "calling_link", "on_loop"]

_CALLS: Final = 3  # under way from one worker to another: one runs, one is on its way, one is being answered


class RayEndpoint:
    """One worker's end of a full mesh. What carries the parcels gives it the links, and what arrives."""

    __slots__ = ("_closed", "_ended", "_failed", "_inbound", "_links", "_loopback", "_lost", "_receive", "losses", "worker")

    def __init__(
        self, worker: int, *, ended: Callable[[int, bytes], None] | None = None, failed: Callable[[BackendError], None] | None = None
    ) -> None:
        """
        Args:
            ended: called with a worker's number and its news, after its last frame; only the owner is told ends.
            failed: called beside the ``lost`` handler when frames may be lost.
        """
        self.worker = worker
        self.losses = Losses()
        self._ended = ended
        self._failed = failed
        self._links: dict[int, RayLink] = {}
        self._inbound: dict[int, RayInbound] = {}
        self._loopback = Loopback(worker)
        self._receive: FrameHandler | None = None
        self._closed = False

    def open_link(self, peer: int, link: RayLink) -> None:
        """From here on frames to a peer take this link."""
        self._links[peer] = link

    def start(self, receive: FrameHandler, lost: LostHandler) -> None:
        """Begin delivering; see `Endpoint.start`."""
        if not self._closed:
            self._deliver_to(receive)
            self._loopback.start(receive)
        self.losses.start(lost)

    def send(self, to: int, parts: Sequence[Buffer]) -> None:
        """Send one frame with the others of this turn of the loop; see `Endpoint.send`."""
        link = self._links.get(to)
        if self._closed:
            return
        if link is not None:
            link.send(b"".join(parts))
        elif to == self.worker:
            self._loopback.send(parts)

    def take(self, content: bytes, bulk: memoryview) -> None:
        """Take in a parcel, from whatever sender, in whatever order. After closing only a worker's end counts."""
        sender = head_of(content)[1]
        inbound = self._inbound.get(sender)
        if inbound is None:
            inbound = self._inbound[sender] = RayInbound(sender, self._tell_end)
            if self._receive is not None:
                inbound.start(self._receive)
        inbound.take(content, bulk)

    def has_all_before(self, sender: int) -> int:
        """Number of the first parcel of a sender that is not here yet."""
        inbound = self._inbound.get(sender)
        return 0 if inbound is None else inbound.expected

    def fail(self, error: BackendError) -> None:
        """Frames may be lost: nothing is sent or delivered any more, but for a worker's end. The first error counts."""
        if not self._closed:
            self._close()
            self.losses.report(error)
            if self._failed is not None:
                self._failed(error)

    async def flush(self) -> None:
        """Return when everything sent so far has arrived where it goes."""
        for link in list(self._links.values()):
            await link.flush()

    async def aclose(self) -> None:
        """Flush, then close all links. Idempotent."""
        self.losses.close()
        await self.flush()
        self.abort()

    def abort(self) -> None:
        """Close all links without flushing. Idempotent."""
        self.losses.close()
        self._close()

    def _close(self) -> None:
        self._closed = True
        self._loopback.close()
        self._deliver_to(_throw_away)
        for peer, link in self._links.items():
            if peer != 0:  # the news of a worker's end still goes to the owner
                link.cut()

    def _deliver_to(self, receive: FrameHandler) -> None:
        self._receive = receive
        for inbound in list(self._inbound.values()):
            inbound.start(receive)

    def _tell_end(self, sender: int, news: bytes) -> None:
        if self._ended is not None:
            self._ended(sender, news)


def _throw_away(sender: int, frame: memoryview) -> None:
    """What comes after the end reaches nobody."""


def calling_link(endpoint: RayEndpoint, peer: int, handle: WorkerHandle) -> RayLink:
    """The link to another worker: each parcel is a call, and the answer to it says that it has arrived.

    When the peer has ended, what is sent to it is dropped; its owner is told so by its own calls.
    """
    loop = asyncio.get_running_loop()

    def dispatch(number: int, parcel: Parcel) -> None:
        try:
            answer = handle.deliver.remote(*parcel).future()
        except Exception as error:  # noqa: BLE001 - Ray raises what it likes where the object store is full or Ray was shut down
            answered(number, error)
            return
        answer.add_done_callback(lambda done: on_loop(loop, lambda: answered(number, done.exception())))

    def answered(number: int, error: BaseException | None) -> None:
        if error is None:
            link.arrived(number)
            link.add_slot()
        elif is_death(error):
            link.cut()
        else:
            reason = f"worker {endpoint.worker} could not hand frames to worker {peer}: {type(error).__name__}: {error}"
            endpoint.fail(BackendUnavailable("ray", reason, "see `ray status` and `ray memory`"))

    link = RayLink(endpoint.worker, dispatch, slots=_CALLS)
    return link


def on_loop(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    """Call something on a loop from a thread of Ray; dropped where the loop has ended meanwhile."""
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        pass  # the loop is closed: nobody waits for this any more
