"""Divides what a task has still to read, so that more tasks, or fewer, can go on with it."""

from __future__ import annotations

from typing import TypeVar

from sage_actor.connectors.file_position import FilePosition
from sage_actor.connectors.paths import Share

__all__ = ["beginning", "divided"]

T = TypeVar("T")


def beginning(share: Share) -> FilePosition:
    """The position before the first record of a share."""
    return {
        "file": "",
        "offset": 0,
        "skip": 0,
        "line": 0,
        "origin": 0,
        "header": None,
        "records": 0,
        "bad_lines": 0,
        "files": share.files,
        "piece": list(share.piece) if share.piece is not None else None,
        "stop": None,
        "end": None,
        "mark": None,
        "more": [],
    }


def divided(place: FilePosition, *, ways: int, split_size: int | None, reached: int) -> list[FilePosition]:
    """The same as up to ``ways`` positions, that read one after the other give the same records in the same order.

    Parts follow one another instead of alternating, because a job that goes on at the same parallelism must not see the
    lines of its one file in another order than an unbroken run.

    Args:
        split_size: smallest part of a file in bytes; None if lines of this file cannot be found from within.
        reached: the byte after the last one that the records of the block at ``place`` are of.
    """
    here: FilePosition = {**place, "records": 0, "more": []}
    if ways < 2:
        return [here]
    if here["piece"] is not None:
        return _divided_pieces(here, ways)
    at = here["files"].index(here["file"]) if here["file"] else -1
    later = here["files"][at + 1 :]
    first: list[FilePosition] = [{**here, "files": [here["file"]]}] if here["file"] else []
    if later:
        chunks: list[FilePosition] = [{**_fresh(here), "files": chunk} for chunk in _chunks(later, ways - len(first))]
        return [*first, *chunks]
    if split_size is None or here["mark"] is None:
        return first
    size = here["mark"][0]
    # Whatever size the parts have, the records that were returned must all lie in the first.
    part = max(split_size, -(-max(size - reached, 1) // ways))
    end = -(-max(reached, 1) // part) * part
    return _divided_pieces({**here, "files": [here["file"]], "piece": [0, 1, part], "end": end}, ways)


def _divided_pieces(here: FilePosition, ways: int) -> list[FilePosition]:
    piece, mark, end = here["piece"], here["mark"], here["end"]
    if piece is None or mark is None or end is None:
        return [here]  # not begun: how long the file is, nobody has looked yet
    _, count, size = piece
    known = -(-mark[0] // size)
    stop = here["stop"]
    numbers = range(end // size - 1 + count, known if stop is None else min(stop, known), count)
    if not numbers:
        return [here]
    parts: list[FilePosition] = [{**here, "stop": numbers[0]}]
    chunks = _chunks(list(numbers), ways - 1)
    for chunk in chunks:
        # The last one takes what the file may grow by.
        bound = stop if chunk is chunks[-1] else chunk[-1] + 1
        parts.append({**_fresh(here), "piece": [chunk[0], count, size], "stop": bound})
    return parts


def _fresh(here: FilePosition) -> FilePosition:
    return {**beginning(Share(here["files"])), "files": here["files"], "piece": here["piece"], "stop": here["stop"]}


def _chunks(items: list[T], ways: int) -> list[list[T]]:
    ways = min(ways, len(items))
    return [items[index * len(items) // ways : (index + 1) * len(items) // ways] for index in range(ways)]
