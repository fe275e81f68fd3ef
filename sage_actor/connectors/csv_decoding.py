"""Blocks of whole lines to CSV rows.

A quoted field may contain newlines, so a block may end inside of a row. A sentinel line after the block shows it: either it
comes out as a row of its own, or the row that swallowed it is incomplete and its lines are kept for the next block.
"""

from __future__ import annotations

import csv
import io
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

from sage_actor.connectors.decoding import Decoded, decode_text, is_damaged
from sage_actor.errors import ConnectorError

__all__ = ["CsvDecoder"]

_MANY_COLUMNS: Final = 500
_UNCLOSED: Final = "begins a row with a quoted field that is never closed"

Rows = list[list[str]]


class _CsvReader(Protocol):
    """The part of ``csv.reader``'s result that is used; the module does not name its type."""

    @property
    def line_num(self) -> int: ...
    def __iter__(self) -> Iterator[list[str]]: ...
    def __next__(self) -> list[str]: ...


def _pairs(header: Sequence[str]) -> Callable[[Rows], list[object]]:
    return lambda rows: [dict(zip(header, row, strict=True)) for row in rows]


def _row_builder(header: Sequence[str]) -> Callable[[Rows], list[object]]:
    """Rows to dicts; raises ValueError if a row has another width.

    A dict display with constant keys is three times as fast as ``dict(zip(header, row))``, hence the generated code.
    """
    if len(header) > _MANY_COLUMNS:
        return _pairs(header)
    names = [f"v{index}" for index in range(len(header))]
    pairs = ", ".join(f"{key!r}: {name}" for key, name in zip(header, names, strict=True))
    source = f"lambda rows: [{{{pairs}}} for [{', '.join(names)}] in rows]"
    builder: Callable[[Rows], list[object]] = eval(source, {"__builtins__": {}})  # the names are ours and the keys literals
    return builder


class CsvDecoder:
    """A record is a dict (with a header or given columns) or a list of texts; blank lines are passed over.

    Attributes:
        header: names of the columns; None while they are not known, and always for lists.
    """

    def __init__(
        self,
        path: str,
        encoding: str,
        *,
        skip_bad: bool,
        delimiter: str,
        header: bool | None,
        columns: Sequence[str] | None,
        max_record_size: int,
        resumed: Sequence[str] | None = None,
    ) -> None:
        self._path = path
        self._encoding = encoding
        self._skip_bad = skip_bad
        self._delimiter = delimiter
        self._max_record_size = max_record_size
        self._columns = list(columns) if columns is not None else None
        named = header is not False or columns is not None
        self._row_expected = named and resumed is None and (columns is None or header is True)
        self._uneven = False
        self.header: list[str] | None = None
        self._build: Callable[[Rows], list[object]] | None = None
        if resumed is not None:
            self._name(list(resumed))
        elif self._columns is not None and not self._row_expected:
            self._name(self._columns)
        self._sentinel = "\x1f" if delimiter != "\x1f" else "\x1e"
        # The module's bound is 128 KiB for the whole process, less than many a document. Ours replaces it, never below.
        if csv.field_size_limit() < max_record_size:
            csv.field_size_limit(max_record_size)

    def _name(self, header: list[str]) -> None:
        self.header = header
        self._build = _row_builder(header)
        self._row_expected = False

    def decode(self, data: bytes, *, last: bool) -> Decoded:
        text, damaged = decode_text(data, self._encoding)
        if not text.endswith("\n"):
            text += "\n"
        if not damaged and not self._uneven and not self._row_expected:
            decoded = self._decode_even(text, len(data))
            if decoded is not None:
                return decoded
        return self._decode_rows(text, data, last=last)

    def _reader(self, text: str) -> _CsvReader:
        return csv.reader(io.StringIO(text + self._sentinel, newline="\n"), delimiter=self._delimiter)

    def _decode_even(self, text: str, used: int) -> Decoded | None:
        """The block if every line is a good row, else None."""
        reader = self._reader(text)
        try:
            rows: Rows = list(reader)
        except csv.Error:
            return None
        if rows.pop() != [self._sentinel] or reader.line_num != len(rows) + 1:
            return None
        if self._build is None:
            return None if [] in rows else Decoded([*rows], len(rows), used)
        try:
            return Decoded(self._build(rows), len(rows), used)
        except ValueError:  # a row of another width, or a blank line
            return None

    def _decode_rows(self, text: str, data: bytes, *, last: bool) -> Decoded:
        """The block row by row, whatever it holds."""
        total = text.count("\n")
        decoded = Decoded([], total, len(data))
        decoded.line_numbers = numbers = array("L")
        rows: Rows = []
        passed = 0  # lines that the present reader was not given, after it was started anew
        named = 0
        reader = self._reader(text)
        while True:
            start = passed + reader.line_num
            unclosed = False
            try:
                row = next(reader)
            except csv.Error as error:
                flaw = f"is not CSV: {error}"
                # Past the bound of a field, only a quote that is not meant as one can have led so far.
                unclosed = "field limit" in flaw or passed + reader.line_num > total
            else:
                if passed + reader.line_num > total:
                    if row == [self._sentinel]:
                        break
                    tail = data.split(b"\n", start)[-1]
                    if not last and len(tail) <= self._max_record_size:
                        decoded.lines, decoded.used = start, len(data) - len(tail)
                        break
                    unclosed, flaw = True, _UNCLOSED
                elif not row:
                    continue
                elif self._row_expected:
                    self._take_header(row, start)
                    named = 1
                    continue
                else:
                    flaw = self._flaw(row)
                    if not flaw:
                        rows.append(row)
                        numbers.append(start)
                        continue
            if not self._skip_bad:
                decoded.failed_line, decoded.failure = start, flaw
                break
            decoded.bad += 1
            if unclosed:  # what follows the stray quote may be good: go on behind its line
                passed = start + 1
                reader = self._reader(text.split("\n", passed)[-1])
        self._uneven = decoded.lines != len(rows) + named
        decoded.records = self._build(rows) if self._build is not None else [*rows]
        return decoded

    def _flaw(self, row: list[str]) -> str:
        if self.header is not None and len(row) != len(self.header):
            return f"has {len(row)} fields where the header has {len(self.header)}"
        if any(map(is_damaged, row)):
            return f"is not {self._encoding} text"
        return ""

    def _take_header(self, row: list[str], line: int) -> None:
        place = f"{self._path}:{line + 1}"
        if any(map(is_damaged, row)):
            raise ConnectorError(place, f"the header is not {self._encoding} text", "say which encoding it is: encoding='cp1252'")
        if self._columns is not None:
            if len(row) != len(self._columns):
                reason = f"the header has {len(row)} fields where columns= names {len(self._columns)}"
                raise ConnectorError(place, reason, "name one column for each field")
            self._name(self._columns)
            return
        if len(set(row)) != len(row):
            twice = next(name for index, name in enumerate(row) if name in row[:index])
            raise ConnectorError(place, f"the header names {twice!r} twice", "name the columns yourself: header=True, columns=[...]")
        self._name(row)
