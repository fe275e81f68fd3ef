"""``sage logs JOB``: what a job wrote."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from sage_actor.server.client import SupervisorClient

__all__ = ["logs"]


def logs(
    job: Annotated[str, typer.Argument(help="Id, or name (the newest of that name).")],
    tail: Annotated[int, typer.Option(min=0, help="How many of its last lines.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    address: Annotated[str | None, typer.Option(help="host:port of the supervisor. [default: this account's]")] = None,
) -> None:
    """Show what a job wrote to stdout and stderr."""
    client = SupervisorClient(address)
    for text in client.follow(job, tail) if follow else (client.logs(job, tail),):
        sys.stdout.write(text)
        sys.stdout.flush()
