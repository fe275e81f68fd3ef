"""Cases over Redis: its workers and owners are killed like those of any backend, and the server is killed, stalled and cut off."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from courses import Zombie, sleep_and_wake
from scenario import Case, Kill, Outcome, Scenario, run_case
from servers import CutRedis, KilledRedis, StalledRedis, TakenAway, can_make_networks, keys_for_ever

from sage_actor.errors import BackendUnavailable

__all__ = ["redis_cases"]


@dataclass(frozen=True, slots=True)
class Absence:
    """The server goes once the run has read so many records more than before, and comes back so many seconds later."""

    seconds: float
    after: int = 300


def redis_cases(seed: int) -> Iterator[tuple[Case, Callable[[Path], Outcome]]]:
    """Everything, in a fixed order."""
    of_jobs = (
        Case("redis: at random times", "redis", "memory", (2, 3, 1), [Kill()] * 3, length=900),
        Case("redis: before the acknowledgement", "redis", "rocksdb", (2,), [Kill("before the acknowledgement", 12)] * 2),
        Case("redis: between two sinks' commits", "redis", "memory", (3,), [Kill("between two sinks' commits", 2)] * 2),
        Case("redis: a worker only, at random", "redis", "memory", (2,), [Kill(victim="worker")] * 2, length=900),
        Case("redis: a worker only, before a commit", "redis", "memory", (2,), [Kill("before a commit", 3, "self")], length=900),
    )
    for case in of_jobs:
        yield case, partial(over_redis, case, partial(KilledRedis, saves=False), partial(run_kills, case, seed))
    case = Case("redis: asleep before a commit", "redis", "memory", (2,))
    yield case, partial(over_redis, case, partial(KilledRedis, saves=False), partial(run_asleep, case, seed))
    yield from of_the_server(seed)


def of_the_server(seed: int) -> Iterator[tuple[Case, Callable[[Path], Outcome]]]:
    """A run that is not killed meets a server that goes and comes back."""
    short, long = [Absence(1.0), Absence(2.5)], [Absence(6.0)]
    given: tuple[tuple[str, Callable[[], TakenAway], Sequence[Absence], int], ...] = (
        ("redis: the server killed, it had saved", partial(KilledRedis, saves=True), short, 1),
        ("redis: the server killed, it comes back empty", partial(KilledRedis, saves=False), short, 1),
        ("redis: stalled for seconds", StalledRedis, short, 1),
        ("redis: stalled beyond patience", StalledRedis, long, 2),
        ("redis: the network cut for seconds", CutRedis, short, 1),
        ("redis: the network cut beyond patience", CutRedis, long, 2),
    )
    for name, server, absences, attempts in given:
        case = Case(name, "redis", "memory", (2,), length=1500)
        patience = 2.0 if attempts > 1 else 10.0
        run = partial(run_absences, case, seed, absences, patience=patience, attempts=attempts)
        yield case, partial(over_redis, case, server, run)


def over_redis(case: Case, server: Callable[[], TakenAway], run: Callable[[Path, TakenAway], Outcome], folder: Path) -> Outcome:
    """A case with a server of its own, in which nothing may be left for ever."""
    reason = can_make_networks() if server is CutRedis else ""
    if reason:
        return not_here(case, reason)
    try:
        with server() as started:
            outcome = run(folder, started)
            left = keys_for_ever(started.address)
            if left:
                outcome.problems.append(f"keys that would stay for ever: {left[:5]}")
            return outcome
    except BackendUnavailable as error:
        return not_here(case, str(error))


def not_here(case: Case, reason: str) -> Outcome:
    """What the table says of a case that this machine cannot run."""
    outcome = Outcome(case)
    outcome.notes.append(f"not here: {reason}")
    return outcome


def run_kills(case: Case, seed: int, folder: Path, server: TakenAway) -> Outcome:
    """Owner or workers are killed; the server stays."""
    return run_case(case, folder, seed, server.address)


def run_asleep(case: Case, seed: int, folder: Path, server: TakenAway) -> Outcome:
    """The owner sleeps, is replaced, and wakes; both through the same server, under the same name."""
    folder.mkdir(parents=True)
    course = partial(sleep_and_wake, point="before a commit", passage=5, late=False)
    return Zombie(case, folder, seed, course, server.address)()


def run_absences(
    case: Case, seed: int, absences: Sequence[Absence], folder: Path, server: TakenAway, *, patience: float, attempts: int
) -> Outcome:
    """One run, without its server for a while again and again."""
    folder.mkdir(parents=True)

    def course(scenario: Scenario) -> None:
        run = scenario.start()
        run.until(lambda: len(run.named("complete")) >= 2, "two checkpoints")
        for absence in absences:
            enough = run.read + absence.after
            if not run.until(lambda enough=enough: run.read >= enough, "some more records"):
                break
            server.take_away()
            scenario.outcome.kills += 1
            run.process_wait(absence.seconds)
            server.give_back()
            complete = len(run.named("complete"))
            run.until(lambda complete=complete: len(run.named("complete")) > complete, "a checkpoint behind the absence")
        code = run.wait()
        if code:
            scenario.problem(f"it ended with {code}: {run.said[-1500:]}")
        begun = len(run.named("attempt"))
        if (begun == 1) != (attempts == 1):
            scenario.problem(f"expected {'one attempt' if attempts == 1 else 'a restart'}, found {begun} attempts: {run.named('attempt')}")
        scenario.outcome.notes.append(f"{begun} attempts, without its server for {sum(absence.seconds for absence in absences):g} s")
        scenario.close(run)

    return Zombie(case, folder, seed, course, f"{server.address}?patience={patience:g}")()
