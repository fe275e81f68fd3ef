"""What the connectors can be told, checked while the graph is built: a misspelt option never waits for run time."""

from __future__ import annotations

import codecs
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypedDict, cast

from sage_actor.errors import ConfigError

__all__ = ["ConsoleSinkKeywords", "ConsoleSinkOptions", "FileSinkKeywords", "FileSinkOptions", "FileSourceKeywords", "FileSourceOptions"]

FORMATS: Final = {"text": "text", "csv": "csv", "jsonl": "jsonl", "jsonlines": "jsonl", "json": "jsonl", "ndjson": "jsonl"}
COMPRESSIONS: Final = {"auto": "auto", "none": "none", "gzip": "gzip", "gz": "gzip", "lz4": "lz4", "zstd": "zstd", "zst": "zstd"}
BAD_LINES: Final = {"fail": "fail", "skip": "skip"}

PathLike = str | os.PathLike[str]


class FileSourceKeywords(TypedDict, total=False):
    """Keywords of `FileSource`; its docstring says what they mean."""

    path: PathLike | Sequence[PathLike]
    format: str
    compression: str | None
    encoding: str
    batch_size: int
    prefetch: bool
    recursive: bool
    on_bad_line: str
    delimiter: str
    header: bool
    columns: Sequence[str] | None
    block_size: int
    max_record_size: int
    split_size: int


class FileSinkKeywords(TypedDict, total=False):
    """Keywords of `FileSink`; its docstring says what they mean."""

    path: PathLike
    format: str
    compression: str | None
    encoding: str
    append: bool
    sync: bool
    delimiter: str
    header: bool
    columns: Sequence[str] | None
    block_size: int


class ConsoleSinkKeywords(TypedDict, total=False):
    """Keywords of `ConsoleSink`."""

    prefix: str


@dataclass(frozen=True, slots=True)
class FileSourceOptions:
    """`FileSourceKeywords`, complete and checked."""

    paths: tuple[str, ...]
    format: str
    compression: str
    encoding: str
    batch_size: int
    prefetch: bool
    recursive: bool
    skip_bad_lines: bool
    delimiter: str
    header: bool | None
    columns: tuple[str, ...] | None
    block_size: int
    max_record_size: int
    split_size: int

    @classmethod
    def parse(cls, options: Mapping[str, object] | None, keywords: Mapping[str, object]) -> FileSourceOptions:
        """Raises `ConfigError` for an unknown, missing or ill-typed option."""
        given = _Given("FileSource", FileSourceKeywords.__annotations__, options, keywords)
        return cls(
            paths=given.paths("path"),
            format=given.choice("format", "text", FORMATS),
            compression=given.choice("compression", "auto", COMPRESSIONS),
            encoding=given.encoding(),
            batch_size=given.positive("batch_size", 1000),
            prefetch=bool(given.flag("prefetch", default=False)),
            recursive=bool(given.flag("recursive", default=False)),
            skip_bad_lines=given.choice("on_bad_line", "fail", BAD_LINES) == "skip",
            delimiter=given.delimiter(),
            header=given.flag("header", default=None),
            columns=given.columns(),
            block_size=given.positive("block_size", 256 * 1024),
            max_record_size=given.positive("max_record_size", 64 * 1024 * 1024),
            split_size=given.positive("split_size", 64 * 1024),
        )


@dataclass(frozen=True, slots=True)
class FileSinkOptions:
    """`FileSinkKeywords`, complete and checked."""

    path: str
    format: str
    compression: str
    encoding: str
    append: bool
    sync: bool
    delimiter: str
    header: bool
    columns: tuple[str, ...] | None
    block_size: int

    @classmethod
    def parse(cls, options: Mapping[str, object] | None, keywords: Mapping[str, object]) -> FileSinkOptions:
        """Raises `ConfigError` for an unknown, missing or ill-typed option."""
        given = _Given("FileSink", FileSinkKeywords.__annotations__, options, keywords)
        paths = given.paths("path")
        if len(paths) != 1:
            raise given.refusal("path", "a sink writes one file; give one path")
        return cls(
            path=paths[0],
            format=given.choice("format", "text", FORMATS),
            compression=given.choice("compression", "auto", COMPRESSIONS),
            encoding=given.encoding(),
            append=bool(given.flag("append", default=False)),
            sync=bool(given.flag("sync", default=False)),
            delimiter=given.delimiter(),
            header=bool(given.flag("header", default=True)),
            columns=given.columns(),
            block_size=given.positive("block_size", 256 * 1024),
        )


