"""Frame header and codec: what travels between workers."""

from collections.abc import Sequence

Buffer = bytes | bytearray | memoryview

DATA: int
MARKER: int
CREDIT: int
CONTROL: int

class FrameHeader:
    """Fixed-size header (little endian, magic and version first): kind, job, attempt, channel, sequence, records, lengths of parts."""

    kind: int
    job: int
    """64-bit stable hash of the job id."""
    attempt: int
    channel: int
    """32-bit number, unique in the job."""
    sequence: int
    """64-bit; counts the data and marker frames of one channel from 0."""
    records: int
    def __init__(self, kind: int, job: int, attempt: int, channel: int, sequence: int, records: int) -> None:
        """Read only from here on; headers compare by their fields."""

def encode(kind: int, job: int, attempt: int, channel: int, sequence: int, records: int, parts: Sequence[Buffer]) -> list[Buffer]:
    """[header, *parts] ready for Endpoint.send; the parts are not copied. Raises FrameError for fields out of range, for more than
    65535 parts and for parts that are not contiguous."""

def decode(frame: Buffer) -> tuple[FrameHeader, list[memoryview]]:
    """Header and parts (views into `frame`, not copied). Raises FrameError naming what is wrong: too short, bad magic, other
    version, unknown kind, lengths that do not add up."""
