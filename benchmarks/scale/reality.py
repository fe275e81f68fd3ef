"""Small jobs on worker processes of this machine, to hold the model against."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

import sage_actor as sage

__all__ = ["Seen", "see"]

RECORDS = 500
PAUSE = 0.02


@dataclass(frozen=True, slots=True)
class Seen:
    """What a real job did: workers, checkpoints taken, seconds each on average, records a second of one worker."""

    workers: int
    checkpoints: int
    seconds: float
    rate: float


class Paced(sage.Source[int]):
    """Some records, a pause, and so on for so many seconds."""

    def __init__(self, turns: int) -> None:
        self.turns = turns
        self.turn = 0

    async def read(self, limit: int) -> Sequence[int] | None:
        if self.turn == self.turns:
            return None
        await asyncio.sleep(PAUSE)
        self.turn += 1
        return range(self.turn * RECORDS, (self.turn + 1) * RECORDS)

    def position(self) -> object:
        return self.turn

    async def seek(self, position: object) -> None:
        assert isinstance(position, int)
        self.turn = position


async def see(workers: int, seconds: float = 4.0) -> Seen:
    """Run a keyed count on so many processes, with a checkpoint every quarter of a second."""
    with tempfile.TemporaryDirectory(prefix="sage-scale-") as folder:
        config = {"checkpoint.interval": 0.25, "checkpoint.dir": folder}
        async with sage.Environment("scale", backend="process", parallelism=workers, config=config) as env:
            stream = env.from_source(Paced, turns=int(seconds / PAUSE), parallelism=workers)
            stream.key_by(lambda record: record % 1000).count(emit="final").collect()
            job = await env.execute()
    counters = job.checkpoint_counters
    return Seen(workers, counters.completed, counters.seconds / max(1, counters.completed), RECORDS / PAUSE)
