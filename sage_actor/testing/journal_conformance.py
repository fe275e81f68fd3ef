"""What a `Journal` must hold to. Ours pass it; run it on yours.

    @pytest.mark.asyncio
    @pytest.mark.parametrize("rule", JOURNAL_RULES, ids=rule_name)
    async def test_my_journal(rule, tmp_path):
        await rule(JournalCase(make=lambda: MyJournal(tmp_path / uuid4().hex), again=lambda journal: MyJournal(journal.path)))

A rule raises `AssertionError` that says what was expected and what came. Rules make journals of their own, so ``make``
must give one over new, empty storage each time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from sage_actor.durable.journal import EVENT, Journal, JournalEntry, Snapshot
from sage_actor.errors import JournalConflict, JournalError, JournalUnavailable

__all__ = ["JOURNAL_RULES", "JournalCase", "JournalRule", "rule_name"]

J = TypeVar("J", bound=Journal)

_PATIENCE: Final = 30.0  # seconds after which a call that never returns fails the rule instead of hanging the suite
_ODD_IDS: Final = ("a", "A", "a ", "a/b", "a\0b", "\N{SNOWMAN}", "e\u0301", "\u00e9", "\U0001f600", "'; DROP TABLE entries; --", "x" * 3000)


@dataclass(frozen=True, slots=True)
class JournalCase:
    """A journal under test.

    Attributes:
        make: gives a new journal, not opened, over storage of its own in which nothing is.
        again: gives another journal, not opened, over the storage of a given one; None where that cannot be.
        cancel_turns: a call is cancelled after 0 to this many turns of the loop.
        keep_snapshots: how many snapshots of an entity it keeps at least.
    """

    make: Callable[[], Journal]
    again: Callable[[Journal], Journal] | None = None
    cancel_turns: int = 12
    keep_snapshots: int = 1


JournalRule = Callable[[JournalCase], Awaitable[None]]


def rule_name(rule: Callable[..., object]) -> str:
    """For the ids of parametrised tests."""
    return rule.__name__


def _holds(condition: object, what: str) -> None:
    if not condition:
        raise AssertionError(what)


@asynccontextmanager
async def _opened(journal: J) -> AsyncGenerator[J]:
    async with asyncio.timeout(_PATIENCE):
        await journal.open()
        try:
            yield journal
        finally:
            await journal.aclose()


def _run(first: int, count: int, mark: str = "") -> list[JournalEntry]:
    return [JournalEntry(n, EVENT, 1, f"{mark}{n}".encode(), 1_000 + n) for n in range(first, first + count)]


async def _all(journal: Journal, id: str, after: int = 0) -> list[JournalEntry]:
    return [entry async for entry in journal.read(id, after)]


async def _refused(error: type[JournalError], call: Awaitable[object], what: str) -> JournalError:
    try:
        await call
    except error as refusal:
        return refusal
    raise AssertionError(f"{what} was accepted")


async def starts_empty(case: JournalCase) -> None:
    """An unknown entity has no entries, no snapshot, the last sequence 0, and is not listed; asking does not make it known."""
    async with _opened(case.make()) as journal:
        for _ in range(2):
            _holds(await journal.last_sequence("a") == 0, "an unknown id has a last sequence")
            _holds(await _all(journal, "a") == [], "an unknown id has entries")
            _holds(await journal.load_snapshot("a") is None, "an unknown id has a snapshot")
            _holds(await journal.delete_before("a", 10) == 0, "entries of an unknown id were deleted")
            _holds([name async for name in journal.ids()] == [], "an unknown id is listed")
            await journal.append("a", [], expected=0)


async def appends_in_order(case: JournalCase) -> None:
    """What was appended is read in order, whole, from any place, every field as it was."""
    entries = [
        JournalEntry(1, EVENT, 1, b"", 0),
        JournalEntry(2, "delivery", 2**62, bytes(range(256)) * 20, 2**62),
        JournalEntry(3, "\N{SNOWMAN} of my own", 0, b"\0", -1),
        *_run(4, 700),
    ]
    async with _opened(case.make()) as journal:
        await journal.append("a", entries[:1], expected=0)
        await journal.append("a", entries[1:3], expected=1)
        await journal.append("a", entries[3:], expected=3)
        await journal.append("a", [], expected=703)
        _holds(await journal.last_sequence("a") == 703, "the last sequence is not that of the last entry")
        for after in (0, 1, 2, 300, 702, 703, 9_999):
            _holds(await _all(journal, "a", after) == entries[after:], f"read(after={after}) gave something else than was appended")


async def refuses_stale_writers(case: JournalCase) -> None:
    """An append that expects another last sequence is refused with both numbers, stores nothing and harms nobody."""
    async with _opened(case.make()) as journal:
        await journal.append("a", _run(1, 3), expected=0)
        for expected in (0, 2, 4):
            for count in (0, 1, 3):
                call = journal.append("a", _run(expected + 1, count, "stale "), expected=expected)
                refusal = await _refused(JournalConflict, call, f"append(expected={expected}) after entry 3")
                _holds(isinstance(refusal, JournalConflict) and refusal.id == "a", "the refusal does not name the entity")
                _holds((getattr(refusal, "expected", 0), getattr(refusal, "stored", 0)) == (expected, 3), "the refusal has wrong numbers")
        await journal.append("a", _run(4, 1), expected=3)
        _holds(await _all(journal, "a") == _run(1, 4), "refused appends left something")


async def one_of_many_writers_wins(case: JournalCase) -> None:
    """Of appends for one entity at the same time, all of which expect the same, exactly one is stored, whole."""
    async with _opened(case.make()) as journal:
        for turn in range(5):
            calls = [journal.append("a", _run(turn * 3 + 1, 3, f"{writer} "), expected=turn * 3) for writer in range(10)]
            results = await asyncio.gather(*calls, return_exceptions=True)
            _holds(results.count(None) == 1, f"{results.count(None)} of 10 writers were told that they were stored")
            _holds(all(isinstance(r, JournalConflict) for r in results if r is not None), f"not all losers got a conflict: {results}")
            expected = _run(turn * 3 + 1, 3, f"{results.index(None)} ")
            _holds(await _all(journal, "a", turn * 3) == expected, "what is stored is not what the winner wrote")


async def a_conflict_is_one_appends_own(case: JournalCase) -> None:
    """Appends at the same time succeed or fail each by itself, also those of one entity that follow each other."""
    async with _opened(case.make()) as journal:
        await journal.append("stale", _run(1, 1), expected=0)
        calls = [journal.append(f"good {n}", _run(1, 2), expected=0) for n in range(40)]
        calls[20:20] = [
            journal.append("stale", _run(1, 1), expected=0),
            *(journal.append("chain", _run(n, 1), expected=n - 1) for n in (1, 2, 3)),
        ]
        results = await asyncio.gather(*calls, return_exceptions=True)
        _holds(isinstance(results.pop(20), JournalConflict), "the stale append was accepted")
        _holds(not any(results), f"a conflict failed others: {[r for r in results if r]}")
        for n in range(40):
            _holds(await _all(journal, f"good {n}") == _run(1, 2), "an append beside a conflict is not stored as it was")
        _holds(await _all(journal, "chain") == _run(1, 3), "appends that follow each other are not stored in order")


async def refuses_what_cannot_be_kept(case: JournalCase) -> None:
    """Gaps in the numbers, ids and kinds without bytes, payloads that are no bytes: refused, and nothing is stored."""
    gaps = [_run(2, 1), _run(0, 1), [*_run(1, 1), *_run(3, 1)], [*_run(1, 2), *_run(2, 1)]]
    bad: list[list[JournalEntry]] = [
        *gaps,
        [JournalEntry(1, "", 1, b"", 0)],
        [JournalEntry(1, "\ud800", 1, b"", 0)],
        [JournalEntry(1, EVENT, 2**63, b"", 0)],
        [JournalEntry(1, EVENT, 1, "text", 0)],  # type: ignore[arg-type]  # on purpose
        [*_run(1, 1), JournalEntry(2, EVENT, 1, bytearray(b"x"), 0)],  # type: ignore[arg-type, unused-ignore]  # on purpose
    ]
    async with _opened(case.make()) as journal:
        for entries in bad:
            await _refused(JournalError, journal.append("a", entries, expected=0), f"the run {entries!r}")
        for name in ("", "\ud800", 7):
            await _refused(JournalError, journal.append(name, _run(1, 1), expected=0), f"the id {name!r}")  # type: ignore[arg-type]
        for snapshot in (Snapshot(0, 1, b""), Snapshot(1, 1, b""), Snapshot(-1, 1, b"")):
            await _refused(JournalError, journal.save_snapshot("a", snapshot), f"a snapshot of nothing, {snapshot!r},")
        _holds([name async for name in journal.ids()] == [], "what was refused left an entity")


async def entities_are_apart(case: JournalCase) -> None:
    """Entities with ids that look alike, or look like something else, do not see each other; they are listed sorted."""
    async with _opened(case.make()) as journal:
        for count, name in enumerate(_ODD_IDS, 1):
            await journal.append(name, _run(1, count, name[:9]), expected=0)
            await journal.save_snapshot(name, Snapshot(1, 1, name.encode()))
        for count, name in enumerate(_ODD_IDS, 1):
            _holds(await _all(journal, name) == _run(1, count, name[:9]), f"entity {name[:20]!r} has entries of another")
            _holds(await journal.load_snapshot(name) == Snapshot(1, 1, name.encode()), f"entity {name[:20]!r} has the snapshot of another")
        many = [f"entity {n}" for n in range(700)]
        await asyncio.gather(*(journal.append(name, _run(1, 1), expected=0) for name in many))
        _holds([name async for name in journal.ids()] == sorted([*many, *_ODD_IDS]), "ids() does not list every entity once, sorted")


async def cancelled_append_is_whole_or_nothing(case: JournalCase) -> None:
    """A cancelled append is stored as a whole or not at all, and the next call already sees which."""
    async with _opened(case.make()) as journal:
        last = 0
        for turns in range(case.cancel_turns + 1):
            for beside in (0, 3):
                others = [asyncio.ensure_future(journal.append(f"{turns} {beside} {n}", _run(1, 2), expected=0)) for n in range(beside)]
                writing = asyncio.ensure_future(journal.append("a", _run(last + 1, 3), expected=last))
                for _ in range(turns):
                    await asyncio.sleep(0)
                writing.cancel()
                await asyncio.wait((writing,))
                now = await journal.last_sequence("a")
                if not writing.cancelled():
                    writing.result()
                    _holds(now == last + 3, "an append returned, but is not stored")
                _holds(now in (last, last + 3), f"{now - last} of 3 entries of a cancelled append are stored")
                await journal.append("a", _run(now + 1, 1), expected=now)
                last = now + 1
                await asyncio.gather(*others)
        _holds(await _all(journal, "a") == _run(1, last), "cancelled appends left something else")


async def reading_goes_with_writing(case: JournalCase) -> None:
    """A reader gets what is appended before it arrives there, may pause, and may leave in the middle; two do not disturb each other."""
    async with _opened(case.make()) as journal:
        await journal.append("a", _run(1, 600), expected=0)
        first, second = journal.read("a"), journal.read("a", 100)
        got = [await anext(first) for _ in range(300)]
        got_second = [await anext(second) for _ in range(100)]
        await journal.append("a", _run(601, 600), expected=600)
        _holds(await anext(journal.read("a", 599)) == _run(600, 1)[0], "a third reader got something else")
        got += [entry async for entry in first]
        got_second += [entry async for entry in second]
        _holds(got == _run(1, 1_200), "a reader that paused missed what was appended meanwhile")
        _holds(got_second == _run(101, 1_100), "the second of two readers got something else")


async def keeps_the_newest_snapshot(case: JournalCase) -> None:
    """The newest snapshot is loaded, whatever the order in which they were saved; one of the same sequence is replaced."""
    async with _opened(case.make()) as journal:
        await journal.append("a", _run(1, 20), expected=0)
        for sequence, newest in ((5, 5), (9, 9), (7, 9), (20, 20), (1, 20)):
            await journal.save_snapshot("a", Snapshot(sequence, 3, b"state %d" % sequence))
            _holds(await journal.load_snapshot("a") == Snapshot(newest, 3, b"state %d" % newest), f"not the newest after {sequence}")
        await journal.save_snapshot("a", Snapshot(20, 4, b""))
        _holds(await journal.load_snapshot("a") == Snapshot(20, 4, b""), "a snapshot of the same sequence was not replaced")
        await _refused(JournalError, journal.save_snapshot("a", Snapshot(21, 1, b"")), "a snapshot of an entry that is not stored")
        _holds(await journal.load_snapshot("b") is None, "another entity has a snapshot")
        _holds(await _all(journal, "a") == _run(1, 20), "snapshots changed entries")


async def deletes_only_what_a_snapshot_covers(case: JournalCase) -> None:
    """Without a snapshot nothing is deleted, with some nothing behind the oldest kept; the sequence goes on as if nothing was."""
    async with _opened(case.make()) as journal:
        await journal.append("a", _run(1, 5_000), expected=0)
        _holds(await journal.delete_before("a", 5_001) == 0, "entries were deleted without a snapshot")
        for n in range(case.keep_snapshots):  # as many as are kept: the first one stays the oldest
            await journal.save_snapshot("a", Snapshot(4_000 + n, 1, b"%d" % n))
        _holds(await journal.delete_before("a", 11) == 10, "delete_before(11) does not delete entries 1 to 10")
        _holds(await journal.delete_before("a", 11) == 0, "entries were deleted twice")
        _holds(await journal.delete_before("a", -1) == 0, "delete_before(-1) deleted something")
        _holds(await journal.delete_before("a", 9_999) == 3_990, "entries were not deleted up to the oldest snapshot, or further")
        _holds(await _all(journal, "a", 4_000) == _run(4_001, 1_000), "entries behind the oldest snapshot are gone")
        await _refused(JournalError, anext(journal.read("a", 3_999)), "reading what was deleted")
        await _refused(JournalError, anext(journal.read("a")), "reading what was deleted")
        await journal.save_snapshot("a", Snapshot(3_000, 1, b"late"))
        snapshot = await journal.load_snapshot("a")
        _holds(snapshot and snapshot.sequence == 3_999 + case.keep_snapshots, "a late snapshot took the place of a newer one")
        await journal.append("a", _run(5_001, 1), expected=5_000)
        await journal.save_snapshot("a", Snapshot(5_001, 1, b"all"))
        for n in range(case.keep_snapshots + 2):
            await journal.append("a", _run(5_002 + n, 1), expected=5_001 + n)
            await journal.save_snapshot("a", Snapshot(5_002 + n, 1, b"all"))
            await journal.delete_before("a", 9_999)
        last = await journal.last_sequence("a")
        _holds(last == 5_003 + case.keep_snapshots, "the last sequence changed when entries were deleted")
        _holds(await _all(journal, "a", last) == [], "there are entries behind the last one")
        await _refused(
            JournalConflict, journal.append("a", _run(1, 1), expected=0), "an append after deleted entries, as if there were none,"
        )
        await journal.append("a", _run(last + 1, 2), expected=last)
        _holds(await _all(journal, "a", last) == _run(last + 1, 2), "appends after a deletion are not stored as they were")


async def survives_closing(case: JournalCase) -> None:
    """After `aclose` and `open`, and for another journal over the same storage, everything is as it was."""
    journal = case.make()
    for turn in range(3):
        async with _opened(journal):
            _holds(await _all(journal, "a") == _run(1, turn * 2), "entries changed while it was closed")
            await journal.append("a", _run(turn * 2 + 1, 2), expected=turn * 2)
            await journal.save_snapshot("a", Snapshot(turn * 2 + 1, 1, b"%d" % turn))
        if case.again is not None:
            async with _opened(case.again(journal)) as other:
                _holds(await _all(other, "a") == _run(1, turn * 2 + 2), "another journal over the same storage sees something else")
                _holds(await other.load_snapshot("a") == Snapshot(turn * 2 + 1, 1, b"%d" % turn), "it sees another snapshot")


async def two_share_one_storage(case: JournalCase) -> None:
    """Two journals open over the same storage see each other's appends at once; the slower of two writers gets a conflict."""
    if case.again is None:
        return
    journal = case.make()
    async with _opened(journal), _opened(case.again(journal)) as other:
        for turn in range(5):
            mine, theirs = (j.append("a", _run(turn * 2 + 1, 2, m), expected=turn * 2) for j, m in ((journal, "mine "), (other, "theirs ")))
            results = await asyncio.gather(mine, theirs, return_exceptions=True)
            _holds(
                sorted(map(type, results), key=str) == sorted([type(None), JournalConflict], key=str),
                f"not one of two writers won: {results}",
            )
            winner = ("mine ", "theirs ")[results.index(None)]
            for one in (journal, other):
                _holds(await _all(one, "a", turn * 2) == _run(turn * 2 + 1, 2, winner), "the two see different entries")


