"""One direction between two workers: frames that wait become numbered parcels, few of which are under way at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from sage_actor.actor.backend import FrameHandler
from sage_actor.backends.handler_errors import report_handler_error
from sage_actor.backends.ray_parcel import BULK, END, LARGE, Parcel, end_news, head_of, pack_bulk, pack_end, pack_frames, unpack_frames

__all__ = ["RayInbound", "RayLink"]

_PARCEL: Final = 1024 * 1024  # bytes of small frames in one parcel at most


class RayLink:
    """The sending end.

    A call costs half a millisecond whatever it carries, so frames of one turn of the loop share a parcel, and while all slots
    are taken those that come wait for the next one together. What waits is bounded by the credit of the layer above.
    """

    __slots__ = ("_cut", "_dispatch", "_finished", "_loop", "_news", "_number", "_progress", "_scheduled", "_sender", "_sent", "_slots",
                 "_taken", "_under_way", "_waiting")  # fmt: skip

    def __init__(self, sender: int, dispatch: Callable[[int, Parcel], None], *, slots: int) -> None:
        """`dispatch(number, parcel)` hands a parcel over; whoever is given it calls `arrived` and `add_slot` in due time."""
        self._sender = sender
        self._dispatch = dispatch
        self._slots = slots
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[bytes] = deque()
        self._sent = 0  # frames
        self._taken = 0  # frames, of those sent, that are in a parcel
        self._number = 0
        self._under_way: dict[int, int] = {}  # number of a parcel -> frames before it
        self._progress = asyncio.Event()
        self._scheduled = False
        self._news: bytes | None = None
        self._finished = False
        self._cut = False

    def send(self, frame: bytes) -> None:
        """Send one frame with the others of this turn; dropped after `cut` and `finish`."""
        if not self._cut and self._news is None:
            self._waiting.append(frame)
            self._sent += 1
            self._schedule()

    def finish(self, news: bytes) -> None:
        """Send the news of our end after all frames. Nothing follows it."""
        self._news = news
        self._schedule()

    def add_slot(self) -> None:
        """One parcel more may be under way."""
        self._slots += 1
        self._schedule()

    def arrived(self, number: int) -> None:
        """The other side has this parcel."""
        if self._under_way.pop(number, None) is not None:
            self._tell_progress()

    def arrived_before(self, number: int) -> None:
        """The other side has every parcel before this one."""
        for earlier in [other for other in self._under_way if other < number]:
            self.arrived(earlier)

    def cut(self) -> None:
        """There is nobody at the other end: drop what waits, and what comes. Idempotent."""
        self._cut = True
        self._waiting.clear()
        self._under_way.clear()
        self._tell_progress()

    async def flush(self) -> None:
        """Return when everything sent so far has arrived, or is lost for good."""
        sent = self._sent
        while not self._cut and self._settled() < sent:
            await self._progress.wait()

    def _settled(self) -> int:
        return next(iter(self._under_way.values()), self._taken)

    def _tell_progress(self) -> None:
        progress, self._progress = self._progress, asyncio.Event()
        progress.set()

    def _schedule(self) -> None:
        if self._slots and not self._scheduled and (self._waiting or self._news is not None):
            self._scheduled = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._scheduled = False
        while self._slots and not self._cut and not self._finished and (self._waiting or self._news is not None):
            number, before = self._number, self._taken
            parcel = self._next_parcel(number)
            self._number += 1
            self._slots -= 1
            self._under_way[number] = before
            self._dispatch(number, parcel)

    def _next_parcel(self, number: int) -> Parcel:
        waiting = self._waiting
        if not waiting:
            self._finished = True
            return pack_end(self._sender, number, self._news or b"")
        if len(waiting[0]) >= LARGE:
            self._taken += 1
            return pack_bulk(self._sender, number, waiting.popleft())
        frames: list[bytes] = []
        room = _PARCEL
        while waiting and len(waiting[0]) < LARGE and room > 0:
            frame = waiting.popleft()
            frames.append(frame)
            room -= len(frame)
        self._taken += len(frames)
        return pack_frames(self._sender, number, frames)


class RayInbound:
    """The receiving end: parcels may come in any order, since Ray runs a call of an async actor as soon as its arguments are there.

    Frames that come before `start` are kept for it.
    """

    __slots__ = ("_ended", "_later", "_ready", "_receive", "_sender", "expected")

    def __init__(self, sender: int, ended: Callable[[int, bytes], None]) -> None:
        """`ended(sender, news)` is called after the last frame of a sender that told us its end."""
        self._sender = sender
        self._ended = ended
        self._receive: FrameHandler | None = None
        self._later: dict[int, tuple[bytes, memoryview]] = {}
        self._ready: deque[tuple[bytes, memoryview]] = deque()
        self.expected = 0
        """Every parcel before this one is here."""

    def start(self, receive: FrameHandler) -> None:
        """Begin delivering."""
        self._receive = receive
        self._deliver()

    def take(self, content: bytes, bulk: memoryview) -> None:
        """Take in a parcel, and deliver what is now in order."""
        self._later[head_of(content)[2]] = (content, bulk)
        while (parcel := self._later.pop(self.expected, None)) is not None:
            self._ready.append(parcel)
            self.expected += 1
        self._deliver()

    def _deliver(self) -> None:
        ready = self._ready
        while ready and (self._receive is not None or head_of(ready[0][0])[0] == END):
            content, bulk = ready.popleft()
            kind = head_of(content)[0]
            if kind == END:
                self._ended(self._sender, end_news(content))
            elif kind == BULK:
                self._hand_on(bulk)
            else:
                for frame in unpack_frames(content):
                    self._hand_on(frame)

    def _hand_on(self, frame: memoryview) -> None:
        if self._receive is not None:
            try:
                self._receive(self._sender, frame)
            except Exception as error:  # noqa: BLE001 - the handler belongs to the layer above
                report_handler_error(self._sender, error)
