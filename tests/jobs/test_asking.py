"""What a supervised job is asked for while it runs: savepoints, state. And going on from checkpoints after its process died."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_actor.errors import JobError
from sage_actor.jobs.asking import AskRefused, key_from_json, plain_value
from sage_actor.jobs.record import JobRecord, JobSpec
from sage_actor.jobs.store import JobStore
from sage_actor.jobs.supervisor import Supervisor

TOTALS = """
import asyncio, os, sys
from pathlib import Path
import sage_actor as sage
from sage_actor.dataflow.process_functions import KeyedProcessFunction

class Numbers(sage.Source):
    '''0 to 99, and when the file "go" is there the rest up to 199.'''
    place = 0
    async def read(self, limit):
        if self.place >= 200:
            return None
        if self.place >= 100 and not Path("go").exists():
            await asyncio.sleep(0.01)
            return []
        await asyncio.sleep(0.001)
        begin, self.place = self.place, self.place + 10
        return list(range(begin, self.place))
    def position(self):
        return self.place
    async def seek(self, position):
        self.place = position

class Totals(KeyedProcessFunction):
    def open(self, context):
        self.total = context.state.value("total", default=0)
        self.seen = context.state.map("seen")
    def process(self, n, context):
        self.total.set(self.total.get() + n)
        self.seen[n // 100, 0] = n
        return [(context.key, self.total.get())]

async def flow(name="totals", **config):
    env = sage.Environment(name, config={"checkpoint.interval": "20ms", "batch.records": 10, **config})
    env.from_source(Numbers, bounded=False).key_by(lambda n: (n % 3, "x")).process(Totals, name="sums").sink(lambda pair: None)
    return await env.submit()

async def main():
    await (await flow()).wait()
"""
RUN = f"{TOTALS}\nasyncio.run(main())\n"
HALF = [sum(n for n in range(100) if n % 3 == key) for key in range(3)]
WHOLE = [sum(n for n in range(200) if n % 3 == key) for key in range(3)]


@dataclass
class Place:
    """A supervisor and where its jobs run."""

    running: Supervisor
    folder: Path

    async def submit(self, source: str = RUN, name: str = "totals", **options: Any) -> JobRecord:
        spec = JobSpec(name=name, kind="script", payload=source.encode(), filename=f"{name}.py", directory=str(self.folder), **options)
        return await self.running.submit(spec)

    def flows(self, job: JobRecord) -> list[dict[str, Any]]:
        return list(json.loads(self.running.find(job.id).metrics))

    async def until(self, job: JobRecord, true: Any) -> JobRecord:
        """Wait for something to become true of a job; the pauses are waits for its end, which is the end of hope."""
        async with asyncio.timeout(20):
            while not true(self.running.find(job.id)):
                assert self.running.find(job.id).ended is None, self.running.find(job.id)
                await self.running.wait(job.id, 0.02)
        return self.running.find(job.id)

    async def total(self, job: JobRecord, key: int) -> object:
        try:
            return (await self.running.query(job.id, "sums", "total", [key, "x"]))[1]
        except AskRefused:  # it starts, or has ended
            return None

    async def reaches(self, job: JobRecord, totals: list[int]) -> None:
        """Wait until the state is that; while the job starts, it may refuse."""
        async with asyncio.timeout(20):
            for key, expected in enumerate(totals):
                while await self.total(job, key) != expected:
                    assert (await self.running.wait(job.id, 0.02)).ended is None, (await self.running.read_log(job.id)).text

    async def begun(self, job: JobRecord) -> dict[str, Any]:
        """What is reported of a dataflow once it has decided where to begin."""
        await self.until(job, lambda record: self.flows(job) and self.flows(job)[0]["attempts"] > 0)
        return self.flows(job)[0]

    async def has_checkpoint_beyond(self, job: JobRecord, number: int) -> int:
        def newest() -> int:
            return max((flow["metrics"]["checkpoints"]["newest"] for flow in self.flows(job)), default=0)

        await self.until(job, lambda record: newest() > number)
        return newest()

    async def finished(self, job: JobRecord) -> JobRecord:
        record = await self.running.wait(job.id, 20)
        assert record.status == "finished", (record, (await self.running.read_log(job.id)).text)
        return record


@asynccontextmanager
async def supervisor(home: Path) -> AsyncGenerator[Place, None]:
    running = Supervisor(JobStore(home / "jobs.sqlite"), home / "logs", checkpoints=home / "checkpoints", max_jobs=10)
    await running.start()
    try:
        yield Place(running, home)
    finally:
        await running.aclose(0.2)


@pytest.mark.asyncio
async def test_state_is_read_while_the_job_runs(tmp_path: Path) -> None:
    async with supervisor(tmp_path) as place:
        job = await place.submit()
        await place.reaches(job, HALF)
        assert await place.running.query("totals", "sums", "seen", [0, "x"]) == (True, {"(0, 0)": 99})
        assert await place.running.query("totals", "sums", "total", "elsewhere") == (False, None)
        assert await place.running.query("totals", "sums", "total", [0, "x"], dataflow="totals") == (True, HALF[0])
        for operator, state, key, said in [
            ("sum", "total", 1, "no operator of that name or uid; it has .*'sums'"),
            ("sums", "totals", 1, "the operator has 'seen', 'total'"),
            ("sums", "total", {"no": "key"}, "a key of type"),
        ]:
            with pytest.raises(AskRefused, match=said):
                await place.running.query(job.id, operator, state, key)
        with pytest.raises(AskRefused, match="no dataflow named 'other' runs"):
            await place.running.query(job.id, "sums", "total", 1, dataflow="other")
        place.running.cancel(job.id)
        await place.running.wait(job.id, 20)
        with pytest.raises(JobError, match="is cancelled: there is no process that could answer"):
            await place.running.query(job.id, "sums", "total", 1)


@pytest.mark.asyncio
async def test_which_of_several_dataflows_is_meant(tmp_path: Path) -> None:
    two = f"{TOTALS}\nasync def both():\n    for job in [await flow('a'), await flow('b')]: await job.wait()\nasyncio.run(both())\n"
    async with supervisor(tmp_path) as place:
        job = await place.submit(two, "two")
        await place.until(job, lambda record: len(place.flows(job)) == 2)
        with pytest.raises(AskRefused, match=r"2 dataflows run in it \('a', 'b'\); say which"):
            await place.running.savepoint(job.id)
        with pytest.raises(AskRefused, match="none of the 2 dataflows that run in it has that operator"):
            await place.running.query(job.id, "nobody", "total", 1)
        found, _ = await place.running.query(job.id, "sums", "total", [9, "y"], dataflow="b")
        assert not found


@pytest.mark.rule("F10")
@pytest.mark.asyncio
async def test_a_savepoint_that_stops_the_job_is_where_another_goes_on(tmp_path: Path) -> None:
    async with supervisor(tmp_path) as place:
        job = await place.submit()
        await place.reaches(job, HALF)
        first = await place.running.savepoint(job.id, target=str(tmp_path / "kept"))
        assert first.startswith(str(tmp_path / "kept"))
        last = await place.running.savepoint("totals", stop=True)
        assert (await place.finished(job)).request == "none", "nobody asked for its end but the savepoint"
        for restore in (first, last):
            again = await place.submit(restore=restore)
            await place.reaches(again, HALF)
            assert (await place.begun(again))["restored_from"] is not None
            place.running.cancel(again.id)
            await place.running.wait(again.id, 20)


@pytest.mark.asyncio
async def test_without_checkpoints_there_is_no_savepoint(tmp_path: Path) -> None:
    plain = RUN.replace('"checkpoint.interval": "20ms", ', "")
    async with supervisor(tmp_path) as place:
        job = await place.submit(plain)
        await place.reaches(job, HALF)
        with pytest.raises(AskRefused, match=r"takes no checkpoints.*set checkpoint\.interval"):
            await place.running.savepoint(job.id)
        (tmp_path / "go").touch()
        await place.finished(job)
        assert not (tmp_path / "checkpoints").exists()


FOREVER = {"strategy": "fixed-delay", "attempts": 5, "delay": "10ms"}


@pytest.mark.rule("F4")
@pytest.mark.asyncio
async def test_a_process_that_dies_is_followed_by_one_that_goes_on(tmp_path: Path) -> None:
    async with supervisor(tmp_path) as place:
        job = await place.submit(restart=FOREVER)
        checkpoint = 0
        for life in (1, 2, 3):
            await place.reaches(job, HALF)
            checkpoint = await place.has_checkpoint_beyond(job, checkpoint)
            record = await place.until(job, lambda record: record.pid is not None)
            assert record.attempts == life
            os.kill(record.pid or 0, signal.SIGKILL)
            await place.until(job, lambda record, life=life: record.attempts > life and record.status == "running")
        await place.reaches(job, HALF)
        await place.until(job, lambda record: (place.flows(job)[0]["restored_from"] or 0) >= checkpoint)
        (tmp_path / "go").touch()
        assert list((tmp_path / "checkpoints").iterdir())
        await place.finished(job)
    assert not list((tmp_path / "checkpoints").iterdir()), "a finished job leaves none"


@pytest.mark.asyncio
async def test_only_a_run_of_its_own_is_gone_on_with(tmp_path: Path) -> None:
    """A process that died before it began must not take up what an earlier job of that name has left."""
    stumbling = f"from pathlib import Path\nif not Path('fell').exists():\n    Path('fell').touch()\n    raise SystemExit(3)\n{RUN}"
    async with supervisor(tmp_path) as place:
        before = await place.submit()
        await place.reaches(before, HALF)
        await place.has_checkpoint_beyond(before, 0)
        place.running.cancel(before.id)
        await place.running.wait(before.id, 20)
        job = await place.submit(stumbling, restart=FOREVER)
        await place.until(job, lambda record: record.attempts == 2 and place.flows(job))
        await place.reaches(job, HALF)
        assert (await place.begun(job))["restored_from"] is None
        place.running.cancel(job.id)
        await place.running.wait(job.id, 20)
        again = await place.submit(resume=True)
        await place.reaches(again, HALF)
        assert (await place.begun(again))["restored_from"] is not None, "when asked to, it goes on with what the last one left"


@pytest.mark.asyncio
async def test_a_restart_within_the_process_is_seen(tmp_path: Path) -> None:
    failing = RUN.replace(
        "        self.total.set(",
        "        if n == 57 and not Path('failed').exists():\n            Path('failed').touch()\n            raise ValueError('at 57')\n"
        "        self.total.set(",
    ).replace("**config}", '"restart.delay": "1ms", **config}')
    async with supervisor(tmp_path) as place:
        job = await place.submit(failing)
        await place.reaches(job, HALF)
        await place.until(job, lambda record: place.flows(job)[0]["attempts"] == 2)
        (flow,) = place.flows(job)
        assert flow["status"] == "running"
        assert "ValueError: at 57" in flow["latest_error"]
        assert flow["metrics"]["attempts"] == 2
        await place.has_checkpoint_beyond(job, 0)
        assert place.running.find(job.id).attempts == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(JSON)
def test_what_json_knows_stays_as_it_is(value: object) -> None:
    assert plain_value(value) == value


class Unspeakable:
    def __repr__(self) -> str:
        raise ValueError("no")


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ({(1, 2): {3}}, {"(1, 2)": [3]}),
        ((1, b"ab"), [1, "YWI="]),
        ({1: object}, {"1": "<class 'object'>"}),
        (Unspeakable(), "<Unspeakable, whose repr raised ValueError>"),
    ],
)
def test_what_json_does_not_know_is_told_in_words(value: object, plain: object) -> None:
    assert json.loads(json.dumps(plain_value(value))) == plain


def test_arrays_are_tuples_in_keys() -> None:
    assert key_from_json([1, ["a", None]]) == (1, ("a", None))
