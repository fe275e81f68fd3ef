"""The progression test under the first three hundred seeds: nothing lost, duplicated or out of order, whatever crashes."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from sage_actor.testing.progression import examine_progression, run_progression
from sage_actor.testing.simulated_faults import FaultRates
from sage_actor.testing.simulated_findings import Finding, plans
from sage_actor.testing.simulated_run import SimulatedReport, Tally

SEEDS, PARTS = 300, 30


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What a job says about each of its failures, a dozen in each seed, is no news."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def examined(seed: int) -> SimulatedReport:
    result = examine_progression(seed)
    if isinstance(result, Finding):
        pytest.fail("\n".join([*result.lines(), f"again: python tests/simulation/progression.py --first {seed} --seeds 1"]), pytrace=False)
    return result


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.blocks_loop("a simulation is one long computation")
def test_every_record_counts_once_whatever_crashes(part: int) -> None:
    tally = Tally()
    for seed in range(part * SEEDS // PARTS, (part + 1) * SEEDS // PARTS):
        tally.add(seed, examined(seed))
    assert not tally.uncrashed, "each seed has to crash behind a checkpoint"
    assert tally.counts["checkpoints"] > tally.counts["crashes"] > 0
    assert tally.counts["restores"] > 0


@pytest.mark.parametrize("seed", range(5))
def test_a_seed_is_the_same_whenever_it_is_run(seed: int) -> None:
    faults = next(plans(seed, FaultRates()))
    first, second = run_progression(seed, faults), run_progression(seed, faults)
    assert first.log_hash == second.log_hash
    assert first == second


def test_without_faults_nothing_crashes() -> None:
    report = run_progression(7, ())
    assert report.lives == 1
    assert report.happened == []
    assert report.counts["checkpoints"] > 0
    assert report.counts["restores"] == 0


@pytest.mark.blocks_loop("a simulation is one long computation")
def test_a_lost_last_frame_does_not_hang_the_job() -> None:
    """The frame that would show the gap never comes, and the sender waits for credit while its input has ended: the watchdog sees it."""
    examined(2545)
