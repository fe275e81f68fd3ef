"""``sage savepoint JOB``: a snapshot of a running job that can be kept, moved and restored."""

from __future__ import annotations

from typing import Annotated

import typer

from sage_actor.cli.places import absolute_place
from sage_actor.durations import parse_duration
from sage_actor.server.client import SupervisorClient

__all__ = ["savepoint"]


def savepoint(
    job: Annotated[str, typer.Argument(help="Id of the job, or its name.")],
    target: Annotated[str | None, typer.Option(help="Folder or url for it. [default: the job's own checkpoint folder]")] = None,
    stop: Annotated[bool, typer.Option("--stop", help="End the job behind it; what windows hold stays in the savepoint.")] = False,
    dataflow: Annotated[str | None, typer.Option(help="Which one, if the job runs several.")] = None,
    timeout: Annotated[str, typer.Option(help="Time it may take; then it may still be completed.")] = "15m",
    address: Annotated[str | None, typer.Option(help="host:port of the supervisor. [default: this account's]")] = None,
) -> None:
    """Take a savepoint; prints its place, which `sage run --restore` and `sage submit --restore` take."""
    seconds = parse_duration(timeout, key="--timeout")
    place = None if target is None else absolute_place(target)
    print(SupervisorClient(address).savepoint(job, place, stop=stop, dataflow=dataflow, timeout=seconds), flush=True)
