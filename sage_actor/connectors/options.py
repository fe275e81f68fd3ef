"""What the connectors can be told, checked while the graph is built: a misspelt option never waits for run time."""

from __future__ import annotations

import codecs
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypedDict, cast

from sage_actor.durations import parse_duration, parse_size
from sage_actor.errors import ConfigError

__all__ = [
    "ConsoleSinkKeywords",
    "ConsoleSinkOptions",
    "FileSinkKeywords",
    "FileSinkOptions",
    "FileSourceKeywords",
    "FileSourceOptions",
    "SqliteSinkKeywords",
    "SqliteSinkOptions",
    "TransactionalFileSinkKeywords",
    "TransactionalFileSinkOptions",
]

FORMATS: Final = {"text": "text", "lines": "text", "csv": "csv", "jsonl": "jsonl", "jsonlines": "jsonl", "json": "jsonl", "ndjson": "jsonl"}
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


class TransactionalFileSinkKeywords(TypedDict, total=False):
    """Keywords of `TransactionalFileSink`; its docstring says what they mean."""

    path: PathLike
    format: str
    compression: str | None
    encoding: str
    delimiter: str
    header: bool
    columns: Sequence[str] | None
    block_size: int
    roll_size: int | str | None
    roll_age: float | str | None


class SqliteSinkKeywords(TypedDict, total=False):
    """Keywords of `SqliteSink`; its docstring says what they mean."""

    path: PathLike
    table: str
    columns: Sequence[str] | None
    key: str | Sequence[str] | None
    transactional: bool
    lock_timeout: float | str


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
        return cls.read(_Given("FileSink", FileSinkKeywords.__annotations__, options, keywords))

    @classmethod
    def read(cls, given: _Given) -> FileSinkOptions:
        """From options whose names are known to be right."""
        paths = given.paths("path")
        if len(paths) != 1:
            raise given.refusal("path", "a sink writes to one place; give one path")
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
class TransactionalFileSinkOptions:
    """`TransactionalFileSinkKeywords`, complete and checked.

    Attributes:
        file: what each of the files is written with, ``path`` aside.
        roll_size, roll_age: bytes and seconds after which a file is full; None for no bound.
    """

    folder: str
    file: FileSinkOptions
    roll_size: int | None
    roll_age: float | None

    @classmethod
    def parse(cls, options: Mapping[str, object] | None, keywords: Mapping[str, object]) -> TransactionalFileSinkOptions:
        """Raises `ConfigError` for an unknown, missing or ill-typed option."""
        given = _Given("TransactionalFileSink", TransactionalFileSinkKeywords.__annotations__, options, keywords)
        file = FileSinkOptions.read(given)
        compression = "none" if file.compression == "auto" else file.compression
        size, age = given.raw("roll_size", None), given.raw("roll_age", None)
        roll_size = None if size is None else parse_size(cast("int", size), key="TransactionalFileSink.roll_size")
        roll_age = None if age is None else parse_duration(cast("float", age), key="TransactionalFileSink.roll_age")
        return cls(file.path, replace(file, compression=compression, sync=True), roll_size, roll_age)


@dataclass(frozen=True, slots=True)
class SqliteSinkOptions:
    """`SqliteSinkKeywords`, complete and checked."""

    path: str
    table: str
    columns: tuple[str, ...] | None
    key: tuple[str, ...]
    transactional: bool
    lock_timeout: float

    @classmethod
    def parse(cls, options: Mapping[str, object] | None, keywords: Mapping[str, object]) -> SqliteSinkOptions:
        """Raises `ConfigError` for an unknown, missing or ill-typed option, or for rows that would be written twice."""
        given = _Given("SqliteSink", SqliteSinkKeywords.__annotations__, options, keywords)
        paths, table, columns, key = given.paths("path"), given.text("table", ""), given.columns(), given.columns("key")
        if len(paths) != 1:
            raise given.refusal("path", "a sink writes one database; give one path")
        if not table or "\0" in table:
            raise given.refusal("table", "name the table")
        if key and columns and not set(key) <= set(columns):
            raise given.refusal("key", f"must be among the columns {', '.join(columns)}, not {', '.join(key)}")
        transactional = bool(given.flag("transactional", default=True))
        if not transactional and not key:
            raise given.refusal("transactional", "without transactions a restart would write rows twice; name a key, or leave it True")
        timeout = parse_duration(cast("float", given.raw("lock_timeout", 30.0)), key="SqliteSink.lock_timeout")
        return cls(paths[0], table, columns, key or (), transactional, timeout)


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

    def raw(self, name: str, default: object) -> object:
        """The value as it is, for a parser that says itself what is wrong with it."""
        return self._values.get(name, default)

    def columns(self, option: str = "columns") -> tuple[str, ...] | None:
        value = self._values.get(option)
        if value is None:
            return None
        if isinstance(value, str) and option == "key":
            value = [value]
        names: list[str] = []
        for item in cast("Sequence[object]", value) if isinstance(value, list | tuple) else [None]:
            if not isinstance(item, str):
                raise self.refusal(option, f"must be a list of names, not {value!r}")
            names.append(item)
        if not names or len(set(names)) != len(names):
            raise self.refusal(option, f"must be distinct names, at least one, not {value!r}")
        return tuple(names)
