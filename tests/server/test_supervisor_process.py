"""The supervisor process as a whole, through its client: jobs, logs, metrics, its own life and death."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sage_actor.errors import JobNotFound, ServerError, ServerUnreachable, Unauthorized
from sage_actor.jobs.processes import process_started
from sage_actor.server.client import JobInfo, SupervisorClient

if TYPE_CHECKING:
    from conftest import Running

Start = Callable[..., AbstractContextManager["Running"]]

FOREVER = b"import time\nprint('up', flush=True)\nwhile True: time.sleep(0.05)\n"
DEAF = b"""
import time
print('up', flush=True)
while True:
    try:
        while True: time.sleep(1)
    except BaseException: print('no')
"""


def ended(client: SupervisorClient, job: JobInfo) -> JobInfo:
    found = client.job(job.id, wait=20)
    assert found.ended_for_good, found
    return found


def until_log(client: SupervisorClient, job: JobInfo, text: str) -> None:
    for _ in range(500):
        if text in client.logs(job.id):
            return
        assert not client.job(job.id, wait=0.02).ended_for_good, client.logs(job.id)
    pytest.fail(f"{text!r} was never written")


def test_a_script_from_submission_to_its_log(running: Running) -> None:
    client = running.client
    job = client.submit("hello", "script", b"import sys\nprint('hello', *sys.argv[1:])", args=["a", "b"])
    assert (job.name, job.kind, job.status) == ("hello", "script", "created")
    done = ended(client, job)
    assert (done.status, done.exit_code, done.error) == ("finished", 0, "")
    assert client.logs("hello") == "hello a b\n"
    assert job.id in {each.id for each in client.jobs()}


def test_a_failure_is_told_with_its_text(running: Running) -> None:
    client = running.client
    done = ended(client, client.submit("bad", "script", "raise ValueError('ümläut')".encode()))
    assert (done.status, done.exit_code) == ("failed", 1)
    assert done.error == "ValueError: ümläut"
    assert "ValueError: ümläut" in client.logs("bad")


def test_a_payload_that_is_no_graph_fails_its_job_and_nothing_else(running: Running) -> None:
    client = running.client
    done = ended(client, client.submit("garbage", "graph", b"this is no pickle"))
    assert done.status == "failed"
    assert "UnpicklingError" in done.error
    assert ended(client, client.submit("after", "script", b"")).status == "finished"


def test_following_a_log_ends_with_the_job(running: Running) -> None:
    client = running.client
    job = client.submit("counter", "script", b"import time\nfor n in range(5):\n    print('line', n, flush=True)\n    time.sleep(0.1)\n")
    assert "".join(client.follow(job.id)) == "".join(f"line {n}\n" for n in range(5))
    assert "".join(client.follow("counter", tail=1)) == "line 4\n"


def test_stopping_over_http(running: Running) -> None:
    client = running.client
    job = client.submit("forever", "script", FOREVER)
    until_log(client, job, "up")
    assert client.job("forever").pid is not None
    assert client.cancel("forever").status == "stopping"
    assert ended(client, job).status == "cancelled"
    assert client.stop(job.id).status == "cancelled"


def test_errors_arrive_as_ours(running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(JobNotFound, match=r"no job 'nobody'"):
        running.client.job("nobody")
    with pytest.raises(Unauthorized, match=r"the token is wrong.*SAGE_ACTOR_HOME"):
        SupervisorClient(running.address, "wrong").jobs()
    with pytest.raises(ServerError, match=r"restart\.delai.*correct the setting"):
        running.client.submit("x", "script", b"", restart={"delai": 1})
    monkeypatch.setenv("SAGE_ACTOR_HOME", str(tmp_path))
    with pytest.raises(Unauthorized, match=r"none was found here"):
        SupervisorClient(running.address).jobs()
    with pytest.raises(ServerUnreachable, match=r"start one with `python -m sage_actor`"):
        SupervisorClient("127.0.0.1:1").jobs()


def test_the_token_file_is_found_and_only_sent_to_this_machine(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_ACTOR_HOME", str(running.home))
    monkeypatch.delenv("SAGE_ACTOR_TOKEN", raising=False)
    assert SupervisorClient().info()["pid"] == running.process.pid, "address and token are found by themselves"
    assert (SupervisorClient("127.0.0.1:1")._token, SupervisorClient("192.0.2.1:19001")._token) == (running.token, None)


def test_something_else_on_the_port_is_named(running: Running) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ServerError, match=r"no supervisor.*check the address"):
            SupervisorClient(f"127.0.0.1:{listener.getsockname()[1]}", "x").jobs()
        thread.join()


def test_prometheus_text(running: Running) -> None:
    request = urllib.request.Request(f"http://{running.address}/metrics", headers={"Authorization": f"Bearer {running.token}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        text = answer.read().decode()
    assert "# TYPE sage_jobs gauge" in text
    assert 'sage_jobs{status="finished"}' in text


def test_a_second_supervisor_on_the_same_data_is_refused(running: Running) -> None:
    environment = os.environ | {"SAGE_ACTOR_HOME": str(running.home)}
    second = subprocess.run(
        [sys.executable, "-m", "sage_actor", "--port", "0"], env=environment, capture_output=True, text=True, timeout=20, check=False
    )
    assert second.returncode == 1
    assert "another supervisor" in second.stderr
    assert str(running.home) in second.stderr
    assert "Traceback" not in second.stderr


def test_a_taken_port_is_named(running: Running, tmp_path: Path) -> None:
    environment = os.environ | {"SAGE_ACTOR_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "sage_actor", "--port", running.address.partition(":")[2]]
    second = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20, check=False)
    assert second.returncode == 1
    assert "the port is taken" in second.stderr
    assert "--port" in second.stderr


def test_it_ends_with_0_and_takes_its_jobs_along(start: Start, tmp_path: Path) -> None:
    with start(tmp_path / "home") as running:
        client = running.client
        job = client.submit("forever", "script", FOREVER)
        until_log(client, job, "up")
        pid = client.job(job.id).pid
        assert pid is not None
        assert running.stop() == 0
        assert process_started(pid) is None
    with start(tmp_path / "home") as running:
        found = running.client.job("forever")
        assert (found.status, found.error) == ("cancelled", "the supervisor was stopped")
        assert running.token == client._token, "the token stays"


def test_killed_with_9_it_leaves_no_orphan_and_its_successor_tells_the_truth(start: Start, tmp_path: Path) -> None:
    with start(tmp_path / "home") as running:
        client = running.client
        jobs = [client.submit("forever", "script", FOREVER), client.submit("deaf", "script", DEAF)]
        pids = list[int]()
        for job in jobs:
            until_log(client, job, "up")
            pids.append(client.job(job.id).pid or 0)
        running.process.send_signal(signal.SIGKILL)
        assert running.process.wait(10) == -9
    pause = threading.Event()
    for _ in range(300):
        if not any(process_started(pid) for pid in pids):
            break
        pause.wait(0.02)
    else:
        pytest.fail("jobs outlived their supervisor")
    with start(tmp_path / "home") as running:
        for job in jobs:
            found = running.client.job(job.id)
            assert found.status == "failed"
            assert "its supervisor ended while it ran" in found.error


def test_listening_everywhere_is_allowed_and_warned_of(start: Start, tmp_path: Path) -> None:
    with start(tmp_path / "home", "--host", "0.0.0.0", "--max-jobs", "1") as running:
        port = running.address.rpartition(":")[2]
        client = SupervisorClient(f"127.0.0.1:{port}", running.token)
        assert client.info()["max_jobs"] == 1
        client.submit("one", "script", FOREVER)
        with pytest.raises(ServerError, match=r"1 jobs are live already.*--max-jobs"):
            client.submit("two", "script", b"")
        noted = json.loads((tmp_path / "home" / "supervisor.json").read_text())
        assert noted == {"host": "127.0.0.1", "port": int(port), "pid": running.process.pid}
    assert "plain HTTP" in (tmp_path / "home.errors").read_text()
