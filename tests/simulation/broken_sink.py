"""A dataflow whose sink is deliberately broken: `sage simulate tests/simulation/broken_sink.py` must find it.

The sink commits when it should only prepare. As long as nothing crashes nobody sees a difference.
"""

from __future__ import annotations

import sage_actor as sage
from sage_actor.testing import StoreSink
from sage_actor.testing.simulated_store import STORE


class HastySink(StoreSink):
    async def pre_commit(self, transaction: str) -> None:
        await super().pre_commit(transaction)
        STORE.get().commit(transaction)


def pipeline(env: sage.Environment) -> None:
    env.from_collection(range(60)).map(str).sink(HastySink, table="texts")
