"""TransactionalFileSink: names, rolling, readers that take files away, other jobs in the folder, refusals."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import tempfile
from pathlib import Path
from typing import Any, cast

import pytest

from sage_actor.connectors import TransactionalFileSink
from sage_actor.dataflow.context import FunctionContext
from sage_actor.dataflow.sink import SinkRecovery
from sage_actor.errors import ConfigError, ConnectorError
from sage_actor.ports import current_clock
from sage_actor.testing import Simulation


async def started(
    folder: Path, attempt: int = 1, job: str = "job", prepared: list[tuple[int, object]] | None = None, index: int = 0, **options: Any
) -> TransactionalFileSink:
    context = FunctionContext(job, "files", index, 4)
    sink = TransactionalFileSink({"path": folder, "format": "jsonl", **options})
    await sink.open(context)
    await sink.recover(prepared or [], SinkRecovery(context, attempt, attempt - 1 or None))
    return sink


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def records(folder: Path) -> list[object]:
    return [json.loads(line) for path in sorted(folder.glob("[!.]*")) for line in path.read_text().splitlines()]


@pytest.mark.asyncio
async def test_sorted_by_name_files_stand_in_the_order_of_writing(tmp_path: Path) -> None:
    number = 0
    for attempt in range(1, 4):
        sink = await started(tmp_path, attempt, roll_size=20)
        for checkpoint in range(1, 12):
            for _ in range(5):
                await sink.write([number, number + 1])
                number += 2
            await sink.commit(checkpoint, await sink.prepare(checkpoint))
        await sink.close()
    assert records(tmp_path) == [*range(number)]
    assert len(names(tmp_path)) > 33
    assert all(name.endswith(".jsonl") and not name.startswith(".") for name in names(tmp_path))


@pytest.mark.rule("F24")
@pytest.mark.asyncio
async def test_a_checkpoint_without_records_leaves_no_file(tmp_path: Path) -> None:
    sink = await started(tmp_path)
    assert await sink.prepare(1) is None
    await sink.write([])
    assert await sink.prepare(2) is None
    await sink.close()
    assert names(tmp_path) == []


@pytest.mark.asyncio
async def test_a_file_rolls_by_age() -> None:
    async def flow() -> int:
        with tempfile.TemporaryDirectory() as folder:
            sink = await started(Path(folder), roll_age="10s")
            for record in range(4):
                await sink.write([record])
                await current_clock().sleep(6)
            await sink.commit(1, await sink.prepare(1))
            await sink.close()
            assert records(Path(folder)) == [0, 1, 2, 3]
            return len(names(Path(folder)))

    assert await asyncio.to_thread(lambda: Simulation(seed=1).run(flow)) == 2


@pytest.mark.rule("F25")
@pytest.mark.asyncio
async def test_files_that_a_reader_took_away_do_not_come_back(tmp_path: Path) -> None:
    sink = await started(tmp_path)
    await sink.write(["a"])
    prepared = await sink.prepare(1)
    await sink.commit(1, prepared)
    for path in tmp_path.iterdir():
        path.unlink()
    await sink.close()
    sink = await started(tmp_path, 2, prepared=[(1, prepared)])
    await sink.close()
    assert names(tmp_path) == []


@pytest.mark.rule("F25")
@pytest.mark.asyncio
async def test_other_jobs_and_jobs_without_checkpoints_keep_their_hidden_files(tmp_path: Path) -> None:
    (tmp_path / ".somebody-elses").write_text("x")
    other = await started(tmp_path, 1, job="another")
    await other.write(["other"])
    plain = TransactionalFileSink(path=tmp_path, format="jsonl")
    await plain.open(FunctionContext("job", "files"))
    await plain.write(["plain"])
    sink = await started(tmp_path, 5)
    await sink.write(["mine"])
    again = await started(tmp_path, 6)
    assert len(names(tmp_path)) == 3
    await other.commit(1, await other.prepare(1))
    await plain.flush()
    for each in (other, plain, sink, again):
        await each.close()
    assert sorted(map(str, records(tmp_path))) == ["other", "plain"]
    assert (tmp_path / ".somebody-elses").exists()


@pytest.mark.rule("F26")
@pytest.mark.asyncio
async def test_a_commit_that_fails_stays_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = await started(tmp_path)
    await sink.write(["a"])
    prepared = await sink.prepare(1)

    def refuse(source: str, target: str) -> None:
        raise PermissionError(13, "Permission denied", source)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", refuse)
        with pytest.raises(ConnectorError, match="Permission denied"):
            await sink.commit(1, prepared)
    await sink.close()
    assert records(tmp_path) == []
    sink = await started(tmp_path, 2, prepared=[(1, prepared)])
    await sink.close()
    assert records(tmp_path) == ["a"]


@pytest.mark.asyncio
async def test_each_csv_file_has_its_header(tmp_path: Path) -> None:
    sink = await started(tmp_path, format="csv")
    for checkpoint in (1, 2):
        await sink.write([{"a": checkpoint, "b": "x"}])
        await sink.commit(checkpoint, await sink.prepare(checkpoint))
    await sink.close()
    rows = [[*csv.DictReader((tmp_path / name).read_text().splitlines())] for name in names(tmp_path)]
    assert rows == [[{"a": "1", "b": "x"}], [{"a": "2", "b": "x"}]]


@pytest.mark.asyncio
async def test_names_of_jobs_are_made_fit_for_files(tmp_path: Path) -> None:
    job = "../w\N{SNOWMAN}ird job\0" + "x" * 300
    sink = await started(tmp_path / "deep" / "er", job=job, format="lines", compression="zstd")
    await sink.write(["a"])
    await sink.commit(1, await sink.prepare(1))
    await sink.close()
    (name,) = names(tmp_path / "deep" / "er")
    assert name.startswith("w-ird-job-xxx")
    assert name.endswith(".txt.zst")


@pytest.mark.asyncio
async def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="roll_size"):
        TransactionalFileSink(path=tmp_path, roll_size="many")
    with pytest.raises(ConfigError, match="did you mean 'roll_age'"):
        TransactionalFileSink({"path": tmp_path, "rollage": 1})
    with pytest.raises(ConfigError, match="append"):
        TransactionalFileSink(cast("dict[str, object]", {"path": tmp_path, "append": True}))
    (tmp_path / "file").write_text("")
    with pytest.raises(ConnectorError, match="is a file"):
        await started(tmp_path / "file")
    sink = await started(tmp_path / "new")
    with pytest.raises(ConnectorError, match="cannot write"):
        await sink.write([object()])
    await sink.close()
    assert names(tmp_path / "new") == []
