"""The progression test of a job that is divided anew all the time, under every load balancer, while things crash."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from sage_actor.testing.progression import examine_progression, run_progression
from sage_actor.testing.simulated_findings import Finding
from sage_actor.testing.simulated_run import Tally

SEEDS, PARTS = 120, 24


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What a job says about each of its failures, a dozen in each seed, is no news."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.rule("F15")
@pytest.mark.rule("F25")
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.blocks_loop("a simulation is one long computation")
def test_every_record_counts_once_whatever_moves_and_crashes(part: int) -> None:
    tally = Tally()
    for seed in range(part * SEEDS // PARTS, (part + 1) * SEEDS // PARTS):
        report = examine_progression(seed, rescaled=True)
        if isinstance(report, Finding):
            again = f"again: python tests/simulation/progression.py --rescaled --first {seed} --seeds 1"
            pytest.fail("\n".join([*report.lines(), again]), pytrace=False)
        tally.add(seed, report)
    assert tally.counts["moves"] > SEEDS // PARTS
    assert tally.counts["crashes"] > 0


def test_a_rescaled_seed_is_the_same_whenever_it_is_run() -> None:
    first, second = run_progression(3, rescaled=True), run_progression(3, rescaled=True)
    assert first.log_hash == second.log_hash
    assert first.counts["moves"] > 0
