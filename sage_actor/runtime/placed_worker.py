"""What runs in each worker of a job with places: the entry that was asked for, on an endpoint whose numbers are the job's.

The workers of a place are a group of their backend, numbered 1 to n there; in the job they have the numbers from `first` on.
Frames within a place go as they are. Frames to and from anybody else go through the owner, who is in every group; sixteen bytes
before them say for whom they are (towards the owner) or whom they come from (from the owner); 0 is the owner. Behind that number
stands where the largest part begins, so that the owner can pass it on as a part: an array in it may then be used where it lies.

A worker learns its numbers by the name of its entry, ``module.function@first+count``, which `__getattr__` answers to: so it needs no
conversation before it begins, and an entry that cannot be imported fails the start as on any backend.
"""

from __future__ import annotations

import importlib
import re
import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, cast

from sage_actor.actor.backend import Buffer, Endpoint, FrameHandler, LostHandler, PoolingEndpoint

__all__ = ["NUMBER", "PlacedWorkerEndpoint", "encode_number", "entry_at", "frame_number", "frame_parts"]

_LAYOUT: Final = struct.Struct("<QQ")

NUMBER: Final = _LAYOUT.size
"""Bytes that stand before a frame."""

Entry = Callable[[Endpoint], Awaitable[None]]

_NAME: Final = re.compile(r"([\w.]+)\.(\w+)@(\d+)\+(\d+)")


def encode_number(worker: int, parts: Sequence[Buffer] = ()) -> bytes:
    """A worker's number as it stands before a frame of these parts; they are named where the frame is to be passed on."""
    sizes = [part.nbytes if isinstance(part, memoryview) else len(part) for part in parts]
    largest = max(range(len(sizes)), key=sizes.__getitem__, default=0)
    return _LAYOUT.pack(worker, sum(sizes[:largest]))


def frame_number(frame: memoryview) -> int:
    """The number before a frame."""
    number: int = _LAYOUT.unpack_from(frame)[0]
    return number


def frame_parts(frame: memoryview) -> list[memoryview]:
    """What stands behind the number, to be passed on: the largest part begins one of these."""
    begin = NUMBER + _LAYOUT.unpack_from(frame)[1]
    return [frame[NUMBER:begin], frame[begin:]]


def entry_at(entry: str, first: int, count: int) -> str:
    """The entry of the workers `first` to ``first + count - 1`` that awaits ``module:function`` with the job's numbers."""
    module, _, function = entry.partition(":")
    return f"{__name__}:{module}.{function}@{first}+{count}"


def __getattr__(name: str) -> Entry:
    parts = _NAME.fullmatch(name)
    if parts is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    main = cast("Entry", getattr(importlib.import_module(parts[1]), parts[2]))
    first, count = int(parts[3]), int(parts[4])

    async def placed(endpoint: Endpoint) -> None:
        await main(PlacedWorkerEndpoint(endpoint, first, count))

    return placed


class PlacedWorkerEndpoint:
    """A worker's end of the links to every other worker of the job; see `Endpoint`.

    What goes to another place is relayed by the owner, in order for each pair of workers.
    """

    __slots__ = ("_first", "_last", "_own", "_receive", "worker")

    def __init__(self, own: Endpoint, first: int, count: int) -> None:
        self._own = own
        self._first = first
        self._last = first + count - 1
        self._receive: FrameHandler | None = None
        self.worker = first - 1 + own.worker

    def start(self, receive: FrameHandler, lost: LostHandler) -> None:
        """Begin delivering; see `Endpoint.start`."""
        self._receive = receive
        self._own.start(self._arrived, lost)

    def _arrived(self, sender: int, frame: memoryview) -> None:
        assert self._receive is not None
        if sender:
            self._receive(self._first - 1 + sender, frame)
        else:
            self._receive(frame_number(frame), frame[NUMBER:])

    def send(self, to: int, parts: Sequence[Buffer]) -> None:
        """Send one frame; see `Endpoint.send`."""
        if self._first <= to <= self._last:
            self._own.send(to - self._first + 1, parts)
        elif to >= 0:
            self._own.send(0, [encode_number(to, parts), *parts])

    def keep_for_reuse(self, nbytes: int) -> None:
        """Keep at most so many bytes for the frames to come, where the own endpoint keeps any; see `PoolingEndpoint`."""
        if isinstance(self._own, PoolingEndpoint):
            self._own.keep_for_reuse(nbytes)

    async def flush(self) -> None:
        """Return when everything sent so far has left this process; what goes to another place may still be with the owner."""
        await self._own.flush()

    async def aclose(self) -> None:
        """Flush, then close all links. Idempotent."""
        await self._own.aclose()
