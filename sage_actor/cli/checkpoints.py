"""``sage checkpoints FOLDER``: what could be restored from there."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console

from sage_actor.checkpoint.listing import Listed, list_checkpoints
from sage_actor.cli.tables import print_table

__all__ = ["checkpoints"]


def checkpoints(
    place: Annotated[str, typer.Argument(metavar="FOLDER", help="checkpoint.dir, a job's folder in it, or a savepoint; path or url.")],
    job: Annotated[str | None, typer.Option(help="Only those of the job of that name.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="All that is known, as JSON.")] = False,
) -> None:
    """List checkpoints and savepoints, after reading every file of them; the exit status is 1 if none could be restored."""
    found = [item for item in asyncio.run(list_checkpoints(place)) if job is None or item.job == job]
    if as_json:
        print(json.dumps([asdict(item) for item in found], indent=2))
    else:
        columns = ("job", "kind", "id", "taken", "bytes", "attempt", "intact", "place")
        print_table(Console(), "", columns, [_row(item) for item in found])
    if all(item.problem for item in found):
        raise typer.Exit(1)


def _row(item: Listed) -> list[str]:
    taken = "" if item.time_ms is None else datetime.fromtimestamp(item.time_ms / 1000, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return [
        item.job,
        item.kind,
        "" if item.checkpoint is None else str(item.checkpoint),
        taken,
        "" if item.size is None else f"{item.size:,}",
        "" if item.attempt is None else str(item.attempt),
        f"no: {item.problem}" if item.problem else "yes",
        item.place,
    ]
