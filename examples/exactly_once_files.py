"""Exactly once, from files to files: a job is killed with -9 again and again, and its output is that of an unbroken run.

The job numbers the lines of a file per word. It takes a checkpoint every 100 ms; its output files appear when their checkpoint
is complete, and a run that goes on takes position, counts and prepared files from the last complete one. This program starts
itself as the job, kills it a few times, lets it end, and looks at the files: each line is there, once, and no number is missing.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import sage_actor as sage
from sage_actor.connectors import TransactionalFileSink

LINES, KILLS = 30_000, 3


def slowly(word: str) -> str:
    if word == "w0":
        time.sleep(0.002)  # so that there is something to kill
    return word


def job(folder: Path) -> None:
    env = sage.LocalEnvironment(
        "numbered words",
        resume=True,
        config={"checkpoint.interval": "100ms", "checkpoint.dir": str(folder / "checkpoints"), "checkpointing": "exactly_once"},
    )
    (
        env.from_source(sage.FileSource, path=folder / "in.txt", batch_size=100)
        .map(slowly)
        .key_by(str)
        .count()
        .sink(TransactionalFileSink, path=folder / "out", format="jsonl")
    )
    env.execute()


def visible(folder: Path) -> list[tuple[str, int]]:
    files = sorted(path for path in folder.glob("*") if not path.name.startswith("."))
    return [tuple(json.loads(line)) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chance = random.Random(7)
        words = [f"w{chance.randrange(50)}" for _ in range(LINES)]
        (folder / "in.txt").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
        for run in range(KILLS + 1):
            process = subprocess.Popen([sys.executable, __file__, "job", name])
            seen = len(visible(folder / "out"))
            while run < KILLS and process.poll() is None and len(visible(folder / "out")) <= seen + LINES // 20:
                time.sleep(0.05)  # until it has committed something more
            if run < KILLS:
                process.send_signal(signal.SIGKILL)
            code = process.wait()
            print(f"run {run + 1} ended with {code}: {len(visible(folder / 'out')):,} of {LINES:,} lines are visible")
            assert code == (-signal.SIGKILL if run < KILLS else 0)
        rows = visible(folder / "out")
        assert Counter(rows) == Counter((word, number) for word, count in Counter(words).items() for number in range(1, count + 1))
        assert not list((folder / "out").glob(".*")), "nothing is left hidden"
        print("each line once, whatever was killed")


if __name__ == "__main__":
    if sys.argv[1:2] == ["job"]:
        job(Path(sys.argv[2]))
    else:
        main()
