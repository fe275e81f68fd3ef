"""A dataflow under simulated crashes: `sage simulate examples/simulated_pipeline.py --seeds 1000`.

`pipeline` describes what is to be held to exactly once: orders per customer, counted, summed up per minute, and written through a
sink with transactions. The command runs it once undisturbed, and then under each seed's kills, torn files, lost messages and
orders of events, from one life of the job to the next; what it collects and what its tables show must stay the same. Run as a
program, this file does that with a few seeds and shows one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import sage_actor as sage
from sage_actor.testing import StoreSink
from sage_actor.testing.simulated_pipeline import PipelineResults, SimulatedPipeline, SimulatedReport

MINUTE = 60_000


class Order(NamedTuple):
    customer: str
    time: int
    amount: int


ORDERS = [Order(f"c{number * 7 % 5}", number * 4_000, number) for number in range(90)]


def number_of(count: int, _order: Order) -> int:
    return count + 1


def row(result: Any) -> tuple[str, int, int]:
    return result.key, result.start // MINUTE, result.value


def pipeline(env: sage.Environment) -> Sequence[tuple[str, int, int]]:
    orders = env.from_collection(ORDERS).assign_timestamps(lambda order: order.time, sage.Monotonic())
    customers = orders.key_by(lambda order: order.customer)
    customers.fold(0, number_of, name="numbers").sink(StoreSink, table="numbers")
    sums = customers.window(sage.Tumbling("1m")).sum(lambda order: order.amount).map(row, name="rows")
    sums.sink(StoreSink, table="sums")
    return sums.collect()


def check(results: PipelineResults) -> None:
    assert sum(amount for _, _, amount in results.tables["sums"]) == sum(order.amount for order in ORDERS)
    assert sorted(results.tables["sums"]) == sorted(results.collected["collected"])


if __name__ == "__main__":
    simulated = SimulatedPipeline(pipeline, check)
    for seed in range(10):
        report = simulated.examine(seed)
        assert isinstance(report, SimulatedReport), report
        print(f"seed {seed}: {dict(report.counts)}, and the results are those of an undisturbed run")
