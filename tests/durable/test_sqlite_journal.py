"""SqliteJournal beyond the common rules: killed writers, damaged files, refusals of SQLite, many journals on one file, group commit."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from sage_actor.durable import EVENT, JournalEntry, Snapshot, SqliteJournal
from sage_actor.errors import ConfigError, JournalConflict, JournalCorrupt, JournalError, JournalUnavailable


def entries(first: int, count: int, size: int = 0) -> list[JournalEntry]:
    return [JournalEntry(n, EVENT, 1, f"payload of {n}".encode().ljust(size, b"."), n) for n in range(first, first + count)]


async def fill(path: Path, *names: str, count: int = 30, snapshots: tuple[int, ...] = ()) -> None:
    journal = SqliteJournal(path)
    await journal.open()
    for name in names:
        await journal.append(name, entries(1, count), expected=0)
        for sequence in snapshots:
            await journal.save_snapshot(name, Snapshot(sequence, 1, f"state {sequence}".encode()))
    await journal.aclose()


async def read(path: Path, name: str, after: int = 0) -> tuple[list[JournalEntry], JournalError | None]:
    """What can be read, and the error that ended it."""
    got: list[JournalEntry] = []
    journal = SqliteJournal(path)
    try:
        await journal.open()
        async for entry in journal.read(name, after):
            got.append(entry)  # noqa: PERF401 - an error must not lose what came before it
    except JournalError as error:
        return got, error
    finally:
        await journal.aclose()
    return got, None


def change(path: Path, statement: str, *values: object) -> None:
    """Change rows behind the journal's back."""
    connection = sqlite3.connect(path)
    with connection:
        assert connection.execute(statement, values).rowcount, "nothing was changed"
    connection.close()


async def refusal(path: Path, kind: type[JournalError] = JournalUnavailable) -> JournalError:
    journal = SqliteJournal(path, lock_timeout="10ms")
    with pytest.raises(kind) as caught:
        await journal.open()
    with pytest.raises(JournalUnavailable, match="not open"):
        await journal.append("a", entries(1, 1), expected=0)
    await journal.aclose()
    assert str(path) in str(caught.value)
    return caught.value


def patch_connections(monkeypatch: pytest.MonkeyPatch, arrange: Callable[[sqlite3.Connection], object]) -> None:
    """Arrange something on every connection before the journal gets it."""
    connect = sqlite3.connect

    def arranged(*arguments: object, **options: object) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)  # type: ignore[call-overload]
        arrange(connection)
        return connection

    monkeypatch.setattr(sqlite3, "connect", arranged)


# -- a killed writer --------------------------------------------------------------------------------------------------

WRITER = """
import asyncio, os, sys
from sage_actor.durable import JournalEntry, Snapshot, SqliteJournal

async def write(journal, name):
    last = await journal.last_sequence(name)
    while True:
        run = [JournalEntry(n, "event", 1, f"{name} {n}".encode(), n) for n in range(last + 1, last + 4)]
        await journal.append(name, run, expected=last)
        last += 3
        os.write(1, f"{name} {last}\\n".encode())
        if last % 60 == 0:
            await journal.save_snapshot(name, Snapshot(last, 1, f"{name} {last}".encode()))
            await journal.delete_before(name, last - 30)

async def main():
    journal = SqliteJournal(sys.argv[1])
    await journal.open()
    await asyncio.gather(*(write(journal, f"entity-{n}") for n in range(8)))

asyncio.run(main())
"""


async def recovered(path: Path, name: str) -> int:
    """The last sequence, everything that is stored having been checked."""
    journal = SqliteJournal(path)
    await journal.open()
    try:
        snapshot = await journal.load_snapshot(name)
        assert snapshot is None or snapshot.payload == f"{name} {snapshot.sequence}".encode()
        last = after = snapshot.sequence if snapshot else 0
        async for entry in journal.read(name, after):
            last += 1
            assert (entry.sequence, entry.payload) == (last, f"{name} {last}".encode())
        assert await journal.last_sequence(name) == last
        return last
    finally:
        await journal.aclose()


def test_what_a_killed_writer_was_told_is_there_and_whole(tmp_path: Path) -> None:
    path, told, chance = tmp_path / "journal", dict[str, int](), random.Random(1)
    for _ in range(5):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            lines = [writer.stdout.readline() for _ in range(chance.randrange(50, 700))]
            writer.send_signal(signal.SIGKILL)
            lines += writer.stdout.read().splitlines(keepends=True)
        assert writer.returncode == -signal.SIGKILL
        for name, last in (line.decode().split() for line in lines if line.endswith(b"\n")):
            told[name] = int(last)
        for name, last in told.items():
            stored = asyncio.run(recovered(path, name))
            assert stored >= last, f"{name}: entry {last} was acknowledged, and {stored} is the last"
            assert stored % 3 == 0, f"{name}: a part of an append is stored ({stored})"
            assert stored <= last + 3, f"{name}: {stored} is stored, and {last} was the last acknowledged"
    assert len(told) == 8
    assert min(told.values()) > 60


