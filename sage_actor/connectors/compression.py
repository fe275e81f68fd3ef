"""Bytes in and out of files: plain, gzip, lz4 and zstd. Everything here blocks and runs off the loop."""

from __future__ import annotations

import importlib
import io
import os
from collections.abc import Callable
from typing import Final, Protocol, cast

from sage_actor.errors import ConnectorError

__all__ = ["EXTENSIONS", "ByteReader", "ByteWriter", "compression_of", "open_reader", "open_writer"]

EXTENSIONS: Final = {".gz": "gzip", ".gzip": "gzip", ".lz4": "lz4", ".zst": "zstd", ".zstd": "zstd"}


def compression_of(path: str, compression: str) -> str:
    """``compression``, or for "auto" what the end of the file's name says."""
    if compression != "auto":
        return compression
    return EXTENSIONS.get(os.path.splitext(path)[1].lower(), "none")


class ByteReader(Protocol):
    """A file as the bytes that were written, before any compression."""

    def read(self, size: int) -> bytes:
        """About ``size`` bytes, at least one; b"" at the end. Raises `OSError` or `ConnectorError`."""
        ...

    def seek(self, offset: int) -> bool:
        """Go forward to ``offset``; False if the content ends before it."""
        ...

    def close(self) -> None: ...


class ByteWriter(Protocol):
    """The other direction."""

    def write(self, data: bytes) -> None:
        """Append all of ``data``."""
        ...

    def flush(self) -> None:
        """Everything written so far can be read back, decompressed, by others."""
        ...

    def close(self) -> None: ...


def open_reader(path: str, compression: str) -> ByteReader:
    """Open for reading; ``compression`` as `compression_of` gives it. Raises `OSError`."""
    if compression == "none":
        return _PlainReader(path)
    return _CompressedReader(path, compression)


def open_writer(path: str, compression: str, *, append: bool, sync: bool) -> ByteWriter:
    """Open for writing, at the end or from nothing. Raises `OSError`."""
    return _Writer(path, compression, append=append, sync=sync)


class _PlainReader:
    def __init__(self, path: str) -> None:
        self._file = io.FileIO(path, "rb")

    def read(self, size: int) -> bytes:
        return self._file.read(size) or b""

    def seek(self, offset: int) -> bool:
        if offset > os.fstat(self._file.fileno()).st_size:
            return False
        self._file.seek(offset)
        return True

    def close(self) -> None:
        self._file.close()


class _Decompressor(Protocol):
    """One frame (gzip: member) at a time; a file may hold many, one after the other."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes | None: ...


class _ZlibObject(_Decompressor, Protocol):
    @property
    def unconsumed_tail(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Lz4Object(_Decompressor, Protocol):
    @property
    def needs_input(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int = ...) -> bytes: ...


class _ZstdObject(_Decompressor, Protocol):
    def decompress(self, data: bytes, /) -> bytes: ...


class _Frame(Protocol):
    """The three libraries' decompressors behind one face. ``pending`` is input that waits for its turn."""

    pending: bytes

    def step(self, size: int) -> bytes: ...
    @property
    def ended(self) -> bool: ...
    @property
    def hungry(self) -> bool: ...


class _GzipFrame:
    def __init__(self, data: bytes) -> None:
        import zlib

        self._object = cast("_ZlibObject", zlib.decompressobj(zlib.MAX_WBITS | 16))
        self.pending = data

    def step(self, size: int) -> bytes:
        out = self._object.decompress(self.pending, size)
        self.pending = (self._object.unused_data or b"") if self._object.eof else self._object.unconsumed_tail
        # Output of exactly `size` may hide more inside of zlib; it comes out with the next input, however little.
        return out

    @property
    def ended(self) -> bool:
        return self._object.eof

    @property
    def hungry(self) -> bool:
        return not self.pending


class _Lz4Frame:
    def __init__(self, data: bytes) -> None:
        make = cast("Callable[[], _Lz4Object]", importlib.import_module("lz4.frame").LZ4FrameDecompressor)
        self._object = make()
        self.pending = data

    def step(self, size: int) -> bytes:
        data, self.pending = self.pending, b""
        out = self._object.decompress(data, max_length=size)
        if self._object.eof:
            self.pending = self._object.unused_data or b""
        return out

    @property
    def ended(self) -> bool:
        return self._object.eof

    @property
    def hungry(self) -> bool:
        return self._object.needs_input and not self.pending


