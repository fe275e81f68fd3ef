"""q10's sink: bids in one folder for each minute of each day, visible once committed, with a marker in a folder that is complete."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import sage_actor as sage
from sage_actor.ports import offload

__all__ = ["MARKER", "PartitionedFiles", "read_partitions"]

MARKER = "_SUCCESS"
DELAY_MS, MINUTE_MS = 4000, 60_000
TIME, DAY, MINUTE = 3, 5, 6  # columns

Row = tuple[Any, ...]
Partition = tuple[str, str]


@dataclass(slots=True)
class Parts:
    """One transaction: the files of one name, in the folders written to.

    Attributes:
        open: folders that more may come for, by the last millisecond of their minute.
        complete: folders that this transaction completes.
    """

    name: str
    folders: set[Partition] = field(default_factory=lambda: set[Partition]())
    open: dict[Partition, int] = field(default_factory=lambda: dict[Partition, int]())
    complete: list[Partition] = field(default_factory=lambda: list[Partition]())


class PartitionedFiles(sage.TwoPhaseCommitSink[Row, Parts]):
    """Rows of q10 as JSON lines under ``path/DAY/MINUTE/``. For one task: the marker says that this task writes no more there.

    Files are hidden (their name begins with a dot) until their transaction is committed, by renaming; fenced by their name, which
    carries task and attempt.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.begun = 0
        self.latest = 0
        self.ended = False
        self.open_folders: dict[Partition, int] = {}

    def folder(self, partition: Partition) -> Path:
        """Where the rows of a minute lie."""
        return self.path / partition[0] / partition[1].replace(":", "-")

    async def begin(self) -> Parts:
        """A name that no other task and no other attempt has."""
        self.begun += 1
        return Parts(f"part-{self.context.subtask_index}-{self.attempt}-{self.begun}.jsonl")

    async def write_to(self, transaction: Parts, batch: Sequence[Row]) -> None:
        """Append to the hidden file of each row's minute."""
        lines: dict[Partition, list[str]] = {}
        for row in batch:
            lines.setdefault((row[DAY], row[MINUTE]), []).append(json.dumps(row))
        self.latest = max(self.latest, *(row[TIME] for row in batch))
        for row in batch:
            self.open_folders[row[DAY], row[MINUTE]] = row[TIME] // MINUTE_MS * MINUTE_MS + MINUTE_MS - 1
        transaction.folders.update(lines)
        await offload(partial(self.append, transaction.name, lines))

    def append(self, name: str, lines: dict[Partition, list[str]]) -> None:
        """Write to the hidden files; blocks."""
        for partition, texts in lines.items():
            folder = self.folder(partition)
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / f".{name}").open("a", encoding="utf-8") as file:
                file.write("\n".join(texts) + "\n")

    async def pre_commit(self, transaction: Parts) -> None:
        """Everything is on disk, and known which minutes are over."""
        await offload(partial(self.sync, transaction))
        over = [p for p, last in self.open_folders.items() if self.ended or last < self.latest - DELAY_MS]
        transaction.complete = over
        for partition in over:
            del self.open_folders[partition]
        transaction.open = dict(self.open_folders)

    def sync(self, transaction: Parts) -> None:
        """Bring the hidden files to disk; blocks."""
        for partition in transaction.folders:
            with (self.folder(partition) / f".{transaction.name}").open("rb") as file:
                os.fsync(file.fileno())

    async def commit_transaction(self, transaction: Parts) -> None:
        """Show the files, then mark what is complete."""
        await offload(partial(self.show, transaction))

    def show(self, transaction: Parts) -> None:
        """Rename, and mark; blocks."""
        for partition in transaction.folders:
            hidden = self.folder(partition) / f".{transaction.name}"
            if hidden.exists():
                hidden.replace(self.folder(partition) / transaction.name)
        for partition in transaction.complete:
            (self.folder(partition) / MARKER).touch()

    async def abort(self, transaction: Parts) -> None:
        """Remove the hidden files."""
        for partition in transaction.folders:
            (self.folder(partition) / f".{transaction.name}").unlink(missing_ok=True)

    async def abort_orphans(self, keep: Sequence[Parts]) -> None:
        """Remove hidden files that no checkpoint knows; go on with the minutes that were open."""
        known = {f".{parts.name}" for parts in keep}
        for hidden in self.path.glob("*/*/.part-*"):
            if hidden.name not in known:
                hidden.unlink(missing_ok=True)
        for parts in keep:
            self.open_folders |= parts.open

    async def flush(self) -> None:
        """The input has ended: every minute is over."""
        self.ended = True
        await super().flush()


def read_partitions(path: Path) -> tuple[list[Row], list[Path]]:
    """All rows that are visible, and the folders without a marker."""
    rows = [tuple(json.loads(line)) for file in sorted(path.glob("*/*/part-*")) for line in file.read_text("utf-8").splitlines()]
    folders = sorted(path.glob("*/*"))
    return rows, [folder for folder in folders if not (folder / MARKER).exists()]
