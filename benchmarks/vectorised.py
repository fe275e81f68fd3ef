"""What does the runtime add to a numpy kernel over batches of 4096?"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import sage_actor as sage
from benchmarks.result import Result
from benchmarks.rounds import LOOPS, Options, compare, interleaved, on_loop
from benchmarks.sinks import Dropping, Keeping

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["measure"]

BATCH = 4096


def kernel(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Some arithmetic that takes 50 us or more for a batch."""
    import numpy as np

    result: NDArray[np.float64] = np.tanh(np.sin(values) * np.cos(values)) + np.sqrt(np.abs(values))
    return result


def floor(values: NDArray[np.float64]) -> float:
    """numpy alone on the same slices."""
    done = 0
    begun = time.perf_counter()
    for start in range(0, len(values), BATCH):
        done += len(kernel(values[start : start + BATCH]))
    spent = time.perf_counter() - begun
    assert done == len(values)
    return spent


async def ours(values: NDArray[np.float64], sink: Dropping | Keeping) -> float:
    """Describing, starting, running and leaving, all timed."""
    begun = time.perf_counter()
    async with sage.Environment("vectorised", config={"batch.records": BATCH}) as env:
        env.from_collection(values).map_batch(kernel, vectorized=True).sink(sink)
        await env.execute()
    return time.perf_counter() - begun


def run(loop: str, values: NDArray[np.float64]) -> float:
    """Ours on one loop; the number of results is checked each time."""
    sink = Dropping()
    spent = on_loop(loop, lambda: ours(values, sink))
    assert sink.records == len(values), f"{sink.records} results for {len(values)} records"
    return spent


def check(values: NDArray[np.float64]) -> int:
    """Every result bit for bit, as arrays; answers how many batches were full."""
    import numpy as np

    full = 0
    for loop in LOOPS:
        sink = Keeping()
        on_loop(loop, partial(ours, values, sink))
        arrays = [batch for batch in sink.batches if isinstance(batch, np.ndarray)]
        assert len(arrays) == len(sink.batches), "a batch did not arrive as an array"
        assert np.array_equal(np.concatenate(arrays), kernel(values))
        full = sum(len(batch) == BATCH for batch in sink.batches)
    return full


def measure(options: Options) -> Result:
    """Records a second through the kernel."""
    import numpy as np

    batches = 100 if options.short else 2500
    values = np.random.default_rng(7).normal(size=batches * BATCH)
    full = check(values[: 40 * BATCH])
    seconds = interleaved(options.rounds, {"floor": partial(floor, values), **{loop: partial(run, loop, values) for loop in LOOPS}})
    took = min(seconds["floor"]) / batches * 1e6
    assert options.short or took >= 50, f"the kernel takes {took:.0f} us a batch; the question is about 50 us or more"
    return compare(
        "vectorised",
        options,
        len(values),
        seconds,
        at_least=0.9,
        of_peer=None,
        peer_missing="none of them has array batches in one process",
        target="at least 0.9x numpy alone",
        note=f"kernel {took:.0f} us a batch of {BATCH}; {full} of the first 40 batches came whole",
    )
