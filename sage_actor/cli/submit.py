"""``sage submit FILE [ARGS]``: a script as a job of the supervisor."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from sage_actor.cli.places import absolute_place
from sage_actor.server.client import SupervisorClient

__all__ = ["submit"]


def submit(
    file: Annotated[Path, typer.Argument(help="The script; it is sent as it is now.")],
    args: Annotated[list[str] | None, typer.Argument(help="Arguments of the script.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the job. [default: the file's]")] = None,
    parallelism: Annotated[
        int | None, typer.Option("--parallelism", "-p", min=1, help="Tasks per operator where the script sets none.")
    ] = None,
    backend: Annotated[
        str | None, typer.Option("--backend", "-b", help="local, process or redis://... where the script sets none.")
    ] = None,
    restart: Annotated[
        str | None, typer.Option(help="exponential-delay, fixed-delay, failure-rate. [default: the first failure is final]")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint that an earlier run of the same dataflow left.")
    ] = False,
    restore: Annotated[str | None, typer.Option(help="Go on from this savepoint.")] = None,
    attempts: Annotated[int | None, typer.Option(min=0, help="Restarts before giving up.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end; exit status 1 unless it finished.")] = False,
    address: Annotated[str | None, typer.Option(help="host:port of the supervisor. [default: this account's]")] = None,
) -> None:
    """Hand a script to the supervisor; prints the job's id. Options stand before the file."""
    try:
        source = file.read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror}", param_hint="FILE") from error
    if attempts is not None and restart is None:
        raise typer.BadParameter("--attempts needs --restart")
    settings: dict[str, str | int | float] = {} if restart is None else {"strategy": restart}
    if attempts is not None:
        settings["attempts"] = attempts
    client = SupervisorClient(address)
    job = client.submit(
        name or file.stem,
        "script",
        source,
        filename=str(file.absolute()),
        args=args or [],
        directory=str(Path.cwd()),
        backend=backend,
        parallelism=parallelism,
        restart=settings,
        resume=resume,
        restore=None if restore is None else absolute_place(restore),
    )
    print(job.id, flush=True)
    if not wait:
        return
    while not job.ended_for_good:
        job = client.job(job.id, wait=20.0)
    print(f"{job.name}: {job.status}", file=sys.stderr)
    if job.error:
        print(job.error, file=sys.stderr)
    raise typer.Exit(0 if job.status == "finished" else 1)
