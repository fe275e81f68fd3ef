"""``sage jobs``: the jobs of the supervisor."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console

from sage_actor.cli.tables import print_table
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
        Console(), "", ("id", "name", "status", "created", "attempts", "in", "out", "errors", "error"), [_row(job) for job in known]
    )


def _row(job: JobInfo) -> list[str]:
    created = datetime.fromtimestamp(job.created / 1000, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    error = job.error.splitlines()[0] if job.error else ""
    return [
        job.id,
        job.name,
        job.status,
        created,
        str(job.attempts),
        f"{job.records_in:,}",
        f"{job.records_out:,}",
        f"{job.errors:,}",
        error,
    ]
