"""``sage monitor``: looking at what runs. ``actors``: the actor systems of this account, in whatever processes they are."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, NamedTuple

import msgspec
import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from sage_actor.actor.inspection import ActorReport, DeadLettersReport, printable
from sage_actor.actor.inspector_client import RunningSystem, list_systems
from sage_actor.actor.statistics import ActorStatistics, SystemStatistics
from sage_actor.cli.actor_details import actor_details
from sage_actor.cli.actor_tree import Change, Changes, draw_tree, print_tree
from sage_actor.durations import parse_duration
from sage_actor.errors import ActorError
from sage_actor.ports import system_clock

__all__ = ["actors", "app"]

SHORTEST_INTERVAL = 0.1
PATIENCE = 2.0  # seconds for a system whose event loop is blocked; the others are shown after it

app = typer.Typer(help="Look at what runs.", no_args_is_help=True)


@dataclass(slots=True)
class _Look:
    """What one system told just now."""

    running: RunningSystem
    statistics: SystemStatistics | None = None
    report: ActorReport | None = None
    letters: DeadLettersReport | None = None
    error: str = ""
    changes: Changes = field(default_factory=dict[str, Change])


@app.command("actors")
def actors(
    system: Annotated[str | None, typer.Option(help="Only systems of this name.")] = None,
    live: Annotated[bool, typer.Option("--live", help="Look again and again, until Ctrl-C.")] = False,
    interval: Annotated[str, typer.Option(help="Time between two looks.")] = "1s",
    as_json: Annotated[bool, typer.Option("--json", help="All that is known, as JSON; with --live a line a look.")] = False,
    actor: Annotated[str | None, typer.Option(metavar="PATH", help="One actor from close by: what waits, timers, last failure.")] = None,
) -> None:
    """Show the actors of the running systems of this account.

    busy: a handler runs. age: how long the oldest message waits, at most. dead: messages that no handler saw to its end.
    wait, serve: how long messages lay in the mailbox, and their handlers took, measured for one in 64.
    """
    seconds = max(SHORTEST_INTERVAL, parse_duration(interval, key="--interval"))
    observer = _Observer(system, actor)
    looks = observer.look()
    if not live:
        _show(Console(), looks, as_json=as_json, again=False)
        raise typer.Exit(1 if any(look.error for look in looks) else 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts it in the background has it ignored
    try:
        _show_live(observer, looks, seconds, as_json=as_json)
    except KeyboardInterrupt:
        pass


class _Progress(NamedTuple):
    """How far an actor was at some look, and when it was first seen there."""

    done: int
    handled: int
    since: float


class _Observer:
    """Looks at systems again and again, and knows what changed since the last time."""

    def __init__(self, name: str | None, path: str | None) -> None:
        self._name = name
        self._path = path
        self._known: dict[tuple[int, str], tuple[float, dict[str, _Progress]]] = {}

    def look(self) -> list[_Look]:
        """The systems as of now.

        Raises:
            ActorError: there is none (of that name), or none that answers has the actor.
        """
        systems = list_systems()
        chosen = [running for running in systems if self._name in {None, running.name}]
        if not chosen:
            raise ActorError(self._nothing(systems))
        looks = [self._look_at(running) for running in chosen]
        if self._path is None or any(look.report is not None for look in looks):
            return [look for look in looks if self._path is None or look.report is not None]
        raise ActorError("; ".join(look.error for look in looks))

    def _nothing(self, systems: Sequence[RunningSystem]) -> str:
        if self._name is not None and systems:
            names = ", ".join(sorted({repr(running.name) for running in systems}))
            return f"no actor system {self._name!r} is running under this account; running: {names}"
        which = "" if self._name is None else f" {self._name!r}"
        return f"no actor system{which} is running under this account (one can be seen a quarter of a second after its start)"

    def _look_at(self, running: RunningSystem) -> _Look:
        try:
            if self._path is not None:
                return _Look(running, report=running.actor(self._path, timeout=PATIENCE), letters=running.dead_letters(timeout=PATIENCE))
            statistics = running.statistics(timeout=PATIENCE)
        except ActorError as error:
            return _Look(running, error=str(error))
        return _Look(running, statistics=statistics, changes=self._changes(running, statistics))

    def _changes(self, running: RunningSystem, statistics: SystemStatistics) -> dict[str, Change]:
        key, now = (running.pid, running.name), system_clock.monotonic()
        before, known = self._known.get(key, (now, dict[str, _Progress]()))
        progress: dict[str, _Progress] = {}
        changes: dict[str, Change] = {}
        for actor in _all(statistics.actors):
            done = actor.handled + actor.dead_lettered
            last = known.get(actor.path)
            progress[actor.path] = current = last if last is not None and last.done == done else _Progress(done, actor.handled, now)
            if last is not None:
                rate = max(0, actor.handled - last.handled) / max(now - before, 1e-9)
                changes[actor.path] = Change(rate, now - current.since)
        self._known[key] = (now, progress)
        return changes


def _all(actors: Sequence[ActorStatistics]) -> Iterator[ActorStatistics]:
    pending = list(actors)
    while pending:
        actor = pending.pop()
        yield actor
        pending += actor.children


def _show_live(observer: _Observer, looks: list[_Look], seconds: float, *, as_json: bool) -> None:
    console = Console()
    pause = threading.Event()  # never set: a wait that Ctrl-C ends at once
    if as_json or not console.is_terminal:
        while True:
            _show(console, looks, as_json=as_json, again=True)
            pause.wait(seconds)
            looks = observer.look()
    with Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as screen:
        while True:
            screen.update(_drawn(console, looks), refresh=True)
            pause.wait(seconds)
            try:
                looks = observer.look()
            except ActorError as error:
                screen.update(Text(str(error)), refresh=True)
                looks = []


def _show(console: Console, looks: Sequence[_Look], *, as_json: bool, again: bool) -> None:
    if as_json:
        print(msgspec.json.encode([_plain(look) for look in looks]).decode(), flush=True)
        return
    for number, look in enumerate(looks):
        if number:
            console.print()
        if look.statistics is not None:
            print_tree(console, look.running.pid, look.statistics, look.changes if again else None)
        else:
            console.print(Text(_words(look)), soft_wrap=True)


def _drawn(console: Console, looks: Sequence[_Look]) -> RenderableType:
    """All systems on one screen, which they share by their number of actors; a line stays free below each."""
    room = console.height - len(looks)
    wanted = {id(look): 4 if look.statistics is None else look.statistics.living + 3 for look in looks}
    parts: list[RenderableType] = []
    for look in looks:
        lines = wanted[id(look)] if sum(wanted.values()) <= room else max(4, room * wanted[id(look)] // sum(wanted.values()))
        if look.statistics is not None:
            parts.append(draw_tree(console, look.running.pid, look.statistics, look.changes, lines))
        else:
            parts.append(Text(_words(look)))
        parts.append(Text(""))
    return Group(*parts)


def _words(look: _Look) -> str:
    if look.report is None or look.letters is None:
        return printable(look.error)
    return actor_details(look.running.name, look.running.pid, look.report, look.letters.last)


def _plain(look: _Look) -> dict[str, object]:
    told: dict[str, object] = {"name": look.running.name, "pid": look.running.pid}
    if look.statistics is not None:
        return {**told, "statistics": look.statistics}
    return told | ({"error": look.error} if look.report is None else {"actor": look.report, "dead_letters": look.letters})
