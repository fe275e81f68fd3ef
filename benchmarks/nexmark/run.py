"""How fast is each query of Nexmark, against a hand-written loop, Bytewax and PyFlink, over the same events in memory?"""

from __future__ import annotations

import asyncio
import gc
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import sage_actor as sage
from benchmarks.nexmark import bytewax_queries, pyflink_peer
from benchmarks.nexmark.check import difference, expected_rows, oracle_of, our_rows, standing
from benchmarks.nexmark.csv_bids import CSV_FLOORS, CSV_QUERIES, FLINK, run_csv, run_csv_floor, write_bids
from benchmarks.nexmark.events import Event
from benchmarks.nexmark.floors import CALLING, FLOORS, Floor
from benchmarks.nexmark.generator import Settings, generate
from benchmarks.nexmark.partitioned_files import PartitionedFiles
from benchmarks.nexmark.pyflink_peer import PyFlink
from benchmarks.nexmark.queries import CONFIG, QUERIES
from benchmarks.result import Result
from benchmarks.rounds import LOOPS, Options, interleaved, median, on_loop, pairs
from benchmarks.sinks import Dropping

__all__ = ["Plan", "check", "judged", "measure", "measure_plan", "measure_pyflink"]

EVENTS, SHORT, CHECKED = 500_000, 10_000, 3_000
SHARE = 5
"""The peer, and queries without a hand-written loop, get a fifth of the events, since they are slow and rates are compared."""
PYFLINK_EVENTS = 60_000
"""PyFlink, slower still, gets as many and runs once."""
AGAINST_FLOOR, AGAINST_PEER, AGAINST_PYFLINK = 0.7, 4.0, 20.0
TARGET = "q0 q2 q5 q7 q8 q11: at least 0.7x the hand-written loop; all that they can express: 4x Bytewax, 20x PyFlink"
NOT_JUDGED = ("q1",)

Figures = dict[str, object]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked of the benchmark beyond `Options`. No names of queries mean all of them; no interpreter means no PyFlink."""

    events: int = EVENTS
    queries: tuple[str, ...] = ()
    csv: bool = True
    seed: int = 1
    pyflink: str = ""

    def names(self) -> list[str]:
        """The queries, in order."""
        return [name for name in QUERIES if not self.queries or name in self.queries]


async def ours(name: str, events: Sequence[Event]) -> float:
    """Describing, starting, running and leaving, all timed."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        async with sage.Environment(f"nexmark {name}", config=CONFIG) as env:
            answers = QUERIES[name].on(env, env.from_collection(events))
            if name == "q10":
                answers.sink(PartitionedFiles, path=folder)
            else:
                answers.sink(Dropping())
            await env.execute()
        return time.perf_counter() - begun


def by_hand(floor: Floor, events: Sequence[Event]) -> float:
    """Seconds of a hand-written loop, whose results a sink drops."""
    begun = time.perf_counter()
    floor(events, drop)
    return time.perf_counter() - begun


def drop(_: list[Any]) -> None:
    """Take results and forget them."""


