"""No result differs between backends: each pipeline, over two tasks, gives on every one what a single task gives in this process."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

import sage_actor as sage
from benchmarks.nexmark.generator import Settings, generate
from benchmarks.nexmark.queries import CONFIG, QUERIES

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAMS = ROOT.parent / "shared" / "programs"
Results = Mapping[str, Sequence[object]]
"""By name what was collected."""


@pytest.fixture(scope="module", params=["local", "process", "redis", "ray"])
def backend(request: pytest.FixtureRequest) -> str:
    """The address of each backend in turn; skips, saying what is missing, where one cannot be had."""
    if request.param == "redis":
        return str(request.getfixturevalue("redis_address"))
    if request.param == "ray":
        return str(request.getfixturevalue("ray_address"))
    return str(request.param)


# -- text -------------------------------------------------------------------------------------------------------------


def text(env: sage.Environment, size: int) -> Results:
    """The word count, and other folds over keys and over all."""
    lines = [f"the fox number {n % 37} jumps over {n * n % 11} lazy dogs" for n in range(size)]
    words = env.from_collection(lines).rebalance().flat_map(str.split)
    keyed = words.key_by(lambda word: word)
    letters = words.map(lambda word: (word[0], len(word))).key_by(lambda pair: pair[0])
    return {
        "counts": keyed.count(emit="final").collect(),
        "running": keyed.count().collect(),
        "longest": letters.max(lambda pair: pair[1], emit="final").collect(),
        "sums": letters.fold(lambda: 0, lambda total, pair: total + pair[1], emit="final").collect(),
        "long words": words.filter(lambda word: len(word) > 4).map_batch(lambda batch: [word.upper() for word in batch]).collect(),
    }


# -- event time -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reading:
    """One measurement."""

    sensor: str
    time: int
    value: int


def readings(size: int) -> list[Reading]:
    """Out of order by up to five seconds; one in a hundred much later."""
    chance = random.Random(11)
    arriving: list[tuple[int, Reading]] = []
    for n in range(size):
        delay = 120_000 if chance.random() < 0.01 else chance.randrange(5_000)
        arriving.append((n * 250 + delay, Reading(f"s{chance.randrange(7)}", n * 250, chance.randrange(1000))))
    return [reading for _, reading in sorted(arriving, key=lambda pair: (pair[0], pair[1].time))]


def windows(env: sage.Environment, size: int) -> Results:
    """Every kind of window, late records, and timers.

    All behind one exchange: behind a second one, what is late depends on how its senders' records interleave.
    """
    late: sage.OutputTag[Reading] = sage.OutputTag("late")
    timed = env.from_collection(readings(size)).assign_timestamps(lambda r: r.time, sage.BoundedDisorder("5s"))
    keyed = timed.key_by(lambda r: r.sensor)
    minutes = keyed.window(sage.Tumbling("1m")).allowed_lateness("20s").late_output(late).sum(lambda r: r.value)
    return {
        "tumbling": minutes.collect(),
        "late": minutes.side_output(late).collect(),
        "sliding": keyed.window(sage.Sliding("2m", every="30s")).max(lambda r: r.value).collect(),
        "sessions": timed.filter(lambda r: r.value < 300).key_by(lambda r: r.sensor).window(sage.Session("7s")).count().collect(),
        "silent": keyed.process(Silent).collect(),
    }


class Silent(sage.KeyedProcessFunction[Reading, tuple[str, int]]):
    """Says when a sensor has been silent for five seconds."""

    def open(self, context: sage.FunctionContext) -> None:
        self.last = context.state.value("last", default=-1)

    def process(self, value: Reading, context: sage.KeyedContext) -> Iterator[tuple[str, int]]:
        self.last.set(max(self.last.get(), value.time))
        context.timers.event_time(value.time + 5_000)
        return iter(())

    def on_timer(self, timestamp: int, context: sage.KeyedContext) -> Iterator[tuple[str, int]]:
        if timestamp >= self.last.get() + 5_000:
            yield context.key, timestamp


def joins(env: sage.Environment, size: int) -> Results:
    """Joins in time of two streams, and two streams in one function."""
    orders = env.from_collection([(n, n * 700) for n in range(size)]).assign_timestamps(lambda o: o[1], sage.Monotonic())
    payments = env.from_collection([(n * 7 % size, n * 701 + 90) for n in range(size)]).assign_timestamps(lambda p: p[1], sage.Monotonic())
    by_order, by_payment = orders.key_by(lambda o: o[0] % 50), payments.key_by(lambda p: p[0] % 50)
    return {
        "interval": by_order.interval_join(by_payment, lower="-10s", upper="10s").collect(),
        "window": by_order.join(by_payment, window=sage.Tumbling("30s"), how="left").collect(),
        "as of": by_order.as_of_join(by_payment).collect(),
    }


# -- Nexmark ----------------------------------------------------------------------------------------------------------


def nexmark(env: sage.Environment, size: int) -> Results:
    """A pass-through, a join with state, sliding windows, a join of windows."""
    events = generate(size, Settings(seed=1))
    return {name: QUERIES[name].on(env, env.from_collection(events)).collect() for name in ("q0", "q3", "q5", "q8")}


PIPELINES: dict[str, tuple[Callable[[sage.Environment, int], Results], int, dict[str, object]]] = {
    "text": (text, 600, {}),
    "windows": (windows, 1500, {}),
    "joins": (joins, 400, {}),
    "nexmark": (nexmark, 2000, CONFIG),
}
"""How it is described, its size in every run, and its settings."""


def results_of(pipeline: str, backend: str, parallelism: int, size: int) -> dict[str, Counter[str]]:
    """What each end of a pipeline has got, as a multiset."""
    describe, _, config = PIPELINES[pipeline]

    async def main() -> Results:
        settings = {"batch.records": 64, **config}
        async with asyncio.timeout(55), sage.Environment(pipeline, backend=backend, parallelism=parallelism, config=settings) as env:
            found = describe(env, size)
            await env.execute()
        return found

    return {name: Counter(map(repr, records)) for name, records in asyncio.run(main()).items()}


def differences(found: Mapping[str, Counter[str]], expected: Mapping[str, Counter[str]]) -> dict[str, list[str]]:
    """By end, some of what is too much (+) or missing (-)."""
    assert found.keys() == expected.keys()
    return {
        name: [f"+{text}" for text in (found[name] - expected[name])][:3] + [f"-{text}" for text in (expected[name] - found[name])][:3]
        for name in expected
        if found[name] != expected[name]
    }


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_the_results_are_those_of_one_task_here(pipeline: str, backend: str) -> None:
    size = PIPELINES[pipeline][1]
    expected = results_of(pipeline, "local", 1, size)
    assert all(expected.values()), "each end gets something"
    assert not differences(results_of(pipeline, backend, 2, size), expected)


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_more_records_change_nothing(pipeline: str, backend: str) -> None:
    size = PIPELINES[pipeline][1] * 10
    assert not differences(results_of(pipeline, backend, 3, size), results_of(pipeline, "local", 1, size))


def test_the_word_count_is_that_of_a_counter(backend: str) -> None:
    found = results_of("text", backend, 2, 300)
    words = [word for n in range(300) for word in f"the fox number {n % 37} jumps over {n * n % 11} lazy dogs".split()]
    assert found["counts"] == Counter(repr(pair) for pair in Counter(words).items())


# Those that check themselves, and whose functions do not talk to the memory of their program.
EXAMPLES = ("word_count", "late_readings", "order_joins", "card_fraud", "iterate", "dead_letters", "savepoint_rescale")


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_checks_itself_on_every_backend(example: str, backend: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sage_actor", "run", "--backend", backend, str(ROOT / "examples" / f"{example}.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_program_that_is_killed_again_and_again(backend: str, tmp_path: Path) -> None:
    """The specification's program names two backends; the same text with another one in their place."""
    program = PROGRAMS / "32_exactly_once.py"
    if not program.exists():
        pytest.skip("the folder of the specification's programs does not lie beside this repository (../shared/programs)")
    line = 'for backend in ("local", "process"):'
    text = program.read_text()
    assert line in text
    changed = tmp_path / program.name
    changed.write_text(text.replace(line, f"for backend in ({backend!r},):"))
    done = subprocess.run([sys.executable, str(changed)], cwd=tmp_path, capture_output=True, text=True, timeout=290, check=False)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
