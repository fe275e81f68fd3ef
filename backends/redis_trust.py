"""What machines that share a secret believe of each other: signed notes, and keys that never travel.

What an agent is told to do amounts to running code, and a Redis server may be open to others. So every note is signed, with the
place where it lies: moved or copied elsewhere it is not believed. Notes are signed, not hidden; they hold no secret.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from hmac import compare_digest
from typing import Final, cast

from sage_actor.actor.worker_agents import shared_secret

__all__ = ["Note", "Trust", "open_note"]

Note = dict[str, object]

_SIGNATURE: Final = 16


class Trust:
    """Signs and checks notes with one secret, and derives the keys of groups from it."""

    __slots__ = ("_key",)

    def __init__(self, secret: str) -> None:
        self._key = blake2b(secret.encode(), digest_size=32, person=b"sage-secret").digest()

    @staticmethod
    def of_account() -> Trust:
        """That of this account. Blocks for a small file, once.

        Raises:
            BackendUnavailable, ConfigError: see `shared_secret`.
        """
        return Trust(shared_secret("redis"))

    def seal(self, place: str, note: Mapping[str, object]) -> bytes:
        """A note as it lies at that place."""
        content = json.dumps(note, sort_keys=True).encode()
        return self._signature(place, content) + content

    def unseal(self, place: str, sealed: bytes) -> Note | None:
        """The note at that place; None if nobody with our secret wrote it for there."""
        content = sealed[_SIGNATURE:]
        return open_note(sealed) if compare_digest(sealed[:_SIGNATURE], self._signature(place, content)) else None

    def key_of(self, prefix: str) -> bytes:
        """The key that signs the frames of a group: both sides derive it, so it is never sent."""
        return blake2b(prefix.encode(), digest_size=32, key=self._key, person=b"sage-group").digest()

    def _signature(self, place: str, content: bytes) -> bytes:
        digest = blake2b(digest_size=_SIGNATURE, key=self._key, person=b"sage-note")
        digest.update(len(place).to_bytes(4, "little"))
        digest.update(place.encode())
        digest.update(content)
        return digest.digest()


def open_note(sealed: bytes) -> Note | None:
    """A note, whoever wrote it; None if it is none. For counting only: nothing is done because of it."""
    try:
        note: object = json.loads(sealed[_SIGNATURE:])
    except (ValueError, RecursionError):
        return None
    return cast("Note", note) if isinstance(note, dict) else None
