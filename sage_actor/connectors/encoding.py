"""Records to bytes: text and JSON lines. CSV has a file of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, cast

from sage_actor.connectors.options import FileSinkOptions

__all__ = ["Encoder", "Unfit", "make_encoder", "one_by_one"]


class Unfit(Exception):
    """Internal: a record does not fit the format; ``encoded`` holds the records before it."""

    def __init__(self, index: int, encoded: bytes, reason: str) -> None:
        super().__init__(reason)
        self.index = index
        self.encoded = encoded
        self.reason = reason


class Encoder(Protocol):
    """One format. One instance serves one file."""

    def encode(self, batch: Sequence[object]) -> bytes:
        """The records as lines. Raises `Unfit` for the first that does not fit."""
        ...


def make_encoder(options: FileSinkOptions, existing: Sequence[str] | None) -> Encoder:
    """``existing``: the header of a CSV file that is continued, so that it is not written again."""
    if options.format == "text":
        return _TextEncoder(options.encoding)
    if options.format == "jsonl":
        return _JsonLinesEncoder(options.encoding)
    from sage_actor.connectors.csv_encoding import CsvEncoder

    return CsvEncoder(options, existing)


def one_by_one(batch: Sequence[object], encode: Callable[[object], bytes], refusals: tuple[type[Exception], ...]) -> bytes:
    """The slow way, after the fast one failed: finds the record that did it."""
    parts: list[bytes] = []
    for index, record in enumerate(batch):
        try:
            parts.append(encode(record))
        except refusals as error:
            raise Unfit(index, b"".join(parts), f"{type(error).__name__}: {error}") from error
    return b"".join(parts)


class _TextEncoder:
    def __init__(self, encoding: str) -> None:
        self._encoding = encoding

    def encode(self, batch: Sequence[object]) -> bytes:
        try:
            return ("\n".join(map(str, batch)) + "\n").encode(self._encoding)
        except UnicodeEncodeError:
            return one_by_one(batch, lambda record: f"{record}\n".encode(self._encoding), (UnicodeEncodeError,))


def _plain(value: object) -> object:
    """numpy's scalars and arrays as what they hold."""
    to_list = getattr(value, "tolist", None)
    if to_list is None:
        raise TypeError(f"{type(value).__name__} has no form in JSON")
    return cast("object", to_list())


class _JsonLinesEncoder:
    def __init__(self, encoding: str) -> None:
        import msgspec

        self._encoding = encoding
        self._encoder = msgspec.json.Encoder(enc_hook=_plain)
        # UnicodeEncodeError is a ValueError; OverflowError and RecursionError come from numbers and nesting without end.
        self._refusals = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)

    def encode(self, batch: Sequence[object]) -> bytes:
        try:
            return self._in_encoding(self._encoder.encode_lines(batch))
        except self._refusals:
            return one_by_one(batch, lambda record: self._in_encoding(self._encoder.encode(record) + b"\n"), self._refusals)

    def _in_encoding(self, data: bytes) -> bytes:
        return data if self._encoding == "utf-8" else data.decode("utf-8").encode(self._encoding)