async def closed_it_refuses(case: JournalCase) -> None:
    """Before `open` and after `aclose` every call is refused; both may be called twice, and `aclose` without `open`."""
    journal = case.make()
    await journal.aclose()
    for _ in range(2):
        await _refused(JournalUnavailable, journal.append("a", _run(1, 1), expected=0), "an append to a closed journal")
        await _refused(JournalUnavailable, anext(journal.read("a")), "reading a closed journal")
        await _refused(JournalUnavailable, journal.last_sequence("a"), "last_sequence of a closed journal")
        await _refused(JournalUnavailable, journal.save_snapshot("a", Snapshot(1, 1, b"")), "a snapshot into a closed journal")
        await _refused(JournalUnavailable, journal.load_snapshot("a"), "a snapshot from a closed journal")
        await _refused(JournalUnavailable, journal.delete_before("a", 1), "deleting from a closed journal")
        await _refused(JournalUnavailable, anext(journal.ids()), "listing a closed journal")
        async with asyncio.timeout(_PATIENCE):
            await journal.open()
            await journal.open()
            _holds(await journal.last_sequence("a") == 0, "what was refused was stored")
            await journal.aclose()
            await journal.aclose()


async def closing_finishes_what_was_asked(case: JournalCase) -> None:
    """Calls under way when `aclose` is called end, and what they say is true: none hangs, none is stored against its word."""
    for turns in range(6):
        journal = case.make()
        await journal.open()
        calls = [asyncio.ensure_future(journal.append(f"{n}", _run(1, 3), expected=0)) for n in range(20)]
        for _ in range(turns):
            await asyncio.sleep(0)
        async with asyncio.timeout(_PATIENCE):
            await asyncio.gather(journal.aclose(), journal.aclose())
            results = await asyncio.gather(*calls, return_exceptions=True)
        async with _opened(journal):
            for n, result in enumerate(results):
                stored = await _all(journal, f"{n}")
                _holds(result is None or isinstance(result, JournalUnavailable), f"an append under way got {result!r}")
                _holds(
                    stored == (_run(1, 3) if result is None else []), f"an append was told {result!r}, and {len(stored)} entries are stored"
                )


