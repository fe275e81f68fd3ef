"""One seed of a job under faults, from nothing to its end; and what many seeds went through, added up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from sage_actor.testing.simulated_faults import KILL_POINTS, PlannedFault
from sage_actor.testing.simulated_hooks import hooked
from sage_actor.testing.simulated_lives import Life, live
from sage_actor.testing.simulated_site import Site
from sage_actor.testing.simulation import Simulation

__all__ = ["SimulatedCourse", "SimulatedReport", "Tally", "run_course"]

_SCOPES: Final = ("process", "job", "machine", "torn", "zombie")


class SimulatedCourse(Protocol):
    """How one seed runs a job, and what must have come of it."""

    @property
    def lives(self) -> Sequence[Life]:
        """How the job is started, first and after each crash; the last one serves for all that follow."""
        ...

    @property
    def busy(self) -> float:
        """The most virtual seconds that one step takes."""
        ...

    def begin(self, site: Site) -> None:
        """Called once, in the world outside, before the first life; what it sets as context variables all processes inherit."""
        ...

    @property
    def run(self) -> Callable[[Life], Coroutine[Any, Any, object]]:
        """The job of one life; it goes on from what the lives before it have left."""
        ...

    def finish(self) -> None:
        """Called once the job has ended.

        Raises:
            AssertionError: something of what must have come of it has not.
        """
        ...


@dataclass(frozen=True, slots=True)
class SimulatedReport:
    """What one seed went through.

    Attributes:
        lives: how often the job was started.
        counts: crashes, zombies, checkpoints, restores, damaged files, checkpoints skipped for them.
        kills: how often something was killed, or stood still, by point and scope.
        happened: the faults that struck, in words.
        log_hash: of the run.
        added: how many kills were added to those drawn, since without them nothing had crashed.
    """

    lives: int
    counts: Counter[str]
    kills: Counter[tuple[str, str]]
    happened: list[str]
    log_hash: str
    added: int = 0

    def with_added(self, added: int) -> SimulatedReport:
        """The same, with that many kills added."""
        return replace(self, added=added)


def run_course(
    seed: int, planned: Sequence[PlannedFault], course: SimulatedCourse, *, slow_sources: bool = False, max_steps: int = 1_000_000
) -> SimulatedReport:
    """Run a job under these faults in a simulation of its own.

    Args:
        seed: decides all the rest.
        planned: what goes wrong.
        course: how it runs.
        slow_sources: let sources dawdle, so that a short input outlives a few checkpoints.
        max_steps: callbacks after which the run counts as endless.

    Raises:
        AssertionError: the job did not do what its course wants, or the simulation failed.
        SageError: what the job failed with.
    """
    found: list[Site] = []
    lives: list[int] = []

    async def main() -> None:
        site = Site(seed, planned)
        found.append(site)
        course.begin(site)
        with site.open(), hooked(site, slow_sources=slow_sources):
            lives.append(await live(site, course.lives, course.run))
        course.finish()

    simulation = Simulation(seed, max_steps=max_steps, busy=course.busy)
    try:
        simulation.run(main)
    except BaseException as error:
        for line in found[0].happened if found else ():
            error.add_note(line)
        raise
    site = found[0]
    return SimulatedReport(lives[0], site.counts, site.kills, site.happened, simulation.log_hash)


class Tally:
    """What many seeds went through."""

    def __init__(self) -> None:
        self.seeds = 0
        self.uncrashed: list[int] = []
        self.added = 0
        self.lives = 0
        self.counts: Counter[str] = Counter()
        self.kills: Counter[tuple[str, str]] = Counter()

    def add(self, seed: int, report: SimulatedReport) -> None:
        """One more seed, which went well."""
        self.seeds += 1
        self.added += bool(report.added)
        self.lives += report.lives
        self.counts += report.counts
        self.kills += report.kills
        if not report.counts["crashes"]:
            self.uncrashed.append(seed)

    def killed(self, point: str) -> int:
        """How often something was killed at this point; those that only stood still do not count."""
        return sum(number for (place, scope), number in self.kills.items() if place == point and scope != "zombie")

    def lines(self) -> Iterator[str]:
        """The tables, in words."""
        yield f"{'killed':<40}{'hits':>7}   " + "".join(f"{scope:>9}" for scope in _SCOPES)
        for point in KILL_POINTS:
            yield f"{point:<40}{self.killed(point):>7}   " + "".join(f"{self.kills[point, scope]:>9,}" for scope in _SCOPES)
        counts = self.counts
        yield (
            f"{self.seeds:,} seeds: {counts['crashes']:,} crashes, {counts['zombies']:,} zombies, {counts['checkpoints']:,} checkpoints, "
            f"{counts['restores']:,} restores, {self.lives:,} starts of the job; {counts['damaged']:,} files damaged, "
            f"{counts['skipped']:,} checkpoints passed over"
        )
