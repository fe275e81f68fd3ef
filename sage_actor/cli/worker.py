"""``sage worker``: an agent that runs workers on this machine for jobs started elsewhere, and a list of those there are."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from sage_actor.actor.open_backend import open_backend
from sage_actor.actor.worker_agents import AgentBackend, AgentInfo, AgentOffer
from sage_actor.cli.tables import print_table
from sage_actor.errors import BackendUnavailable

__all__ = ["worker"]


def worker(
    backend: Annotated[str, typer.Option("--backend", "-b", help="Where jobs find it: redis://host:6379/0.")],
    slots: Annotated[int | None, typer.Option(min=1, help="Workers at the same time. [default: the number of cores]")] = None,
    name: Annotated[str | None, typer.Option(help="What it is called in messages. [default: the host's name]")] = None,
    group: Annotated[str, typer.Option(help="Take only jobs that name this group: redis://host/0?group=NAME.")] = "",
    resource: Annotated[
        list[str] | None, typer.Option(metavar="NAME=AMOUNT", help="A further resource to hand out; may be repeated.")
    ] = None,
    show: Annotated[bool, typer.Option("--list", help="List the agents there are, and be none.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --list: all that is known, as JSON.")] = False,
) -> None:
    """Run workers on this machine for jobs that are started elsewhere, until Ctrl-C or SIGTERM.

    Jobs reach it through the server that --backend names. The first signal ends its workers in good order, and tells their jobs; a
    second one kills them. Both sides need the same secret: the file redis.secret of the data directory, or SAGE_ACTOR_SECRET.
    """
    opened = open_backend(backend)
    if not isinstance(opened, AgentBackend):
        raise BackendUnavailable(backend, "its workers are not started by agents", "write --backend redis://host:6379/0")
    if show:
        _tell(asyncio.run(_agents(opened)), as_json=as_json)
        return
    if as_json:
        raise typer.BadParameter("--json belongs to --list")
    offer = AgentOffer(
        name=name or socket.gethostname(), slots=slots or os.cpu_count() or 1, label=group, custom=_resources(resource or [])
    )
    asyncio.run(_serve(opened, offer))


async def _agents(backend: AgentBackend) -> list[AgentInfo]:
    return list(await backend.agents())


def _resources(given: list[str]) -> Mapping[str, float]:
    found: dict[str, float] = {}
    for text in given:
        name, _, amount = text.partition("=")
        try:
            found[name] = float(amount)
        except ValueError:
            found[name] = -1.0
        if not name or not 0 <= found[name] < float("inf"):
            raise typer.BadParameter(f"{text!r}: write a name and an amount, such as licence=2", param_hint="--resource")
    return found


async def _serve(backend: AgentBackend, offer: AgentOffer) -> None:
    stopping = asyncio.Event()
    serving = asyncio.ensure_future(backend.run_agent(offer, stopping=stopping, note=_note))

    def stop() -> None:
        if stopping.is_set():
            serving.cancel()
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        await serving
    except asyncio.CancelledError:
        if not stopping.is_set():
            raise


def _note(line: str) -> None:
    # Whoever read our output has gone, or it cannot show the letters of a job's name; the workers go on.
    with contextlib.suppress(OSError, ValueError):
        print(line, flush=True)


def _tell(agents: list[AgentInfo], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([{**asdict(agent), "custom": dict(agent.custom)} for agent in agents], indent=2))
    elif not agents:
        print("no agents")
    else:
        columns = ("name", "host", "process", "slots", "used", "group", "jobs", "version", "heard")
        print_table(Console(), "", columns, [_row(agent) for agent in agents])


def _row(agent: AgentInfo) -> list[str]:
    state = ", leaving" if agent.leaving else "" if agent.trusted else ", another secret"
    return [
        agent.name,
        agent.host,
        str(agent.pid),
        str(agent.slots),
        str(agent.used),
        agent.label,
        ", ".join(agent.jobs),
        f"{agent.version} (Python {agent.python})",
        f"{agent.heard:.1f} s ago{state}",
    ]
