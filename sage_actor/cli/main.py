"""The command line's entry: which commands there are, and how errors look."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from sage_actor.cli import check_env, checkpoints, demo, jobs, logs, monitor, run, savepoint, simulate, stop, submit, supervisor, worker
from sage_actor.errors import SageError

__all__ = ["app", "main"]

app = typer.Typer(
    name="sage",
    help="Runs dataflows. Without a command: the supervisor process, which owns jobs and answers over HTTP.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run", context_settings={"allow_interspersed_args": False})(run.run)
app.command("demo")(demo.demo)
app.command("submit", context_settings={"allow_interspersed_args": False})(submit.submit)
app.command("jobs")(jobs.jobs)
app.command("logs")(logs.logs)
app.command("stop")(stop.stop)
app.command("savepoint")(savepoint.savepoint)
app.command("checkpoints")(checkpoints.checkpoints)
app.command("worker")(worker.worker)
app.command("simulate")(simulate.simulate)
app.command("check-env")(check_env.check_env)
app.add_typer(monitor.app, name="monitor")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"sage_actor {version('sage-actor')} (Python {sys.version.split()[0]})")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def bare(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(help="Address to listen on. [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on; 0 chooses one. [default: 19001]")] = None,
    max_jobs: Annotated[int | None, typer.Option(min=1, help="Live jobs at the same time. [default: 1000]")] = None,
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """Run the supervisor process, or one of the commands below."""
    if context.invoked_subcommand is None:
        raise typer.Exit(supervisor.run_supervisor(host, port, max_jobs))
    if (host, port, max_jobs) != (None, None, None):
        raise typer.BadParameter(f"--host, --port and --max-jobs belong to the supervisor process, not to {context.invoked_subcommand!r}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0 success, 1 failure, 2 wrong usage, 130 interrupted."""
    try:
        app(args=run.without_local(sys.argv[1:] if arguments is None else arguments), prog_name="sage")
    except SageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone (`... | head`): nothing is left to say
        return 1
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return 0
