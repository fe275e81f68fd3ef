"""RemoteEnvironment: the same graph, run as a job of a real supervisor process."""

from __future__ import annotations

import itertools
import threading
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sage_actor.connectors.file_sink import FileSink
from sage_actor.errors import JobCancelled, JobFailed, JobNotFound, SerializationError, ServerUnreachable
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
