"""Resident memory of this process and everything it has started, from /proc."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["tree_mib"]

PAGE = os.sysconf("SC_PAGE_SIZE")


def tree_mib() -> float:
    """MiB now. Pages shared by several processes count in each."""
    total = 0
    waiting = [os.getpid()]
    while waiting:
        pid = waiting.pop()
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            for thread in Path(f"/proc/{pid}/task").iterdir():
                waiting.extend(int(child) for child in (thread / "children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
    return total * PAGE / 2**20
