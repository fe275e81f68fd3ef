"""``sage jobs``: the jobs of the supervisor."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console

from sage_actor.cli.tables import print_table
from sage_actor.ports import system_clock
from sage_actor.server.client import JobInfo, SupervisorClient

__all__ = ["jobs"]


def jobs(
    as_json: Annotated[bool, typer.Option("--json", help="All that is known, as JSON.")] = False,
    address: Annotated[str | None, typer.Option(help="host:port of the supervisor. [default: this account's]")] = None,
) -> None:
    """List the jobs of the supervisor, oldest first."""
    known = SupervisorClient(address).jobs()
    if as_json:
        print(json.dumps([asdict(job) for job in known], indent=2))
        return
    if not known:
        print("no jobs")
        return
    print_table(
        Console(),
        "",
        ("id", "name", "status", "created", "attempts", "checkpoint", "in", "out", "errors", "late", "error"),
        [_row(job) for job in known],
    )


def _row(job: JobInfo) -> list[str]:
    created = datetime.fromtimestamp(job.created / 1000, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    error = _told(job).splitlines()[0] if _told(job) else ""
    return [
        job.id,
        job.name,
        _status(job),
        created,
        str(job.attempts + job.restarts),
        _newest(job),
        f"{job.records_in:,}",
        f"{job.records_out:,}",
        f"{job.errors:,}",
        f"{job.late:,}",
        error,
    ]


def _told(job: JobInfo) -> str:
    """Why it failed, or what its dataflows restart after."""
    return job.error or next((flow.latest_error for flow in job.dataflows if flow.status == "restarting"), "")


def _status(job: JobInfo) -> str:
    """The status, and how far a job is that reads its state."""
    for flow in job.dataflows:
        if job.status == "running" and flow.restoring is not None and flow.restoring["checkpoint"] is not None:
            return f"restoring ({flow.restoring['opened']} of {flow.restoring['tasks']} tasks)"
    return job.status


def _newest(job: JobInfo) -> str:
    """Number and age of the newest checkpoint, of each dataflow that has one."""
    now = system_clock.now_ms()
    flows = [flow.checkpoints for flow in job.dataflows if flow.checkpoints.get("completed")]
    return ", ".join(f"{counts['newest']:.0f} ({max(0.0, now - counts['newest_at']) / 1000:,.0f} s ago)" for counts in flows)
