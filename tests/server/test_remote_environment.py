"""RemoteEnvironment: the same graph, run as a job of a real supervisor process."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sage_actor.connectors.file_sink import FileSink
from sage_actor.dataflow.source import Source
from sage_actor.errors import JobCancelled, JobFailed, JobNotFound, SerializationError, ServerError, ServerUnreachable
from sage_actor.server.remote import RemoteEnvironment

if TYPE_CHECKING:
    from conftest import Running


def environment(running: Running, name: str, **options: object) -> RemoteEnvironment:
    return RemoteEnvironment(name, jobmanager_address=running.address, token=running.token, **options)  # type: ignore[arg-type]


def endless(env: RemoteEnvironment) -> None:
    env.from_source(itertools.count(), bounded=False).filter(lambda n: n % 100_000 == 0).print()


def wait_for_output(env: RemoteEnvironment, job_id: str) -> None:
    for _ in range(500):
        if env.logs(job_id) and env.status(job_id).operators:
            return
        env._client.job(job_id, wait=0.02)
    pytest.fail("the job wrote nothing, or said nothing of its operators")


def test_a_dataflow_with_lambdas_runs_there_and_writes_there(running: Running, tmp_path: Path) -> None:
    out, factor = tmp_path / "out.txt", 2
    env = environment(running, "doubles")
    env.from_collection(range(100)).map(lambda x: x * factor).sink(FileSink, path=str(out))
    job_id = env.submit()
    assert isinstance(job_id, str)
    assert env.wait_for_completion(job_id) == "finished"
    assert sum(map(int, out.read_text().split())) == 9900
    found = env.status(job_id)
    assert (found.name, found.kind, found.exit_code, found.records_in, found.errors) == ("doubles", "graph", 0, 100, 0)
    assert [operator.records_in for operator in found.operators] == [100, 100, 100]


def test_execute_waits_and_output_is_in_the_log(running: Running) -> None:
    env = environment(running, "printed")
    env.from_collection(["a", "b"]).print()
    job_id = env.execute()
    assert env.logs(job_id) == "a\nb\n"


def test_its_failure_is_raised_here_with_place_and_cause(running: Running) -> None:
    env = environment(running, "breaks")
    env.from_collection([2, 1, 0]).map(lambda x: 1 // x, name="divide").print()
    with pytest.raises(JobFailed, match=r"job 'breaks' failed: .*operator 'divide'.*position 2.*ZeroDivisionError") as raised:
        env.execute()
    assert raised.value.job == "breaks"
    found = next(job for job in running.client.jobs() if job.name == "breaks")
    assert (found.status, found.exit_code, found.errors) == ("failed", 1, 1)
    assert "ZeroDivisionError" in running.client.logs("breaks")


def test_stop_drains(running: Running) -> None:
    env = environment(running, "endless")
    endless(env)
    job_id = env.submit()
    wait_for_output(env, job_id)
    with pytest.raises(TimeoutError, match=r"'endless'.*still running after 0\.01 s; it goes on"):
        env.wait_for_completion(job_id, timeout=0.01)
    request = urllib.request.Request(f"http://{running.address}/metrics", headers={"Authorization": f"Bearer {running.token}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert f'job="endless:{job_id}",operator="filter"' in answer.read().decode()
    env.stop(job_id)
    assert env.wait_for_completion(job_id, timeout=20) == "finished"


def test_cancel_is_raised_where_somebody_waits(running: Running) -> None:
    env = environment(running, "cancelled")
    endless(env)
    job_id = env.submit()
    wait_for_output(env, job_id)
    threading.Timer(0.05, env.cancel, (job_id,)).start()
    with pytest.raises(JobCancelled, match=r"'cancelled' was cancelled"):
        env.wait_for_completion(job_id)


PAUSE = 0.001


def counted(running: Running, name: str, go: Path, **options: object) -> RemoteEnvironment:
    """Counts 0 to 99 and then waits."""

    class Slowly(Source[int]):
        """0 to 99, then nothing until a file is there."""

        def __init__(self, go: str) -> None:
            self.go = go
            self.place = 0

        async def read(self, limit: int) -> Sequence[int] | None:
            await asyncio.sleep(PAUSE)
            if self.place == 100:
                return None if Path(self.go).exists() else []
            self.place += 1
            return [self.place - 1]

        def position(self) -> object:
            return self.place

        async def seek(self, position: object) -> None:
            assert isinstance(position, int)
            self.place = position

    env = environment(running, name, config={"checkpoint.interval": "20ms"}, **options)
    env.from_source(Slowly, go=str(go), bounded=False).key_by(lambda n: (n % 2, "x")).count(name="counts").sink(lambda pair: None)
    return env


def reaches(env: RemoteEnvironment, job_id: str, counts: int) -> None:
    """Wait until every key has been counted so often; while the job starts, it refuses."""
    for _ in range(500):
        try:
            if [env.query(job_id, "counts", "fold", (key, "x")) for key in (0, 1)] == [counts, counts]:
                return
        except ServerError:
            pass
        assert not env._client.job(job_id, wait=0.02).ended_for_good, env.logs(job_id)
    pytest.fail("it never counted so far")


def test_state_and_savepoints_of_a_running_job(running: Running, tmp_path: Path) -> None:
    env = counted(running, "asked", tmp_path / "go")
    job_id = env.submit()
    reaches(env, job_id, 50)
    assert env.query(job_id, "counts", "fold", "elsewhere", default="none") == "none"
    with pytest.raises(ServerError, match=r"no operator of that name or uid; it has .*'counts'"):
        env.query(job_id, "count", "fold", 1)
    place = env.savepoint(job_id, str(tmp_path / "kept"))
    with pytest.raises(JobNotFound):
        env.savepoint("nobody")
    env.cancel(job_id)
    with pytest.raises(JobCancelled):
        env.wait_for_completion(job_id)
    with pytest.raises(ServerError, match=r"is cancelled: there is no process that could answer$"):
        env.query(job_id, "counts", "fold", 1)

    again = counted(running, "asked", tmp_path / "go", restore=place)
    job_id = again.submit()
    reaches(again, job_id, 50)
    last = again.savepoint(job_id, stop=True)
    assert last
    assert again.wait_for_completion(job_id) == "finished"
    (flow,) = again.status(job_id).dataflows
    assert (flow.name, flow.status, flow.attempts) == ("asked", "finished", 1)
    assert flow.restored_from is not None
    assert flow.checkpoints["completed"] >= 1
    assert flow.pause_p99 > 0


def test_a_key_is_json(running: Running, tmp_path: Path) -> None:
    env = counted(running, "keys", tmp_path / "go")
    job_id = env.submit()
    reaches(env, job_id, 50)
    address = f"http://{running.address}/api/v1/jobs/{job_id}/state/counts/fold"
    headers = {"Authorization": f"Bearer {running.token}"}
    with urllib.request.urlopen(urllib.request.Request(f"{address}?key=%5B1,%22x%22%5D", headers=headers), timeout=10) as answer:
        assert json.load(answer) == {"found": True, "value": 50}
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(f"{address}?key=one", headers=headers), timeout=10)
    with refused.value:
        assert refused.value.code == 422
        assert "'one' is not JSON" in json.load(refused.value)["error"]
    env.cancel(job_id)
    with pytest.raises(JobCancelled):
        env.wait_for_completion(job_id)


def test_restarts_are_asked_for_here(running: Running, tmp_path: Path) -> None:
    marker = tmp_path / "seen"

    def second_time(x: int) -> int:
        if not marker.exists():
            marker.touch()
            raise ValueError("first time")
        return x

    env = environment(running, "retried", restart={"strategy": "fixed-delay", "attempts": 2, "delay": "10ms"})
    env.from_collection([1]).map(second_time).print()
    job_id = env.submit()
    assert env.wait_for_completion(job_id) == "finished"
    assert env.status(job_id).attempts == 2


def test_what_cannot_work_is_said_here_before_anything_is_sent(running: Running) -> None:
    before = len(running.client.jobs())
    env = environment(running, "collects")
    env.from_collection([1]).collect()
    with pytest.raises(SerializationError, match=r"collect"):
        env.submit()
    lock = threading.Lock()
    env = environment(running, "locked")
    env.from_collection([1]).map(lambda x: (x, lock), name="guarded").print()
    with pytest.raises(SerializationError, match=r"guarded.*lock"):
        env.submit()
    assert len(running.client.jobs()) == before


def test_nobody_there() -> None:
    env = RemoteEnvironment("x", jobmanager_address="localhost:1", token="t" * 20)
    env.from_collection([1]).print()
    with pytest.raises(ServerUnreachable, match=r"localhost:1.*start one with"):
        env.submit()


def test_an_unknown_job(running: Running) -> None:
    env = environment(running, "x")
    with pytest.raises(JobNotFound, match=r"nobody"):
        env.wait_for_completion("nobody")
