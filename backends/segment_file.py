"""The file in memory in which one worker lends regions to all others: where what lies, and what is said about a frame in it."""

from __future__ import annotations

import mmap
import os
import struct
import sys
from typing import Final

__all__ = ["FLAGS_SIZE", "REFERENCE", "SLOTS", "SPAN", "create_segment_file", "offset_of"]

SLOTS: Final = 256
"""Segments of one file, each with a flag that says whether it is lent."""

SPAN: Final = 256 << 20
"""Bytes of the file between two segments; also the most that all segments of a file may hold together."""

FLAGS_SIZE: Final = max(4 * SLOTS, mmap.ALLOCATIONGRANULARITY)
"""Bytes at the beginning of the file, for the flags."""

REFERENCE: Final = struct.Struct("<IQQQ")
"""What travels instead of a frame: the slot, its length, then where in it the frame begins, and the size of the frame."""


def create_segment_file() -> int | None:
    """A new file that lies in memory and has no name; its descriptor is inherited by nobody who is not given it.

    It has room for the flags only and takes no other memory; segments are added where the file is long enough for them.
    None where this system has no such files, or gives none now: frames then travel without.
    """
    if sys.platform != "linux":
        return None
    try:
        descriptor = os.memfd_create("sage-segments", os.MFD_CLOEXEC)
    except OSError:
        return None
    try:
        os.posix_fallocate(descriptor, 0, FLAGS_SIZE)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def offset_of(slot: int) -> int:
    """Where in the file a segment begins. What lies between two segments takes no memory."""
    return FLAGS_SIZE + slot * SPAN
