"""What a journal of durable actors must hold to: entries in order per entity, appended whole or not at all, and snapshots.

An *entity* is a durable actor under its persistent id. Its entries are numbered 1, 2, 3, ...; its state is what they make
of the initial state, in order. An append names the last sequence that its writer has seen, and is refused if that is no
longer the last: of two instances of one entity only one can write.

Why there is no table for messages that are to be delivered, and none for messages that were handled
----------------------------------------------------------------------------------------------------
At-least-once delivery with de-duplication needs two things to be atomic, and both are entries beside events:

* The sender. "This happened" and "therefore message n must reach X" become true together. So a `DELIVERY` entry stands in
  the same append as the `EVENT` entries it follows from. If the append was stored, the message is owed, whatever ends the
  process afterwards; if not, it is not, and the events neither. "X confirmed n" is a `CONFIRMED` entry, later, in any append.
  It may be lost (then n is sent again), so it needs no company. What is owed after a recovery is the deliveries without
  their confirmations, seen in passing while the state is rebuilt: no query, no index, no second thing to keep in step.
* The receiver. "Message n of sender S was handled" and "these events followed" become true together: a `HANDLED` entry
  in the same append as the events. The confirmation is sent after that append. A copy of n that comes later finds the
  entry (in memory, from the same replay) and is confirmed again without being handled.

A table of its own would have to be written in the same transaction and compacted in step with the entries; a snapshot would
still have to agree with it. As entries both come under the one rule there is, sequence and atomic append. The price: the
payload of a snapshot must carry the deliveries owed and the numbers handled, since the entries before it may be deleted.
The journal itself reads neither kinds nor payloads.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from sage_actor.errors import JournalError

__all__ = [
    "CONFIRMED",
    "DELIVERY",
    "EVENT",
    "HANDLED",
    "Journal",
    "JournalEntry",
    "Snapshot",
    "check_append",
    "check_id",
    "check_snapshot",
    "entries_deleted",
    "snapshot_ahead",
]

EVENT: Final = "event"
"""Something happened to the entity; the payload says what."""
DELIVERY: Final = "delivery"
"""A message is owed to somebody; the payload says to whom, its number, and the message."""
CONFIRMED: Final = "confirmed"
"""The receiver of a delivery has handled it; the payload says which."""
HANDLED: Final = "handled"
"""A numbered message of some sender has been handled here; the payload says which."""

_LARGEST: Final = 2**63 - 1
_NUMBERS: Final = struct.Struct("<IIqqq")  # lengths of id and kind, so that no two different entries have the same bytes


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One thing that an entity remembers.

    Attributes:
        sequence: its place among the entries of its entity; the first is 1, and there are no gaps.
        kind: what the payload is; `EVENT`, `DELIVERY`, `CONFIRMED`, `HANDLED`, or a word of the writer's own.
        version: version of the payload's schema, for whoever reads it years later.
        payload: bytes that the journal does not look into.
        at_ms: when it was written, in milliseconds since the epoch. For people: order is in `sequence`.
    """

    sequence: int
    kind: str
    version: int
    payload: bytes
    at_ms: int

    def checksum(self, id: str) -> int:
        """CRC-32 over the entity's id and every field: bytes of another entity or another place do not pass for these."""
        name, kind = id.encode(), self.kind.encode()
        head = _NUMBERS.pack(len(name), len(kind), self.sequence, self.version, self.at_ms)
        return zlib.crc32(self.payload, zlib.crc32(head + name + kind))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of an entity after one of its entries.

    Attributes:
        sequence: the last entry whose effect it holds.
        version: version of the payload's schema.
        payload: bytes that the journal does not look into.
    """

    sequence: int
    version: int
    payload: bytes

    def checksum(self, id: str) -> int:
        """CRC-32 over the entity's id and every field."""
        name = id.encode()
        return zlib.crc32(self.payload, zlib.crc32(_NUMBERS.pack(len(name), 0, self.sequence, self.version, 0) + name))


