"""Following the dataflows that start in this process: their metrics, their ends."""

from __future__ import annotations

from sage_actor.jobs.standing import Standing, standing
from sage_actor.runtime.job import Job

__all__ = ["JobWatch"]


class JobWatch:
    """Collects every job started in this process; add `add` to ``defaults.observers``. Thread-safe, also in a signal handler."""

    def __init__(self) -> None:
        # Only ever appended to and copied, both atomic: a lock here could be held when a signal handler needs it.
        self._jobs: list[Job] = []

    def add(self, job: Job) -> None:
        """Take up a job that has just started."""
        self._jobs.append(job)

    @property
    def jobs(self) -> list[Job]:
        """All jobs so far, in the order they started."""
        return self._jobs.copy()

    @property
    def live(self) -> list[Job]:
        """Those that have not ended."""
        return [job for job in self.jobs if not job.done]

    def join(self) -> list[Job]:
        """Wait in this thread until every job has ended; returns those that failed without anybody having waited for them.

        Signal handlers run meanwhile. Those returned count as waited for.
        """
        while live := self.live:
            live[0].wait_in_thread(0.1)  # bounded: jobs may start while we wait, and signals want their turn
        unheard = [job for job in self.jobs if job.status == "failed" and not job.waited]
        for job in unheard:
            job.waited = True
        return unheard

    def snapshot(self) -> list[Standing]:
        """How each job stands, made of plain values."""
        return [standing(job) for job in self.jobs]