@dataclass(frozen=True, slots=True)
class ConsoleSinkOptions:
    """`ConsoleSinkKeywords`, complete and checked."""

    prefix: str

    @classmethod
    def parse(cls, options: Mapping[str, object] | None, keywords: Mapping[str, object]) -> ConsoleSinkOptions:
        """Raises `ConfigError` for an unknown or ill-typed option."""
        given = _Given("ConsoleSink", ConsoleSinkKeywords.__annotations__, options, keywords)
        return cls(prefix=given.text("prefix", ""))


def _nearest(name: str, known: Mapping[str, object]) -> str:
    import difflib

    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.5)), "")


class _Given:
    """Options as given, read one by one with their checks."""

    def __init__(
        self, owner: str, known: Mapping[str, object], options: Mapping[str, object] | None, keywords: Mapping[str, object]
    ) -> None:
        self._owner = owner
        mapping = cast("object", {} if options is None else options)
        if not isinstance(mapping, Mapping):
            raise ConfigError(owner, f"options are one mapping or keywords, not {type(mapping).__name__}: {owner}({{'path': ...}})")
        self._values: dict[str, object] = {**cast("Mapping[str, object]", mapping), **keywords}
        for name in self._values:
            if name not in known:
                near = _nearest(str(name), known)
                known_names = ", ".join(sorted(known))
                raise ConfigError(f"{owner}.{name}", f"there is no such option; known: {known_names}", suggestion=near)

    def refusal(self, name: str, reason: str, suggestion: str = "") -> ConfigError:
        return ConfigError(f"{self._owner}.{name}", reason, suggestion=suggestion)

    def text(self, name: str, default: str) -> str:
        value = self._values.get(name, default)
        if not isinstance(value, str):
            raise self.refusal(name, f"must be text, not {value!r}")
        return value

    def flag(self, name: str, *, default: bool | None) -> bool | None:
        value = self._values.get(name, default)
        if isinstance(value, bool):
            return value
        if value is None and default is None:
            return None
        raise self.refusal(name, f"must be True or False, not {value!r}")

    def positive(self, name: str, default: int) -> int:
        value = self._values.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.refusal(name, f"must be a whole number above 0, not {value!r}")
        return value

    def choice(self, name: str, default: str, known: Mapping[str, str]) -> str:
        value = self._values.get(name, default)
        if value is None and "none" in known:
            value = "none"
        found = known.get(value.lower()) if isinstance(value, str) else None
        if found is None:
            names = ", ".join(dict.fromkeys(known.values()))
            raise self.refusal(name, f"must be one of {names}, not {value!r}", _nearest(str(value), known))
        return found

    def paths(self, name: str) -> tuple[str, ...]:
        value = self._values.get(name)
        items = list(cast("Sequence[object]", value)) if isinstance(value, list | tuple) else [value]
        paths: list[str] = []
        for item in items:
            text = os.fspath(cast("PathLike", item)) if isinstance(item, str | os.PathLike) else item
            if not isinstance(text, str) or not text:
                raise self.refusal(name, f"must be a path or a list of paths, not {value!r}")
            paths.append(text)
        if not paths:
            raise self.refusal(name, "names no path")
        return tuple(paths)

    def encoding(self) -> str:
        name = self.text("encoding", "utf-8")
        try:
            found = codecs.lookup(name).name
            # A byte order mark is dropped by the source anyway; this codec would look for one, or write one, in every block.
            found = "utf-8" if found == "utf-8-sig" else found
            # Blocks are cut at the byte of "\n", which UTF-16 and its like also have inside of other characters.
            fits = "\n".encode(found) == b"\n" and b"a\n".decode(found) == "a\n"
        except (LookupError, UnicodeError):
            raise self.refusal("encoding", f"{name!r} is not a known text encoding") from None
        if not fits:
            raise self.refusal("encoding", f"{name!r} does not contain ASCII; convert the file to UTF-8 first", "utf-8")
        return found

    def delimiter(self) -> str:
        value = self.text("delimiter", ",")
        if len(value) != 1 or value in '"\r\n ':
            raise self.refusal("delimiter", f"must be one character other than quote, blank and newline, not {value!r}")
        return value

    def columns(self) -> tuple[str, ...] | None:
        value = self._values.get("columns")
        if value is None:
            return None
        names: list[str] = []
        for item in cast("Sequence[object]", value) if isinstance(value, list | tuple) else [None]:
            if not isinstance(item, str):
                raise self.refusal("columns", f"must be a list of names, not {value!r}")
            names.append(item)
        if not names or len(set(names)) != len(names):
            raise self.refusal("columns", f"must be distinct names, at least one, not {value!r}")
        return tuple(names)
