"""Blocks of whole lines to records: text and JSON lines. CSV has a file of its own."""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

__all__ = ["Decoded", "Decoder", "JsonLinesDecoder", "TextDecoder", "decode_text", "is_damaged"]

_ESCAPED: Final = re.compile("[\udc80-\udcff]")


@dataclass(slots=True)
class Decoded:
    """What a block of lines holds.

    Attributes:
        records: in order.
        lines: how many physical lines were used up.
        used: how many bytes were used up: all, unless a record continues in the next block.
        line_numbers: line of each record, counted from 0 in this block; None: record i begins in line i.
        bad: how many lines were dropped because they could not be understood.
        failed_line, failure: the first such line and its reason, where they are not dropped; ``records`` are those before.
    """

    records: list[object]
    lines: int
    used: int
    line_numbers: Sequence[int] | None = None
    bad: int = 0
    failed_line: int = 0
    failure: str = ""


class Decoder(Protocol):
    """One format. One instance serves one file, block by block."""

    @property
    def header(self) -> list[str] | None:
        """The names of the columns as known before the next block, where the format has them."""
        ...

    def decode(self, data: bytes, *, last: bool) -> Decoded:
        """Understand a block; ``last`` if the file ends with it."""
        ...


def decode_text(data: bytes, encoding: str) -> tuple[str, bool]:
    """The text, and whether bytes in it are damaged. Damaged bytes become lone surrogates, one each (see `is_damaged`)."""
    try:
        return data.decode(encoding), False
    except UnicodeDecodeError:
        return data.decode(encoding, "surrogateescape"), True


def is_damaged(text: str) -> bool:
    """Whether the text holds bytes that do not belong to the encoding."""
    return not text.isascii() and _ESCAPED.search(text) is not None


class TextDecoder:
    """A record is a line without its newline."""

    header: list[str] | None = None

    def __init__(self, encoding: str, *, skip_bad: bool) -> None:
        self._encoding = encoding
        self._skip_bad = skip_bad

    def decode(self, data: bytes, *, last: bool) -> Decoded:
        text, damaged = decode_text(data, self._encoding)
        if "\r" in text:
            text = text.replace("\r\n", "\n")
        lines = text.split("\n")
        if not lines[-1]:
            lines.pop()
        decoded = Decoded([*lines] if damaged else lines, len(lines), len(data))  # type: ignore[arg-type]
        if damaged:
            numbers = array("L")
            good: list[object] = []
            for number, line in enumerate(lines):
                if not is_damaged(line):
                    good.append(line)
                    numbers.append(number)
                elif self._skip_bad:
                    decoded.bad += 1
                else:
                    decoded.failed_line, decoded.failure = number, f"is not {self._encoding} text"
                    break
            decoded.records, decoded.line_numbers = good, numbers
        return decoded


class JsonLinesDecoder:
    """A record is the JSON value in a line; blank lines are passed over."""

    header: list[str] | None = None

    def __init__(self, encoding: str, *, skip_bad: bool) -> None:
        import msgspec

        self._encoding = encoding
        self._skip_bad = skip_bad
        self._decoder = msgspec.json.Decoder()
        # A value nested too deeply raises RecursionError, foreign bytes inside of a string UnicodeDecodeError.
        self._refusals = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

    def decode(self, data: bytes, *, last: bool) -> Decoded:
        used = len(data)
        if self._encoding != "utf-8":
            data = decode_text(data, self._encoding)[0].encode("utf-8", "surrogateescape")
        lines = data.count(b"\n") + (not data.endswith(b"\n"))
        try:
            records: list[object] = self._decoder.decode_lines(data)
        except self._refusals:
            pass
        else:
            # The library also takes two values in a line, or one in two; then the numbers differ and we look closely.
            if len(records) == lines:
                return Decoded(records, lines, used)
        return self._decode_one_by_one(data, lines, used)

    def _decode_one_by_one(self, data: bytes, lines: int, used: int) -> Decoded:
        decoded = Decoded([], lines, used)
        decoded.line_numbers = numbers = array("L")
        for number, line in enumerate(data.split(b"\n")):
            if not line or line.isspace():
                continue
            try:
                decoded.records.append(self._decoder.decode(line))
            except self._refusals as error:
                if not self._skip_bad:
                    decoded.failed_line, decoded.failure = number, f"is not a JSON value: {error}"
                    break
                decoded.bad += 1
            else:
                numbers.append(number)
        return decoded
