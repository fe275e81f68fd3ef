"""Every program under examples/ runs, is listed, and the seeds' snippets are the seeds' own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
SEEDS = ROOT.parent / "shared" / "seeds"
CANNOT_RUN_HERE = 77

PROGRAMS = [path for path in sorted(EXAMPLES.rglob("*.py")) if not path.name.startswith("_")]
SNIPPETS = [path for path in PROGRAMS if path.parent.name == "seeds"]

OUTPUTS = {
    "script.py": "Processed: Hello\nProcessed: World\nProcessed: SAGE\n",
    "seeds/s1_first_pipeline.py": "Processed: Hello\nProcessed: World\nProcessed: SAGE\n",
    "seeds/s1_high_performance.py": "2\n4\n6\n8\n10\n",
    "seeds/s1_quick_start.py": "2\n4\n6\n8\n10\n",
    "seeds/s3_first_pipeline.py": "NAME,CITY\nANN,OSLO\nBOB,ROME\n",
}


def place(path: Path) -> str:
    return path.relative_to(EXAMPLES).as_posix()


def programs(paths: list[Path]) -> list[object]:
    return [pytest.param(path, id=place(path)) for path in paths]


@pytest.mark.parametrize("program", programs(PROGRAMS))
@pytest.mark.timeout(120)
def test_an_example_runs(program: Path, tmp_path: Path) -> None:
    ran = subprocess.run([sys.executable, str(program)], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    if ran.returncode == CANNOT_RUN_HERE:
        pytest.skip(f"{place(program)}: {ran.stdout.strip()}")
    assert ran.returncode == 0, f"{ran.stdout[-3000:]}\n{ran.stderr[-6000:]}"
    assert ran.stdout == OUTPUTS.get(place(program), ran.stdout)
    assert "Traceback" not in ran.stderr, ran.stderr


def test_word_count_takes_files(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the cat the hat\nthe end\n")
    ran = subprocess.run(
        [sys.executable, str(EXAMPLES / "word_count.py"), str(text)], capture_output=True, text=True, timeout=50, check=True
    )
    assert ran.stdout.splitlines()[0].split() == ["3", "the"]
    assert ran.stdout.splitlines()[-1] == "      6  words in 1 files, 4 of them different"


def test_the_table_lists_every_example() -> None:
    listed = re.findall(r"^\| `examples/([\w/]+\.py)`", (EXAMPLES / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(place(path) for path in PROGRAMS)


@pytest.mark.parametrize("snippet", programs(SNIPPETS))
def test_a_seed_snippet_is_verbatim(snippet: Path) -> None:
    """Lines without ``# added:`` stand in the seed, in this order; what was added says why."""
    seed = SEEDS / f"{snippet.name.partition('_')[0].upper()}.txt"
    if not seed.exists():
        pytest.skip("the folder of the seeds does not lie beside this repository (../shared/seeds)")
    lines = iter([line.rstrip() for line in seed.read_text(encoding="utf-8").splitlines()])
    own = [line.rstrip() for line in snippet.read_text(encoding="utf-8").splitlines() if line.strip()]
    kept = [line for line in own if "# added:" not in line]
    assert len(kept) >= 5
    missing = [line for line in kept if line not in lines]  # `in` on an iterator consumes it up to the line: order counts
    assert not missing, f"{place(snippet)}: not in {seed.name}, or not in this order: {missing}"
    assert all(re.search(r"# added: \w.{3,}", line) for line in own if "# added:" in line)


@pytest.mark.parametrize("snippet", programs([path for path in SNIPPETS if place(path) in OUTPUTS]))
def test_a_seed_snippet_runs_with_sage_run(snippet: Path, tmp_path: Path) -> None:
    """As the seeds write it, without the line that imports the names: ``sage run`` serves them."""
    copy = tmp_path / snippet.name
    lines = snippet.read_text(encoding="utf-8").splitlines(keepends=True)
    copy.write_text("".join(line for line in lines if "import sage_actor.seed_names" not in line), encoding="utf-8")
    (tmp_path / "data.csv").write_text((snippet.parent / "data.csv").read_text())
    ran = subprocess.run(
        [sys.executable, "-m", "sage_actor", "run", "local", str(copy)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stdout) == (0, OUTPUTS[place(snippet)]), ran.stderr
