"""``sage stop JOB``: let a job drain, or cancel it."""

from __future__ import annotations

from typing import Annotated

import typer

from sage_actor.server.client import SupervisorClient

__all__ = ["stop"]


def stop(
    job: Annotated[str, typer.Argument(help="Id, or name.")],
    cancel: Annotated[bool, typer.Option("--cancel", help="Do not drain; kill it if it has not ended after 5 seconds.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it has ended.")] = True,
    address: Annotated[str | None, typer.Option(help="host:port of the supervisor. [default: this account's]")] = None,
) -> None:
    """Stop a job: its sources stop, what is under way flows out, then it is finished."""
    client = SupervisorClient(address)
    asked = client.cancel(job) if cancel else client.stop(job)
    while wait and not asked.ended_for_good:
        asked = client.job(asked.id, wait=20.0)
    print(f"{asked.name} ({asked.id}): {asked.status}")
