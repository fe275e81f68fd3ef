"""The demo's program: a census of the Python standard library's own source on this machine.

Files are read and tokenised in parallel; running counts per package follow each file; every identifier is counted per
package. The plain loop at the end of this file counts the same files again, and must agree.
"""

from __future__ import annotations

import re
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sage_actor.stream.datastream import DataStream
from sage_actor.stream.environment import EnvironmentBase
from sage_actor.stream.results import Collected

__all__ = ["Census", "SourceFile", "Totals", "count_plainly", "describe_census", "library_files"]

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of the library: its place in the deal, its path, its package."""

    number: int
    path: str
    package: str


@dataclass(frozen=True, slots=True)
class FileText:
    """A file as read: its lines are counted, its identifiers listed."""

    package: str
    lines: int
    words: tuple[str, ...]


Totals = tuple[int, int, int]
"""Files, lines, identifiers."""


@dataclass(frozen=True, slots=True)
class Census:
    """Where the results of a described census will be."""

    running: Collected[tuple[str, Totals]]
    words: Collected[tuple[tuple[str, str], int]]

    def packages(self) -> dict[str, Totals]:
        """Totals of each package: the last of its running counts."""
        return dict(self.running)

    def counts(self) -> Counter[tuple[str, str]]:
        """How often each identifier occurs in each package."""
        return Counter(dict(self.words))


def library_files() -> list[SourceFile]:
    """All Python files of the standard library, tests included, what was installed on top left out; the biggest first."""
    root = Path(sysconfig.get_path("stdlib"))
    found = [path for path in root.rglob("*.py") if not {"site-packages", "dist-packages", "__pycache__"} & set(path.parts)]
    found.sort(key=lambda path: (-path.stat().st_size, path))
    return [SourceFile(number, str(path), path.relative_to(root).parts[0].removesuffix(".py")) for number, path in enumerate(found)]


def read_file(file: SourceFile) -> FileText:
    """Read and tokenise one file. A few files of the test suite are broken on purpose; their bad bytes are replaced."""
    text = Path(file.path).read_text(encoding="utf-8", errors="replace")
    return FileText(file.package, text.count("\n") + 1, tuple(IDENTIFIER.findall(text)))


def describe_census(env: EnvironmentBase, files: Sequence[SourceFile]) -> Census:
    """Describe the dataflow; nothing runs yet."""
    texts: DataStream[FileText] = (
        env.from_collection(files, name="files").partition_custom(deal, lambda file: file.number).map(read_file, name="tokenise")
    )
    running = (
        texts.map(totals_of, name="totals")
        .key_by(lambda t: t[0])
        .fold(empty_totals, add_totals, name="running counts")
        .collect(name="packages")
    )
    words = texts.flat_map(words_of, name="words").key_by(lambda word: word).count(emit="final", name="count").collect(name="counts")
    return Census(running, words)


def deal(number: int, tasks: int) -> int:
    """Deal files like cards, the biggest first, so that every task gets as much to read."""
    return number % tasks


def totals_of(text: FileText) -> tuple[str, int, int]:
    """What the running counts need of a file."""
    return text.package, text.lines, len(text.words)


def empty_totals() -> Totals:
    """Before the first file."""
    return 0, 0, 0


def add_totals(so_far: Totals, file: tuple[str, int, int]) -> Totals:
    """One more file."""
    return so_far[0] + 1, so_far[1] + file[1], so_far[2] + file[2]


def words_of(text: FileText) -> Iterator[tuple[str, str]]:
    """Each identifier of a file with its package."""
    package = text.package
    return ((package, word) for word in text.words)


def count_plainly(files: Iterable[SourceFile]) -> tuple[dict[str, Totals], Counter[tuple[str, str]]]:
    """The same census as a loop over `collections.Counter`."""
    packages: dict[str, Totals] = {}
    counts: Counter[tuple[str, str]] = Counter()
    for file in files:
        text = read_file(file)
        counts.update(words_of(text))
        packages[text.package] = add_totals(packages.get(text.package, empty_totals()), totals_of(text))
    return packages, counts
