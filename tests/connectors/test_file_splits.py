"""FileSource: what is left to read, divided and dealt anew to any number of tasks."""

from __future__ import annotations

import asyncio
import gzip
import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_actor.connectors import FileSource
from sage_actor.dataflow.context import FunctionContext
from sage_actor.errors import ConnectorError

Splits = list[object]


async def opened(index: int = 0, count: int = 1, splits: Sequence[object] | None = None, **options: Any) -> FileSource:
    source = FileSource(options)
    await source.open(FunctionContext("job", "files", index, count))
    if splits is not None:
        await source.assign(splits)
    return source


async def take(source: FileSource, most: int) -> list[Any]:
    """Up to ``most`` records: stops before if the input ends."""
    records: list[Any] = []
    while len(records) < most and (batch := await source.read(min(3, most - len(records)))) is not None:
        records.extend(batch)
    return records


def dealt(splits: Sequence[object], count: int) -> list[Splits]:
    """Evenly and in order, as split state is."""
    return [[*splits[index * len(splits) // count : (index + 1) * len(splits) // count]] for index in range(count)]


FORMS = ("one text", "many texts", "one csv", "many csv", "one gzip", "jsonl")


def stored(folder: Path, form: str, sizes: list[int]) -> tuple[dict[str, Any], list[Any]]:
    """Files of these many records, what to read them with, and the records in their order."""
    options: dict[str, Any] = {"path": str(folder)}
    if form.startswith("one") or form == "jsonl":
        sizes = [sum(sizes)]
    records: list[Any] = []
    for number, size in enumerate(sizes):
        names = [f"{number}.{line}" + "x" * (line % 5) for line in range(size)]
        text = "".join(f"{name}\n" for name in names)
        if "csv" in form:
            options["format"] = "csv"
            (folder / f"{number:03}.csv").write_text("a,b\n" + "".join(f'"{name}\n",\n' for name in names))
            records.extend({"a": f"{name}\n", "b": ""} for name in names)
        elif form == "one gzip":
            (folder / "in.gz").write_bytes(gzip.compress(text.encode()))
            records.extend(names)
        elif form == "jsonl":
            options["format"] = "jsonl"
            (folder / "in.jsonl").write_text("".join(f"{json.dumps(name)}\n" for name in names))
            records.extend(names)
        else:
            (folder / f"{number:03}.txt").write_text(text)
            records.extend(names)
    return options, records


@pytest.mark.rule("F2")
@pytest.mark.rule("F27")
@settings(max_examples=120, deadline=None)
@given(
    form=st.sampled_from(FORMS),
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=6),
    block_size=st.integers(1, 60),
    split_size=st.integers(1, 40),
    prefetch=st.booleans(),
    counts=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    data=st.data(),
)
def test_each_record_is_read_once_through_any_changes_of_parallelism(
    form: str, sizes: list[int], block_size: int, split_size: int, prefetch: bool, counts: list[int], data: st.DataObject
) -> None:
    async def everything(folder: Path) -> None:
        options, expected = stored(folder, form, sizes)
        options |= {"block_size": block_size, "split_size": split_size, "prefetch": prefetch}
        got: list[Any] = []
        shares: list[Splits | None] = [None] * counts[0]
        for run, count in enumerate(counts):
            if run:
                left = [split for share in shares for split in share or ()]
                shares = [*dealt(left, count)]
            for index in range(count):
                most = data.draw(st.integers(0, 12))
                source = await opened(index, count, shares[index], **options)
                try:
                    got.extend(await take(source, most))
                    shares[index] = json.loads(json.dumps(source.splits()))
                finally:
                    await source.close()
        for share in shares:
            source = await opened(splits=share, **options)
            got.extend(await take(source, len(expected) + 1))
            assert source.splits() == []  # F30: a reader ends when its splits have ended
            await source.close()
        assert Counter(map(str, got)) == Counter(map(str, expected))

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(everything(Path(folder)))


@pytest.mark.asyncio
@pytest.mark.rule("F2")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("block_size", [1, 30, 4096])
async def test_at_every_cut_one_task_goes_on_in_order(tmp_path: Path, form: str, block_size: int) -> None:
    options, expected = stored(tmp_path, form, [7, 0, 9, 1, 8])
    options |= {"block_size": block_size, "split_size": 10}
    for cut in range(len(expected) + 1):
        source = await opened(**options)
        got = await take(source, cut)
        splits = source.splits()
        await source.close()
        source = await opened(splits=splits, **options)
        again = await take(source, 2)  # and from there once more
        splits = source.splits()
        await source.close()
        source = await opened(splits=splits, **options)
        assert [*got, *again, *await take(source, 1000)] == expected
        await source.close()


@pytest.mark.asyncio
@pytest.mark.rule("F2a")
async def test_splits_are_of_what_was_returned_though_a_read_is_under_way(tmp_path: Path) -> None:
    options, expected = stored(tmp_path, "one text", [40])
    waited = 0
    for cut in range(len(expected)):
        source = await opened(block_size=20, split_size=25, prefetch=cut % 2 == 0, **options)
        got = await take(source, cut)
        reading = asyncio.ensure_future(source.read(100))
        await asyncio.sleep(0)
        waited += not reading.done()
        if reading.done():
            got.extend(reading.result() or ())
        splits = source.splits()  # as a barrier does while the source waits: it neither awaits nor cancels the read
        await reading
        await source.close()
        resumed = await opened(splits=splits, **options)
        assert [*got, *await take(resumed, 100)] == expected
        await resumed.close()
    assert waited


@pytest.mark.asyncio
@pytest.mark.rule("F27")
async def test_one_file_keeps_more_tasks_than_before_busy(tmp_path: Path) -> None:
    options, expected = stored(tmp_path, "one text", [1000])
    options |= {"split_size": 100, "block_size": 200}
    source = await opened(**options)
    got = await take(source, 10)
    splits = source.splits()
    await source.close()
    shares: list[list[Any]] = []
    for share in dealt(splits, 3):
        source = await opened(splits=share, **options)
        shares.append(await take(source, 1000))
        await source.close()
    assert [*got, *(record for share in shares for record in share)] == expected
    assert all(len(share) > 150 for share in shares)


@pytest.mark.asyncio
@pytest.mark.rule("F30")
async def test_a_task_without_splits_ends_at_once(tmp_path: Path) -> None:
    options, _ = stored(tmp_path, "many texts", [3, 3])
    source = await opened(splits=[], **options)
    assert source.read_nowait(1) is None
    assert await source.read(1) is None
    assert source.splits() == []
    await source.close()


@pytest.mark.asyncio
@pytest.mark.rule("F27")
@pytest.mark.rule("F28")
async def test_files_that_come_later_are_read_by_nobody(tmp_path: Path) -> None:
    options, expected = stored(tmp_path, "many texts", [2, 2, 2])
    first, second = await opened(0, 2, **options), await opened(1, 2, **options)
    got = [*await take(first, 1), *await take(second, 1)]
    splits = [*first.splits(), *second.splits()]
    await first.close()
    await second.close()
    (tmp_path / "0000.txt").write_text("new\n")
    for share in dealt(splits, 3):
        source = await opened(splits=share, **options)
        got.extend(await take(source, 100))
        await source.close()
    assert sorted(got) == sorted(expected)


@pytest.mark.asyncio
async def test_a_growing_file_is_divided_without_gap_or_overlap(tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_text("".join(f"{number}\n" for number in range(50)))
    source = await opened(path=path, split_size=20, block_size=10)
    got = await take(source, 5)
    splits = source.splits()
    await source.close()
    assert len(splits) > 2
    with open(path, "a") as file:
        file.writelines(f"{number}\n" for number in range(50, 90))
    for share in dealt(splits, 2):
        source = await opened(path=path, splits=share)
        got.extend(await take(source, 100))
        await source.close()
    assert [*map(int, got)] == [*range(90)]


@pytest.mark.asyncio
async def test_bad_lines_are_counted_once(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(f"{number}\n" if number % 3 else "{\n" for number in range(60)))
    options: dict[str, Any] = {"path": path, "format": "jsonl", "on_bad_line": "skip", "split_size": 20, "block_size": 10}
    source = await opened(**options)
    got = await take(source, 7)
    for _ in range(3):
        splits = source.splits()
        await source.close()
        source = await opened(splits=splits, **options)
        got.extend(await take(source, 3))
    got.extend(await take(source, 100))
    assert got == [number for number in range(60) if number % 3]
    assert source.bad_lines == 20
    await source.close()


@pytest.mark.asyncio
async def test_what_is_no_split_is_refused(tmp_path: Path) -> None:
    options, _ = stored(tmp_path, "one text", [5])
    source = await opened(**options)
    for nonsense in ({}, "x", {**source.position(), "more": ["x"]}, {**source.position(), "mark": [1]}, {**source.position(), "stop": -1}):
        with pytest.raises(ConnectorError, match="not a position"):
            await source.assign([nonsense])
    await source.close()


@pytest.mark.asyncio
async def test_a_changed_file_is_refused_also_when_it_is_not_the_first(tmp_path: Path) -> None:
    options, _ = stored(tmp_path, "many texts", [5, 5])
    first, second = await opened(0, 2, **options), await opened(1, 2, **options)
    await take(first, 2)
    await take(second, 2)
    splits = [*first.splits(), *second.splits()]
    await first.close()
    await second.close()
    (tmp_path / "001.txt").write_text("1.0\n")
    source = await opened(splits=splits, **options)
    with pytest.raises(ConnectorError, match=r"001\.txt: the file has changed: it has shrunk"):
        await take(source, 100)
    await source.close()
    (tmp_path / "001.txt").unlink()
    with pytest.raises(ConnectorError, match=r"001\.txt: the file has changed: it is gone"):
        await opened(splits=splits, **options)
