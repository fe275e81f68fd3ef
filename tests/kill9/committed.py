"""What the sinks of the progressions have made visible, read from outside, and what is wrong with it."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from progression import Settings, timers_of, windows_of

__all__ = ["Committed", "Faults", "judge", "leftovers", "read_committed"]


@dataclass(slots=True)
class Committed:
    """Everything visible.

    Attributes:
        records: of each progression, in the order of files (attempt, task, number) and lines.
        windows: (progression, start, sum), in any order.
        timers: (progression, due, records seen), in any order.
    """

    records: dict[int, list[tuple[int, int, int]]] = field(default_factory=lambda: dict[int, list[tuple[int, int, int]]]())
    windows: list[tuple[int, int, int]] = field(default_factory=lambda: list[tuple[int, int, int]]())
    timers: list[tuple[int, int, int]] = field(default_factory=lambda: list[tuple[int, int, int]]())

    @property
    def count(self) -> int:
        """Records of all progressions."""
        return sum(map(len, self.records.values()))

    def begins_with(self, earlier: Committed) -> bool:
        """Whether everything that was visible earlier still is, each progression in the same order."""
        return (
            all(self.records.get(number, [])[: len(rows)] == rows for number, rows in earlier.records.items())
            and not Counter(earlier.windows) - Counter(self.windows)
            and not Counter(earlier.timers) - Counter(self.timers)
        )


@dataclass(slots=True)
class Faults:
    """How often something is not as in an unbroken run; `wrong` counts results that no unbroken run has."""

    lost: int = 0
    duplicated: int = 0
    disordered: int = 0
    wrong: int = 0

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return bool(self.lost or self.duplicated or self.disordered or self.wrong)

    def add(self, other: Faults) -> None:
        """Count those too."""
        self.lost += other.lost
        self.duplicated += other.duplicated
        self.disordered += other.disordered
        self.wrong += other.wrong


def read_committed(folder: Path) -> Committed:
    """Read what can be seen now."""
    found = Committed()
    out = folder / "out"
    files = [file for file in out.iterdir() if not file.name.startswith(".")] if out.exists() else []
    for file in sorted(files, key=_place):
        for line in file.read_text().splitlines():
            number, value, count, total = json.loads(line)
            found.records.setdefault(number, []).append((value, count, total))
    if (folder / "rows.sqlite").exists():
        with closing(sqlite3.connect(folder / "rows.sqlite", timeout=30)) as base:
            tables = {name for (name,) in base.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if "windows" in tables:
                found.windows = base.execute("SELECT progression, start, sum FROM windows").fetchall()
            if "timers" in tables:
                found.timers = base.execute("SELECT progression, at, seen FROM timers").fetchall()
    return found


def _place(file: Path) -> tuple[int, int, int]:
    """Attempt, task and number of a file: within an attempt a progression is in the files of one task."""
    task, attempt, number, _ = file.stem.rsplit("-", 4)[1:]
    return int(attempt), int(task), int(number)


def judge(found: Committed, settings: Settings, *, ended: bool) -> Faults:
    """Compare with an unbroken run; before the end everything must be a beginning of it."""
    faults = Faults()
    for number in range(settings.progressions):
        rows = found.records.get(number, [])
        values = [value for value, _, _ in rows]
        distinct = set(values)
        expected = settings.length if ended else max(distinct, default=-1) + 1
        faults.lost += expected - len(distinct)
        faults.duplicated += len(values) - len(distinct)
        faults.disordered += sum(1 for before, after in pairwise(values) if after < before)
        faults.wrong += sum(1 for value, count, total in rows if count != value + 1 or total != value * (value + 1) // 2)
    sums = {(number, first): total for number in range(settings.progressions) for first, total in windows_of(settings.length).items()}
    _once(Counter((number, first) for number, first, _ in found.windows), set(sums), faults, ended=ended)
    faults.wrong += sum(1 for number, first, total in found.windows if sums.get((number, first)) != total)
    due = {(number, at) for number in range(settings.progressions) for at in timers_of(settings.length)}
    _once(Counter((number, at) for number, at, _ in found.timers), due, faults, ended=ended)
    # Event time is the least of all readers', so a timer may see some records behind it, and never fewer than those before it.
    faults.wrong += sum(1 for _, at, seen in found.timers if not min(at + 1, settings.length) <= seen <= settings.length)
    return faults


def _once(found: Counter[tuple[int, int]], expected: set[tuple[int, int]], faults: Faults, *, ended: bool) -> None:
    faults.duplicated += sum(count - 1 for count in found.values())
    faults.wrong += len(found.keys() - expected)
    if ended:
        faults.lost += len(expected - found.keys())


def leftovers(folder: Path) -> list[str]:
    """What a finished job should not leave: hidden files, checkpoints, rows that are staged, scratch files."""
    left = [f"hidden file out/{file.name}" for file in (folder / "out").iterdir() if file.name.startswith(".")]
    left += [f"checkpoints/{path.relative_to(folder / 'checkpoints')}" for path in (folder / "checkpoints").rglob("*")]
    with closing(sqlite3.connect(folder / "rows.sqlite", timeout=30)) as base:
        for (name,) in base.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'sage_staged_%'").fetchall():
            (rows,) = base.execute(f'SELECT count(*) FROM "{name}"').fetchone()
            if rows:
                left.append(f"{rows} rows in {name}")
    # Ray keeps the logs of its sessions there, and says so.
    left += [f"scratch {path.name}" for path in (folder / "tmp").iterdir() if path.name != "ray"]
    return left
