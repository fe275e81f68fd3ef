"""docs/features.md lists every feature, and what it says about each can be checked.

That the files and tests it names exist, and that its links lead somewhere, tests/test_docs.py checks for all pages.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
LISTED = ROOT.parent / "shared" / "features.md"
COUNTS = {"S0": 39, "S1": 40, "S2": 33, "S3": 36, "S4": 25}

# Those that this version must at least have begun.
BEGUN = {
    "S0": (1, 3, 7, 8, 9, 11, 14, 15, 16, 19, 21),
    "S1": (1, 2, 3, 4, 5, 6, 9, 10, 13, 15, 16, 17, 18, 22, 24, 25, 26, 27, 34, 35, 38, 39),
    "S2": (5, 6, 7, 8, 9, 10, 12, 21, 22, 23, 28, 30),
    "S3": (2, 3, 9, 10, 16, 17, 19, 23, 26, 27),
}


class Row(NamedTuple):
    """One line of the table."""

    id: str
    feature: str
    state: str
    documentation: str
    shown_by: str


def rows() -> list[Row]:
    text = (ROOT / "docs" / "features.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if re.match(r"\| S\d-\d\d \|", line)]
    return [Row(*(cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])) for line in lines]


def test_every_feature_stands_there_once() -> None:
    expected = [f"{seed}-{number:02}" for seed, count in COUNTS.items() for number in range(1, count + 1)]
    assert [row.id for row in rows()] == expected
    if LISTED.exists():
        assert re.findall(r"^\|(S\d-\d\d)\|", LISTED.read_text(encoding="utf-8"), re.MULTILINE) == expected


def test_what_is_not_later_names_document_and_proof() -> None:
    for row in rows():
        if row.state == "later":
            assert not row.documentation, f"{row.id} is later, yet documented"
            assert not row.shown_by, f"{row.id} is later, yet shown"
            continue
        assert row.state == "done" or row.state.startswith("part: "), f"{row.id}: {row.state!r}"
        assert re.search(r"\[[^\]]+\]\([^)]+\.md(#[^)]+)?\)", row.documentation), f"{row.id} names no document"
        assert re.search(r"`tests/[\w/.]+::test_\w+`|`benchmarks/\w+\.py`", row.shown_by), f"{row.id} names no test"


def test_this_version_has_begun_what_it_must() -> None:
    later = {row.id for row in rows() if row.state == "later"}
    assert not later.intersection(f"{seed}-{number:02}" for seed, numbers in BEGUN.items() for number in numbers)


@pytest.mark.parametrize("command", ["--version", "check-env"])
def test_version_and_check_env(command: str) -> None:
    ran = subprocess.run([sys.executable, "-m", "sage_actor", command], capture_output=True, text=True, timeout=50, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ("sage_actor 0." if command == "--version" else "everything needed is there") in ran.stdout
