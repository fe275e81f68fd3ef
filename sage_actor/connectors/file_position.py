"""Where reading files goes on: plain data, checked when it comes back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict, cast

from sage_actor.errors import ConnectorError

__all__ = ["FilePosition", "changed", "checked_position", "place_of"]


class FilePosition(TypedDict):
    """A place between two records: the one after ``skip`` records, counted from byte ``offset`` of ``file``.

    All of it is plain data, so it survives JSON, pickle and msgpack.
    """

    file: str  # "" before the first record
    offset: int  # in the decompressed content; a record begins there
    skip: int
    line: int  # number of the line at `offset`, counted from byte `origin`
    origin: int
    header: list[str] | None  # of CSV, as known at `offset`
    records: int  # how many this task has returned
    bad_lines: int  # how many were passed over before `offset`
    files: list[str]  # the task's share when it began, so that files which came later are not mixed in
    piece: list[int] | None  # see `Share`
    stop: int | None  # of pieces: number of the first that is not read any more
    end: int | None  # of pieces: the byte before which the lines of the one under way begin
    mark: list[int] | None  # of `file`, see `FileMark`
    more: list[FilePosition]  # what is read after this share


def place_of(path: str, line: int, origin: int) -> str:
    """Address of a line for people. ``line`` counts from 0 at byte ``origin``."""
    return f"{path}:{line + 1}" if origin == 0 else f"{path}: line {line + 1} after byte {origin}"


def changed(path: str, what: str) -> ConnectorError:
    """A file is not what it was when the position was taken."""
    return ConnectorError(path, f"the file has changed: {what}", "bring the old file back, or start the job anew without resuming")


def checked_position(position: object) -> FilePosition:
    """The same position, if it is one. Raises `ConnectorError`."""
    if isinstance(position, Mapping):
        place = cast("Mapping[str, object]", position)
        numbers = all(_is_count(place.get(name)) for name in ("offset", "skip", "line", "origin", "records", "bad_lines"))
        texts = isinstance(place.get("file"), str) and _is_list(place.get("files"), str)
        header = place.get("header") is None or _is_list(place.get("header"), str)
        piece = place.get("piece")
        pieces = piece is None or (_is_list(piece, int) and len(cast("list[int]", piece)) == 3 and cast("list[int]", piece)[2] > 0)
        bounds = all(place.get(name) is None or _is_count(place.get(name)) for name in ("stop", "end"))
        mark, more = place.get("mark"), place.get("more")
        marked = mark is None or (_is_list(mark, int) and len(cast("list[int]", mark)) == 3)
        if numbers and texts and header and pieces and bounds and marked and isinstance(more, list | tuple):
            whole = cast("FilePosition", place)
            for one in cast("list[object]", more):
                checked_position(one)
            if not whole["file"] or whole["file"] in whole["files"]:
                return whole
    raise ConnectorError("FileSource", f"{position!r} is not a position of a file source", "pass on what position() returned, unchanged")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and value >= 0


def _is_list(value: object, kind: type) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, kind) for item in cast("list[object]", value))
