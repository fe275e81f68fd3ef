"""Checkpoints, restarts, savepoints and resumption, through the public face. Crashes of whole processes: tests/kill9."""

from __future__ import annotations

import asyncio
import functools
import os
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest

import sage_actor as sage
from sage_actor.testing import Simulation

QUICK = {"restart.delay": 0, "restart.jitter": 0}


def simulated(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run once in virtual time; on a real disk, so a second run would find what the first has left."""

    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        Simulation(0).run(lambda: test(**fixtures))

    return run


class Numbers(sage.Source[int]):
    """0 .. count-1, dealt over the tasks in splits that can be divided anew; a few at a time."""

    def __init__(self, count: int = 1000, step: int = 10) -> None:
        self.count = count
        self.step = step
        self.ranges: list[tuple[int, int]] = []

    async def open(self, context: sage.FunctionContext) -> None:
        share = -(-self.count // context.parallelism)
        begin = context.subtask_index * share
        self.ranges = [(begin, min(self.count, begin + share))]

    async def read(self, limit: int) -> Sequence[int] | None:
        await asyncio.sleep(0.01)  # of virtual time: checkpoints come between
        while self.ranges and self.ranges[0][0] >= self.ranges[0][1]:
            self.ranges.pop(0)
        if not self.ranges:
            return None
        begin, end = self.ranges[0]
        stop = min(end, begin + min(limit, self.step))
        self.ranges[0] = (stop, end)
        return list(range(begin, stop))

    def splits(self) -> Sequence[object]:
        return [part for part in self.ranges if part[0] < part[1]]

    async def assign(self, splits: Sequence[object]) -> None:
        self.ranges = [part for part in splits if isinstance(part, tuple)]


class Failing:
    """Raises once, when it has seen so many records; it remembers over attempts."""

    def __init__(self, *at: int) -> None:
        self.at = list(at)
        self.seen = 0

    def __call__(self, value: int) -> int:
        self.seen += 1
        if self.at and self.seen >= self.at[0]:
            self.at.pop(0)
            raise RuntimeError(f"on purpose, at record {self.seen}")
        return value

    def __deepcopy__(self, memo: object) -> Failing:
        return self


def environment(name: str, folder: Path, parallelism: int = 1, **more: Any) -> sage.Environment:
    resume, restore = more.pop("resume", None), more.pop("restore", None)
    config = {"checkpoint.dir": str(folder), "checkpoint.every": 100, "batch.records": 16, **QUICK, **more}
    return sage.Environment(name, parallelism=parallelism, config=config, resume=resume, restore=restore)


def count_by_last_digit(env: sage.Environment, failing: Failing | None = None, count: int = 1000) -> Any:
    stream = env.from_source(Numbers, count=count)
    if failing is not None:
        stream = stream.map(failing)
    return stream.key_by(lambda n: n % 10).count()


def expected(count: int = 1000) -> Counter[tuple[int, int]]:
    return Counter((digit, n + 1) for digit in range(10) for n in range(count // 10))


@pytest.mark.rule("F44")
@pytest.mark.rule("F4")
@pytest.mark.parametrize("parallelism", [1, 2, 4])
@simulated
async def test_collected_results_are_exactly_once_over_restarts(tmp_path: Path, parallelism: int) -> None:
    async with environment("once", tmp_path, parallelism) as env:
        out = count_by_last_digit(env, Failing(350, 900, 1200)).collect()
        job = await env.submit()
        await job.wait()
    assert job.attempts == 4
    assert job.restored_from is not None
    assert Counter(out) == expected()


@pytest.mark.rule("F9")
@simulated
async def test_at_least_once_loses_nothing(tmp_path: Path) -> None:
    async with environment("least", tmp_path, 4, checkpointing="at_least_once") as env:
        out = count_by_last_digit(env, Failing(500)).collect()
        await env.execute()
    highest = {digit: max(n for key, n in out if key == digit) for digit in range(10)}
    assert all(n >= 100 for n in highest.values())


@simulated
async def test_a_finished_job_leaves_no_checkpoint(tmp_path: Path) -> None:
    async with environment("clean", tmp_path) as env:
        count_by_last_digit(env).collect()
        job = await env.submit()
        await job.wait()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.rule("F10")
@pytest.mark.rule("F15")
@pytest.mark.parametrize(("first", "second"), [(2, 3), (3, 1), (1, 4), (2, 2)])
@simulated
async def test_a_savepoint_ends_the_job_and_is_restored_at_another_parallelism(tmp_path: Path, first: int, second: int) -> None:
    reached = asyncio.Event()

    def watch(value: int) -> int:
        if value % 1000 > 300:
            reached.set()
        return value

    async with environment("moved", tmp_path / "old", first) as env:
        before = count_by_last_digit(env, None, 4000).map(lambda pair: pair).collect()
        env.from_source(Numbers, count=4000).map(watch).sink(lambda _: None)
        job = await env.submit()
        await reached.wait()
        place = await job.savepoint(str(tmp_path / "kept"), stop=True)
        await job.wait()
    assert job.status == "finished"
    assert 0 < len(before) < 4000, "event time does not end, and neither does the input"
    async with environment("moved", tmp_path / "new", second, restore=place) as env:
        after = count_by_last_digit(env, None, 4000).map(lambda pair: pair).collect()
        env.from_source(Numbers, count=4000).map(watch).sink(lambda _: None)
        await env.execute()
    assert Counter(after) == expected(4000), "results collected before the savepoint are part of it"


async def leave_a_checkpoint(folder: Path, name: str, parallelism: int = 1, **more: Any) -> None:
    """A run that fails for good, with a checkpoint behind it."""
    with pytest.raises(sage.OperatorError, match="on purpose"):
        async with environment(name, folder, parallelism, **{"restart.strategy": "none", **more}) as env:
            count_by_last_digit(env, Failing(600)).collect()
            await env.execute()


@pytest.mark.parametrize("parallelism", [1, 3])
@simulated
async def test_another_run_resumes(tmp_path: Path, parallelism: int) -> None:
    await leave_a_checkpoint(tmp_path, "again")
    async with environment("again", tmp_path, parallelism, resume=True) as env:
        out = count_by_last_digit(env, Failing()).collect()
        job = await env.submit()
        await job.wait()
    assert job.restored_from is not None
    assert Counter(out) == expected()


@simulated
async def test_without_resume_it_begins_anew_and_keeps_what_is_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    await leave_a_checkpoint(tmp_path, "anew")
    files = {path for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(sage.OperatorError):
        async with environment("anew", tmp_path, **{"restart.strategy": "none", "checkpoint.every": 100_000}) as env:
            count_by_last_digit(env, Failing(5)).collect()
            await env.execute()
    assert env.jobs[0].restored_from is None
    assert files <= {path for path in tmp_path.rglob("*") if path.is_file()}
    assert "earlier run" in caplog.text


@simulated
async def test_resuming_where_nothing_is_begins_at_the_beginning(tmp_path: Path) -> None:
    async with environment("fresh", tmp_path, resume=True) as env:
        out = count_by_last_digit(env).collect()
        await env.execute()
    assert Counter(out) == expected()


@simulated
async def test_a_graph_that_has_lost_an_operator_is_refused_and_can_be_allowed(tmp_path: Path) -> None:
    await leave_a_checkpoint(tmp_path, "changed")

    def other(env: sage.Environment) -> Any:
        return env.from_source(Numbers, count=1000).map(Failing(), name="Failing").collect(name="numbers")

    with pytest.raises(sage.StateMismatch, match="count") as caught:
        async with environment("changed", tmp_path, resume=True) as env:
            other(env)
            await env.execute()
    assert "allow_unmatched" in str(caught.value)
    async with environment("changed", tmp_path, resume=True, **{"checkpoint.allow_unmatched": True}) as env:
        out = other(env)
        await env.execute()
    assert max(out) == 999


@pytest.mark.rule("F15")
@simulated
async def test_another_max_parallelism_is_refused(tmp_path: Path) -> None:
    await leave_a_checkpoint(tmp_path, "wide", max_parallelism=64)
    with pytest.raises(sage.StateMismatch, match="64"):
        async with environment("wide", tmp_path, resume=True, max_parallelism=32) as env:
            count_by_last_digit(env, Failing()).collect()
            await env.execute()


@simulated
async def test_a_uid_keeps_its_state_under_another_name(tmp_path: Path) -> None:
    def graph(env: sage.Environment, failing: Failing, name: str) -> Any:
        return (
            env.from_source(Numbers, count=1000)
            .uid("numbers")
            .map(failing)
            .key_by(lambda n: n % 10)
            .count(name=name)
            .uid("counts")
            .collect()
        )

    with pytest.raises(sage.OperatorError):
        async with environment("uids", tmp_path, **{"restart.strategy": "none"}) as env:
            graph(env, Failing(600), "first name")
            await env.execute()
    async with environment("uids", tmp_path, resume=True) as env:
        out = graph(env, Failing(), "second name")
        await env.execute()
    assert Counter(out) == expected()


@simulated
async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(sage.CheckpointError, match="file"):
        async with environment("nowhere", tmp_path / "file") as env:
            count_by_last_digit(env).collect()
            await env.execute()
    assert (tmp_path / "file").read_text() == "in the way"


@simulated
async def test_resume_needs_checkpoints_and_a_place() -> None:
    for config, wanted in (({}, "checkpoint.interval"), ({"checkpoint.interval": "1s"}, "checkpoint.dir")):
        with pytest.raises(sage.CheckpointError, match=wanted):
            async with sage.Environment("lost", resume=True, config=config) as env:
                env.from_collection([1]).collect()
                await env.execute()


@simulated
async def test_the_same_error_at_the_same_position_is_final(tmp_path: Path) -> None:
    def poison(value: int) -> int:
        if value == 555:
            raise ValueError("poisoned")
        return value

    async with environment("poisoned", tmp_path) as env:
        env.from_source(Numbers, count=1000).map(poison).collect()
        job = await env.submit()
        with pytest.raises(sage.OperatorError, match="poisoned"):
            await job.wait()
    assert job.attempts == 3


@simulated
async def test_a_source_object_begins_anew_with_each_attempt(tmp_path: Path) -> None:
    async with environment("object", tmp_path, **{"checkpoint.every": 100_000}) as env:
        out = env.from_source(Numbers(count=300)).map(Failing(150)).collect()
        job = await env.submit()
        await job.wait()
    assert job.attempts == 2
    assert job.restored_from is None
    assert list(out) == list(range(300))


@simulated
async def test_what_can_be_read_only_once_is_not_restarted(tmp_path: Path) -> None:
    async with environment("once-only", tmp_path) as env:
        env.from_source(n for n in range(300)).map(Failing(150)).collect()
        job = await env.submit()
        with pytest.raises(sage.OperatorError) as caught:
            await job.wait()
    assert job.attempts == 1
    assert "cannot be read again" in caught.value.__notes__[0]


@simulated
async def test_without_checkpoints_a_failure_is_the_end() -> None:
    async with sage.Environment("plain") as env:
        env.from_source(Numbers, count=1000).map(Failing(500)).collect()
        job = await env.submit()
        with pytest.raises(sage.OperatorError):
            await job.wait()
    assert job.attempts == 1


@pytest.mark.parametrize(
    ("strategy", "attempts"),
    [
        ({"restart.strategy": "fixed-delay", "restart.attempts": 2}, 3),
        ({"restart.strategy": "exponential-delay", "restart.attempts": 4}, 5),
        ({"restart.strategy": "failure-rate", "restart.failures": 1, "restart.interval": "1h"}, 2),
        ({"restart.strategy": "none"}, 1),
    ],
)
@simulated
async def test_restart_strategies(tmp_path: Path, strategy: dict[str, Any], attempts: int) -> None:
    async with environment("strategies", tmp_path, **strategy) as env:
        count_by_last_digit(env, Failing(*range(100, 2000, 70))).collect()
        job = await env.submit()
        with pytest.raises(sage.OperatorError):
            await job.wait()
    assert job.attempts == attempts


@pytest.mark.rule("F31")
@pytest.mark.rule("F32")
@pytest.mark.rule("F33")
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_calls_in_flight_are_made_again_after_a_restart(tmp_path: Path, ordered: bool, seed: int) -> None:
    async def main() -> tuple[list[Any], int]:
        async def slow(n: int) -> int:
            await asyncio.sleep((n * 7919 % 13) / 1000)
            return n

        async with environment("async", tmp_path / f"{seed}{ordered}", **{"checkpoint.every": 40, "restart.delay": 0.01}) as env:
            out = (
                env.from_source(Numbers, count=300)
                .assign_timestamps(lambda n: n * 10)
                .map_async(slow, concurrency=20, ordered=ordered)
                .map(Failing(120, 200))
                .key_by(lambda n: 0)
                .window(sage.Tumbling(100))
                .count()
                .collect()
            )
            job = await env.submit()
            await job.wait()
        return list(out), job.attempts

    out, attempts = Simulation(seed).run(main)
    assert attempts == 3
    assert [(result.start, result.value) for result in out] == [(n * 100, 10) for n in range(30)], "nothing crosses a watermark"


@pytest.mark.rule("F33")
@pytest.mark.parametrize("seed", range(6))
def test_keyed_calls_follow_their_key_when_the_parallelism_changes(tmp_path: Path, seed: int) -> None:
    folder = tmp_path / str(seed)

    async def slow(n: int) -> int:
        await asyncio.sleep((n * 7919 % 13) / 1000)
        return n

    def graph(env: sage.Environment, failing: Failing) -> Any:
        return env.from_source(Numbers, count=300).key_by(lambda n: n % 7).map_async(slow, concurrency=10).map(failing, name="f").collect()

    async def first() -> None:
        async with environment("follow", folder, 2, **{"checkpoint.every": 40, "restart.strategy": "none"}) as env:
            graph(env, Failing(200))
            with pytest.raises(sage.OperatorError):
                await env.execute()

    async def second() -> list[int]:
        async with environment("follow", folder, 3, resume=True, **{"checkpoint.every": 40}) as env:
            out = graph(env, Failing())
            await env.execute()
        return list(out)

    Simulation(seed).run(first)
    out = Simulation(seed).run(second)
    assert Counter(out) == Counter(range(300))
    for key in range(7):
        of_key = [n for n in out if n % 7 == key]
        assert of_key == sorted(of_key), "one at a time for each key, in order"


@pytest.mark.rule("F33a")
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_what_a_call_writes_counts_once_with_its_result(tmp_path: Path, ordered: bool, seed: int) -> None:
    class Numbering(sage.MapFunction[int, Any]):
        def open(self, context: sage.FunctionContext) -> None:
            self.count = context.state.value("count", default=0)
            self.seen = context.state.list("seen")

        async def map(self, value: int) -> Any:
            number = self.count.get() + 1
            await asyncio.sleep((value * 7919 % 13) / 1000)
            self.count.set(number)
            self.seen.append(value)
            await asyncio.sleep(0.001)
            return value % 7, number, len(self.seen)

    async def main() -> tuple[list[Any], int]:
        async with environment("writes", tmp_path, 2, **{"checkpoint.every": 40, "restart.delay": 0.01}) as env:
            stream = env.from_source(Numbers, count=350).key_by(lambda n: n % 7)
            out = stream.map_async(Numbering(), concurrency=10, ordered=ordered).map(Failing(120, 200)).collect()
            job = await env.submit()
            await job.wait()
        return list(out), job.attempts

    out, attempts = Simulation(seed).run(main)
    assert attempts == 3
    assert sorted(out) == [(key, n, n) for key in range(7) for n in range(1, 51)]


@pytest.mark.rule("F44")
@simulated
async def test_committed_records_come_once_and_plain_iteration_at_least_once(tmp_path: Path) -> None:
    async with environment("committed", tmp_path) as env:
        stream = count_by_last_digit(env, Failing(350, 800))
        committed = [pair async for pair in stream.committed()]
    assert Counter(committed) == expected()
    async with environment("immediate", tmp_path) as env:
        stream = count_by_last_digit(env, Failing(350, 800))
        seen = Counter([pair async for pair in stream])
    assert seen.keys() == expected().keys()
    assert seen.total() > 1000


def test_committed_needs_checkpoints() -> None:
    env = sage.Environment("none")
    with pytest.raises(sage.GraphError, match=r"checkpoint\.interval"):
        env.from_collection([1]).committed()


@pytest.mark.rule("F9")
def test_a_checkpoint_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    async def main() -> tuple[int, BaseException | None, list[int]]:
        blocked = [True]

        async def stuck(n: int) -> int:
            if n == 50 and blocked[0]:
                blocked[0] = False
                await asyncio.sleep(100)
            return n

        config = {"checkpoint.interval": "1s", "checkpoint.timeout": "5s"}
        async with environment("slow", tmp_path, **config, **{"checkpoint.every": 100_000}) as env:
            out = env.from_source(Numbers, count=5000).map_async(stuck, concurrency=1).collect()
            job = await env.submit()
            await job.wait()
        return job.attempts, job.latest_error, list(out)

    attempts, error, out = Simulation(0).run(main)
    assert attempts == 2
    assert isinstance(error, sage.CheckpointError)
    assert "not complete after 5 s" in str(error)
    assert "stuck" in str(error), "it says who was waited for"
    assert out == list(range(5000))


def test_the_watchdog_ends_an_attempt_that_stands_still(tmp_path: Path) -> None:
    async def main() -> tuple[int, BaseException | None, int]:
        hung = [True]

        class Hanging(sage.Sink[int]):
            async def write(self, batch: Sequence[int]) -> None:
                if hung[0]:
                    hung[0] = False
                    await asyncio.sleep(1e9)
                written.extend(batch)

        written: list[int] = []
        config = {"watchdog.timeout": "60s", "checkpoint.timeout": "1h", "buffer.records": 16, "checkpoint.interval": "1s"}
        async with environment("hangs", tmp_path, **config) as env:
            env.from_source(Numbers, count=1000).rebalance().sink(Hanging())
            job = await env.submit()
            await job.wait()
        return job.attempts, job.latest_error, len(set(written))

    attempts, error, written = Simulation(0).run(main)
    assert attempts == 2
    assert "no task has made progress" in str(error)
    assert written == 1000


@pytest.mark.rule("F37")
@pytest.mark.rule("F40")
@simulated
async def test_state_and_timers_go_on_after_a_failure(tmp_path: Path) -> None:
    class Sessions(sage.KeyedProcessFunction[int, Any]):
        def open(self, context: sage.FunctionContext) -> None:
            self.seen = context.state.value("seen", default=0)

        def process(self, value: int, context: sage.KeyedContext) -> Any:
            self.seen.set(self.seen.get() + 1)
            context.timers.event_time(10_000)
            return ()

        def on_timer(self, timestamp: int, context: sage.KeyedContext) -> Any:
            yield context.key, self.seen.get()

    async with environment("timers", tmp_path, 2) as env:
        out = (
            env.from_source(Numbers, count=1000)
            .assign_timestamps(lambda n: n)
            .map(Failing(350, 700))
            .key_by(lambda n: n % 10)
            .process(Sessions())
            .collect()
        )
        job = await env.submit()
        await job.wait()
    assert job.attempts == 3
    assert sorted(out) == [(digit, 100) for digit in range(10)]


@pytest.mark.parametrize("backend", ["local", "process"])
@pytest.mark.parametrize("state", ["memory", "rocksdb"])
@pytest.mark.asyncio
async def test_every_backend_of_workers_and_of_state(tmp_path: Path, backend: str, state: str) -> None:
    flag = tmp_path / "failed"

    def fail_once(value: int) -> int:
        if value == 900 and not os.path.exists(flag):
            open(flag, "w").close()
            raise RuntimeError("on purpose")
        return value

    config = {"backend": backend, "state.backend": state}
    async with environment("all", tmp_path / "checkpoints", 2, **config) as env:
        out = count_by_last_digit(env).map(lambda pair: pair).collect(), env.from_source(Numbers, count=1000).map(fail_once).collect()
        job = await env.submit()
        await job.wait()
    assert job.attempts == 2
    assert Counter(out[0]) == expected()
    assert sorted(out[1]) == list(range(1000))
