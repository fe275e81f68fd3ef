"""Records to CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Literal, cast

from sage_actor.connectors.encoding import Unfit, one_by_one
from sage_actor.connectors.options import FileSinkOptions

__all__ = ["CsvEncoder"]


class CsvEncoder:
    """The first record decides: a mapping names the columns, and others have to fit them; a sequence is written as it is."""

    def __init__(self, options: FileSinkOptions, existing: Sequence[str] | None) -> None:
        self._options = options
        self._existing = existing
        self._columns: list[str] | None = list(options.columns) if options.columns is not None else None
        self._names = frozenset(self._columns or ())
        self._begun = False

    def encode(self, batch: Sequence[object]) -> bytes:
        head = b"" if self._begun or not batch else self._begin(batch[0])
        try:
            return head + self._lines([self._row(record) for record in batch])
        except (TypeError, ValueError, csv.Error):
            try:
                return head + one_by_one(batch, lambda record: self._lines([self._row(record)]), (TypeError, ValueError, csv.Error))
            except Unfit as unfit:
                unfit.encoded = head + unfit.encoded
                raise

    def _begin(self, first: object) -> bytes:
        self._begun = True
        if self._columns is None and isinstance(first, Mapping):
            self._columns = list(self._existing or cast("Mapping[str, object]", first))
            self._names = frozenset(self._columns)
        due = self._columns is not None and self._options.header and self._existing is None
        return self._lines([self._columns]) if due and self._columns is not None else b""

    def _row(self, record: object) -> Sequence[object]:
        columns = self._columns
        if isinstance(record, Mapping):
            values = cast("Mapping[str, object]", record)
            if columns is None:
                raise TypeError("the rows before it were sequences; name the columns with columns=[...]")
            if not values.keys() <= self._names:
                extra = next(name for name in values if name not in self._names)
                raise ValueError(f"{extra!r} is not among the columns {', '.join(map(str, columns))}")
            return [values.get(name) for name in columns]
        if isinstance(record, list | tuple):
            cells = cast("Sequence[object]", record)
            if columns is not None and len(cells) != len(columns):
                raise ValueError(f"{len(cells)} fields do not fit the columns {', '.join(map(str, columns))}")
            return cells
        raise TypeError(f"a row is a mapping, a list or a tuple, not {type(record).__name__}")

    def _lines(self, rows: Sequence[Sequence[object]]) -> bytes:
        text = self._text(rows, csv.QUOTE_MINIMAL)
        if "\r" in text:
            # The module quotes what stands in its own line end and nothing else; a bare \r could not be read back.
            text = "".join(self._text([row], csv.QUOTE_ALL) for row in rows)
        return text.encode(self._options.encoding)

    def _text(self, rows: Sequence[Sequence[object]], quoting: Literal[0, 1]) -> str:
        out = io.StringIO()
        csv.writer(out, delimiter=self._options.delimiter, lineterminator="\n", quoting=quoting).writerows(rows)
        return out.getvalue()
