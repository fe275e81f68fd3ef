"""The demo's program: a census of the Python standard library's own source on this machine.

Files are dealt to the tasks of a source and read and tokenised there; running counts per package follow each file; every
identifier is counted per package. The plain loop at the end of this file counts the same files again, and must agree.
"""

from __future__ import annotations

import re
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sage_actor.dataflow.context import FunctionContext
from sage_actor.dataflow.output_tag import OutputTag
from sage_actor.dataflow.process_functions import ProcessContext
from sage_actor.dataflow.source import NotReady, Source
from sage_actor.stream.datastream import DataStream
from sage_actor.stream.environment import EnvironmentBase
from sage_actor.stream.results import Collected

__all__ = ["Census", "SourceFile", "Totals", "count_plainly", "describe_census", "library_files"]

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of the library: its path, its package."""

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

TOTALS: Final = OutputTag[tuple[str, int, int]]("totals")


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
    return [SourceFile(str(path), path.relative_to(root).parts[0].removesuffix(".py")) for path in found]


class Deal(Source[SourceFile]):
    """Files dealt like cards, the biggest first, so that every task gets as much to read.

    One at a time: so a checkpoint never waits for more than the file in hand, and its position says how far a task has come.
    """

    def __init__(self, files: Sequence[SourceFile]) -> None:
        self._files = files
        self._share: Sequence[SourceFile] = ()
        self._next = 0

    async def open(self, context: FunctionContext) -> None:
        """Take this task's share."""
        self._share = self._files[context.subtask_index :: context.parallelism]

    async def read(self, limit: int) -> Sequence[SourceFile] | None:
        """The next file."""
        found = self.read_nowait(limit)
        assert not isinstance(found, NotReady)
        return found

    def read_nowait(self, limit: int) -> Sequence[SourceFile] | NotReady | None:
        """The next file; there is nothing to wait for."""
        found = self._share[self._next : self._next + 1]
        self._next += len(found)
        return found or None

    def position(self) -> object:
        """How many files of the share have been read."""
        return self._next

    async def seek(self, position: object) -> None:
        """Go on there."""
        assert isinstance(position, int)
        self._next = position


def read_file(file: SourceFile) -> FileText:
    """Read and tokenise one file. A few files of the test suite are broken on purpose; their bad bytes are replaced."""
    text = Path(file.path).read_text(encoding="utf-8", errors="replace")
    return FileText(file.package, text.count("\n") + 1, tuple(IDENTIFIER.findall(text)))


def describe_census(env: EnvironmentBase, files: Sequence[SourceFile]) -> Census:
    """Describe the dataflow; nothing runs yet."""
    dealt: DataStream[SourceFile] = env.from_source(Deal, name="files", parallelism=env.settings.parallelism, files=files)
    tokenised = dealt.process(tokenise, name="tokenise")
    running = (
        tokenised.side_output(TOTALS).key_by(lambda t: t[0]).fold(empty_totals, add_totals, name="running counts").collect(name="packages")
    )
    words = tokenised.key_by(lambda word: word).count(emit="final", name="count").collect(name="counts")
    return Census(running, words)


def tokenise(file: SourceFile, context: ProcessContext) -> Iterator[tuple[str, str]]:
    """Each identifier with its package, and beside them what the running counts need.

    Both come from one function, so that a file is read once and no text waits between two tasks, where a checkpoint would wait for it.
    """
    text = read_file(file)
    context.output(TOTALS, totals_of(text))
    return words_of(text)


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
