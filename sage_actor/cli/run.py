"""``sage run [local] FILE [ARGS]``: a script in this process, its dataflows watched."""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sage_actor.cli.progress import Progress
from sage_actor.config.paths import checkpoint_directory
from sage_actor.jobs.lifecycle import Request
from sage_actor.jobs.script import ScriptEnd, run_script
from sage_actor.jobs.stopping import StopRequests
from sage_actor.jobs.watch import JobWatch
from sage_actor.stream.environment import defaults

__all__ = ["run", "without_local"]

INTERRUPTED = 130
_NOTES = {"stop": "stopping: sources stop, what is under way flows out (again to cancel)", "cancel": "cancelling"}


def without_local(arguments: Sequence[str]) -> list[str]:
    """``run local FILE`` is ``run FILE``; the word stands where options may still follow it."""
    if list(arguments[:2]) == ["run", "local"] and len(arguments) > 2:
        return ["run", *arguments[2:]]
    return list(arguments)


def run(
    file: Annotated[str, typer.Argument(help="The script.")],
    args: Annotated[list[str] | None, typer.Argument(help="Arguments of the script.")] = None,
    parallelism: Annotated[
        int | None, typer.Option("--parallelism", "-p", min=1, help="Tasks per operator where the script sets none.")
    ] = None,
    backend: Annotated[
        str | None, typer.Option("--backend", "-b", help="local, process or redis://... where the script sets none.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint that an earlier run of the same job left.")
    ] = False,
    restore: Annotated[str | None, typer.Option(help="Go on from this savepoint.")] = None,
) -> None:
    """Run a script and watch its dataflows. Options stand before the file; what follows it belongs to the script.

    The script's stdout is its own. Progress and a summary go to stderr. Ctrl-C lets the dataflows drain, a second one cancels them.
    """
    try:
        source = Path(file).read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror}", param_hint="FILE") from error
    defaults.resume = resume
    defaults.restore = restore
    defaults.settings.setdefault("checkpoint.dir", str(checkpoint_directory()))
    raise typer.Exit(_run_watched(source, file, args or [], parallelism, backend))


def _run_watched(source: bytes, file: str, args: list[str], parallelism: int | None, backend: str | None) -> int:
    watch = JobWatch()
    stopping = StopRequests(watch, _note)
    if parallelism is not None:
        defaults.parallelism = parallelism
    if backend is not None:
        defaults.backend = backend
    defaults.observers.extend((watch.add, stopping.job_started))
    stopping.install(signal.SIGINT, signal.SIGTERM)
    progress = Progress(watch)
    status = INTERRUPTED
    try:
        with progress:
            end = run_script(source, file, args)
            unheard = watch.join()
        status = _tell_end(end, [job.error for job in unheard], stopping.level)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # nothing is left to stop; the summary is a moment's work
    progress.summary()
    if backend is not None:
        _tell_fixed_backends(watch, backend)
    return status


def _tell_fixed_backends(watch: JobWatch, wanted: str) -> None:
    for job in watch.jobs:
        if job.backend != wanted:
            print(
                f"note: {job.name} ran on backend {job.backend!r}, which the script fixes; --backend {wanted} had no effect on it",
                file=sys.stderr,
            )


def _note(level: Request) -> None:
    print(_NOTES[level], file=sys.stderr, flush=True)


def _tell_end(end: ScriptEnd, unheard: list[BaseException | None], level: Request) -> int:
    """Failures that the script let pass are told and count."""
    for error in unheard:
        if error is not None:
            if error.__cause__ is not None:
                traceback.print_exception(error.__cause__)
            print(f"error: {error}", file=sys.stderr)
    if end.status or unheard:
        return end.status or 1
    return INTERRUPTED if level != "none" else 0
