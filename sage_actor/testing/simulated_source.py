"""A source that dawdles: so that a short input outlives a few checkpoints and crashes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from sage_actor.dataflow.context import FunctionContext
from sage_actor.dataflow.source import Source
from sage_actor.ports import current_random

__all__ = ["SlowSource"]

_PAUSE: Final = 0.05  # virtual seconds
_HOLDS: Final = 500  # pauses at the end, at most


class SlowSource(Source[Any]):
    """Gives what another source gives, little at a time and with pauses.

    Args:
        inner: the other one.
        is_held: asked behind the last record; the source does not end while this is true.
    """

    def __init__(self, inner: Source[Any], is_held: Callable[[], bool]) -> None:
        self.inner = inner
        self.is_held = is_held

    async def open(self, context: FunctionContext) -> None:
        await self.inner.open(context)

    async def read(self, limit: int) -> Sequence[Any] | None:
        chance = current_random()
        await asyncio.sleep(chance.random() * _PAUSE)
        got = await self.inner.read(min(limit, chance.choice((1, 2, 5))))
        for _ in range(_HOLDS if got is None else 0):
            if self.is_held():
                await asyncio.sleep(_PAUSE)
        return got

    def drain(self) -> bool:
        return self.inner.drain()

    def position(self) -> object:
        return self.inner.position()

    async def seek(self, position: object) -> None:
        await self.inner.seek(position)

    def splits(self) -> Sequence[object]:
        return self.inner.splits()

    async def assign(self, splits: Sequence[object]) -> None:
        await self.inner.assign(splits)

    def address(self, index: int) -> str:
        return self.inner.address(index)

    async def close(self) -> None:
        await self.inner.close()