# -- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("payload", b"payload of 8"),
        ("kind", "handled"),
        ("version", 2),
        ("at_ms", 1),
        ("checksum", 0),
        ("payload", "text"),
        ("version", "x"),
    ],
)
async def test_a_damaged_entry_is_named_and_nothing_behind_it_comes_out(tmp_path: Path, column: str, value: object) -> None:
    path = tmp_path / "journal"
    await fill(path, "a", "b", count=600)
    change(path, f"UPDATE entries SET {column} = ? WHERE id = 'a' AND sequence = 407", value)
    got, error = await read(path, "a")
    assert got == entries(1, 406)
    assert isinstance(error, JournalCorrupt)
    assert (error.journal, error.id, error.sequence) == (str(path), "a", 407)
    assert "backup" in str(error)
    assert await read(path, "a", 407) == (entries(408, 193), None)
    assert await read(path, "b") == (entries(1, 600), None)


@pytest.mark.asyncio
async def test_an_entry_of_another_place_or_entity_does_not_pass(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    await fill(path, "a", count=5)
    await fill(path, "b", count=3)
    change(path, "UPDATE entries SET sequence = CASE sequence WHEN 2 THEN -3 ELSE -2 END WHERE id = 'a' AND sequence IN (2, 3)")
    change(path, "UPDATE entries SET sequence = -sequence WHERE sequence < 0")
    got, error = await read(path, "a")
    assert got == entries(1, 1)
    assert isinstance(error, JournalCorrupt)
    assert error.sequence == 2
    change(path, "DELETE FROM entries WHERE id = 'a'")
    change(path, "UPDATE entries SET id = 'a' WHERE id = 'b'")
    got, error = await read(path, "a")
    assert got == []
    assert isinstance(error, JournalCorrupt)


@pytest.mark.asyncio
@pytest.mark.parametrize(("missing", "sound"), [("= 1", 0), ("= 300", 299), ("BETWEEN 100 AND 599", 99), ("= 600", 599), ("> 0", 0)])
async def test_missing_entries_are_missed(tmp_path: Path, missing: str, sound: int) -> None:
    path = tmp_path / "journal"
    await fill(path, "a", count=600)
    change(path, f"DELETE FROM entries WHERE sequence {missing}")
    got, error = await read(path, "a")
    assert got == entries(1, sound)
    assert isinstance(error, JournalCorrupt)
    assert error.sequence == sound + 1


@pytest.mark.asyncio
async def test_a_lost_record_of_an_entity_is_not_an_unknown_entity(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    await fill(path, "a", "b", snapshots=(30,))
    await fill(path, "c")
    change(path, "DELETE FROM entities WHERE id IN ('a', 'c')")
    change(path, "DELETE FROM entries WHERE id = 'a'")
    journal = SqliteJournal(path)
    await journal.open()
    for name in ("a", "c"):
        for call in (journal.last_sequence(name), journal.load_snapshot(name), anext(journal.read(name))):
            with pytest.raises(JournalCorrupt, match="record is missing"):
                await call
    beside = asyncio.gather(*(journal.append(name, entries(1, 1), expected=0) for name in ("x", "y")))
    with pytest.raises(JournalCorrupt, match="does not know of"):
        await journal.append("c", entries(1, 1), expected=0)
    await beside
    assert await journal.last_sequence("b") == 30
    await journal.aclose()


@pytest.mark.asyncio
async def test_a_damaged_snapshot_is_passed_over_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "journal"
    await fill(path, "a", snapshots=(10, 20))
    change(path, "UPDATE snapshots SET payload = 'x' WHERE sequence = 20")
    journal = SqliteJournal(path)
    await journal.open()
    with caplog.at_level(logging.WARNING, "sage_actor"):
        assert await journal.load_snapshot("a") == Snapshot(10, 1, b"state 10")
    assert "snapshot of entry 20" in caplog.text
    assert str(path) in caplog.text
    assert await journal.delete_before("a", 99) == 10  # the damaged one covers nothing
    await journal.save_snapshot("a", Snapshot(30, 1, b"state 30"))
    change(path, "UPDATE snapshots SET checksum = checksum + 1 WHERE sequence = 30")
    assert await journal.load_snapshot("a") == Snapshot(10, 1, b"state 10"), "a damaged snapshot was counted among the kept ones"
    await journal.save_snapshot("a", Snapshot(5, 1, b"late, and of no use: its next entries are deleted"))
    change(path, "UPDATE snapshots SET version = 7 WHERE sequence >= 10")
    with pytest.raises(JournalCorrupt, match="up to 10 were deleted"):
        await journal.load_snapshot("a")
    await journal.aclose()


@pytest.mark.asyncio
async def test_without_deleted_entries_damaged_snapshots_cost_only_the_replay(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    await fill(path, "a", snapshots=(10, 20))
    change(path, "UPDATE snapshots SET payload = x'00'")
    journal = SqliteJournal(path)
    await journal.open()
    assert await journal.load_snapshot("a") is None
    assert await journal.delete_before("a", 99) == 0
    await journal.aclose()
    assert await read(path, "a") == (entries(1, 30), None)


@pytest.mark.asyncio
async def test_no_flipped_byte_changes_what_is_read_unnoticed(tmp_path: Path) -> None:
    path, copy, chance = tmp_path / "journal", tmp_path / "copy", random.Random(7)
    await fill(path, "entity one", "entity two", count=40)
    original, whole = path.read_bytes(), entries(1, 40)
    noticed = 0
    for _ in range(250):
        damaged = bytearray(original)
        damaged[chance.randrange(len(damaged))] ^= chance.choice((0x01, 0x80, 0xFF))
        copy.write_bytes(damaged)
        for name in ("entity one", "entity two"):
            got, error = await read(copy, name)
            noticed += error is not None
            assert got == whole if error is None else got == whole[: len(got)]
    assert noticed > 20


@pytest.mark.asyncio
async def test_a_torn_file_gives_a_sound_prefix_or_an_error(tmp_path: Path) -> None:
    path, copy = tmp_path / "journal", tmp_path / "copy"
    await fill(path, "a", count=300)
    original = path.read_bytes()
    assert len(original) > 20_000
    for size in range(1, len(original), 1_777):
        copy.write_bytes(original[:size])
        got, error = await read(copy, "a")
        assert isinstance(error, JournalError)
        assert got == entries(1, len(got))
        assert copy.read_bytes() == original[:size], "a damaged file was written to"


@pytest.mark.asyncio
async def test_a_torn_log_gives_whole_appends_from_the_first_on(tmp_path: Path) -> None:
    path, copy = tmp_path / "journal", tmp_path / "copy"
    await fill(path, "a", count=5)
    journal = SqliteJournal(path)
    await journal.open()
    for n in range(10):
        await journal.append("a", entries(5 * n + 6, 5), expected=5 * n + 5)
    main, log = path.read_bytes(), (tmp_path / "journal-wal").read_bytes()
    await journal.aclose()
    lengths: list[int] = []
    for size in range(0, len(log) + 1, 1_029):
        copy.write_bytes(main)
        (tmp_path / "copy-wal").write_bytes(log[:size])
        got, error = await read(copy, "a")
        assert error is None
        assert got == entries(1, len(got))
        assert len(got) % 5 == 0
        lengths.append(len(got))
    assert lengths == sorted(lengths)
    assert lengths[0] == 5 < lengths[-1]


@pytest.mark.asyncio
@pytest.mark.parametrize("emptied", [True, False])
async def test_a_log_without_its_file_is_kept(tmp_path: Path, emptied: bool) -> None:
    path, log = tmp_path / "journal", tmp_path / "journal-wal"
    log.write_bytes(b"the newest entries")
    if emptied:
        path.touch()
    error = await refusal(path, JournalCorrupt)
    assert "log" in str(error)
    assert log.read_bytes() == b"the newest entries"


# -- what is not ours, and what refuses us ----------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_newer_journal_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    await fill(path, "a")
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    before = path.read_bytes()
    error = await refusal(path)
    assert "version 2" in str(error)
    assert "upgrade" in str(error)
    assert path.read_bytes() == before


@pytest.mark.asyncio
@pytest.mark.parametrize("version", [0, 1])
async def test_a_database_of_somebody_else_is_left_alone(tmp_path: Path, version: int) -> None:
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.executescript(f"CREATE TABLE entries (x); PRAGMA user_version = {version};")
    connection.close()
    before = path.read_bytes()
    assert "another application" in str(await refusal(path))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["other.db"]


@pytest.mark.asyncio
@pytest.mark.parametrize("content", [b"x", b"hello, this is a text\n" * 500, bytes(10_000)])
async def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    assert "not a database" in str(await refusal(path))
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["notes.txt"]


@pytest.mark.asyncio
async def test_places_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "journal", tmp_path, Path("/proc/journal")):
        await refusal(path)


@pytest.mark.asyncio
async def test_a_read_only_file_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal"
    await fill(path, "a")
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda name, **options: connect(f"file:{name}?mode=ro", uri=True, **options))
    assert "writable" in str(await refusal(path))


@pytest.mark.asyncio
async def test_a_lock_of_another_process_is_waited_for_and_then_named(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    await fill(path, "a")
    journal = SqliteJournal(path, lock_timeout="20ms")
    await journal.open()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert "locked" in str(await refusal(path))
    calls = [journal.append("a", entries(31, 2), expected=30), journal.append("b", entries(1, 2), expected=0)]
    for result in await asyncio.gather(*calls, journal.save_snapshot("a", Snapshot(30, 1, b"")), return_exceptions=True):
        assert isinstance(result, JournalUnavailable)
        assert "locked" in str(result)
    assert await journal.last_sequence("a") == 30, "a lock for writing stands in a reader's way"
    other.execute("ROLLBACK")
    other.close()
    await journal.append("a", entries(31, 2), expected=30)
    await journal.aclose()
    assert await read(path, "a") == (entries(1, 32), None)


@pytest.mark.asyncio
async def test_a_full_disk_fails_what_does_not_fit_and_keeps_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal"
    await fill(path, "a", count=5)
    pages = sqlite3.connect(path).execute("PRAGMA page_count").fetchone()[0]
    patch_connections(monkeypatch, lambda connection: connection.execute(f"PRAGMA max_page_count = {pages + 6}"))
    journal = SqliteJournal(path)
    await journal.open()
    large = journal.append("large", entries(1, 1, size=100_000), expected=0)
    small, others = journal.append("a", entries(6, 1), expected=5), [journal.append(f"{n}", entries(1, 1), expected=0) for n in range(5)]
    refused, *accepted = await asyncio.gather(large, small, *others, return_exceptions=True)
    assert isinstance(refused, JournalUnavailable)
    assert "full" in str(refused)
    assert accepted == [None] * 6, "what would have fitted was failed together with what did not"
    with pytest.raises(JournalUnavailable, match="full"):
        await journal.save_snapshot("a", Snapshot(5, 1, bytes(100_000)))
    assert await journal.last_sequence("large") == 0
    await journal.aclose()
    assert await read(path, "a") == (entries(1, 6), None)
    assert await read(path, "large") == ([], None)


@pytest.mark.asyncio
async def test_a_payload_beyond_sqlite_is_its_owners_failure_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patch_connections(monkeypatch, lambda connection: connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 10_000))
    journal = SqliteJournal(tmp_path / "journal")
    await journal.open()
    calls = [journal.append(f"{n}", entries(1, 1, size=20_000 if n == 3 else 10), expected=0) for n in range(6)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(results.pop(3), JournalError)
    assert results == [None] * 5
    assert [name async for name in journal.ids()] == ["0", "1", "2", "4", "5"]
    await journal.aclose()


def test_settings_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="keep_snapshots"):
        SqliteJournal(tmp_path / "journal", keep_snapshots=0)
    with pytest.raises(ConfigError, match="lock_timeout"):
        SqliteJournal(tmp_path / "journal", lock_timeout="soon")


# -- one file, many journals; one journal, many writers ---------------------------------------------------------------


@pytest.mark.asyncio
async def test_journals_that_begin_one_file_at_the_same_time_agree(tmp_path: Path) -> None:
    for turn in range(15):
        journals = [SqliteJournal(tmp_path / f"{turn}" / "journal") for _ in range(3)]
        await asyncio.gather(*(journal.open() for journal in journals))
        results = await asyncio.gather(*(journal.append("a", entries(1, 2), expected=0) for journal in journals), return_exceptions=True)
        assert results.count(None) == 1
        assert [type(result) for result in results].count(JournalConflict) == 2
        await asyncio.gather(*(journal.aclose() for journal in journals))


@pytest.mark.asyncio
async def test_the_slower_of_two_journals_is_told_what_to_do(tmp_path: Path) -> None:
    first, second = SqliteJournal(tmp_path / "journal"), SqliteJournal(tmp_path / "journal")
    await first.open()
    await second.open()
    await first.append("counter", entries(1, 7), expected=0)
    with pytest.raises(JournalConflict) as caught:
        await second.append("counter", entries(6, 1), expected=5)
    error = caught.value
    assert (error.id, error.expected, error.stored) == ("counter", 5, 7)
    for words in ("'counter'", "5", "7", "another instance writes to this id"):
        assert words in str(error)
    await first.aclose()
    await second.append("counter", entries(8, 1), expected=7)
    await second.aclose()


@pytest.mark.asyncio
async def test_appends_at_the_same_time_share_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    statements: list[str] = []
    patch_connections(monkeypatch, lambda connection: connection.set_trace_callback(statements.append))
    journal = SqliteJournal(tmp_path / "journal")
    await journal.open()
    statements.clear()
    await asyncio.gather(*(journal.append(f"{n}", entries(1, 2), expected=0) for n in range(400)))
    commits = statements.count("COMMIT")
    assert 1 <= commits <= 3, f"400 appends at the same time took {commits} commits"
    await journal.aclose()


@pytest.mark.asyncio
async def test_reading_holds_one_page_whatever_the_payloads(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = SqliteJournal(path)
    await journal.open()
    for n in range(0, 24, 4):
        await journal.append("a", entries(n + 1, 4, size=700_000), expected=n)
    tracemalloc.start()
    try:
        count = 0
        async for entry in journal.read("a"):
            count += len(entry.payload) == 700_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    await journal.aclose()
    assert count == 24
    assert peak < 6_000_000, f"reading 17 MB held {peak} bytes"


# -- cancellation and the end of the loop -----------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_calls_cancelled_at_any_point_leave_a_journal_that_works(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal")
    await journal.open()
    last = 0
    for turns in range(0, 120, 3):
        calls = [
            asyncio.ensure_future(journal.append("a", entries(last + 1, 4), expected=last)),
            asyncio.ensure_future(journal.save_snapshot("a", Snapshot(max(1, last), 1, b"%d" % last))),
            asyncio.ensure_future(journal.delete_before("a", last)),
            asyncio.ensure_future(anext(journal.read("a", last), None)),
        ]
        for _ in range(turns):
            await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        stored = await journal.last_sequence("a")
        assert stored in (last, last + 4)
        if not calls[0].cancelled():
            assert stored == last + 4
        last = stored
        await journal.append(f"{turns}", entries(1, 1), expected=0)
    assert last
    snapshot = await journal.load_snapshot("a")
    after = snapshot.sequence if snapshot else 0
    assert [entry async for entry in journal.read("a", after)] == entries(after + 1, last - after)
    await journal.aclose()


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_loop_that_ends_without_closing_leaves_whole_appends_and_no_thread(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    path = tmp_path / "journal"

    async def leave(turns: int, opened: bool) -> None:
        journal = SqliteJournal(path, lock_timeout=0)  # what the last one left locked would show
        opening = asyncio.ensure_future(journal.open())
        if opened:
            await opening
            for n in range(5):
                task = asyncio.ensure_future(journal.append(f"{turns} {n}", entries(1, 3), expected=0))
                running.add(task)
        for _ in range(turns):
            await asyncio.sleep(0)

    running = set[asyncio.Future[None]]()
    for turns in range(12):
        for opened in (True, False):
            with asyncio.Runner(loop_factory=new_loop) as runner:
                runner.run(leave(turns, opened))
    assert not caplog.records, caplog.text
    for turns in range(12):
        for n in range(5):
            got, error = asyncio.run(read(path, f"{turns} {n}"))
            assert error is None
            assert got in ([], entries(1, 3))


def test_a_journal_opens_again_on_the_next_loop_and_refuses_a_foreign_one(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal")

    async def count() -> int:
        await journal.open()
        last = await journal.last_sequence("a")
        await journal.append("a", entries(last + 1, 1), expected=last)
        return last

    assert [asyncio.run(count()) for _ in range(3)] == [0, 1, 2]

    async def ask_from_another_loop() -> None:
        await journal.open()
        loop = asyncio.get_running_loop()
        with pytest.raises(JournalUnavailable, match="another event loop"):
            await loop.run_in_executor(None, lambda: asyncio.run(journal.last_sequence("a")))
        await journal.aclose()

    asyncio.run(ask_from_another_loop())


@pytest.mark.asyncio
async def test_a_copy_of_a_closed_journal_is_one_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "down" / "journal"
    await fill(path, "a", snapshots=(30,))
    assert os.listdir(path.parent) == ["journal"]
    shutil.copy(path, tmp_path / "copy")
    assert await read(tmp_path / "copy", "a") == (entries(1, 30), None)
