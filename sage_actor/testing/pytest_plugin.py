"""The pytest mark `simulate`: an async test that runs under many seeds, each a different schedule in virtual time.

    @pytest.mark.simulate(seeds=200)
    async def test_nothing_is_lost() -> None: ...

Loaded with ``-p sage_actor.testing.pytest_plugin``, or from the top conftest by ``pytest_plugins``. All seeds from 0 on run
within one test item, until one fails; the report says how to run that seed alone. The first `twice` of them run twice, and
the logs of both runs must be the same. The test needs no other mark, nor any plugin for asyncio.

Arguments of the mark: ``seeds`` (100), ``twice`` (5), and those of `Simulation`: ``max_steps``, ``leftovers``, ``busy``, ``faults``.
Fixtures come as they are, made once for all seeds: take from them only what a run does not change. Async fixtures belong to another
event loop and are of no use here.

Options: ``--simulate-seeds=N`` decides the number for all tests, ``--simulate-seed=N`` runs this one seed alone, once.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import pytest

from sage_actor.testing.simulation import Faults, Simulation, SimulationDiverged

__all__ = ["pytest_addoption", "pytest_configure", "pytest_pyfunc_call"]

_SEEDS: Final = 100
_TWICE: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """The arguments of the mark."""

    seeds: int = _SEEDS
    twice: int = _TWICE
    max_steps: int = 1_000_000
    leftovers: Literal["fail", "cancel"] = "fail"
    busy: float = 0.0
    faults: Faults | None = None

    def simulation(self, seed: int) -> Simulation:
        return Simulation(seed, max_steps=self.max_steps, leftovers=self.leftovers, busy=self.busy, faults=self.faults)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The two options that choose seeds for a whole session."""
    group = parser.getgroup("sage_actor simulation")
    group.addoption("--simulate-seeds", type=int, default=None, metavar="N", help="run every simulated test under seeds 0..N-1")
    group.addoption("--simulate-seed", type=int, default=None, metavar="N", help="run every simulated test under this seed alone, once")


def pytest_configure(config: pytest.Config) -> None:
    """The mark, for ``--strict-markers``."""
    config.addinivalue_line(
        "markers", "simulate(seeds=100, twice=5, ...): an async test to be run in the deterministic simulation, under so many seeds"
    )
    for option in ("simulate_seeds", "simulate_seed"):
        number: int | None = config.getoption(option, None)
        if number is not None and number < (1 if option == "simulate_seeds" else 0):
            raise pytest.UsageError(f"--{option.replace('_', '-')}={number}: no such seed")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs a simulated test; leaves all others alone."""
    mark = pyfuncitem.get_closest_marker("simulate")
    if mark is None:
        return None
    wanted = _read(mark, pyfuncitem.nodeid)
    function: Callable[..., Coroutine[object, object, object]] = pyfuncitem.obj
    if pyfuncitem.get_closest_marker("asyncio") is not None:
        pytest.fail(f"{pyfuncitem.nodeid}: take off the mark `asyncio`: the simulation brings its own event loop", pytrace=False)
    if not inspect.iscoroutinefunction(function):
        pytest.fail(f"{pyfuncitem.nodeid}: only an `async def` can be simulated", pytrace=False)
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(function).parameters if name in pyfuncitem.funcargs}
    main = functools.partial(function, **arguments)
    only: int | None = pyfuncitem.config.getoption("simulate_seed", None)
    if only is not None:
        wanted.simulation(only).run(main)
        return True
    seeds: int | None = pyfuncitem.config.getoption("simulate_seeds", None)
    _run_all(pyfuncitem, wanted, wanted.seeds if seeds is None else seeds, main)
    return True


def _read(mark: pytest.Mark, node: str) -> _Wanted:
    options: Mapping[str, object] = mark.kwargs
    known = inspect.signature(_Wanted).parameters
    if mark.args or not set(options) <= set(known):
        pytest.fail(f"{node}: the mark is written simulate(seeds=200); its arguments are {', '.join(known)}", pytrace=False)
    wanted = _Wanted(**mark.kwargs)
    if wanted.seeds < 1:
        pytest.fail(f"{node}: simulate(seeds={wanted.seeds!r}) would run nothing", pytrace=False)
    return wanted


def _run_all(item: pytest.Function, wanted: _Wanted, seeds: int, main: Callable[[], Coroutine[object, object, object]]) -> None:
    for seed in range(seeds):
        simulation = wanted.simulation(seed)
        try:
            simulation.run(main)
            if seed < wanted.twice:
                first = (simulation.log_hash, simulation.steps)
                simulation.run(main)
                second = (simulation.log_hash, simulation.steps)
                if first != second:
                    raise SimulationDiverged(seed, first, second)
        except BaseException as error:
            if not isinstance(error, pytest.skip.Exception | pytest.xfail.Exception | KeyboardInterrupt):
                told = f"seed {seed} failed, the {seed + 1}. of {seeds}; this one alone: pytest '{item.nodeid}' --simulate-seed={seed}"
                item.add_report_section("call", "simulation", told)
            raise
