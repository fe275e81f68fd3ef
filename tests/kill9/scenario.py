"""Sequences of runs: each but the last is killed somewhere, and what is committed is looked at after each."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from child import Run
from committed import Committed, Faults, judge, leftovers, read_committed
from damage import Damage
from progression import JOB, Settings

__all__ = ["Case", "Kill", "Outcome", "Scenario", "run_case"]


@dataclass(frozen=True, slots=True)
class Kill:
    """How one run ends.

    Attributes:
        point: a kill-point, or "" for a random time.
        passage: of the point.
        victim: "job", "self" (whoever passes the point), or "worker" (one of them, at a random time; the job goes on).
        within: for random times: so many records are read after the first output, at most.
        damage: done to the checkpoints afterwards; what it answers, the next run must pass over, loudly.
    """

    point: str = ""
    passage: int = 1
    victim: str = "job"
    within: int = 2400
    damage: Callable[[Path], Damage] | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """A scenario: run i at ``parallelism[i]`` (the last one again and again) ends by ``kills[i]``; one more run ends by itself."""

    name: str
    backend: str = "local"
    state: str = "memory"
    parallelism: Sequence[int] = (1,)
    kills: Sequence[Kill] = ()
    length: int = 600

    def parallelism_of(self, run: int) -> int:
        """Of a run, from 0."""
        return self.parallelism[min(run, len(self.parallelism) - 1)]


@dataclass(slots=True)
class Outcome:
    """What came of a case."""

    case: Case
    runs: int = 0
    kills: int = 0
    restored: list[int] = field(default_factory=lambda: list[int]())
    complete: int = 0
    faults: Faults = field(default_factory=Faults)
    recovery: list[float] = field(default_factory=lambda: list[float]())
    replayed: int = 0
    problems: list[str] = field(default_factory=lambda: list[str]())
    notes: list[str] = field(default_factory=lambda: list[str]())
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Whether everything held."""
        return not self.faults.any and not self.problems


class Scenario:
    """Runs a case in a folder of its own."""

    def __init__(self, case: Case, folder: Path, seed: int, address: str = "") -> None:
        """`address` is that of the backend, where its name is not enough."""
        self.case = case
        self.address = address
        self.folder = folder
        self.chance = random.Random(seed)
        self.outcome = Outcome(case)
        self.seen = Committed()
        self.damage: Damage | None = None
        self.started: list[Run] = []

    def settings(self, **changes: object) -> Settings:
        """Of the next run."""
        case, number = self.case, self.outcome.runs
        given: dict[str, object] = {
            "folder": str(self.folder),
            "run": number + 1,
            "backend": self.address or case.backend,
            "state": case.state,
            "parallelism": case.parallelism_of(number),
            "length": case.length,
            **changes,
        }
        return Settings(**given)  # type: ignore[arg-type]

    def start(self, order: dict[str, object] | None = None, **changes: object) -> Run:
        """The next run."""
        run = Run(self.settings(**changes), order)
        self.outcome.runs += 1
        self.started.append(run)
        return run

    def problem(self, text: str) -> None:
        """Something that must not be."""
        self.outcome.problems.append(f"run {self.outcome.runs}: {text}")

    def look(self, run: Run, *, ended: bool) -> None:
        """After a run: orphans, and what is committed."""
        orphans = run.wait_alone()
        if orphans:
            self.problem(f"orphan processes {orphans}")
        now = read_committed(self.folder)
        if not now.begins_with(self.seen):
            self.problem("what was committed before is not there any more, or in another order")
        self.seen = now
        faults = judge(now, run.settings, ended=ended)
        if faults.any and not ended:
            self.problem(f"the committed output is not a beginning of the right one: {faults}")
        if ended or faults.any:
            self.outcome.faults = faults
        self.count(run)

    def count(self, run: Run) -> None:
        """Take down what a run has said."""
        outcome = self.outcome
        restored = [number for number in run.restored if number is not None]
        outcome.restored += restored
        outcome.complete += len(run.named("complete"))
        if restored and run.recovery is not None:
            outcome.recovery.append(run.recovery)
        outcome.replayed += run.read
        damage, self.damage = self.damage, None
        if damage is not None:
            if not restored or restored[0] >= damage.checkpoint:
                self.problem(f"after {damage} it went on from {restored}")
            if damage.named not in run.said:
                self.problem(f"after {damage} nothing was said of it: {run.said!r}")

    def killed(self, kill: Kill) -> bool:
        """One run and its kill; False if it ended before that."""
        if kill.point:
            order: dict[str, object] = {"point": kill.point, "passage": kill.passage, "victim": kill.victim}
            run = self.start(order)
            if kill.victim == "self" and self.case.backend != "local":
                return self.survived(run)
            code = run.wait()
        else:
            run = self.start()
            run.until(lambda: run.named("output"), "the first output")
            enough = run.read + self.chance.randint(100, kill.within)
            run.until(lambda: run.read >= enough, "some more records")
            if kill.victim == "worker":
                self.outcome.kills += run.kill_worker(self.chance.randrange(8))
                return self.survived(run)
            run.kill()
            code = run.process.returncode
        if code != -signal.SIGKILL:
            self.look(run, ended=code == 0)
            self.problem(f"it was to be killed ({kill.point or 'at a random time'}), and ended with {code}: {run.said[-500:]}")
            return False
        self.outcome.kills += 1
        self.look(run, ended=False)
        if kill.damage is not None:
            self.damage = kill.damage(self.folder / "checkpoints" / JOB)
            self.outcome.notes.append(str(self.damage))
        return True

    def survived(self, run: Run) -> bool:
        """A worker is killed, the job goes on by itself; killed later so that the next run has something to do."""
        attempts = 1
        lives = run.until(lambda: len(run.named("attempt")) > attempts, "another attempt")
        if run.marker.exists():
            self.outcome.kills += 1
        before = len(run.named("complete"))
        if lives and run.until(lambda: len(run.named("complete")) > before, "a checkpoint of the new attempt"):
            run.kill()
            self.outcome.kills += 1
        elif run.process.returncode:
            self.problem(f"a lost worker ended the job with {run.process.returncode}: {run.said[-500:]}")
        self.look(run, ended=run.process.returncode == 0)
        return run.process.returncode != 0

    def finish(self) -> None:
        """The last run, unbroken, and what it leaves."""
        run = self.start()
        code = run.wait()
        if code:
            self.problem(f"the last run ended with {code}: {run.said[-1500:]}")
        self.close(run)

    def close(self, run: Run) -> None:
        """A run has ended well: everything must be there, and nothing else."""
        self.look(run, ended=True)
        self.outcome.replayed -= run.settings.progressions * run.settings.length
        if not run.process.returncode:
            left = leftovers(self.folder)
            if left:
                self.problem(f"left behind: {left[0]}" + (f" and {len(left) - 1} more" if left[1:] else ""))

    def play(self) -> None:
        """The runs."""
        if all(self.killed(kill) for kill in self.case.kills):
            self.finish()

    def __call__(self) -> Outcome:
        begun = time.monotonic()
        try:
            self.play()
        except AssertionError as error:
            self.problem(str(error))
        finally:
            for run in self.started:
                run.signal_all(signal.SIGKILL)
        self.outcome.seconds = time.monotonic() - begun
        if self.outcome.good:
            shutil.rmtree(self.folder, ignore_errors=True)
        return self.outcome


def run_case(case: Case, folder: Path, seed: int = 0, address: str = "") -> Outcome:
    """The whole case; what went wrong is in the outcome, and then the folder stays."""
    folder.mkdir(parents=True)
    return Scenario(case, folder, seed, address)()
