"""The short part of the suite of real kills; `make kill9` runs all of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("run.py")


def run_cases(folder: Path, *names: str) -> None:
    with subprocess.Popen(
        [sys.executable, str(RUN), *names, "--keep", str(folder)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as run:
        try:
            said, _ = run.communicate(timeout=50)
        finally:
            run.terminate()  # it ends whatever it has started
    assert run.returncode == 0, said
    if "not here: " in said:
        pytest.skip(said.partition("not here: ")[2].partition("\n")[0])
    assert "lost = 0, duplicated = 0, disordered = 0, wrong = 0" in said


SHORT = (
    "between two sinks' commits",
    "a worker only, before a commit",
    "asleep before the manifest's name",
    "redis: the server killed, it comes back empty",
)


@pytest.mark.parametrize("name", SHORT)
def test_killed_for_real_every_record_is_there_once_and_in_order(tmp_path: Path, name: str) -> None:
    run_cases(tmp_path / "cases", name)
