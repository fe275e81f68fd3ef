"""Runs every program under examples/, each in a process of its own; the exit status is 1 if one failed.

    python tests/run_examples.py [PART OF A NAME ...]

Files that start with an underscore are no programs of their own. A program that cannot run here ends with exit status 77
and says why; it counts as skipped.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 120.0
SKIPPED = 77


def programs(wanted: list[str]) -> list[Path]:
    found = [path for path in sorted((ROOT / "examples").rglob("*.py")) if not path.name.startswith("_")]
    return [path for path in found if not wanted or any(part in path.as_posix() for part in wanted)]


def run(path: Path) -> tuple[int, str]:
    """Exit status and what it wrote. It runs in an empty folder: a program may not depend on where it is called."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [sys.executable, str(path)],
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=LIMIT,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            written = error.stdout or b""
            return 124, (written.decode(errors="replace") if isinstance(written, bytes) else written) + f"\nran longer than {LIMIT:.0f} s"
    return done.returncode, done.stdout


def main() -> int:
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    found = programs(sys.argv[1:])
    for path in found:
        begun = time.perf_counter()
        status, written = run(path)
        outcome = "passed" if status == 0 else "skipped" if status == SKIPPED else "failed"
        counts[outcome] += 1
        print(f"{outcome:8} {path.relative_to(ROOT)}  {time.perf_counter() - begun:.1f} s", flush=True)
        if outcome == "failed":
            print(f"  exit status {status}; the end of what it wrote:\n" + "\n".join(f"  | {line}" for line in written.splitlines()[-40:]))
        elif outcome == "skipped":
            print(f"  {written.strip()[-300:]}")
    if not found:
        print("no example found: examples/ is empty, or no name matches", file=sys.stderr)
    print(", ".join(f"{number} {outcome}" for outcome, number in counts.items() if number or outcome != "skipped"))
    return 1 if counts["failed"] or not found else 0


if __name__ == "__main__":
    sys.exit(main())
