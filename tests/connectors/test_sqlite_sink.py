"""SqliteSink: tables, keys, fences, refusals."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sage_actor.connectors import SqliteSink
from sage_actor.dataflow.context import FunctionContext
from sage_actor.dataflow.sink import SinkRecovery
from sage_actor.errors import CommitFailed, ConfigError, ConnectorError, Fenced


async def started(
    path: Path, attempt: int = 1, prepared: list[tuple[int, object]] | None = None, checkpoint: int | None = None, **options: Any
) -> SqliteSink:
    context = FunctionContext("job", "rows")
    sink = SqliteSink({"path": path, "table": "results", **options})
    await sink.open(context)
    try:
        await sink.recover(prepared or [], SinkRecovery(context, attempt, checkpoint))
    except BaseException:
        await sink.close()
        raise
    return sink


def query(path: Path, text: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(text).fetchall()


@pytest.mark.rule("F25")
@pytest.mark.asyncio
async def test_a_replaced_attempt_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "out.db"
    zombie = await started(path, 1, columns=["n"])
    await zombie.write([[1]])
    prepared = await zombie.prepare(1)
    sink = await started(path, 2, [(1, prepared)], 1)
    with pytest.raises(Fenced, match="attempt 1 was replaced by attempt 2"):
        await zombie.write([[2]])
    with pytest.raises(Fenced):
        await zombie.commit(1, prepared)
    with pytest.raises(Fenced):
        await started(path, 1, [(1, prepared)], 1)
    await zombie.close()
    await sink.close()
    assert query(path, "SELECT n FROM results") == [(1,)]


@pytest.mark.asyncio
async def test_a_job_that_begins_anew_may_count_its_attempts_anew(tmp_path: Path) -> None:
    path = tmp_path / "out.db"
    for attempt in (3, 1):
        sink = await started(path, attempt, columns=["n"])
        await sink.write([[attempt]])
        await sink.commit(1, await sink.prepare(1))
        await sink.close()
    assert query(path, "SELECT n FROM results") == [(3,), (1,)]


@pytest.mark.rule("F26")
@pytest.mark.asyncio
async def test_a_database_that_lost_what_was_prepared_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "out.db"
    sink = await started(path, columns=["n"])
    await sink.write([[1]])
    prepared = await sink.prepare(1)
    await sink.close()
    path.unlink()
    with pytest.raises(CommitFailed, match="another or an older database"):
        await started(path, 2, [(1, prepared)], 1, columns=["n"])


@pytest.mark.asyncio
async def test_rows_of_a_key_replace_themselves_at_once(tmp_path: Path) -> None:
    path = tmp_path / "out.db"
    sink = await started(path, columns=["a", "b", "n"], key=["a", "b"], transactional=False)
    await sink.write([{"a": "x", "b": 1, "n": 1}, {"a": "x", "b": 2}, {"n": 3, "b": 1, "a": "x"}])
    assert query(path, "SELECT * FROM results ORDER BY b") == [("x", 1, 3), ("x", 2, None)]
    assert await sink.prepare(1) is None
    await sink.write([("x", 2, b"\0")])
    await sink.close()
    assert query(path, "SELECT * FROM results ORDER BY b") == [("x", 1, 3), ("x", 2, b"\0")]


@pytest.mark.asyncio
async def test_an_existing_table_keeps_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "out.db"
    query(path, 'CREATE TABLE results (id INTEGER PRIMARY KEY, "a ""b" TEXT, note TEXT DEFAULT \'none\')')
    sink = await started(path, columns=['a "b'])
    await sink.write([["x"], {'a "b': "y"}])
    await sink.commit(1, await sink.prepare(1))
    await sink.close()
    assert query(path, "SELECT * FROM results") == [(1, "x", "none"), (2, "y", "none")]


UNFIT: list[tuple[object, str]] = [
    ([1], "1 values do not fit the columns a, b"),
    ({"a": 1, "c": 2}, "'c' is not among the columns a, b"),
    ([1, set[int]()], r"SQLite cannot hold set\(\)"),
    ([1, 1 << 63], "SQLite cannot hold 9223372036854775808"),
    ("ab", "a row is a mapping, a list or a tuple, not str"),
]


@pytest.mark.asyncio
@pytest.mark.parametrize(("record", "words"), UNFIT)
async def test_a_record_that_does_not_fit_is_named(tmp_path: Path, record: object, words: str) -> None:
    sink = await started(tmp_path / "out.db", columns=["a", "b"])
    await sink.write([[1, 2]])
    with pytest.raises(ConnectorError, match=words):
        await sink.write([[3, 4], record])
    await sink.commit(1, await sink.prepare(1))
    await sink.close()
    assert query(tmp_path / "out.db", "SELECT * FROM results") == [(1, 2)]


@pytest.mark.asyncio
async def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="would write rows twice"):
        SqliteSink(path="x", table="t", transactional=False)
    with pytest.raises(ConfigError, match="must be among the columns a"):
        SqliteSink(path="x", table="t", columns=["a"], key="b")
    with pytest.raises(ConfigError, match="name the table"):
        SqliteSink(path="x")
    with pytest.raises(ConnectorError, match="there is no such table"):
        await started(tmp_path / "out.db")
    query(tmp_path / "out.db", "CREATE TABLE results (a)")
    with pytest.raises(ConnectorError, match="has no column 'b'"):
        await started(tmp_path / "out.db", columns=["b"])
    (tmp_path / "text.db").write_text("certainly no database, and long enough to be one " * 20)
    with pytest.raises(ConnectorError, match="SQLite refused"):
        await started(tmp_path / "text.db", columns=["a"])
    with pytest.raises(ConnectorError, match="not open"):
        await SqliteSink(path="x", table="t").write([[1]])
