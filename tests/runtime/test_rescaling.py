"""Another parallelism while the job runs: nothing lost, nothing twice, order kept per key, and what cannot move is refused by name."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any, ClassVar

import pytest

import sage_actor as sage
from sage_actor.ports import current_clock
from sage_actor.testing import Simulation
from sage_actor.testing.simulated_disk import DiskFaults, SimulatedDisk

COUNT, KEYS = 2000, 10


class Numbers(sage.Source[int]):
    """0 .. count-1, so many at a time and so often; read by one task, which knows its position."""

    def __init__(self, count: int = COUNT, step: int = 10, pause: float = 0.01) -> None:
        self.count, self.step, self.pause = count, step, pause
        self.next = 0

    async def read(self, limit: int) -> Sequence[int] | None:
        await asyncio.sleep(self.pause)
        begin, self.next = self.next, min(self.count, self.next + min(limit, self.step))
        return list(range(begin, self.next)) or None

    def position(self) -> object:
        return self.next

    async def seek(self, position: object) -> None:
        assert isinstance(position, int)
        self.next = position


class Ranges(Numbers):
    """The same, dealt over the tasks and dealt anew."""

    async def open(self, context: sage.FunctionContext) -> None:
        share = -(-self.count // context.parallelism)
        self.ranges = [(context.subtask_index * share, min(self.count, (context.subtask_index + 1) * share))]

    async def read(self, limit: int) -> Sequence[int] | None:
        await asyncio.sleep(self.pause)
        self.ranges = [(begin, end) for begin, end in self.ranges if begin < end]
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


def environment(name: str = "moves", **config: Any) -> sage.Environment:
    disk = SimulatedDisk(Random(0), current_clock(), DiskFaults())
    asyncio.get_running_loop().sage_disk = disk  # type: ignore[attr-defined]
    given = {"checkpoint.dir": "checkpoints", "checkpointing": "on_demand", "max_parallelism": 32, **config}
    return sage.Environment(name, config={key: value for key, value in given.items() if value is not None})


def is_counted_once(out: Sequence[tuple[int, int]], count: int = COUNT) -> bool:
    """Whether every record of every key has come once, and those of a key in order."""
    seen: dict[int, list[int]] = {}
    for key, number in out:
        seen.setdefault(key, []).append(number)
    return seen == {key: list(range(1, len(range(key, count, KEYS)) + 1)) for key in range(KEYS)}


@pytest.mark.rule("F15")
@pytest.mark.rule("F44")
@pytest.mark.parametrize("seed", range(60))
def test_every_record_counts_once_through_any_changes(seed: int) -> None:
    chance = Random(seed)

    async def main() -> tuple[list[Any], sage.Job]:
        config = {"buffer.records": chance.choice((1, 2, 64)), "batch.records": chance.choice((1, 7, 256))}
        async with environment(**config) as env:
            source = env.from_source(Ranges, name="numbers", parallelism=chance.choice((None, 1, 3)))
            counted = source.key_by(lambda n: n % KEYS).count(name="counts")
            out = counted.collect()
            job = await env.submit()
            for _ in range(chance.randint(1, 4)):
                await asyncio.sleep(chance.random() * 0.4)
                if job.done:
                    break
                wanted = chance.choice((chance.randint(1, 5), {"counts": chance.randint(1, 5)}, {"numbers": chance.randint(1, 3)}))
                with contextlib.suppress(sage.CheckpointError):  # the input may have ended
                    await job.rescale(wanted)
            async with asyncio.timeout(300):
                await job.wait()
        return list(out), job

    out, job = Simulation(seed).run(main)
    assert Counter(out) == Counter((key, number) for key in range(KEYS) for number in range(1, COUNT // KEYS + 1))
    assert job.attempts == 1 + job.rescales
    assert job.latest_error is None


def test_order_is_kept_per_key_and_the_plan_follows() -> None:
    async def main() -> tuple[list[Any], list[int], list[str]]:
        seen: list[int] = []
        async with environment() as env:
            counted = env.from_source(Numbers, name="numbers").key_by(lambda n: n % KEYS).count(name="counts")
            out = counted.collect()
            job = await env.submit()
            states: list[str] = []
            for wanted in (3, 5, 1):
                await asyncio.sleep(0.2)
                moving = asyncio.ensure_future(job.rescale(wanted))
                while not moving.done():
                    states.append(job.status)
                    await asyncio.sleep(0)
                await moving
                seen.append(job.metrics().operators["counts"]["parallelism"])
            await job.wait()
        return list(out), seen, states

    out, seen, states = Simulation(1).run(main)
    assert is_counted_once(out)
    assert seen == [3, 5, 1]
    assert {"running", "rescaling"} == set(states)


class Transactions(sage.Sink[Any]):
    """Rows become visible when the checkpoint behind them is complete; a second commit of the same rows does nothing."""

    visible: ClassVar[dict[int, list[Any]]] = {}
    number = 0

    def __init__(self) -> None:
        self.rows: list[Any] = []

    async def write(self, batch: Sequence[Any]) -> None:
        self.rows.extend(batch)

    async def prepare(self, checkpoint: int) -> object:
        Transactions.number += 1
        rows, self.rows = self.rows, []
        return Transactions.number, rows

    async def commit(self, checkpoint: int, prepared: Any) -> None:
        await asyncio.sleep(0.01)
        Transactions.visible[prepared[0]] = prepared[1]

    async def recover(self, prepared: Any, recovery: Any) -> None:
        for _, (number, rows) in prepared:
            Transactions.visible[number] = rows


@pytest.mark.rule("F24")
@pytest.mark.rule("F25")
@pytest.mark.parametrize("seed", range(10))
def test_what_sinks_have_prepared_is_committed_once(seed: int) -> None:
    async def main() -> list[Any]:
        Transactions.visible = {}
        async with environment() as env:
            env.from_source(Numbers).rebalance().map(lambda n: n).sink(Transactions)
            job = await env.submit()
            for wanted in (3, 1, 2):
                await asyncio.sleep(Random(seed).random() * 0.5)
                await job.rescale(wanted)
            await job.wait()
        return sorted(row for rows in Transactions.visible.values() for row in rows)

    assert Simulation(seed).run(main) == list(range(COUNT))


def test_nothing_changes_where_everything_is_as_it_is_asked_for() -> None:
    async def main() -> tuple[list[Any], int]:
        async with environment() as env:
            out = env.from_source(Numbers).key_by(lambda n: n % KEYS).count(name="counts").collect()
            job = await env.submit()
            await asyncio.sleep(0.2)
            await job.rescale({"counts": 1})
            await job.wait()
        return list(out), job.attempts

    out, attempts = Simulation(2).run(main)
    assert is_counted_once(out)
    assert attempts == 1


REFUSED: list[tuple[str, Callable[[sage.Job], Awaitable[None]], type[Exception], str]] = [
    ("operator", lambda job: job.rescale({"cuonts": 2}), sage.GraphError, "did you mean 'counts'"),
    ("number", lambda job: job.rescale(0), sage.GraphError, "at least 1"),
    ("owner", lambda job: job.rescale({"collect": 2}), sage.GraphError, "submitting process"),
    ("groups", lambda job: job.rescale(33), sage.GraphError, "max_parallelism 32"),
    ("source", lambda job: job.rescale({"numbers": 2}), sage.GraphError, "splits"),
    ("workers", lambda job: job.rescale(workers=2), sage.GraphError, "no number of workers"),
]


@pytest.mark.parametrize(("ask", "kind", "text"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_cannot_be_is_refused_and_the_job_goes_on(ask: Any, kind: type[Exception], text: str) -> None:
    async def main() -> list[Any]:
        async with environment() as env:
            out = env.from_source(Numbers, name="numbers").key_by(lambda n: n % KEYS).count(name="counts").collect()
            job = await env.submit()
            await asyncio.sleep(0.2)
            with pytest.raises(kind, match=text):
                await ask(job)
            await job.wait()
            assert job.rescales == 0
            with pytest.raises(sage.CheckpointError, match="does not run"):
                await job.rescale(2)
        return list(out)

    assert is_counted_once(Simulation(3).run(main))


def test_jobs_that_cannot_be_suspended_say_why() -> None:
    async def main() -> None:
        async with environment(checkpointing=None) as env:
            env.from_source(Numbers).key_by(lambda n: n % KEYS).count().collect()
            job = await env.submit()
            with pytest.raises(sage.CheckpointError, match="on_demand"):
                await job.rescale(2)
            await job.wait()
        async with environment() as env:
            env.from_source((n for n in range(COUNT)), name="a generator").key_by(lambda n: n % KEYS).count().collect()
            job = await env.submit()
            with pytest.raises(sage.CheckpointError, match="a generator"):
                await job.rescale(2)
            await job.wait()
        async with environment() as env:
            service = await env.from_requests().map(lambda n: n + 1).serve()
            with pytest.raises(sage.CheckpointError, match="requests"):
                await env.jobs[-1].rescale(2)
            assert await service(1) == 2

    Simulation(4).run(main)


class Single(sage.Sink[Any]):
    """One object that cannot be copied for a second task."""

    def __init__(self) -> None:
        self.rows: list[Any] = []

    async def write(self, batch: Sequence[Any]) -> None:
        self.rows.extend(batch)

    def __deepcopy__(self, memo: object) -> Single:
        raise TypeError("there is only one")


def test_what_cannot_be_started_goes_back_and_is_no_failure() -> None:
    async def main() -> tuple[list[Any], sage.Job]:
        sink = Single()
        async with environment(**{"restart.strategy": "none"}) as env:
            env.from_source(Numbers).rebalance().map(lambda n: n).sink(sink)
            job = await env.submit()
            await asyncio.sleep(0.2)
            with pytest.raises(sage.GraphError, match="cannot be copied for 2 tasks"):
                await job.rescale(2)
            await job.wait()
        return sink.rows, job

    rows, job = Simulation(5).run(main)
    assert rows == list(range(COUNT))
    assert (job.status, job.rescales, job.latest_error) == ("finished", 0, None)


def test_a_failure_after_a_change_goes_on_in_the_new_division() -> None:
    async def main() -> tuple[list[Any], sage.Job, int]:
        failed: list[int] = []

        def fail(n: int) -> int:
            if n == 1500 and not failed:
                failed.append(n)
                raise RuntimeError("on purpose")
            return n

        async with environment(checkpointing=None, **{"checkpoint.interval": 0.5, "restart.delay": 0.1}) as env:
            out = env.from_source(Numbers).map(fail).key_by(lambda n: n % KEYS).count(name="counts").collect()
            job = await env.submit()
            await asyncio.sleep(0.2)
            await job.rescale(4)
            await job.wait()
        return list(out), job, job.metrics().operators["counts"]["parallelism"]

    out, job, parallelism = Simulation(6).run(main)
    assert is_counted_once(out)
    assert (job.attempts, job.rescales, parallelism) == (3, 1, 4)


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("how", ["stop", "cancel", "savepoint", "give up"])
def test_a_job_can_end_at_any_point_of_a_change(how: str, seed: int) -> None:
    async def main() -> tuple[str, list[int]]:
        written: list[int] = []
        async with environment() as env:
            env.from_source(Numbers, count=100_000).rebalance().map(lambda n: n).sink(written.append)
            job = await env.submit()
            await asyncio.sleep(0.2)
            moving = asyncio.ensure_future(job.rescale(3))
            await asyncio.sleep(Random(seed).random() * 0.02)
            if how == "give up":
                moving.cancel()
                await asyncio.sleep(0.5)
                job.stop()
            elif how == "savepoint":
                place = await job.savepoint("kept", stop=True)
                assert place
            else:
                getattr(job, how)()
            outcome = (await asyncio.gather(moving, return_exceptions=True))[0]
            assert outcome is None or isinstance(outcome, sage.CheckpointError | asyncio.CancelledError)
            async with asyncio.timeout(30):
                if how == "cancel":
                    with pytest.raises(sage.JobCancelled):
                        await job.wait()
                else:
                    await job.wait()
        return job.status, written

    status, written = Simulation(seed).run(main)
    assert status == ("cancelled" if how == "cancel" else "finished")
    if how != "cancel":
        assert sorted(written) == list(range(len(written)))
        assert 0 < len(written) < 100_000


def test_changes_follow_one_another() -> None:
    async def main() -> tuple[list[Any], sage.Job, int]:
        async with environment() as env:
            out = env.from_source(Numbers).key_by(lambda n: n % KEYS).count(name="counts").collect()
            job = await env.submit()
            await asyncio.sleep(0.1)
            await asyncio.gather(*(job.rescale(wanted) for wanted in (2, 3, 4)))
            parallelism = job.metrics().operators["counts"]["parallelism"]
            await job.wait()
        return list(out), job, parallelism

    out, job, parallelism = Simulation(7).run(main)
    assert is_counted_once(out)
    assert job.rescales == 3
    assert parallelism in (2, 3, 4), "whichever of them was the last to be asked for"


class Staged(sage.Source[int]):
    """Read in the submitting process, as far as it is allowed."""

    allowed: asyncio.Queue[int]
    reached: asyncio.Event

    def __init__(self) -> None:
        self.next = self.end = 0

    async def read(self, limit: int) -> Sequence[int] | None:
        if self.next == self.end:
            Staged.reached.set()
            self.end = await Staged.allowed.get()
        begin, self.next = self.next, min(self.end, self.next + min(limit, 50))
        return list(range(begin, self.next)) or None

    def position(self) -> object:
        return self.next

    async def seek(self, position: object) -> None:
        assert isinstance(position, int)
        self.next = self.end = position


@pytest.mark.asyncio
async def test_workers_join_and_leave_while_keys_are_counted() -> None:
    Staged.allowed, Staged.reached = asyncio.Queue(), asyncio.Event()
    async with sage.Environment("elastic", backend="process", config={"checkpointing": "on_demand", "workers": 1}) as env:
        counted = env.from_source(Staged()).key_by(lambda n: n % KEYS).count(name="counts")
        out = counted.map(lambda row: (*row, os.getpid())).collect()
        job = await env.submit()
        for number, (parallelism, workers) in enumerate(((None, None), (4, 3), (None, 2), (1, None)), 1):
            await Staged.reached.wait()
            Staged.reached.clear()
            if number > 1:
                await job.rescale(parallelism, workers=workers)
                await Staged.reached.wait()  # the source, begun anew
                Staged.reached.clear()
            Staged.allowed.put_nowait(number * COUNT)
        await Staged.reached.wait()
        Staged.allowed.put_nowait(4 * COUNT)
        await job.wait()
    assert is_counted_once([(key, count) for key, count, _ in out], 4 * COUNT)
    share = COUNT // KEYS
    pids = [{pid for _, count, pid in out if stage * share < count <= (stage + 1) * share} for stage in range(4)]
    assert [len(group) for group in pids] == [1, 3, 2, 1], "as many as were asked for, each of them used"
    assert len(set.union(*pids)) == 7
    assert (job.attempts, job.rescales) == (4, 3)


@pytest.mark.parametrize("seed", range(20))
def test_a_change_waits_for_one_that_nobody_waits_for_any_more(seed: int) -> None:
    async def main() -> tuple[list[Any], sage.Job, int]:
        async with environment() as env:
            out = env.from_source(Numbers).key_by(lambda n: n % KEYS).count(name="counts").collect()
            job = await env.submit()
            await asyncio.sleep(0.1)
            moving = asyncio.ensure_future(job.rescale(3))
            while job.status != "rescaling":  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0)
            for _ in range(seed):
                await asyncio.sleep(0)
            moving.cancel()
            await job.rescale(2)
            parallelism = job.metrics().operators["counts"]["parallelism"]
            await job.wait()
        return list(out), job, parallelism

    out, job, parallelism = Simulation(seed).run(main)
    assert is_counted_once(out)
    assert (parallelism, job.rescales, job.latest_error) == (2, 2, None)


@pytest.mark.parametrize("seed", range(20))
def test_a_savepoint_waits_for_a_change(seed: int) -> None:
    async def main() -> tuple[list[Any], list[Any], sage.Job]:
        async with environment() as env:
            out = env.from_source(Numbers).key_by(lambda n: n % KEYS).count(name="counts").collect()
            job = await env.submit()
            await asyncio.sleep(0.1)
            moving = asyncio.ensure_future(job.rescale(3))
            while job.status != "rescaling":  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0)
            for _ in range(seed):
                await asyncio.sleep(0)
            place = await job.savepoint("kept")
            await moving
            await job.wait()
        async with sage.Environment("moves", restore=place, config={"checkpoint.dir": "checkpoints", "checkpointing": "on_demand"}) as env:
            again = env.from_source(Numbers).key_by(lambda n: n % KEYS).count(name="counts").collect()
            await env.execute()
        return list(out), list(again), job

    out, again, job = Simulation(seed).run(main)
    assert is_counted_once(out)
    assert is_counted_once(again)
    assert job.rescales == 1


def test_what_was_said_by_name_stays_said() -> None:
    async def main() -> list[int]:
        seen: list[int] = []
        async with environment() as env:
            env.from_source(Numbers).key_by(lambda n: n % KEYS).count(name="counts").rebalance().map(lambda row: row, name="rows").collect()
            job = await env.submit()
            await asyncio.sleep(0.1)
            await job.rescale({"counts": 1})  # as it is already
            await job.rescale(3)
            seen.extend(job.metrics().operators[name]["parallelism"] for name in ("counts", "rows"))
            await job.wait()
        return seen

    assert Simulation(8).run(main) == [1, 3]


@pytest.mark.rule("F15")
@pytest.mark.rule("F25")
@pytest.mark.parametrize("seed", range(60))
def test_changes_savepoints_and_failures_at_the_same_time(seed: int) -> None:
    """Whoever asks, gives up, or fails meanwhile: the job goes on, and from its last savepoint ends with every record counted once."""
    chance = Random(seed)
    failing = {chance.randrange(COUNT) for _ in range(chance.randint(0, 2))}

    def fail(n: int) -> int:
        if n in failing:
            failing.discard(n)
            raise RuntimeError("on purpose")
        return n

    def describe(env: sage.Environment) -> Any:
        source = env.from_source(Ranges, name="numbers", parallelism=2).map(fail, name="fails")
        return source.key_by(lambda n: n % KEYS).count(name="counts").collect()

    async def ask(job: sage.Job) -> None:
        for _ in range(3):
            await asyncio.sleep(chance.random() * 0.2)
            wanted = chance.choice((chance.randint(1, 4), {"counts": chance.randint(1, 4)}, {"numbers": chance.randint(1, 3)}))
            asking = asyncio.ensure_future(job.rescale(wanted) if chance.random() < 0.7 else job.savepoint())
            if chance.random() < 0.3:
                await asyncio.sleep(chance.random() * 0.02)
                asking.cancel()
            with contextlib.suppress(sage.CheckpointError, asyncio.CancelledError):  # it failed, or its input has ended
                await asking

    async def main() -> tuple[list[Any], sage.Job]:
        config = {"restart.strategy": "fixed-delay", "restart.delay": 0.01, "restart.attempts": 0, "buffer.records": chance.choice((1, 64))}
        place: str | None = None
        async with environment(**config) as env:
            out = describe(env)
            job = await env.submit()
            await asyncio.gather(*(ask(job) for _ in range(3)))
            with contextlib.suppress(sage.CheckpointError):
                place = await job.savepoint("kept", stop=True)
            async with asyncio.timeout(300):
                await job.wait()
        if place is not None:
            config |= {"checkpoint.dir": "checkpoints", "checkpointing": "on_demand"}
            async with sage.Environment("moves", restore=place, config=config) as env:
                out = describe(env)
                await env.execute()
        return list(out), job

    out, job = Simulation(seed).run(main)
    assert Counter(out) == Counter((key, number) for key in range(KEYS) for number in range(1, COUNT // KEYS + 1))
    assert job.status == "finished"


def test_a_change_whose_checkpoint_fails_leaves_the_job_as_it_was() -> None:
    """Nothing but the change has asked for that checkpoint, so only the change fails."""

    async def main() -> tuple[list[int], sage.Job]:
        written: list[int] = []

        class Slow(sage.Sink[int]):
            async def write(self, batch: Sequence[int]) -> None:
                for n in batch:
                    await asyncio.sleep(0.5)
                    written.append(n)

        async with environment(**{"checkpoint.timeout": 0.2, "buffer.records": 1, "batch.records": 1}) as env:
            env.from_source(Numbers, count=20, step=1).rebalance().sink(Slow, parallelism=2, name="slow")
            job = await env.submit()
            await asyncio.sleep(2.1)
            with pytest.raises(sage.CheckpointError, match=r"not complete after 0\.2 s"):
                await job.rescale({"slow": 3})
            await job.wait()
        return sorted(written), job

    written, job = Simulation(9).run(main)
    assert written == list(range(20))
    assert (job.status, job.attempts) == ("finished", 1)
