"""Turns missed progress into a failure: a job that stands still with work waiting is as good as dead, only nobody hears of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sage_actor.errors import JobError
from sage_actor.ports import Cancellable, Clock

__all__ = ["Watchdog"]

LOOKS = 5
"""How often it looks within the time allowed."""


class Watchdog:
    """Fails an attempt in which records wait and no task has taken any for `timeout` seconds.

    A single slow task is no reason while others make progress; a sink that waits that long for its target, with everything
    backed up behind it, is.
    """

    def __init__(
        self, job: str, timeout: float, clock: Clock, snapshots: Callable[[], list[dict[str, Any]]], fail: Callable[[BaseException], None]
    ) -> None:
        self.job = job
        self.timeout = timeout
        self.clock = clock
        self.snapshots = snapshots
        self.fail = fail
        self.seen: object = None
        self.since = clock.monotonic()
        self.timer: Cancellable | None = None

    def start(self) -> None:
        """Begin to look, until `close`."""
        if self.timeout > 0:
            self.timer = self.clock.call_later(self.timeout / LOOKS, self._look)

    def _look(self) -> None:
        tasks = self.snapshots()
        progress = [(task["task"], task["batches"], [row["records_out"] for row in task["operators"]]) for task in tasks]
        waiting = [task["name"] for task in tasks if task["gate_depth"] or task["working"]]
        now = self.clock.monotonic()
        if progress != self.seen or not waiting:
            self.seen = progress
            self.since = now
        elif now - self.since >= self.timeout:
            shown = ", ".join(waiting[:5])
            self.fail(
                JobError(
                    f"job {self.job!r}: no task has made progress for {now - self.since:.3g} s although records wait for {shown}; "
                    "a function or sink hangs there, or raise watchdog.timeout"
                )
            )
            return
        self.start()

    def close(self) -> None:
        """Look no more."""
        if self.timer is not None:
            self.timer.cancel()
