"""Frame header and codec: what travels between workers. The contract is in frame.pyi.

Layout, little endian: magic "SGAF", version u8, kind u8, number of parts u16, attempt u32, channel u32, records u32, reserved
u32 (zero), job u64, sequence u64; then one u64 length per part; then the parts themselves.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize

from sage_actor.errors import FrameError

Buffer = bytes | bytearray | memoryview

DATA = 1
MARKER = 2
CREDIT = 3
CONTROL = 4

VERSION = 1
HEADER_SIZE = 40
MOST_PARTS = 65535

cdef uint8_t WIRE_VERSION = 1
cdef Py_ssize_t FIXED = 40
cdef int LAST_KIND = 4

# Every platform we build for is little endian; the struct has no padding.
cdef packed struct Wire:
    char magic[4]
    uint8_t version
    uint8_t kind
    uint16_t parts
    uint32_t attempt
    uint32_t channel
    uint32_t records
    uint32_t reserved
    uint64_t job
    uint64_t sequence


cdef class FrameHeader:
    """Fixed-size header of a frame. The contract is in frame.pyi."""

    def __init__(self, int kind, uint64_t job, uint32_t attempt, uint32_t channel, uint64_t sequence, uint32_t records):
        self.kind = kind
        self.job = job
        self.attempt = attempt
        self.channel = channel
        self.sequence = sequence
        self.records = records

    def _fields(self):
        return (self.kind, self.job, self.attempt, self.channel, self.sequence, self.records)

    def __eq__(self, other):
        if type(other) is not FrameHeader:
            return NotImplemented
        return self._fields() == (<FrameHeader> other)._fields()

    def __hash__(self):
        return hash(self._fields())

    def __repr__(self):
        return (
            f"FrameHeader(kind={self.kind}, job={self.job:#x}, attempt={self.attempt}, channel={self.channel}, "
            f"sequence={self.sequence}, records={self.records})"
        )


cdef Py_ssize_t size_of(object part) except -1:
    if type(part) is bytes:
        return len(<bytes> part)
    try:
        view = memoryview(part)
    except TypeError:
        raise FrameError(f"a part of a frame must be bytes, a bytearray or a memoryview, not {type(part).__name__}") from None
    if not view.c_contiguous:
        raise FrameError("a part of a frame must be contiguous; make a contiguous copy of the array first")
    return view.nbytes


def encode(kind, job, attempt, channel, sequence, records, parts) -> list:
    cdef Wire wire
    cdef bytes header
    cdef char* at
    cdef uint64_t length
    cdef Py_ssize_t count = len(parts)
    if not (type(kind) is int and 1 <= kind <= LAST_KIND):
        raise FrameError(f"{kind!r} is no kind of frame; use DATA, MARKER, CREDIT or CONTROL")
    if count > MOST_PARTS:
        raise FrameError(f"a frame has at most {MOST_PARTS} parts, not {count}; join small ones")
    try:
        wire.kind = kind
        wire.attempt = attempt
        wire.channel = channel
        wire.records = records
        wire.job = job
        wire.sequence = sequence
    except (OverflowError, TypeError) as error:
        raise FrameError(
            f"header out of range ({error}): job {job!r} and sequence {sequence!r} have 64 bits, attempt {attempt!r}, "
            f"channel {channel!r} and records {records!r} have 32, all unsigned"
        ) from None
    memcpy(wire.magic, b"SGAF", 4)
    wire.version = WIRE_VERSION
    wire.parts = <uint16_t> count
    wire.reserved = 0
    header = PyBytes_FromStringAndSize(NULL, FIXED + 8 * count)
    at = PyBytes_AS_STRING(header)
    memcpy(at, &wire, FIXED)
    at += FIXED
    for part in parts:
        length = <uint64_t> size_of(part)
        memcpy(at, &length, 8)
        at += 8
    return [header, *parts]


def decode(frame) -> tuple:
    cdef Wire wire
    cdef const unsigned char[::1] view
    cdef const unsigned char* at
    cdef uint64_t length
    cdef Py_ssize_t size, left, start, index
    cdef FrameHeader header
    cdef list parts = []
    try:
        whole = memoryview(frame).cast("B")
    except (TypeError, ValueError) as error:
        raise FrameError(f"a frame must be a contiguous buffer of bytes: {error}") from None
    size = len(whole)
    if size < FIXED:
        raise FrameError(f"a frame of {size} bytes is too short; its header alone has {FIXED}")
    view = whole
    at = &view[0]
    memcpy(&wire, at, FIXED)
    if memcmp(wire.magic, b"SGAF", 4) != 0:
        raise FrameError(f"bad magic {bytes(whole[:4])!r}: this is no frame of sage_actor")
    if wire.version != WIRE_VERSION:
        raise FrameError(f"frame version {wire.version}, but this process speaks {WIRE_VERSION}; run the same release everywhere")
    if not 1 <= wire.kind <= LAST_KIND:
        raise FrameError(f"unknown kind of frame {wire.kind}")
    if wire.reserved != 0:
        raise FrameError("reserved bytes of the header are not zero: the frame is damaged")
    start = FIXED + 8 * <Py_ssize_t> wire.parts
    if size < start:
        raise FrameError(f"a frame of {size} bytes is too short for the lengths of its {wire.parts} parts")
    left = size - start
    for index in range(wire.parts):
        memcpy(&length, at + FIXED + 8 * index, 8)
        if length > <uint64_t> left:
            raise FrameError(f"part {index} claims {length} bytes, but only {left} are left")
        parts.append(whole[start:start + <Py_ssize_t> length])
        start += <Py_ssize_t> length
        left -= <Py_ssize_t> length
    if left != 0:
        raise FrameError(f"{left} bytes are left over after the last part")
    header = FrameHeader.__new__(FrameHeader)
    header.kind = wire.kind
    header.job = wire.job
    header.attempt = wire.attempt
    header.channel = wire.channel
    header.sequence = wire.sequence
    header.records = wire.records
    return header, parts
