"""Every query of Nexmark, ours and the hand-written ones, gives the rows that DuckDB computes over all events at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("duckdb", reason="the oracle is DuckDB: pip install '.[test]'")

from benchmarks.nexmark.bytewax_queries import FLOWS, missing, run_flow
from benchmarks.nexmark.check import difference, expected_rows, oracle_of, our_rows
from benchmarks.nexmark.csv_bids import CSV_QUERIES, run_csv, write_bids
from benchmarks.nexmark.events import Event
from benchmarks.nexmark.floors import CALLING, FLOORS, Floor
from benchmarks.nexmark.generator import Settings, generate
from benchmarks.nexmark.oracle import ORACLES, Oracle
from benchmarks.nexmark.queries import QUERIES
from benchmarks.sinks import Keeping

# Many events in few windows; a day and a half, so that minutes, parts of the day and sessions change; and disorder of seconds.
SETTINGS = {
    "dense": (2000, Settings(seed=1)),
    "sparse": (250, Settings(seed=2, rate=0.002, group=1)),
    "disordered": (2000, Settings(seed=3, rate=30, group=100)),
}


@cache
def case(name: str) -> tuple[list[Event], Oracle]:
    """Events and their oracle, made once."""
    events = generate(*SETTINGS[name])
    return events, oracle_of(events)


def test_there_are_23_queries_and_an_oracle_for_each() -> None:
    assert list(QUERIES) == list(ORACLES) == [f"q{number}" for number in range(23)]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("name", QUERIES)
def test_a_query_gives_the_oracles_rows(name: str, settings: str) -> None:
    events, oracle = case(settings)
    assert not difference(asyncio.run(our_rows(name, events)), expected_rows(name, oracle))


@pytest.mark.parametrize("name", ["q3", "q4", "q5", "q8", "q9", "q11", "q16", "q18", "q19", "q20"])
def test_parallelism_changes_nothing(name: str) -> None:
    events, oracle = case("dense")
    assert not difference(asyncio.run(our_rows(name, events, parallelism=3)), expected_rows(name, oracle))


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize(("name", "loop"), [*FLOORS.items(), *CALLING.items()])
def test_a_hand_written_loop_gives_the_oracles_rows(name: str, loop: Floor, settings: str) -> None:
    events, oracle = case(settings)
    found: list[Any] = []
    loop(events, found.extend)
    assert not difference(QUERIES[name].rows(found) if name != "q11" else found, expected_rows(name, oracle))


@pytest.mark.skipif(bool(missing()), reason=missing())
@pytest.mark.parametrize("name", FLOWS)
def test_the_peer_answers_the_same_question(name: str) -> None:
    events, oracle = case("dense")
    emitted: list[Any] = []
    run_flow(name, events, emitted.extend)
    expected = expected_rows(name, oracle)
    if name == "q11":  # its sessions have no bounds
        assert Counter((int(key), count) for key, (_, count) in emitted) == Counter((bidder, count) for bidder, count, *_ in expected)
    else:
        assert not difference(QUERIES[name].rows(emitted), expected)


@pytest.mark.parametrize("name", CSV_QUERIES)
def test_a_query_over_a_file_gives_the_oracles_rows(name: str, tmp_path: Path) -> None:
    events, oracle = case("dense")
    path = tmp_path / "bids.csv"
    write_bids(path, events)
    sink = Keeping()
    asyncio.run(run_csv(name, path, sink))
    expected = expected_rows(name, oracle)
    if name == "q0":
        expected = [(auction, bidder, price, channel, time) for auction, bidder, price, channel, _, time, _ in expected]
    elif name == "q1":
        expected = [(auction, bidder, price, time) for auction, bidder, price, time, _ in expected]
    elif name == "q7":
        expected = list({(None, time // 10_000 * 10_000, time // 10_000 * 10_000 + 10_000, price) for _, price, _, time, _ in expected})
    given = QUERIES[name].rows(sink.all()) if name in {"q5", "q11"} else [tuple(record) for record in sink.all()]
    assert not difference(given, expected)
