"""What is known about a supervised job, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from sage_actor.jobs.lifecycle import Request, Status

__all__ = ["JobRecord", "JobSpec", "Kind"]

Kind = Literal["graph", "script"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """A job as it was handed in.

    Attributes:
        name: given by the person; several jobs may share it.
        kind: ``graph`` (a packed dataflow) or ``script`` (Python source).
        payload: the packed graph, or the source as UTF-8.
        filename: the script's path, for tracebacks and ``__file__``.
        args: the script's arguments.
        directory: where the job runs; None is the data directory.
        backend: default backend of the script.
        parallelism: default parallelism of the script.
        restart: settings of its restart strategy; empty means it does not restart.
        resume: go on from the newest checkpoint that an earlier run of its dataflows left.
        restore: go on from this savepoint.
    """

    name: str
    kind: Kind
    payload: bytes = field(repr=False)
    filename: str = ""
    args: tuple[str, ...] = ()
    directory: str | None = None
    backend: str | None = None
    parallelism: int | None = None
    restart: Mapping[str, str | int | float] = field(default_factory=lambda: dict[str, str | int | float]())
    resume: bool = False
    restore: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """One job and how it stands. Times are milliseconds since the epoch.

    Attributes:
        attempts: how often a process was started for it.
        pid: its process, while one runs.
        request: what was asked of it.
        error: why it failed (or failed last, while it restarts).
        exit_code: of its last process; negative is minus the signal.
        restart_at: when the next attempt starts, while it waits for one.
        metrics: the last report of its dataflows, as JSON text; "[]" until the first of them has started.
    """

    id: str
    name: str
    kind: Kind
    status: Status = "created"
    request: Request = "none"
    attempts: int = 0
    pid: int | None = None
    pid_started: int | None = None
    created: int = 0
    started: int | None = None
    ended: int | None = None
    restart_at: int | None = None
    error: str = ""
    exit_code: int | None = None
    metrics: str = "[]"
