"""How many bytes does a running count take for each key, beyond key and value, and does memory stay flat over a long run?"""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import sage_actor as sage
from benchmarks.memory import tree_mib
from benchmarks.result import Result
from benchmarks.rounds import Options, interleaved, median

__all__ = ["measure"]

LIMIT = 100.0
GROWTH = 16.0
"""MiB that a long run may add after everything is loaded."""
ROOT = Path(__file__).resolve().parent.parent


class Again(sage.Source[str]):
    """Every key, again and again; after the first time round, and at the end, it notes how much memory there is."""

    def __init__(self, keys: Sequence[str], rounds: int, note: Callable[[], object]) -> None:
        self.keys = keys
        self.rounds = rounds
        self.note = note
        self.at = 0

    async def read(self, limit: int) -> Sequence[str] | None:
        return self.read_nowait(limit)

    def read_nowait(self, limit: int) -> Sequence[str] | None:
        first = self.at % len(self.keys)
        if first == 0 and self.at:
            self.note()
            if self.at == self.rounds * len(self.keys):
                return None
        part = self.keys[first : first + limit]
        self.at += len(part)
        return part

    def position(self) -> object:
        return self.at


class Nothing(sage.Sink[object]):
    """Drops."""

    async def write(self, batch: Sequence[object]) -> None:
        pass


async def grown(count: int, rounds: int, *, checkpoints: bool) -> tuple[float, float, float]:
    """Bytes a key that counting added (the keys were there before), MiB by which the second half of the run went above the first, and
    MiB by which all of it was above the state alone: what a snapshot under way holds."""
    keys = [f"key-{number:09d}" for number in range(count)]
    found: list[float] = []

    def note() -> None:
        gc.collect()
        found.append(tree_mib())

    async def run(source: Again, folder: str) -> None:
        config: dict[str, object] = {"checkpoint.interval": 0.5, "checkpoint.dir": folder} if checkpoints else {}
        async with sage.Environment("counting", config=config) as env:
            env.from_source(source).key_by(lambda key: key).count().sink(Nothing())
            await env.execute()

    with tempfile.TemporaryDirectory(prefix="sage-memory-") as folder:
        await run(Again(keys[:1000], 2, lambda: None), f"{folder}/warm")
        gc.collect()
        before = tree_mib()
        await run(Again(keys, rounds, note), folder)
    half = len(found) // 2
    return (min(found) - before) * 2**20 / count - sys.getsizeof(rounds), max(found[half:]) - max(found[:half]), max(found) - min(found)


def apart(count: int, rounds: int, *, checkpoints: bool) -> list[float]:
    """In a process of its own, so that nothing of another run is in its heap."""
    command = [sys.executable, "-m", "benchmarks.keyed_memory", str(count), str(rounds), str(int(checkpoints))]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return [float(figure) for figure in json.loads(done.stdout)]


def measure(options: Options) -> Result:
    """Resident bytes a key beyond the key, which is there before, and the value; growth over a long run, with checkpoints and without."""
    # Each half must see several snapshots begin and end: a snapshot of all keys holds as much as the state while it is written, and a
    # half that was looked at between two of them only would seem to grow in the next.
    count, rounds = (50_000, 4) if options.short else (1_000_000, 80)
    runs = {"without": partial(apart, count, rounds, checkpoints=False), "checkpoints": partial(apart, count, rounds, checkpoints=True)}
    taken = interleaved(1 if options.short else min(options.rounds, 3), runs)
    each = {name: median([figures[0] for figures in found]) for name, found in taken.items()}
    growth = {name: median([figures[1] for figures in found]) for name, found in taken.items()}
    snapshot = median([figures[2] for figures in taken["checkpoints"]])
    return Result(
        "memory",
        "B/key",
        max(each.values()),
        target=f"at most {LIMIT:.0f} bytes a keyed counter beyond key and value; flat ({GROWTH:.0f} MiB) over {rounds} rounds of all keys",
        met=None if options.short else max(each.values()) <= LIMIT and max(growth.values()) <= GROWTH,
        note="a stopped sink: see `backpressure`",
        detail={"bytes_a_key": each, "growth_mib": growth, "snapshot_of_all_keys_mib": snapshot, "keys": count, "records": count * rounds},
    )


if __name__ == "__main__":
    print(json.dumps(asyncio.run(grown(int(sys.argv[1]), int(sys.argv[2]), checkpoints=sys.argv[3] == "1"))))
