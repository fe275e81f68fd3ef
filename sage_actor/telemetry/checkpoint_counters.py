"""How the checkpoints of one job went, over all its attempts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

__all__ = ["CheckpointCounters", "CheckpointSnapshot"]


class CheckpointSnapshot(TypedDict):
    """The counts as plain values.

    ``newest`` is the number of the newest complete checkpoint (0: none yet), which took ``newest_seconds``, refers to
    ``newest_bytes`` of state and was complete at ``newest_at`` (milliseconds since the epoch). ``seconds`` adds up over all.
    """

    completed: int
    failed: int
    seconds: float
    newest: int
    newest_seconds: float
    newest_bytes: int
    newest_at: int


@dataclass(slots=True, eq=False)
class CheckpointCounters:
    """Written by the coordinator of checkpoints only; see `CheckpointSnapshot`."""

    completed: int = 0
    failed: int = 0
    seconds: float = 0.0
    newest: int = 0
    newest_seconds: float = 0.0
    newest_bytes: int = 0
    newest_at: int = 0

    def complete(self, number: int, *, seconds: float, nbytes: int, now_ms: int) -> None:
        """A checkpoint is complete."""
        self.completed += 1
        self.seconds += seconds
        self.newest, self.newest_seconds, self.newest_bytes, self.newest_at = number, seconds, nbytes, now_ms

    def fail(self) -> None:
        """A checkpoint was given up."""
        self.failed += 1

    def snapshot(self) -> CheckpointSnapshot:
        """As plain values; safe to call from another thread."""
        return {
            "completed": self.completed,
            "failed": self.failed,
            "seconds": self.seconds,
            "newest": self.newest,
            "newest_seconds": self.newest_seconds,
            "newest_bytes": self.newest_bytes,
            "newest_at": self.newest_at,
        }
