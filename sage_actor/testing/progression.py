"""The progression test: disjoint arithmetic progressions through everything that keeps state, under crashes, into a store that
checks that nothing is lost, duplicated or out of order.

    python -m sage_actor.testing.progression --seeds 5000
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import sage_actor as sage
from sage_actor.dataflow.context import FunctionContext
from sage_actor.dataflow.process_functions import KeyedContext, KeyedProcessFunction
from sage_actor.dataflow.source import Source
from sage_actor.ports import current_clock, current_random
from sage_actor.testing.simulated_faults import FaultRates, PlannedFault, draw_faults
from sage_actor.testing.simulated_hooks import hooked
from sage_actor.testing.simulated_lives import Life, live
from sage_actor.testing.simulated_site import Site
from sage_actor.testing.simulated_store import STORE, SimulatedStore, StoreSink
from sage_actor.testing.simulation import Simulation

__all__ = ["ProgressionRun", "ProgressionSource", "run_progression"]

SPLITS: Final = 4
LENGTH: Final = 40  # records of each split
KEYS: Final = 5
STEP_MS: Final = 100
WINDOW_MS: Final = 1000
SLOW: Final = 8  # records of each split that are held back while faults are outstanding
LIMIT: Final = 30.0  # virtual seconds after which nothing is held back any more
LADDERS: Final = ((1,), (2,), (4,), (2, 3, 1), (2, 3, 1), (1, 2, 4), (4, 1, 2))


class ProgressionSource(Source[int]):
    """Split number s gives s, s + SPLITS, s + 2 SPLITS, ...; where a task has several, always the one that is furthest behind."""

    def __init__(self) -> None:
        self.left: dict[int, int] = {}
        self.held = 0

    async def open(self, context: FunctionContext) -> None:
        self.left = {split: 0 for split in range(SPLITS) if split % context.parallelism == context.subtask_index}

    async def assign(self, splits: Sequence[object]) -> None:
        self.left = dict(splits)  # type: ignore[call-overload]

    def splits(self) -> Sequence[object]:
        return list(self.left.items())

    async def read(self, limit: int) -> Sequence[int] | None:
        if not self.left:
            return None
        chance = current_random()
        if chance.random() < 0.3:
            await current_clock().sleep(chance.random() * 0.2)
        if min(self.left.values()) >= LENGTH - SLOW and HOLD.get()():
            await current_clock().sleep(chance.random())
            limit = 1
        return self._take(min(limit, chance.choice((1, 2, 5))))

    def _take(self, number: int) -> list[int]:
        taken: list[int] = []
        while self.left and len(taken) < number:
            split = min(self.left, key=lambda split: (self.left[split], split))
            taken.append(self.left[split] * SPLITS + split)
            self.left[split] += 1
            if self.left[split] == LENGTH:
                del self.left[split]
        return taken
