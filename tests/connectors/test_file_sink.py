"""FileSink: what it writes, where, when it refuses; and files that go out and come back."""

from __future__ import annotations

import asyncio
import datetime
import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_actor import ports
from sage_actor.connectors import FileSink, FileSource
from sage_actor.dataflow.context import FunctionContext
from sage_actor.errors import ConfigError, ConnectorError


def context(index: int = 0, count: int = 1) -> FunctionContext:
    return FunctionContext(job="job", operator_name="files", subtask_index=index, parallelism=count)


async def write(*batches: Sequence[object], index: int = 0, count: int = 1, **options: Any) -> FileSink:
    sink = FileSink(options)
    await sink.open(context(index, count))
    try:
        for batch in batches:
            await sink.write(batch)
        await sink.flush()
    finally:
        await sink.close()
    return sink


async def read(**options: Any) -> list[Any]:
    source = FileSource(options)
    await source.open(context())
    records: list[Any] = []
    try:
        while (batch := await source.read(100)) is not None:
            records.extend(batch)
    finally:
        await source.close()
    return records


Cell = st.text(st.sampled_from('ab\n\r\x0b\u2028,;" \N{SNOWMAN}\0'), max_size=6)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.fixed_dictionaries({"k": Cell, "l;": Cell}), max_size=4), max_size=4),
    st.sampled_from(["", ".gz", ".lz4", ".zst"]),
    st.sampled_from(["csv", "jsonl"]),
    st.sampled_from(",;\t\x1f"),
    st.booleans(),
)
def test_rows_come_back(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[dict[str, str]]], extension: str, form: str, delimiter: str, again: bool
) -> None:
    path = tmp_path_factory.mktemp("rows") / f"out{extension}"
    options: dict[str, Any] = {"path": path, "format": form, "delimiter": delimiter}

    async def round_trip() -> list[Any]:
        if again:  # appended in a second go
            await write(*batches[:1], **options)
            await write(*batches[1:], append=True, **options)
        else:
            await write(*batches, **options)
        return await read(**options, block_size=9)

    assert asyncio.run(round_trip()) == [row for batch in batches for row in batch]


@pytest.mark.asyncio
async def test_text_is_str_of_each_record(tmp_path: Path) -> None:
    await write([1, "two"], [None, b"x", {"a": 1.5}], path=tmp_path / "a" / "b" / "out.txt")
    assert (tmp_path / "a" / "b" / "out.txt").read_text() == "1\ntwo\nNone\nb'x'\n{'a': 1.5}\n"


@pytest.mark.asyncio
async def test_jsonl_writes_the_nearest_json_form(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    path = tmp_path / "out"
    await write([{"t": (1, 2), 3: datetime.date(2024, 2, 29)}, numpy.float64(1.5), numpy.arange(3)], path=path, format="jsonl")
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"t": [1, 2], "3": "2024-02-29"}, 1.5, [0, 1, 2]]


