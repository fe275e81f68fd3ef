"""The names of everything that a group keeps in Redis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = ["EXPIRY", "RedisKeys"]

EXPIRY: Final = 60
"""Seconds that the keys of a killed group outlive it."""


@dataclass(frozen=True, slots=True)
class RedisKeys:
    """Streams and beats of one group. Its workers and its owner share this; it travels as strings.

    Attributes:
        address: the server, password included.
        prefix: unique to this start of the group, so that what a killed one left is never taken for ours.
        count: number of workers beside the owner.
        secret: signs every entry.
    """

    address: str = field(repr=False)
    prefix: str
    count: int
    secret: bytes = field(repr=False)

    @staticmethod
    def of(arguments: Mapping[str, str]) -> RedisKeys:
        """The inverse of `arguments`."""
        return RedisKeys(arguments["address"], arguments["prefix"], int(arguments["count"]), bytes.fromhex(arguments["secret"]))

    def arguments(self) -> dict[str, str]:
        """As strings, for a worker. Secret: they must not be seen by others."""
        return {"address": self.address, "prefix": self.prefix, "count": str(self.count), "secret": self.secret.hex()}

    def peers(self, worker: int) -> Iterator[int]:
        """Every worker but this one, the owner included."""
        return (other for other in range(self.count + 1) if other != worker)

    def stream(self, sender: int, receiver: int) -> str:
        """The stream of a directed pair."""
        return f"{self.prefix}:{sender}>{receiver}"

    def taken(self, sender: int, receiver: int) -> str:
        """Where the receiver of a directed pair says how many entries it has taken."""
        return f"{self.prefix}:{receiver}<{sender}:taken"

    def proof(self) -> str:
        """Where the owner tries, before anything else, what the server lets it do."""
        return f"{self.prefix}:proof"

    def beat(self, worker: int) -> str:
        """Where a worker counts its heartbeats."""
        return f"{self.prefix}:{worker}:beat"

    def all(self) -> list[str]:
        """Every key that a group can have left."""
        workers = range(self.count + 1)
        pairs = [(worker, peer) for worker in workers for peer in self.peers(worker)]
        beats = [self.beat(worker) for worker in workers]
        return [self.proof(), *beats, *(self.stream(*pair) for pair in pairs), *(self.taken(*pair) for pair in pairs)]
