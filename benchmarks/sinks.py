"""Sinks that drop what they get, and count or add it up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sage_actor as sage

__all__ = ["Dropping", "Keeping"]


class Dropping(sage.Sink[object]):
    """Counts, once a batch, and drops."""

    def __init__(self) -> None:
        self.records = 0

    async def write(self, batch: Sequence[object]) -> None:
        self.records += len(batch)


class Keeping(sage.Sink[object]):
    """Keeps the batches as they came, to be checked afterwards."""

    def __init__(self) -> None:
        self.batches: list[Any] = []

    async def write(self, batch: Sequence[object]) -> None:
        self.batches.append(batch)

    def all(self) -> list[object]:
        """Every record, in order of arrival."""
        return [record for batch in self.batches for record in batch]