@pytest.mark.asyncio
async def test_csv_header_and_columns(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    rows: list[object] = [{"b": 1, "a": None}, {"a": 2}]
    await write(rows, path=path, format="csv")
    assert path.read_text() == "b,a\n1,\n,2\n"
    await write(rows, path=path, format="csv", columns=["a", "b"], delimiter="\t")
    assert path.read_text() == "a\tb\n\t1\n2\t\n"
    await write(rows, path=path, format="csv", header=False)
    assert path.read_text() == "1,\n,2\n"
    await write([[1, "x"], (2, "y,z")], path=path, format="csv")
    assert path.read_text() == '1,x\n2,"y,z"\n'
    await write([[3, "z"]], path=path, format="csv", columns=["n", "s"])
    assert path.read_text() == "n,s\n3,z\n"


@pytest.mark.asyncio
async def test_overwrite_and_append(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("a,b\n1,2")  # without a last newline
    await write([{"b": 4, "a": 3}], path=path, format="csv", append=True)
    assert path.read_text() == "a,b\n1,2\n3,4\n"
    with pytest.raises(ConnectorError, match="columns= says b, a"):
        await write(path=path, format="csv", append=True, columns=["b", "a"])
    await write([{"c": 1}], path=path, format="csv")
    assert path.read_text() == "c\n1\n"
    packed = tmp_path / "out.gz"
    await write(["a"], path=packed)
    await write(["b"], path=packed, append=True, sync=True)
    assert gzip.decompress(packed.read_bytes()) == b"a\nb\n"


@pytest.mark.asyncio
@pytest.mark.parametrize(("path", "name"), [("out", "out-1"), ("v1.2/my.out.jsonl.zst", "v1.2/my.out-1.jsonl.zst"), ("x.csv", "x-1.csv")])
async def test_parallel_tasks_write_files_of_their_own(tmp_path: Path, path: str, name: str) -> None:
    sink = await write(["1"], index=1, count=2, path=tmp_path / path)
    assert sink.path == str(tmp_path / name) and os.path.getsize(sink.path)
    assert not (tmp_path / path).exists()


class Unwritable:
    def __repr__(self) -> str:
        return "<the culprit" + "." * 500


@pytest.mark.asyncio
@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize(
    ("form", "batch", "written", "words"),
    [
        ("jsonl", [{"a": 1}, Unwritable(), 3], [{"a": 1}], "<the culprit"),
        ("jsonl", [1, {"a": "\ud800"}], [1], "UnicodeEncodeError"),
        ("jsonl", [1, {(1, 2): 1, "x": {(1,)}, None: Unwritable()}], [1], "cannot write"),
        ("text", ["a", "b\ud800"], ["a"], "UnicodeEncodeError"),
        ("csv", [{"a": 1}, {"a": 2, "z": 3}], [{"a": "1"}], "'z' is not among the columns a"),
        ("csv", [{"a": 1}, [1, 2]], [{"a": "1"}], "2 fields do not fit"),
        ("csv", [{"a": 1}, "ab"], [{"a": "1"}], "not str"),
        ("csv", [["a"], [1], {"a": 2}], [{"a": "1"}], "columns=[...]"),
    ],
)
async def test_a_record_that_does_not_fit_is_named_and_those_before_are_written(
    tmp_path: Path, form: str, batch: list[object], written: list[object], words: str, compression: str
) -> None:
    path = tmp_path / "out"
    with pytest.raises(ConnectorError) as caught:
        await write(batch, path=path, format=form, compression=compression)
    message = str(caught.value)
    assert caught.value.place == str(path) and words in message and len(message) < 600
    assert await read(path=path, format=form, compression=compression) == written


@pytest.mark.asyncio
async def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path, words in ((tmp_path, "folder"), (tmp_path / "file" / "out", "not a folder")):
        sink = FileSink(path=path)
        with pytest.raises(ConnectorError, match=words) as caught:
            await sink.open(context())
        assert caught.value.place == str(path)
        await sink.close()


@pytest.mark.asyncio
async def test_a_full_disk_fails_once_and_close_stays_quiet() -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full on this platform")
    sink = FileSink(path="/dev/full")
    await sink.open(context())
    await sink.write(["a"])
    with pytest.raises(ConnectorError, match="No space left"):
        await sink.flush()
    with pytest.raises(ConnectorError, match="No space left"):
        await sink.write(["b"])
    await sink.close()


@pytest.mark.asyncio
async def test_a_write_waits_for_the_disk_beyond_the_block_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out"
    sink = FileSink(path=path, block_size=4)
    await sink.open(context())
    let_go = asyncio.Event()

    async def held(function: Callable[[], Any], /) -> Any:
        await let_go.wait()
        return function()

    monkeypatch.setattr(ports, "offload", held)
    await sink.write(["abcdef"])
    waiting = asyncio.ensure_future(sink.write(["g"]))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not waiting.done() and path.read_text() == ""
    waiting.cancel()  # nothing of it is written
    await asyncio.wait((waiting,))
    waiting = asyncio.ensure_future(sink.write(["h"]))
    let_go.set()
    await waiting
    await sink.close()
    assert path.read_text() == "abcdef\nh\n"


@pytest.mark.asyncio
async def test_what_is_written_shows_without_flush(tmp_path: Path) -> None:
    path = tmp_path / "out"
    sink = FileSink(path=path)
    await sink.open(context())
    await sink.write(["a"])
    async with asyncio.timeout(20):
        while path.read_text() != "a\n":  # noqa: ASYNC110 - another thread changes it
            await asyncio.sleep(0)
    await sink.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"path": "x", "apend": True}, "did you mean 'append'"),
        ({"path": ["x", "y"]}, "one path"),
        ({"path": ""}, "must be a path"),
        ({"path": "x", "header": 1}, "True or False"),
    ],
)
def test_wrong_options_are_refused_when_the_graph_is_built(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        FileSink(options)


def test_libraries_load_only_when_they_are_needed() -> None:
    code = (
        "import sys; from sage_actor.connectors import FileSource, FileSink, ConsoleSink;"
        "FileSource(path='x'); FileSink(path='x'); ConsoleSink();"
        "print(sorted({'lz4', 'zstandard', 'msgspec', 'csv', 'numpy', 'anyio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert done.stdout.strip() == "[]"
