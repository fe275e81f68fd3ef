"""The demo, killed with -9 in the middle and started again, ends with the tables of an unbroken run.

python tests/kill9/demo_resumes.py [local process redis]
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from child import has_ended, lives_until

PATIENCE = 180.0


class Demo:
    """One start of it, in a data directory of its own."""

    def __init__(self, backend: str, home: Path) -> None:
        self.home = home
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sage_actor", "demo", "--backend", backend],
            env=os.environ | {"SAGE_ACTOR_HOME": str(home), "SAGE_KILL9_RUN": str(home), "COLUMNS": "200"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self) -> tuple[str, str]:
        """Its two outputs, once it has ended well."""
        out, said = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0, f"exit status {self.process.returncode}\n{out}\n{said}"
        return out, said

    def kill_at(self, checkpoint: int) -> None:
        """Kill it when that is complete."""
        reached = lives_until(self.process, lambda: newest(self.home) >= checkpoint, f"checkpoint {checkpoint}")
        assert reached and self.process.poll() is None, f"it ended before checkpoint {checkpoint}: {self.process.communicate()}"
        self.process.kill()
        self.process.communicate()


def newest(home: Path) -> int:
    """The newest complete checkpoint in a data directory."""
    found = 0
    for file in home.glob("checkpoints/demo-*/census/log/[0-9]*.json"):
        try:
            entry = json.loads(file.read_bytes().partition(b"\n")[2])
        except FileNotFoundError:
            continue
        if entry["entry"] == "checkpoint":
            found = max(found, entry["manifest"]["checkpoint"])
    return found


def tables(out: str) -> list[str]:
    """What does not depend on time or on processes."""
    kept: list[str] = []
    workers = False
    for line in out.splitlines():
        if re.match(r"\s*Worker processes", line):
            workers = True
        found = re.match(r"([\d,]+ identifiers counted)", line)
        if found:
            workers = False
            kept.append(found[1])
        elif "equal to collections.Counter" in line:
            workers = False
            kept.append(line)
        elif not workers:
            kept.append(line)
    return kept


def alive(home: Path) -> dict[int, str]:
    """Processes that a demo in this data directory has left."""
    found: dict[int, str] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f"SAGE_KILL9_RUN={home}\0".encode() in (entry / "environ").read_bytes() and (entry / "cmdline").read_bytes():
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
    return found


def show(backend: str, folder: Path) -> None:
    """An unbroken run, a broken one, and what they have in common."""
    unbroken, _ = Demo(backend, folder / "unbroken").end()
    home = folder / "killed"
    Demo(backend, home).kill_at(2)
    Demo(backend, home).kill_at(newest(home) + 2)
    out, said = Demo(backend, home).end()
    (resumed,) = re.findall(r"going on from checkpoint (\d+) ", said)
    assert tables(out) == tables(unbroken), f"{tables(out)}\n{tables(unbroken)}"
    assert "equal to collections.Counter" in out
    assert not list(home.rglob("*.json")), "a finished demo leaves checkpoints"
    deadline = time.monotonic() + 15
    while left := alive(home):
        assert has_ended(next(iter(left)), max(0.0, deadline - time.monotonic())), f"left running: {left}"
    print(f"{backend}: killed twice, went on from checkpoint {resumed}, the same {len(tables(out))} lines as unbroken", flush=True)


def main() -> int:
    """Answers the exit status."""
    for backend in sys.argv[1:] or ("local", "process", "redis"):
        with tempfile.TemporaryDirectory(prefix="sage-demo-") as folder:
            show(backend, Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
