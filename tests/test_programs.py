"""The specification's programs run unchanged with plain python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).resolve().parent.parent.parent / "shared" / "programs"

# Those whose features this version has; later parts add theirs.
NUMBERS = ("10", "11", "12", "13", "14", "15", "16", "20", "30", "31", "32")


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.timeout(120)
def test_program(number: str, tmp_path: Path) -> None:
    program = next(iter(sorted(PROGRAMS.glob(f"{number}_*.py"))), None)
    if program is None:
        pytest.skip("the folder of the specification's programs does not lie beside this repository (../shared/programs)")
    done = subprocess.run([sys.executable, str(program)], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, f"{program.name} ended with {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
