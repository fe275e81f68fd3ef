"""Places that are named here and used by another process."""

from __future__ import annotations

from pathlib import Path

__all__ = ["absolute_place"]


def absolute_place(place: str) -> str:
    """A folder as another process of this machine finds it; urls stay as they are."""
    return place if "://" in place else str(Path(place).expanduser().absolute())
