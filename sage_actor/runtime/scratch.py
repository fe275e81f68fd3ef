"""Folders of this process's own, and the removal of those whose process was killed before it could."""

from __future__ import annotations

import os
import re
import shutil
import tempfile

__all__ = ["make_scratch", "remove_scratch"]

OURS = re.compile(r"sage-[a-z]+-(\d+)-")


def make_scratch(kind: str) -> str:
    """A new folder for temporary files, named after this process. Blocks for a moment; what dead processes left is removed first."""
    remove_orphans(tempfile.gettempdir())
    return tempfile.mkdtemp(prefix=f"sage-{kind}-{os.getpid()}-")


def remove_scratch(folder: str) -> None:
    """Remove a folder of ours, and what processes have left that lived still when it was made: workers outlive a killed owner a little."""
    shutil.rmtree(folder, ignore_errors=True)
    remove_orphans(tempfile.gettempdir())


def remove_orphans(folder: str) -> None:
    """Remove the scratch folders of processes that live no longer."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name.startswith("sage-")]
    for name in names:
        found = OURS.match(name)
        if found is not None and not is_alive(int(found[1])):
            shutil.rmtree(os.path.join(folder, name), ignore_errors=True)


def is_alive(process: int) -> bool:
    """Whether a process of that number exists, whosever it is."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
