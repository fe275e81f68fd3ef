"""A job that is killed and started again, until it has finished: the course of one simulated run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from sage_actor.errors import CheckpointDamaged, CheckpointError, Fenced
from sage_actor.testing.simulated_process import SimulatedProcess
from sage_actor.testing.simulated_processes import Outcome
from sage_actor.testing.simulated_site import Site

__all__ = ["Life", "live"]

_PATIENCE = 1.0
"""Virtual seconds that an owner may stand still before it is taken for dead and replaced."""


_PAUSE = 0.1
"""Virtual seconds until a job that could not start is started again."""


@dataclass(frozen=True, slots=True)
class Life:
    """One process of the job's owner: on which backend, with how many tasks for each operator."""

    backend: str
    parallelism: int


async def live(site: Site, lives: Sequence[Life], run: Callable[[Life], Coroutine[Any, Any, object]]) -> int:
    """Start the job; after every crash again, as the next of `lives` says and at last as the last one says.

    An owner that stands still is replaced, and goes on later: what it writes then must be refused.

    Args:
        site: where.
        lives: how each start of the job is to run; the first one must not resume, and need not care.
        run: the job of one life, in a process of its own; it goes on from what the lives before it have left.

    Returns:
        How many lives it took.

    Raises:
        AssertionError: a job that was replaced ended with another error than `Fenced`. It may end well: if it stood still when
            everything was committed.
        SageError: what a life ended with.
    """
    number = 0
    zombies: list[SimulatedProcess] = []
    while True:
        life = lives[min(number, len(lives) - 1)]
        number += 1
        process = site.processes.start(f"job {number}", lambda life=life: run(life))  # type: ignore[misc]
        outcome = await _end_of(process)
        if outcome is None:
            zombies.append(process)
            _wake_later(site, process)
        elif outcome.error is not None:
            if not _may_be_started_again(outcome.error, site):
                raise outcome.error
            await asyncio.sleep(_PAUSE)
        elif outcome.how == "returned":
            break
    for zombie in zombies:
        site.processes.resume(zombie)
        outcome = await zombie.ended
        if outcome.error is not None and not isinstance(outcome.error, Fenced):
            raise AssertionError(f"{zombie.name} stood still, was replaced, and then ended with {outcome}") from outcome.error
    return number


def _may_be_started_again(error: BaseException, site: Site) -> bool:
    """A disk that refuses may well refuse the start of a job; whoever watches over it tries again."""
    refused = site.disk.hits["failing"] or site.disk.hits["full"]
    return bool(refused) and isinstance(error, CheckpointError) and not isinstance(error, CheckpointDamaged | Fenced)


async def _end_of(process: SimulatedProcess) -> Outcome | None:
    """Its outcome; None if it stood still for too long."""
    still = 0.0
    while not process.ended.done():
        await asyncio.wait((process.ended,), timeout=_PATIENCE / 2)
        still = still + _PATIENCE / 2 if process.stalled else 0.0
        if still > _PATIENCE:
            return None
    return process.ended.result()  # type: ignore[no-any-return]


def _wake_later(site: Site, zombie: SimulatedProcess) -> None:
    """Let it go on once its successor has taken over: what it does before that is its right. If it has not come so far as to take
    over itself it would be the newer one when it goes on; that one dies."""
    taken = len(site.took_over)
    if zombie not in site.took_over:
        site.processes.crash(zombie)
        return

    def look() -> None:
        if len(site.took_over) > taken:
            site.processes.call_later(site.chance.random(), lambda: site.processes.resume(zombie))
        elif zombie.alive:
            site.processes.call_later(0.05, look)

    site.processes.stall(zombie, None)
    look()
