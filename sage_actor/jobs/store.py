"""The supervisor's memory: one SQLite file in WAL mode.

Every method blocks on the disk and may be called from any thread; the supervisor calls them through `ports.offload`.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import cast

from sage_actor.errors import ConnectorError
from sage_actor.jobs.record import JobRecord, JobSpec

__all__ = ["JobStore"]

VERSION = 1
_SCHEMA = """
CREATE TABLE jobs (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, kind TEXT NOT NULL, status TEXT NOT NULL, request TEXT NOT NULL,
    attempts INTEGER NOT NULL, pid INTEGER, pid_started INTEGER, created INTEGER NOT NULL, started INTEGER, ended INTEGER,
    restart_at INTEGER, error TEXT NOT NULL, exit_code INTEGER, metrics TEXT NOT NULL,
    options TEXT NOT NULL, payload BLOB NOT NULL
);
CREATE INDEX jobs_created ON jobs (created);
CREATE INDEX jobs_name ON jobs (name);
"""
_COLUMNS = tuple(field.name for field in fields(JobRecord))
_OPTIONS = tuple(field.name for field in fields(JobSpec) if field.name not in ("name", "kind", "payload"))


class JobStore:
    """Jobs that survive the supervisor. Thread-safe; every write is on disk when the call returns."""

    def __init__(self, path: Path) -> None:
        """Open the store, creating it (mode 0600) if it is not there.

        Raises:
            ConnectorError: not a job store, damaged, or written by a newer version.
        """
        self._path = path
        self._lock = threading.Lock()
        try:
            path.touch(mode=0o600)
            self._connection = sqlite3.connect(path, timeout=10, check_same_thread=False, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise ConnectorError(
                str(path), f"the job store cannot be opened: {error}", "check the directory and SAGE_ACTOR_HOME"
            ) from error
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        with self._statements() as run:
            run.execute("PRAGMA journal_mode = WAL")
            run.execute("PRAGMA synchronous = FULL")
            (version,) = run.execute("PRAGMA user_version").fetchone()
            if version == 0:
                run.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
            elif version != VERSION:
                raise ConnectorError(
                    str(self._path),
                    f"its format is version {version}, this program writes version {VERSION}",
                    "upgrade sage_actor, or set SAGE_ACTOR_HOME to another directory",
                )

    @contextmanager
    def _statements(self) -> Generator[sqlite3.Connection, None, None]:
        with self._lock:
            try:
                yield self._connection
            except sqlite3.Error as error:
                hint = "free the disk, or move the file away to begin with an empty store"
                raise ConnectorError(str(self._path), f"the job store refused: {error}", hint) from error

    def add(self, record: JobRecord, spec: JobSpec) -> None:
        """Keep a new job."""
        columns = (*_COLUMNS, "options", "payload")
        options = json.dumps({name: getattr(spec, name) for name in _OPTIONS})
        values = [*(getattr(record, name) for name in _COLUMNS), options, spec.payload]
        with self._statements() as run:
            run.execute(f"INSERT INTO jobs ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})", values)

    def update(self, record: JobRecord) -> None:
        """Overwrite what is known about a job; its spec stays."""
        changed = [name for name in _COLUMNS if name != "id"]
        values = [*(getattr(record, name) for name in changed), record.id]
        with self._statements() as run:
            run.execute(f"UPDATE jobs SET {', '.join(f'{name} = ?' for name in changed)} WHERE id = ?", values)

    def records(self, limit: int = 10_000) -> list[JobRecord]:
        """The newest jobs, oldest of them first."""
        with self._statements() as run:
            rows = run.execute(f"SELECT {', '.join(_COLUMNS)} FROM jobs ORDER BY created DESC, rowid DESC LIMIT ?", (limit,)).fetchall()
        return [JobRecord(**dict(zip(_COLUMNS, row, strict=True))) for row in reversed(rows)]

    def spec(self, job_id: str) -> JobSpec | None:
        """The job as it was handed in, or None if it is unknown."""
        with self._statements() as run:
            row = run.execute("SELECT name, kind, options, payload FROM jobs WHERE id = ?", (job_id,)).fetchone()
        if row is None:
            return None
        options = cast("dict[str, object]", json.loads(row[2]))
        options["args"] = tuple(cast("list[str]", options["args"]))
        return JobSpec(name=row[0], kind=row[1], payload=bytes(row[3]), **options)  # type: ignore[arg-type]  # as written by add

    def close(self) -> None:
        """Release the file. Idempotent."""
        with self._lock:
            self._connection.close()
