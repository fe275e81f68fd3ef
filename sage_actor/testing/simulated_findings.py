"""Looking for a seed that fails, and for the fewest faults that it fails with."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from sage_actor.testing.simulated_faults import FaultRates, PlannedFault, draw_faults, shrink
from sage_actor.testing.simulated_run import SimulatedReport

__all__ = ["Finding", "SeedRun", "examine", "plans", "shortened"]

SeedRun = Callable[[int, Sequence[PlannedFault]], SimulatedReport]
"""Runs a seed under faults; raises if something is wrong."""

_DRAWS: Final = 4
_SURE_POINTS: Final = ("before state fsync", "after state fsync", "before acknowledgement", "after acknowledgement", "before manifest")


@dataclass(frozen=True, slots=True)
class Finding:
    """A seed that fails.

    Attributes:
        seed: it.
        faults: with which it fails.
        seen: what was raised, in words.
        happened: the faults that struck, in words.
    """

    seed: int
    faults: list[PlannedFault]
    seen: str
    happened: list[str]

    def lines(self) -> Iterator[str]:
        """All of it in words."""
        yield f"seed {self.seed}: {self.seen}"
        yield from (f"  fault: {fault}" for fault in self.faults)
        yield from (f"  happened: {line}" for line in self.happened)


def plans(seed: int, rates: FaultRates) -> Iterator[list[PlannedFault]]:
    """The faults of a seed; then, for a job that ends before any of them has crashed it, the same with kills that will."""
    faults = draw_faults(seed, rates)
    yield faults
    if rates.kills == 0:
        return
    chance = random.Random(f"added {seed}")
    # Lost acknowledgements may leave the job without a checkpoint to crash behind.
    faults = [fault for fault in faults if fault.kind != "acknowledgement"]
    for _ in range(_DRAWS):
        scope = chance.choice(("process", "job", "machine"))
        faults = [PlannedFault("kill", 1, point=chance.choice(_SURE_POINTS), scope=scope), *faults]
        yield faults


def examine(seed: int, rates: FaultRates, run: SeedRun) -> SimulatedReport | Finding:
    """Run a seed; if nothing crashes in it, again with a kill more."""
    report: SimulatedReport | None = None
    for added, faults in enumerate(plans(seed, rates)):
        try:
            report = run(seed, faults).with_added(added)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever a seed fails with is what was looked for
            return Finding(seed, faults, f"{type(error).__name__}: {error}", list(getattr(error, "__notes__", ())))
        if report.counts["crashes"]:
            break
    assert report is not None
    return report


def shortened(finding: Finding, run: SeedRun) -> Finding:
    """The same seed with as few of its faults as it still fails with."""
    last = finding

    def fails(faults: Sequence[PlannedFault]) -> bool:
        nonlocal last
        try:
            run(finding.seed, faults)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - as above
            last = Finding(finding.seed, list(faults), f"{type(error).__name__}: {error}", list(getattr(error, "__notes__", ())))
            return True
        return False

    shrink(finding.faults, fails)
    return last
