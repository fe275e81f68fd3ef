"""The job store on disk."""

from __future__ import annotations

import sqlite3
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from sage_actor.errors import ConnectorError
from sage_actor.jobs.record import JobRecord, JobSpec
from sage_actor.jobs.store import JobStore

SPEC = JobSpec(
    name="words",
    kind="script",
    payload=b"print(1)\x00\xff",
    filename="/a/b.py",
    args=("x", "y"),
    directory="/a",
    parallelism=3,
    restart={"delay": "1s"},
)


def record(number: int) -> JobRecord:
    return JobRecord(id=f"id{number}", name="words", kind="script", created=1000 + number)


def test_jobs_survive(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    store = JobStore(path)
    store.add(record(1), SPEC)
    graph = replace(record(2), kind="graph")
    store.add(graph, replace(SPEC, kind="graph"))
    ended = replace(record(1), status="failed", error="boom", exit_code=-9, attempts=2, ended=5, metrics='[{"job": "x"}]', request="stop")
    store.update(ended)
    store.close()
    assert path.stat().st_mode & 0o777 == 0o600, "payloads and arguments are nobody else's business"

    again = JobStore(path)
    assert again.records() == [ended, graph]
    assert again.records(limit=1) == [graph], "the newest"
    assert again.spec("id1") == SPEC
    assert again.spec("id2") == replace(SPEC, kind="graph")
    assert again.spec("id3") is None
    again.close()
    again.close()


def test_a_store_of_a_newer_version_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(ConnectorError, match=r"jobs\.sqlite.*version 99.*SAGE_ACTOR_HOME"):
        JobStore(path)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    path.write_bytes(b"something else entirely" * 100)
    with pytest.raises(ConnectorError, match=r"jobs\.sqlite.*refused"):
        JobStore(path)
    assert path.read_bytes().startswith(b"something else")


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConnectorError, match=r"nowhere.*cannot be opened"):
        JobStore(tmp_path / "nowhere" / "jobs.sqlite")


def test_it_is_safe_from_many_threads(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "jobs.sqlite")

    def work(number: int) -> None:
        store.add(record(number), SPEC)
        for attempts in range(5):
            store.update(replace(record(number), attempts=attempts))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.records() == [replace(record(number), attempts=4) for number in range(8)]
    store.close()
