"""Scratch folders of processes that were killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sage_actor.runtime.scratch import make_scratch


def test_what_a_dead_process_left_is_removed_and_what_a_living_one_has_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True)
    dead = tmp_path / f"sage-state-{int(child.stdout)}-x"
    dead.mkdir()
    (dead / "file").write_text("left")
    living = tmp_path / f"sage-state-{os.getppid()}-y"
    living.mkdir()
    other = tmp_path / "sage-notes"
    other.mkdir()
    made = make_scratch("state")
    assert sorted(tmp_path.iterdir()) == sorted([living, other, Path(made)])
