"""Fails when what CI started is still running: workers, supervisors, private Redis servers of this checkout (Linux)."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

HERE = str(Path(__file__).resolve().parent.parent)


def running() -> list[str]:
    """Processes of this user that this checkout's environment runs, other than this one and those above it."""
    above: set[int] = set()
    pid = os.getpid()
    while pid > 1:
        above.add(pid)
        pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    found: list[str] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        if int(folder.name) not in above and f"{HERE}/.venv/" in command:
            found.append(f"{folder.name}: {command[:200]}")
    return found


def main() -> int:
    if not sys.platform.startswith("linux"):
        print("skipped: reads /proc")
        return 0
    deadline = time.monotonic() + 5
    while (found := running()) and time.monotonic() < deadline:
        time.sleep(0.1)
    print("\n".join(["still running:", *found]) if found else "nothing left running")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
