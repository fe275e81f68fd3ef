"""A savepoint, and on from it with other numbers of tasks: 2, then 3, then 1. What is counted is what an unbroken run counts.

A job counts words per minute of event time. It is stopped with a savepoint in the middle: windows that are open stay open, in the
savepoint. The next job starts from it with three tasks, is stopped in the same way, and the last one ends with one task. What was
stored under the uids is found again by them. A dataflow that does not fit the savepoint is refused before anything runs.
"""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
from collections import Counter
from pathlib import Path

import sage_actor as sage

WORDS = ("ant", "bee", "cat", "dog", "eel")
MINUTE = 60_000


def describe(env: sage.Environment, folder: Path, *, slowly: bool) -> sage.DataStreamSink:
    async def arrive(line: str) -> tuple[str, int]:
        if slowly:
            await asyncio.sleep(0.0005)
        word, time = line.split()
        return word, int(time)

    return (
        env.from_source(sage.FileSource, path=folder / "words.txt", batch_size=20)
        .uid("words")
        .map_async(arrive, concurrency=4)
        .uid("arrival")
        .assign_timestamps(lambda record: record[1], sage.BoundedDisorder("5s"))
        .key_by(lambda record: record[0])
        .window(sage.Tumbling("1m"))
        .count()
        .uid("counts")
        .map(lambda result: {"word": result.key, "minute": result.start, "count": result.value})
        .sink(sage.TransactionalFileSink, path=folder / "out", format="jsonl", name="files")
    )


def committed(folder: Path) -> list[dict[str, object]]:
    files = sorted(path for path in (folder / "out").glob("*") if not path.name.startswith("."))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


async def run(folder: Path, tasks: int, restore: str | None, *, stop: bool) -> str | None:
    config = {"checkpoint.interval": "50ms", "checkpoint.dir": str(folder / "checkpoints"), "buffer.records": 50}
    async with sage.Environment("minutes", parallelism=tasks, config=config, restore=restore) as env:
        describe(env, folder, slowly=stop)
        job = await env.submit()
        before = len(committed(folder))
        while stop and not job.done and len(committed(folder)) < before + 20:  # noqa: ASYNC110 - it waits for files
            await asyncio.sleep(0.02)
        if not stop:
            await job.wait()
            return None
        return await job.savepoint(str(folder / f"savepoint-{tasks}"), stop=True)


async def main() -> None:
    chance = random.Random(2)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = [(chance.choice(WORDS), i * 200 + chance.randrange(5_000)) for i in range(6_000)]
        (folder / "words.txt").write_text("".join(f"{word} {time}\n" for word, time in lines))

        place = await run(folder, 2, None, stop=True)
        first = len(committed(folder))
        place = await run(folder, 3, place, stop=True)
        second = len(committed(folder))

        async with sage.Environment("minutes", config={"checkpoint.interval": "1s"}, restore=place) as env:
            env.from_source(sage.FileSource, path=folder / "words.txt").uid("words").map(str.upper).print()
            try:
                await env.execute()
            except sage.StateMismatch as error:
                print(f"another dataflow is refused: {str(error).splitlines()[0]}")
            else:
                raise AssertionError("the windows would be lost")

        await run(folder, 1, place, stop=False)
        rows = committed(folder)
        counted = Counter({(row["word"], row["minute"]): row["count"] for row in rows})
        assert len(counted) == len(rows), "each window once"
        assert counted == Counter((word, time // MINUTE * MINUTE) for word, time in lines)
        assert 0 < first < second < len(rows)
        print(
            f"{first} windows with two tasks, {second - first} with three, {len(rows) - second} with one; all {len(lines):,} words counted"
        )


asyncio.run(main())
