"""Waiting until a system's actors have nothing to do, and saying which of them have, and what they wait for."""

from __future__ import annotations

import asyncio
import gc
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Final

from sage_actor.errors import ActorError

if TYPE_CHECKING:
    from sage_actor.actor.lifecycle import Lifecycle
    from sage_actor.actor.system import ActorSystem

__all__ = ["busy_actors", "is_idle", "wait_idle"]

_OWN_FILES: Final = (__file__[: -len("actor/idleness.py")], "sage_actor/_core/")  # compiled ones are named by their place in the source
_TURNS: Final = 200  # of the loop, before it is given time as well
_SHORTEST_PAUSE: Final = 0.0005
_LONGEST_PAUSE: Final = 0.5
_SHARE: Final = 0.05  # of the time waited so far is the longest that the end goes unnoticed
_MOST_LISTED: Final = 20


def is_idle(system: ActorSystem) -> bool:
    """Whether no actor has anything to do now; what is to happen after a delay does not count."""
    return not system.family.escalating and all(lifecycle.is_idle() for lifecycle in system.everyone())


async def wait_idle(system: ActorSystem, limit: float | None) -> None:
    """Return when `is_idle`; see `ActorSystem.wait_idle`.

    There is no event for "nobody": a cell that begins to wait tells no one, which is what makes messages cheap. So it is looked
    at after each turn of the loop at first. A handler that waits for something outside needs more than turns: for its sake, and
    for that of the processor, the looks become rarer. The pauses are the loop's own: a simulation lets virtual time pass in
    them, and a manual clock stands still.

    Raises:
        ActorError: `limit` seconds of the loop's time have passed; it lists who is busy, and with what.
    """
    loop = asyncio.get_running_loop()
    begun, turns = loop.time(), 0
    while not is_idle(system):
        turns += 1
        if turns <= _TURNS:
            await asyncio.sleep(0)
            continue
        waited = loop.time() - begun
        if limit is not None and waited >= limit:
            raise ActorError(_told(system, limit))
        pause = min(_LONGEST_PAUSE, max(_SHORTEST_PAUSE, waited * _SHARE))
        await asyncio.sleep(pause if limit is None else min(pause, limit - waited))


def busy_actors(system: ActorSystem) -> list[str]:
    """A line for each actor that has something to do: its state, what it waits for, what waits for it. Parents come first."""
    tasks: dict[str, list[asyncio.Task[object]]] = {}
    for task in asyncio.all_tasks(system.loop):
        tasks.setdefault(task.get_name(), []).append(task)
    lines = [_line(system, lifecycle, tasks) for lifecycle in system.everyone() if not lifecycle.is_idle()]
    if system.family.escalating:
        lines.append("the system itself: a failure was escalated to it")
    return lines


def _told(system: ActorSystem, limit: float) -> str:
    busy = busy_actors(system)
    lines = [f"actor system {system.name!r} is not idle after {limit:g} s:", *busy[:_MOST_LISTED]]
    if len(busy) > _MOST_LISTED:
        lines.append(f"and {len(busy) - _MOST_LISTED} more")
    return "\n  ".join(lines)


def _line(system: ActorSystem, lifecycle: Lifecycle, tasks: dict[str, list[asyncio.Task[object]]]) -> str:
    cell, path = lifecycle.cell, lifecycle.path
    own = tasks.get(f"actor {path}", [])
    for hook in ("on_start", "on_stop", "on_restart", "on_passivate"):
        own = own + tasks.get(f"{system.name}: {hook} of {path}", [])
    places = [place for place in map(_place, own) if place]
    words = f"actor {path!r} is {cell.state_name}"
    if places:
        words += " and waits in " + ", and in ".join(places)
    elif cell.in_hand:
        words += " and has a message in hand"
    return words + (f"; waiting in its mailbox: {cell.queued}" if cell.queued else "")


def _place(task: asyncio.Task[object]) -> str:
    """Where a task waits, outermost call of the user first; "" if it waits for mail, or does not wait."""
    awaited: object = task.get_coro()
    places: list[str] = []
    while awaited is not None:
        code, frame = _code_and_frame(awaited)
        if code is not None and not code.co_filename.startswith(_OWN_FILES):
            line = frame.f_lineno if frame is not None else code.co_firstlineno
            places.append(f"{code.co_name} ({code.co_filename.rpartition('/')[2]}:{line})")
        following = _awaited_by(awaited)
        if following is None and places and code is None:
            places.append(repr(awaited))
        awaited = following
    return " > ".join(places)


def _awaited_by(awaited: object) -> object:
    inner: object = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
    if inner is None and type(awaited).__name__ == "coroutine_wrapper":
        # What compiled code awaits stands behind a wrapper that names nothing; the collector can see through it.
        inner = next(iter(gc.get_referents(awaited)), None)
    return inner


def _code_and_frame(awaited: object) -> tuple[CodeType | None, FrameType | None]:
    code: object = getattr(awaited, "cr_code", None) or getattr(awaited, "gi_code", None)
    frame: object = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
    return (code if isinstance(code, CodeType) else None), (frame if isinstance(frame, FrameType) else None)