class Journal(Protocol):
    """Keeps entries and snapshots of many entities. `sage_actor.testing.journal_conformance` decides what is one.

    All methods belong to the event loop on which `open` ran, and may be called by many tasks at a time. They see each
    other's effects in the order in which they return. Any of them raises `JournalUnavailable` while the journal is not open or
    cannot be reached, `JournalCorrupt` where what they need is damaged, and `JournalError` for an id, entry or snapshot
    that no journal could keep.
    """

    async def open(self) -> None:
        """Make it ready. On an open journal nothing; after `aclose` it opens again. Cancelled, it leaves nothing behind.

        Raises:
            JournalUnavailable: no access, locked, or not a journal (nothing is overwritten); written by a newer version.
        """
        ...

    async def aclose(self) -> None:
        """Finish what was asked for, then release everything. Idempotent. Cancelling the wait does not stop the closing."""
        ...

    async def append(self, id: str, entries: Sequence[JournalEntry], *, expected: int) -> None:
        """Store a run of entries after the entry ``expected`` (0: there is none yet). They are durable when this returns.

        All or nothing, also if the process is killed meanwhile. Cancelled, or failed with `JournalUnavailable`, the append has
        happened as a whole or not at all and will not happen later than any call made after it: `last_sequence` tells, and so
        does the next append. An empty run only checks ``expected``.

        Args:
            id: the entity; any text but the empty one. The first append brings it into being.
            entries: numbered ``expected + 1``, ``expected + 2``, ...
            expected: the last sequence that the writer has seen.

        Raises:
            JournalConflict: ``expected`` is not the last stored sequence; nothing was stored.
            JournalError: the entries are not numbered so, or cannot be stored by any journal.
        """
        ...

    def read(self, id: str, after: int = 0) -> AsyncIterator[JournalEntry]:
        """The entries behind ``after``, in order, to the last one stored when the reader gets there. Of an unknown id, none.

        Read in pages: memory holds one page, whatever the number of entries. The reader may pause as long as it likes.

        Raises:
            JournalCorrupt: an entry is damaged or missing. All entries before it have come out.
            JournalError: entries behind ``after`` were deleted under a snapshot; load that and read after its sequence.
        """
        ...

    async def last_sequence(self, id: str) -> int:
        """The sequence of the last entry; 0 for an unknown id. Deleting entries does not change it."""
        ...

    async def save_snapshot(self, id: str, snapshot: Snapshot) -> None:
        """Store a snapshot, durable when this returns. One of the same sequence is replaced; old ones are dropped.

        One that is older than what `delete_before` has deleted is not stored: nothing could be read on from it.

        Raises:
            JournalError: it is of a sequence that is not stored.
        """
        ...

    async def load_snapshot(self, id: str) -> Snapshot | None:
        """The newest snapshot that passes its checksum, or None. A damaged one is passed over, with a warning in the log.

        Raises:
            JournalCorrupt: none passes, and the entries that would be needed instead were deleted.
        """
        ...

    async def delete_before(self, id: str, sequence: int) -> int:
        """Delete entries below ``sequence`` that the oldest sound snapshot has made superfluous; answers how many.

        What is needed to go on from any sound snapshot stays, so without one nothing is deleted. Cancelled, it has
        deleted some of the first ones.
        """
        ...

    def ids(self) -> AsyncIterator[str]:
        """All entities that ever got an entry, sorted by code point. Those that begin meanwhile may come out or not."""
        ...


def check_id(journal: str, id: str) -> None:
    """Refuse what cannot name an entity.

    Raises:
        JournalError: not a text, empty, or with surrogates, which have no bytes.
    """
    if not isinstance(id, str) or not id or not _encodes(id):
        raise JournalError(journal, f"{id!r} cannot be the id of an entity", "use a text that is not empty and holds no surrogates")


def check_append(journal: str, id: str, entries: Sequence[JournalEntry], expected: int) -> None:
    """Refuse entries that do not follow ``expected`` one by one, or that no journal could keep.

    Raises:
        JournalError: what is wrong with which of them.
    """
    check_id(journal, id)
    if not _is_number(expected) or expected < 0:
        raise JournalError(
            journal, f"entity {id!r}: {expected!r} cannot be the last sequence seen", "it is a number; 0 before the first entry"
        )
    for sequence, entry in enumerate(entries, expected + 1):
        if entry.sequence != sequence:
            raise JournalError(
                journal,
                f"entity {id!r}: entry {entry.sequence!r} stands where {sequence} should",
                "number the entries of an append expected + 1, expected + 2, ...",
            )
        if not (_is_number(entry.sequence) and _is_number(entry.version) and _is_number(entry.at_ms)):
            raise JournalError(journal, f"entity {id!r}: entry {sequence}: its numbers must be integers of 64 bits")
        if not isinstance(entry.kind, str) or not entry.kind or not _encodes(entry.kind):
            raise JournalError(journal, f"entity {id!r}: entry {sequence}: {entry.kind!r} cannot be a kind", "use a word")
        if type(entry.payload) is not bytes:
            raise JournalError(journal, f"entity {id!r}: entry {sequence}: a payload is bytes, not {type(entry.payload).__name__}")


def check_snapshot(journal: str, id: str, snapshot: Snapshot) -> None:
    """Refuse a snapshot that no journal could keep.

    Raises:
        JournalError: what is wrong with it.
    """
    check_id(journal, id)
    if not _is_number(snapshot.sequence) or snapshot.sequence < 1 or not _is_number(snapshot.version):
        raise JournalError(journal, f"entity {id!r}: a snapshot needs a sequence from 1 and a version that are integers of 64 bits")
    if type(snapshot.payload) is not bytes:
        raise JournalError(journal, f"entity {id!r}: the payload of a snapshot is bytes, not {type(snapshot.payload).__name__}")


def entries_deleted(journal: str, id: str, compacted: int, wanted: int) -> JournalError:
    """What a reader gets that asks for entries from which a snapshot has taken over."""
    reason = f"entity {id!r}: entry {wanted} was asked for, and entries up to {compacted} were deleted under a snapshot"
    return JournalError(journal, reason, "load the snapshot and read after its sequence")


def snapshot_ahead(journal: str, id: str, sequence: int, last: int) -> JournalError:
    """What a writer gets that saves a snapshot of entries that are not stored."""
    return JournalError(
        journal, f"entity {id!r}: a snapshot of entry {sequence}, and the last one stored is {last}", "append the entries first"
    )


def _is_number(value: object) -> bool:
    return type(value) is int and -_LARGEST <= value <= _LARGEST


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
