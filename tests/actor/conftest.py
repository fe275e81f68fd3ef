"""Scenarios in virtual time: each runs on stock asyncio, on uvloop, and under the seeds of the simulation.

A scenario is an ``async def`` test that takes `make_system` and waits for nothing but replies, ends of actors, events and
``system.clock.sleep``. On the two real loops time jumps to the next instant at which something is due as soon as nothing is ready
any more.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop

import sage_actor as sage
from sage_actor.testing import ManualClock

MakeSystem = Callable[..., sage.ActorSystem]

SEEDS = 200
UNDER_SEEDS = pytest.param("simulated", marks=pytest.mark.simulate(seeds=SEEDS))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The cases of one scenario share its seeds."""
    simulated = [item for item in items if "make_system" in getattr(item, "fixturenames", ()) and item.get_closest_marker("simulate")]
    cases = Counter(item.nodeid.partition("[")[0] for item in simulated)
    for item in simulated:
        item.add_marker(pytest.mark.simulate(seeds=max(50, SEEDS // cases[item.nodeid.partition("[")[0]])), append=False)


class JumpingClock(ManualClock):
    """Moves by itself."""

    async def run_on(self) -> None:
        while True:
            for _ in range(3):  # on uvloop, which does not show what is ready, each is a hundred turns
                await self.advance(0)
            due = self._next_due()
            if due < math.inf:
                await self.advance((due - self._now) / 1e9)


CLOCK = pytest.StashKey[JumpingClock]()


@pytest.fixture(params=["asyncio", "uvloop", UNDER_SEEDS])
def make_system(request: pytest.FixtureRequest) -> Iterator[MakeSystem]:
    """Makes the actor systems of a scenario, with the clock of its loop."""
    if request.param == "simulated":
        if request.config.getoption("simulate_seed", None) is None:
            # Two hundred runs of a test that fails actors: pytest would keep each record, with all that its traceback holds alive.
            logging.disable(logging.CRITICAL)
        yield lambda **settings: sage.ActorSystem("test", **settings)
        logging.disable(logging.NOTSET)
    else:
        clock = request.node.stash[CLOCK] = JumpingClock()
        yield lambda **settings: sage.ActorSystem("test", clock=clock, **settings)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs a scenario on a real loop; the simulation runs its own."""
    clock = pyfuncitem.stash.get(CLOCK, None)
    if clock is None:
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    scenario = pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names})

    async def main() -> None:
        mover = asyncio.create_task(clock.run_on())
        try:
            async with asyncio.timeout(20):
                await scenario
        finally:
            mover.cancel()
            await asyncio.wait((mover,))

    run: Any = uvloop.run if pyfuncitem.callspec.params["make_system"] == "uvloop" else asyncio.run
    run(main())
    return True
