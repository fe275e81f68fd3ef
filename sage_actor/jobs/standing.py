"""How one dataflow stands, as plain values for another process, and in words for a person."""

from __future__ import annotations

from typing import Any, TypedDict

from sage_actor.runtime.job import Job

__all__ = ["Standing", "in_words", "size_in_words", "standing"]


LONGEST = 160
"""Characters of an error that stand in one line with the rest."""


class RestoringReport(TypedDict):
    """A `Restoring` as plain values."""

    opened: int
    tasks: int
    bytes: int
    checkpoint: int | None


class Standing(TypedDict):
    """What a job process reports of one of its dataflows. ``latest_error`` is what the attempt before this one failed with."""

    job: str
    id: str
    status: str
    error: str
    attempts: int
    restored_from: int | None
    latest_error: str
    restoring: RestoringReport | None
    metrics: dict[str, Any]


def standing(job: Job) -> Standing:
    """How a job stands now. Thread-safe."""
    opening = job.restoring
    return {
        "job": job.name,
        "id": job.id,
        "status": job.status,
        "error": "" if job.error is None else str(job.error),
        "attempts": job.attempts,
        "restored_from": job.restored_from,
        "latest_error": "" if job.latest_error is None else str(job.latest_error),
        "restoring": None
        if opening is None
        else {"opened": opening.opened, "tasks": opening.tasks, "bytes": opening.nbytes, "checkpoint": opening.checkpoint},
        "metrics": dict(job.metrics()),
    }


def in_words(job: Job) -> str:
    """The status in a few words: "restarting after ValueError: ... (attempt 3)", "restoring state: 3 of 8 tasks, 120 MB"."""
    if job.status == "restarting":
        error = str(job.latest_error).partition("\n")[0]
        return f"restarting after {error if len(error) <= LONGEST else error[:LONGEST] + '...'} (attempt {job.attempts + 1})"
    opening = job.restoring
    if opening is None or job.status != "running":
        return job.status
    what = "starting" if opening.checkpoint is None else "restoring state"
    text = f"{what}: {opening.opened} of {opening.tasks} tasks"
    return text if opening.checkpoint is None else f"{text}, {size_in_words(opening.nbytes)}"


def size_in_words(nbytes: float) -> str:
    """Bytes in the unit that suits: 512 B, 1.2 kB, 120 MB."""
    if nbytes < 1000:
        return f"{nbytes:.0f} B"
    for unit in ("kB", "MB", "GB", "TB"):
        nbytes /= 1000
        if nbytes < 999.5 or unit == "TB":
            break
    return f"{nbytes:.1f} {unit}" if nbytes < 9.95 else f"{nbytes:,.0f} {unit}"