class _ZstdFrame:
    def __init__(self, data: bytes) -> None:
        import zstandard

        self._object = cast("_ZstdObject", zstandard.ZstdDecompressor().decompressobj())
        self.pending = data
        self._portion = 4096

    def step(self, size: int) -> bytes:
        # Its output cannot be bounded, so the input is: portions shrink when they blow up and grow when they do not.
        data, self.pending = self.pending[: self._portion], self.pending[self._portion :]
        out = self._object.decompress(data)
        if self._object.eof:
            self.pending = (self._object.unused_data or b"") + self.pending
        if len(out) > 4 * size:
            self._portion = max(64, self._portion // 8)
        elif len(out) < size:
            self._portion = min(65536, self._portion * 2)
        return out

    @property
    def ended(self) -> bool:
        return self._object.eof

    @property
    def hungry(self) -> bool:
        return not self.pending


_FRAMES: Final[dict[str, Callable[[bytes], _Frame]]] = {"gzip": _GzipFrame, "lz4": _Lz4Frame, "zstd": _ZstdFrame}
_PORTION: Final = 64 * 1024


def _damages(compression: str) -> tuple[type[Exception], ...]:
    """What the library raises for bytes that it did not write."""
    if compression == "gzip":
        import zlib

        return (zlib.error,)
    if compression == "zstd":
        import zstandard

        return (zstandard.ZstdError,)
    return (RuntimeError,)


class _CompressedReader:
    def __init__(self, path: str, compression: str) -> None:
        self._path = path
        self._compression = compression
        self._make = _FRAMES[compression]
        self._damages = _damages(compression)
        self._frame: _Frame | None = None
        self._pending = b""
        self._ended = False
        self._offset = 0  # what was read from the decompressor, held or not
        self._held = b""
        self._failure: ConnectorError | None = None
        self._file = io.FileIO(path, "rb")

    def read(self, size: int) -> bytes:
        """About ``size`` bytes; a damaged or truncated file raises after everything before the damage was returned."""
        if self._held:
            out, self._held = self._held, b""
            return out
        if self._failure is not None:
            raise self._failure  # a decompressor that failed is of no use any more
        try:
            while not self._ended:
                out = self._step(size)
                if out:
                    self._offset += len(out)
                    return out
        except self._damages as error:
            self._failure = self._damaged(str(error))
            raise self._failure from error
        return b""

    def _step(self, size: int) -> bytes:
        frame = self._frame
        if frame is None:
            data = self._pending or self._more()
            if self._compression == "gzip":
                # Tapes and some tools pad with zero bytes after a member; gzip ignores them, and so do we.
                while data and self._offset and not (data := data.lstrip(b"\0")):
                    data = self._more()
            self._pending = b""
            if not data:
                self._ended = True
                return b""
            frame = self._frame = self._make(data)
        elif frame.hungry:
            frame.pending = self._more()
            if not frame.pending:
                raise self._damaged("it ends in the middle of a frame: the file is truncated")
        out = frame.step(size)
        if frame.ended:
            self._pending = frame.pending
            self._frame = None
        return out

    def _more(self) -> bytes:
        return self._file.read(_PORTION) or b""

    def _damaged(self, reason: str) -> ConnectorError:
        place = f"{self._path}: byte {self._file.tell()} ({self._offset} decompressed)"
        hint = "write the file again; if it is not compressed so, say compression='none' (or 'auto': by the end of its name)"
        return ConnectorError(place, f"cannot be decompressed as {self._compression}: {reason}", hint)

    def seek(self, offset: int) -> bool:
        while self._offset < offset:
            data = self.read(min(offset - self._offset, 1 << 20))
            if not data:
                return False
            if self._offset > offset:
                self._held = data[offset - self._offset :]
        return True

    def close(self) -> None:
        self._file.close()


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class _Lz4Compressor(_Compressor, Protocol):
    def begin(self) -> bytes: ...


def _start_gzip() -> tuple[bytes, _Compressor]:
    import zlib

    return b"", cast("_Compressor", zlib.compressobj(6, zlib.DEFLATED, zlib.MAX_WBITS | 16))


def _start_lz4() -> tuple[bytes, _Compressor]:
    make = cast("Callable[..., _Lz4Compressor]", importlib.import_module("lz4.frame").LZ4FrameCompressor)
    compressor = make(content_checksum=True)
    return compressor.begin(), compressor


def _start_zstd() -> tuple[bytes, _Compressor]:
    import zstandard

    return b"", cast("_Compressor", zstandard.ZstdCompressor(write_checksum=True).compressobj())


_STARTS: Final[dict[str, Callable[[], tuple[bytes, _Compressor]]]] = {"gzip": _start_gzip, "lz4": _start_lz4, "zstd": _start_zstd}


class _Writer:
    def __init__(self, path: str, compression: str, *, append: bool, sync: bool) -> None:
        self._start = _STARTS.get(compression)
        self._sync = sync
        self._compressor: _Compressor | None = None
        self._file = io.FileIO(path, "ab" if append else "wb")
        # Other tools refuse an empty file of their format, so an empty frame is written where nothing else was.
        self._bare = self._start is not None and not self._file.tell()

    def write(self, data: bytes) -> None:
        if self._start is not None:
            head = b""
            if self._compressor is None:
                head, self._compressor = self._start()
            data = head + self._compressor.compress(data)
            self._bare = False
        self._put(data)

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]

    def flush(self) -> None:
        # Ending the frame is the one way that all three formats have to make everything readable.
        if self._compressor is not None:
            compressor, self._compressor = self._compressor, None
            self._put(compressor.flush())
        if self._sync:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        try:
            if self._bare:
                self.write(b"")
            self.flush()
        finally:
            self._file.close()