def peer(name: str, events: Sequence[Event]) -> float:
    """Seconds the peer would take for all events, by what it takes for some of them."""
    some = events[: len(events) // SHARE] if name in FLOORS else events
    return bytewax_queries.run_flow(name, some, drop) * len(events) / len(some)


def check(names: Sequence[str], seed: int) -> None:
    """Every row of every query, against the oracle."""
    for settings in (Settings(seed=seed), Settings(seed=seed, rate=20, group=7)):
        events = generate(CHECKED, settings)
        oracle = oracle_of(events)
        for name in names:
            found = asyncio.run(our_rows(name, events))
            wrong = difference(found, expected_rows(name, oracle))
            assert not wrong, f"{name}: {wrong}"


def check_pyflink(names: Sequence[str], seed: int, pyflink: PyFlink) -> None:
    """Every row of every query that it has, against the oracle."""
    events = generate(CHECKED, Settings(seed=seed))
    oracle = oracle_of(events)
    pyflink.give(events)
    for name in [name for name in names if name in pyflink_peer.EXPRESSED]:
        wrong = difference(standing(name, pyflink.rows(name)), expected_rows(name, oracle))
        assert not wrong, f"{name} in PyFlink: {wrong}"


def measure_pyflink(name: str, ours_again: Callable[[], float], records: int, pyflink: PyFlink | None) -> Figures:
    """PyFlink's rate, and the ratio to ours just before and just after it; or that it was not asked."""
    if pyflink is None:
        return {"pyflink": "not measured"}
    before = ours_again()
    rate = PYFLINK_EVENTS / pyflink.seconds(name)
    around = 2 * records / (before + ours_again())
    return {"pyflink": rate, "ratio_pyflink": around / rate}


def one_query(name: str, events: Sequence[Event], rounds: int, with_peer: bool, pyflink: PyFlink | None) -> Figures:
    """Ours on each loop, the floors and the peer, interleaved; then PyFlink."""
    runs: dict[str, Callable[[], float]] = {}
    if name in FLOORS:
        runs["floor"] = partial(by_hand, FLOORS[name], events)
    if name in CALLING:
        runs["calling"] = partial(by_hand, CALLING[name], events)
    for loop in LOOPS:
        runs[loop] = partial(on_loop, loop, partial(ours, name, events))
    if with_peer and name in bytewax_queries.FLOWS:
        runs["peer"] = partial(peer, name, events)
    seconds = interleaved(rounds, runs)
    worse = max(LOOPS, key=lambda loop: median(seconds[loop]))
    figures: Figures = {"ours": len(events) / median(seconds[worse])}
    for other in ("floor", "calling", "peer"):
        if other in seconds:
            figures[other] = len(events) / median(seconds[other])
            figures[f"ratio_{other}"] = pairs(seconds[worse], seconds[other])
    if name in pyflink_peer.EXPRESSED:
        figures |= measure_pyflink(name, runs[worse], len(events), pyflink)
    return figures


def from_csv(names: Sequence[str], events: Sequence[Event], rounds: int) -> dict[str, Figures]:
    """The queries over a file of bids, parsing included."""
    found: dict[str, Figures] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bids.csv"
        bids = write_bids(path, events)
        for name in [name for name in CSV_QUERIES if name in names]:
            runs: dict[str, Callable[[], float]] = {}
            if name in CSV_FLOORS:
                runs["floor"] = partial(run_csv_floor, name, path)
            for loop in LOOPS:
                runs[loop] = partial(on_loop, loop, lambda name=name: run_csv(name, path, Dropping()))  # type: ignore[misc]
            seconds = interleaved(rounds, runs)
            worse = max(LOOPS, key=lambda loop: median(seconds[loop]))
            figures: Figures = {"ours": bids / median(seconds[worse])}
            if "floor" in seconds:
                figures |= {"floor": bids / median(seconds["floor"]), "ratio_floor": pairs(seconds[worse], seconds["floor"])}
            if name in FLINK:
                figures |= {"flink_recorded": FLINK[name], "ratio_flink": bids / median(seconds[worse]) / FLINK[name]}
            found[name] = figures
    return found


def least(table: dict[str, Figures], ratio: str, without: Sequence[str] = ()) -> str | None:
    """The query that does worst in that ratio."""
    having = [name for name, figures in table.items() if ratio in figures and name not in without]
    return min(having, key=lambda name: float(str(table[name][ratio])), default=None)


def worst(table: dict[str, Figures], ratio: str, name: str | None) -> float | None:
    """That ratio of that query."""
    return None if name is None else float(str(table[name][ratio]))


def measure_plan(options: Options, plan: Plan) -> Result:
    """Events a second of each query; the row shows those that do worst."""
    names = plan.names()
    check(names, plan.seed)
    events = generate(SHORT if options.short else plan.events, Settings(seed=plan.seed))
    no_bytewax = bytewax_queries.missing()
    no_pyflink = "a short run" if options.short else pyflink_peer.missing(plan.pyflink)
    some = events[: len(events) // SHARE]
    with ExitStack() as stack:
        pyflink = None if no_pyflink else stack.enter_context(PyFlink(plan.pyflink))
        if pyflink is not None:
            check_pyflink(names, plan.seed, pyflink)
            pyflink.give(generate(PYFLINK_EVENTS, Settings(seed=plan.seed)))
        gc.collect()
        gc.freeze()  # a million events that all runs share: no collection of any run should have to look at them
        table = {name: one_query(name, events if name in FLOORS else some, options.rounds, not no_bytewax, pyflink) for name in names}
    files = from_csv(names, events, options.rounds) if plan.csv else {}
    gc.unfreeze()
    return judged(options, table, files, no_bytewax, no_pyflink)


def judged(options: Options, table: dict[str, Figures], files: dict[str, Figures], no_bytewax: str, no_pyflink: str) -> Result:
    """The figures, and whether they meet the target."""
    slowest, nearest, flink = least(table, "ratio_floor", NOT_JUDGED), least(table, "ratio_peer"), least(table, "ratio_pyflink")
    to_floor, to_peer = worst(table, "ratio_floor", slowest), worst(table, "ratio_peer", nearest)
    to_pyflink = worst(table, "ratio_pyflink", flink)
    limits = ((to_floor, AGAINST_FLOOR), (to_peer, AGAINST_PEER), (to_pyflink, AGAINST_PYFLINK))
    met = all(ratio is None or ratio >= limit for ratio, limit in limits)
    notes = [f"x floor: {slowest}, x peer: {nearest}, those that do worst", "the slower of the loops", "every query checked by the oracle"]
    notes.append(f"no Bytewax: {no_bytewax}" if no_bytewax else "peer: Bytewax, over a fifth of the events")
    if no_pyflink:
        notes.append(f"no PyFlink: {no_pyflink}")
    else:
        notes.append(f"PyFlink: DataStream, {PYFLINK_EVENTS} events once, start and end left out; {flink} does worst")
    shown: Figures = table[slowest] if slowest is not None else {}
    detail: dict[str, object] = {**table, **{f"csv {name}": figures for name, figures in files.items()}}
    return Result(
        "nexmark",
        "events/s",
        number(shown.get("ours")),
        number(shown.get("floor")),
        None if nearest is None else number(table[nearest]["peer"]),
        to_floor,
        to_peer,
        TARGET,
        None if options.short else met,
        "; ".join(notes + (["short run: not judged"] if options.short else [])),
        detail,
    )


def number(value: object) -> float | None:
    """A figure, if it is one."""
    return value if isinstance(value, float) else None


def measure(options: Options) -> Result:
    """All queries, in memory and from a file; PyFlink where the environment names an interpreter that has it."""
    return measure_plan(options, Plan(pyflink=os.environ.get(pyflink_peer.VARIABLE, "")))
