"""How long after kill -9 does a job with a million keys give new output again?"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import sage_actor as sage
from benchmarks.result import Result
from benchmarks.rounds import Options, interleaved, median

__all__ = ["measure"]

LIMITS = {"memory": 2.0, "rocksdb": 1.0}
ROOT = Path(__file__).resolve().parent.parent


class Loaded(sage.Source[int]):
    """Every key once, then the first ones again and again, slowly, until it is killed."""

    def __init__(self, keys: int) -> None:
        self.keys = keys
        self.next = 0

    async def read(self, limit: int) -> Sequence[int] | None:
        first = self.next
        if first < self.keys:
            self.next = min(self.keys, first + limit)
            return range(first, self.next)
        await asyncio.sleep(0.005)
        self.next += 100
        return [number % self.keys for number in range(first, self.next)]

    def position(self) -> object:
        return self.next

    async def seek(self, position: object) -> None:
        assert isinstance(position, int)
        self.next = position


class Saying(sage.Sink[tuple[int, int]]):
    """Says on stdout when the first output of this process has come, and whether it goes on from what was counted before."""

    def __init__(self, keys: int) -> None:
        self.keys = keys
        self.said = False

    async def write(self, batch: Sequence[tuple[int, int]]) -> None:
        if not self.said:
            self.said = True
            say(f"output {time.monotonic()} {max(count for _, count in batch)}")


def say(line: str) -> None:
    """One line on stdout, at once."""
    os.write(1, f"{line}\n".encode())


async def job(folder: str, state: str, keys: int) -> None:
    """Runs until it is killed; says when a checkpoint is complete that holds all keys."""
    config: dict[str, object] = {"checkpoint.interval": 0.5, "checkpoint.dir": folder, "state.backend": state}
    async with sage.Environment("recovery", resume=True, config=config) as env:
        source = Loaded(keys)
        env.from_source(source, bounded=True).key_by(lambda key: key).count().sink(Saying(keys))
        running = await env.submit()
        loaded_at: int | None = None
        while not running.done:
            await asyncio.sleep(0.02)
            done = running.checkpoints
            if source.next >= keys and done:
                if loaded_at is None:
                    loaded_at = done[-1].number + 1  # one may be under way since before
                elif done[-1].number > loaded_at:
                    say(f"loaded {done[-1].nbytes}")
                    loaded_at = sys.maxsize
        await running.wait()


def start(folder: str, state: str, keys: int) -> subprocess.Popen[str]:
    """The job as a process of its own."""
    command = [sys.executable, "-m", "benchmarks.recovery", folder, state, str(keys)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def heard(process: subprocess.Popen[str], word: str) -> list[str]:
    """The rest of the next line that begins with that word."""
    assert process.stdout is not None
    for line in process.stdout:
        found, *rest = line.split()
        if found == word:
            return rest
    raise AssertionError(f"the job ended with {process.wait()} before it said {word!r}")


def killed(process: subprocess.Popen[str]) -> None:
    """With -9."""
    process.send_signal(signal.SIGKILL)
    process.communicate()


def recover(state: str, keys: int) -> tuple[float, float]:
    """Seconds from the start of the next process to its first output; and those of a process that has nothing to go on from."""
    with tempfile.TemporaryDirectory(prefix="sage-recovery-") as folder:
        begun = time.monotonic()
        first = start(folder, state, keys)
        fresh = float(heard(first, "output")[0]) - begun
        heard(first, "loaded")
        killed(first)
        begun = time.monotonic()
        second = start(folder, state, keys)
        at, count = heard(second, "output")
        killed(second)
        assert int(count) > 1, "it did not go on from what was counted before"
        return float(at) - begun, fresh


def measure(options: Options) -> Result:
    """From the start of the new process to its first output, imports included; the floor is a process with nothing to restore."""
    keys = 50_000 if options.short else 1_000_000
    taken = interleaved(options.rounds, {state: partial(recover, state, keys) for state in LIMITS})
    seconds = {state: median([each for each, _ in rounds]) for state, rounds in taken.items()}
    fresh = median([floor for rounds in taken.values() for _, floor in rounds])
    worst = max(LIMITS, key=lambda state: seconds[state] / LIMITS[state])
    return Result(
        "recovery",
        "s",
        seconds[worst],
        fresh,
        target="first new output within 2 s (memory), 1 s (rocksdb) of starting again after kill -9, a million keys",
        met=None if options.short else all(seconds[state] < limit for state, limit in LIMITS.items()),
        note=f"shown: {worst}; floor: the first output of a process with nothing to go on from; both begin with the interpreter",
        detail={
            **{state: seconds[state] for state in LIMITS},
            "rounds": {state: [s for s, _ in rounds] for state, rounds in taken.items()},
        },
    )


if __name__ == "__main__":
    asyncio.run(job(sys.argv[1], sys.argv[2], int(sys.argv[3])))
