"""Durable actors, and the journals that keep their events and snapshots. Knows nothing of streams."""

from __future__ import annotations

from sage_actor.durable.delivery import Delivery
from sage_actor.durable.durable_actor import DurableActor
from sage_actor.durable.journal import CONFIRMED, DELIVERY, EVENT, HANDLED, Journal, JournalEntry, Snapshot
from sage_actor.durable.memory_journal import MemoryJournal
from sage_actor.durable.sqlite_journal import SqliteJournal

__all__ = [
    "CONFIRMED",
    "DELIVERY",
    "EVENT",
    "HANDLED",
    "Delivery",
    "DurableActor",
    "Journal",
    "JournalEntry",
    "MemoryJournal",
    "Snapshot",
    "SqliteJournal",
]
