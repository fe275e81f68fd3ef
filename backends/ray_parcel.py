"""What one call carries from worker to worker: many small frames, or one large one, or the news of a worker's end."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["BULK", "END", "FRAMES", "LARGE", "Parcel", "end_news", "head_of", "pack_bulk", "pack_end", "pack_frames", "unpack_frames"]

FRAMES: Final = 0
BULK: Final = 1
END: Final = 2

LARGE: Final = 64 * 1024
"""Bytes from which a frame travels alone: through the object store, and out of it without a copy."""

_HEAD: Final = struct.Struct("<BIQI")  # kind, sender, number, count of frames

Parcel = tuple[bytes] | tuple[bytes, NDArray[np.uint8]]
"""The arguments of a call. A lone ``bytes`` is what Ray moves fastest. An array goes out of band, through the object store if it is
large; a plain buffer would too, but cannot be handed on by a Ray Client server."""


def head_of(content: bytes) -> tuple[int, int, int]:
    """(kind, sender, number) of what begins with these bytes. Parcels of a sender are numbered from 0."""
    kind, sender, number, _ = _HEAD.unpack_from(content)
    return kind, sender, number


def pack_frames(sender: int, number: int, frames: Sequence[bytes]) -> Parcel:
    """Small frames, one after another."""
    lengths = struct.pack(f"<{len(frames)}I", *map(len, frames))
    return (b"".join((_HEAD.pack(FRAMES, sender, number, len(frames)), lengths, *frames)),)


def unpack_frames(content: bytes) -> list[memoryview]:
    """The frames of `pack_frames`, in place."""
    count = _HEAD.unpack_from(content)[3]
    at = _HEAD.size + 4 * count
    view = memoryview(content)
    frames: list[memoryview] = []
    for length in struct.unpack_from(f"<{count}I", content, _HEAD.size):
        frames.append(view[at : at + length])
        at += length
    return frames


def pack_bulk(sender: int, number: int, frame: bytes) -> Parcel:
    """One large frame."""
    return (_HEAD.pack(BULK, sender, number, 1), np.frombuffer(frame, dtype=np.uint8))


def pack_end(sender: int, number: int, news: bytes) -> Parcel:
    """The last that a worker sends to its owner."""
    return (_HEAD.pack(END, sender, number, 0) + news,)


def end_news(content: bytes) -> bytes:
    """What `pack_end` was given."""
    return content[_HEAD.size :]
