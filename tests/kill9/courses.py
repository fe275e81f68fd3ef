"""Two cases of their own: an owner that sleeps (SIGSTOP) while another takes over, and wakes again; and a disk without room."""

from __future__ import annotations

import hashlib
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from child import Run
from kill_points import POINTS
from progression import JOB
from scenario import Case, Outcome, Scenario

__all__ = ["Zombie", "run_full_disk", "run_zombie", "sleep_and_wake"]


def run_zombie(case: Case, folder: Path, point: str, passage: int, *, late: bool, seed: int = 0) -> Outcome:
    """The first run falls asleep at a kill-point, all its processes; a second one takes over; then the first one wakes.

    Args:
        late: it wakes after the second one has finished, not while it runs.
    """
    assert point in POINTS
    folder.mkdir(parents=True)
    return Zombie(case, folder, seed, lambda scenario: sleep_and_wake(scenario, point, passage, late=late))()


class Zombie(Scenario):
    """A scenario with a course of its own in place of a list of kills."""

    def __init__(self, case: Case, folder: Path, seed: int, course: Callable[[Scenario], None], address: str = "") -> None:
        super().__init__(case, folder, seed, address)
        self.course = course

    def play(self) -> None:
        self.course(self)


def sleep_and_wake(scenario: Scenario, point: str, passage: int, *, late: bool) -> None:
    """See `run_zombie`."""
    old = asleep(scenario, point, passage)
    if old is None:
        return
    new = scenario.start()
    try:
        if late:
            code = new.wait()
        else:
            new.until(lambda: len(new.named("complete")) >= 2, "checkpoints of the second run")
            code = new.process.poll() or 0
    finally:
        old.signal_all(signal.SIGCONT)
    refused(scenario, old)
    # What the first one still wrote when nobody was there any more to remove it, the next run removes.
    late = late or new.process.poll() is not None
    scenario.outcome.kills += 1
    code = code or new.wait()
    if code:
        scenario.problem(f"the second run ended with {code}: {new.said[-1500:]}")
    scenario.count(old)
    if late:
        sweep(scenario)
    scenario.close(new)


def refused(scenario: Scenario, old: Run) -> None:
    """The one that has woken must end by itself, and say why."""
    code = old.wait()
    ends = old.named("end")
    kinds = ends[0]["kinds"] if ends else ["nothing"]
    if code == 0 or "Fenced" not in kinds:
        scenario.problem(f"the one that woke was not refused: it ended with {code}, {' from '.join(kinds)}: {old.said[-700:]}")
    orphans = old.wait_alone()
    if orphans:
        scenario.problem(f"orphans of the one that woke: {orphans}")


def asleep(scenario: Scenario, point: str, passage: int) -> Run | None:
    """A run that sleeps at the point, outside of any transaction of its database, whose lock it would take to sleep with it."""
    while True:
        run = scenario.start({"point": point, "passage": passage, "victim": "stop"})
        if not run.until(run.has_fallen_asleep, f"the first run at {point!r}"):
            scenario.problem(f"it never came to {point!r}: {run.process.returncode} {run.said[-500:]}")
            scenario.look(run, ended=run.process.returncode == 0)
            return None
        run.signal_all(signal.SIGSTOP)
        if not (scenario.folder / "rows.sqlite-journal").exists():
            return run
        run.signal_all(signal.SIGKILL)
        run.wait()
        scenario.outcome.kills += 1
        scenario.outcome.notes.append("it fell asleep within a transaction of its database, and was killed")
        scenario.look(run, ended=False)


def sweep(scenario: Scenario) -> None:
    """Who wakes when all is over may write on until it is refused: files that nobody names, and no entry of a log."""
    place = scenario.folder / "checkpoints" / JOB
    entries = [file.name for file in (place / "log").glob("*")]
    if entries:
        scenario.problem(f"the one that woke has left in the log {entries}")
    shutil.rmtree(place, ignore_errors=True)
    for file in (scenario.folder / "out").glob(".*-000001-*"):  # of its attempt, the first
        file.unlink()


def run_full_disk(case: Case, folder: Path, fill: Callable[[Path], None], free: Callable[[Path], None], seed: int = 0) -> Outcome:
    """A run is killed; the next ones find no room for checkpoints, at once and on the way; with room again the job goes on."""
    if not folder.exists():
        folder.mkdir(parents=True)
    return Zombie(case, folder, seed, lambda scenario: run_out_of_room(scenario, fill, free))()


def run_out_of_room(scenario: Scenario, fill: Callable[[Path], None], free: Callable[[Path], None]) -> None:
    """See `run_full_disk`."""
    order: dict[str, object] = {"full": str(scenario.folder / "full")}
    first = scenario.start(order)
    first.until(lambda: len(first.named("complete")) >= 3, "three checkpoints")
    first.kill()
    scenario.outcome.kills += 1
    scenario.look(first, ended=False)
    fill(scenario.folder)
    fails_for_want_of_room(scenario, order, None)
    free(scenario.folder)
    fails_for_want_of_room(scenario, order, fill)
    free(scenario.folder)
    scenario.finish()


def fails_for_want_of_room(scenario: Scenario, order: dict[str, object], fill: Callable[[Path], None] | None) -> None:
    """One run; the disk is full already, or `fill` fills it once there is output."""
    before = digests(scenario.folder)
    run = scenario.start(order, config={"restart.strategy": "none"})
    if fill is not None:
        run.until(lambda: run.named("output"), "the first output")
        fill(scenario.folder)
    code = run.wait()
    ends = run.named("end")
    error = ends[0]["error"] if ends else ""
    if code != 1 or "CheckpointError" not in ends[0]["kinds"] or "No space left" not in error:
        scenario.problem(f"without room it ended with {code}, {error!r}: {run.said[-500:]}")
    scenario.outcome.notes.append(error.partition("\n")[0][:200])
    after = digests(scenario.folder)
    changed = [name for name in before.keys() & after.keys() if before[name] != after[name]]
    gone = [name for name in before.keys() - after.keys() if fill is None]
    if changed or gone:
        scenario.problem(f"without room it changed {changed} and removed {gone}")
    scenario.look(run, ended=False)


def digests(folder: Path) -> dict[str, str]:
    """Of all files of the checkpoints that have their name."""
    place = folder / "checkpoints" / JOB
    files = [file for file in place.rglob("*") if file.is_file() and not file.name.startswith(".")]
    return {str(file.relative_to(place)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