async def cancelled_close_still_closes(case: JournalCase) -> None:
    """Cancelling the wait for `aclose` leaves it closing: the next `aclose` waits for the same end."""
    for turns in range(case.cancel_turns + 1):
        journal = case.make()
        await journal.open()
        writing = asyncio.ensure_future(journal.append("a", _run(1, 3), expected=0))
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(journal.aclose())
        for _ in range(turns):
            await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait((closing, writing), timeout=_PATIENCE)
        _holds(writing.done() and writing.exception() is None, "a cancelled aclose took an append with it")
        if turns:
            await _refused(JournalUnavailable, journal.append("a", _run(4, 1), expected=3), "an append to a journal that closes")
        await journal.aclose()
        async with _opened(journal):
            _holds(await _all(journal, "a") == _run(1, 3), "an append that returned while closing is not stored")


async def cancelled_open_leaves_nothing(case: JournalCase) -> None:
    """`open` may be cancelled at any moment; then it can be opened again, or dropped."""
    for turns in range(case.cancel_turns + 1):
        journal = case.make()
        opening = asyncio.ensure_future(journal.open())
        for _ in range(turns):
            await asyncio.sleep(0)
        opening.cancel()
        await asyncio.wait((opening,))
        if turns % 2 or not opening.cancelled():
            async with _opened(journal):
                await journal.append("a", _run(1, 1), expected=0)


JOURNAL_RULES: Final[Sequence[JournalRule]] = (
    starts_empty,
    appends_in_order,
    refuses_stale_writers,
    one_of_many_writers_wins,
    a_conflict_is_one_appends_own,
    refuses_what_cannot_be_kept,
    entities_are_apart,
    cancelled_append_is_whole_or_nothing,
    reading_goes_with_writing,
    keeps_the_newest_snapshot,
    deletes_only_what_a_snapshot_covers,
    survives_closing,
    two_share_one_storage,
    closed_it_refuses,
    closing_finishes_what_was_asked,
    cancelled_close_still_closes,
    cancelled_open_leaves_nothing,
)
