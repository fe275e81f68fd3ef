"""Reading what a job wrote: the end of its log, or what came since a place. Blocks on the disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["LogPart", "read_since", "read_tail"]

MOST = 1 << 20


@dataclass(frozen=True, slots=True)
class LogPart:
    """A piece of a log: its text, and the byte position after it, where the next piece begins."""

    text: str
    next: int


def read_tail(path: Path, lines: int) -> LogPart:
    """The last lines, at most 1 MiB; "" if there is no log yet."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, 2)
            file.seek(max(0, end - MOST))
            data = file.read(end - file.tell())
    except FileNotFoundError:
        return LogPart("", 0)
    kept = data.splitlines(keepends=True)[-lines:] if lines > 0 else []
    return LogPart(b"".join(kept).decode("utf-8", "replace"), end)


def read_since(path: Path, since: int) -> LogPart:
    """Up to 1 MiB from a position on. Never splits a line that is complete, nor a character."""
    try:
        with path.open("rb") as file:
            file.seek(since)
            data = file.read(MOST)
    except FileNotFoundError:
        return LogPart("", 0)
    if len(data) < MOST and not data.endswith(b"\n"):
        data = _whole_characters(data)
    elif b"\n" in data:
        data = data[: data.rindex(b"\n") + 1]
    return LogPart(data.decode("utf-8", "replace"), since + len(data))


def _whole_characters(data: bytes) -> bytes:
    for back in range(1, min(4, len(data)) + 1):
        lead = data[-back]
        if lead & 0xC0 != 0x80:
            needed = 1 if lead < 0x80 else 2 if lead >> 5 == 0b110 else 3 if lead >> 4 == 0b1110 else 4
            return data[:-back] if needed > back else data
    return data
