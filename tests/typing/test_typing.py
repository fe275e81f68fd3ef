"""The face is typed: both checkers infer the record type through chains, and refuse a step that does not fit."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SAMPLES = Path(__file__).resolve().parent / "samples"
ROOT = SAMPLES.parent.parent.parent

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)


def mypy_errors(path: Path) -> dict[int, str]:
    """Line -> message, as mypy sees one file under the project's own settings."""
    pytest.importorskip("mypy", reason="mypy comes with the extra `check`: make check")
    done = run("mypy", "--follow-imports", "silent", "--output", "json", str(path))
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    errors = [entry for entry in found if entry["severity"] == "error"]
    elsewhere = [entry for entry in errors if Path(ROOT, entry["file"]).resolve() != path]
    assert not elsewhere, elsewhere
    return {entry["line"]: entry["message"] for entry in errors}


def pyright_errors(path: Path) -> dict[int, str]:
    """Line -> message, as pyright sees one file under strict settings."""
    pytest.importorskip("pyright", reason="pyright comes with the extra `check`: make check")
    settings = path.parent.parent / "pyright_samples.json"
    done = run("pyright", "--outputjson", "--project", str(settings), "--pythonpath", sys.executable)
    report = json.loads(done.stdout)
    errors = [entry for entry in report["generalDiagnostics"] if entry["severity"] == "error" and Path(entry["file"]).resolve() == path]
    return {entry["range"]["start"]["line"] + 1: entry["message"] for entry in errors}


CHECKERS = [pytest.param(mypy_errors, id="mypy"), pytest.param(pyright_errors, id="pyright")]


@pytest.mark.parametrize("errors_of", CHECKERS)
def test_record_types_are_inferred_through_chains(errors_of: Callable[[Path], dict[int, str]]) -> None:
    assert errors_of(SAMPLES / "inferred.py") == {}


@pytest.mark.parametrize("errors_of", CHECKERS)
def test_event_time_and_state_keep_their_types(errors_of: Callable[[Path], dict[int, str]]) -> None:
    assert errors_of(SAMPLES / "timed.py") == {}


@pytest.mark.parametrize("errors_of", CHECKERS)
def test_wrong_steps_are_refused_where_they_stand(errors_of: Callable[[Path], dict[int, str]]) -> None:
    path = SAMPLES / "refused.py"
    expected = {number for number, line in enumerate(path.read_text().splitlines(), 1) if line.endswith("# refused")}
    errors = errors_of(path)
    assert set(errors) == expected, {
        "not refused": sorted(expected - set(errors)),
        "refused beside": {line: errors[line] for line in sorted(set(errors) - expected)},
    }


@pytest.mark.parametrize("errors_of", CHECKERS)
def test_the_specifications_actor_program_is_typed(errors_of: Callable[[Path], dict[int, str]]) -> None:
    program = ROOT.parent / "shared" / "programs" / "20_actors.py"
    if not program.exists():
        pytest.skip("the folder of the specification's programs does not lie beside this repository (../shared/programs)")
    copy = SAMPLES / "program_20.py"  # the checkers' settings name the folder
    copy.write_text(program.read_text(encoding="utf-8"), encoding="utf-8")
    try:
        assert errors_of(copy) == {}
    finally:
        copy.unlink()
