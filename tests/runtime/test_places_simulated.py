"""A dataflow over three places under many seeds of crashes: its results are those of an undisturbed run on one loop."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

import sage_actor as sage
from sage_actor.testing.simulated_findings import Finding
from sage_actor.testing.simulated_pipeline import SimulatedPipeline, Tally

SEEDS, PARTS = 24, 6


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What a job says about each of its failures is no news."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def describe(env: sage.Environment) -> dict[str, object]:
    places = {"here": "local", "near": "simulated", "far": {"backend": "simulated", "workers": 2}}
    env.settings = env.settings.merged({"places": places if env.settings.backend != "local" else dict.fromkeys(places, "local")})
    numbers = env.from_collection(range(300)).map(lambda n: n + 1).place("here")
    doubled = numbers.rebalance().map(lambda n: 2 * n, parallelism=2).place("near")
    totals: sage.DataStream[tuple[int, int]] = doubled.key_by(lambda n: n % 7).sum(int, emit="final", parallelism=3).place("far")
    back = doubled.rebalance().filter(lambda n: n % 4 == 0)  # on the job's own backend
    return {"totals": totals.collect(), "back": back.collect()}


PIPELINE = SimulatedPipeline(describe)


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.blocks_loop("a simulation is one long computation")
@pytest.mark.rule("F41")
def test_results_do_not_depend_on_places_nor_crashes(part: int) -> None:
    tally = Tally()
    for seed in range(part * SEEDS // PARTS, (part + 1) * SEEDS // PARTS):
        report = PIPELINE.examine(seed)
        if isinstance(report, Finding):
            pytest.fail("\n".join(report.lines()), pytrace=False)
        tally.add(seed, report)
    assert tally.counts["crashes"] > 0
    assert tally.counts["restores"] > 0
