"""Consistent hashing: who owns a key, so that a change of owners moves as few keys as possible."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from sage_actor._core.stable_hash import stable_hash
from sage_actor.errors import ActorError, ConfigError

__all__ = ["HashRing"]


class HashRing:
    """Owners on a ring of 64-bit hashes; a key belongs to the owner of the first point at or after its own hash.

    The same owners own the same keys in every process and in whatever order they were added. An owner that comes takes keys from
    the others and moves none between them; one that goes leaves its keys to the others and moves no other.

    Args:
        owners: their names.
        points: places of each owner on the ring; the more, the more evenly keys are spread (with 128 an owner's share is within
            about a third of the mean) and the longer a change takes.

    Raises:
        ConfigError: fewer than one point.
    """

    __slots__ = ("_owners", "_points", "_ring")

    def __init__(self, owners: Iterable[str] = (), *, points: int = 128) -> None:
        if points < 1:
            raise ConfigError("hash_ring.points", f"must be at least 1, not {points}")
        self._points = points
        self._owners: set[str] = set()
        self._ring: list[tuple[int, str]] = []
        for owner in owners:
            self.add(owner)

    @property
    def owners(self) -> frozenset[str]:
        """Who is on the ring."""
        return frozenset(self._owners)

    def __len__(self) -> int:
        return len(self._owners)

    def add(self, owner: str) -> bool:
        """Put an owner on the ring; False if it is there already."""
        if owner in self._owners:
            return False
        self._owners.add(owner)
        self._ring.extend((stable_hash((owner, number)), owner) for number in range(self._points))
        self._ring.sort()
        return True

    def remove(self, owner: str) -> bool:
        """Take an owner off the ring; False if it is not there."""
        if owner not in self._owners:
            return False
        self._owners.discard(owner)
        self._ring = [point for point in self._ring if point[1] != owner]
        return True

    def owner(self, key: object) -> str:
        """Whose key it is.

        Raises:
            UnstableKey: the key has no stable hash.
            ActorError: nobody is on the ring.
        """
        if not self._ring:
            raise ActorError("nobody is on the hash ring, so nobody owns a key; add() an owner first")
        place = bisect_left(self._ring, (stable_hash(key),))
        return self._ring[place if place < len(self._ring) else 0][1]
