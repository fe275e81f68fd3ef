"""FileSource: content against simple models, files and folders, damage, addresses, options, positions."""

from __future__ import annotations

import asyncio
import copy
import csv
import gzip
import importlib
import io
import json
import logging
import os
import pickle
import re
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_actor import ports
from sage_actor.connectors import FileSource
from sage_actor.dataflow.context import FunctionContext
from sage_actor.errors import ConfigError, ConnectorError

PACK: dict[str, Callable[[bytes], bytes]] = {
    "none": lambda data: data,
    "gzip": gzip.compress,
    "lz4": importlib.import_module("lz4.frame").compress,
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data),
}

JsonValue = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3), max_leaves=5
)
# What str.splitlines takes for a line end and we must not, beside what is one.
OddText = st.text(st.sampled_from('ab\n\r\x0b\x0c\x1c\x85\u2028,"\N{SNOWMAN}\U0001f600 '), max_size=40)


async def opened(position: object = None, share: tuple[int, int] = (0, 1), **options: Any) -> FileSource:
    source = FileSource(options)
    await source.open(FunctionContext("job", "files", *share))
    if position is not None:
        await source.seek(position)
    return source


async def drain(source: FileSource, limit: int = 5) -> list[Any]:
    records: list[Any] = []
    try:
        while (batch := await source.read(limit)) is not None:
            records.extend(batch)
    finally:
        await source.close()
    return records


async def read_all(**options: Any) -> list[Any]:
    return await drain(await opened(**options))


async def read_until_failure(source: FileSource) -> tuple[list[Any], ConnectorError]:
    records: list[Any] = []
    try:
        with pytest.raises(ConnectorError) as caught:
            while (batch := await source.read(5)) is not None:
                records.extend(batch)
        with pytest.raises(ConnectorError):  # and again: a source that failed does not end as if nothing had been
            await source.read(5)
    finally:
        await source.close()
    return records, caught.value


def text_model(text: str) -> list[str]:
    lines = re.split(r"\r?\n", text)
    return lines if lines[-1] else lines[:-1]


def in_file(data: bytes, read: Callable[[str], Any]) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "in")
        Path(path).write_bytes(data)
        return read(path)


@settings(max_examples=150, deadline=None)
@given(st.lists(OddText, max_size=4), st.sampled_from([*PACK]), st.integers(1, 30), st.integers(1, 9), st.integers(1, 5), st.data())
def test_text_equals_the_model_however_it_is_stored_cut_and_shared(
    parts: list[str], compression: str, block_size: int, limit: int, count: int, data: st.DataObject
) -> None:
    text = "".join(parts)
    expected = text_model(text)
    packed = b"".join(PACK[compression](part.encode()) for part in parts) or PACK[compression](b"")
    cut = data.draw(st.integers(0, len(expected)))

    async def everything(path: str) -> None:
        options: dict[str, Any] = {"path": path, "compression": compression, "block_size": block_size}
        assert await drain(await opened(**options), limit) == expected
        shares = [await drain(await opened(share=(index, count), split_size=limit, **options)) for index in range(count)]
        assert sorted(record for share in shares for record in share) == sorted(expected)
        source = await opened(**options)
        got: list[str] = []
        while len(got) < cut:
            got.extend(await source.read(min(limit, cut - len(got))) or ())
        position = json.loads(json.dumps(source.position()))
        await source.close()
        options["block_size"] = 7  # positions hold whatever the size of blocks
        assert got + await drain(await opened(position=position, **options)) == expected

    in_file(packed, lambda path: asyncio.run(everything(path)))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(OddText, min_size=2, max_size=2), max_size=8),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([*PACK]),
    st.integers(1, 40),
    st.booleans(),
    st.data(),
)
def test_csv_equals_the_csv_module_at_every_block_border(
    rows: list[list[str]], line_end: str, compression: str, block_size: int, final: bool, data: st.DataObject
) -> None:
    out = io.StringIO()
    csv.writer(out, lineterminator=line_end, quoting=csv.QUOTE_ALL).writerows([["p", "q"], *rows])
    content = out.getvalue() if final else out.getvalue()[: -len(line_end)]
    expected = [dict(zip(["p", "q"], row, strict=True)) for row in csv.reader(io.StringIO(content, newline=""))][1:]
    cut = data.draw(st.integers(0, len(expected)))

    async def everything(path: str) -> None:
        options: dict[str, Any] = {"path": path, "compression": compression, "format": "csv", "block_size": block_size}
        assert await read_all(**options) == expected
        source = await opened(**options)
        got = [row for _ in range(cut) for row in await source.read(1) or ()]
        position = source.position()
        await source.close()
        assert got + await drain(await opened(position=position, **options)) == expected

    in_file(PACK[compression](content.encode()), lambda path: asyncio.run(everything(path)))


@settings(max_examples=100, deadline=None)
@given(st.lists(JsonValue, max_size=12), st.sampled_from([*PACK]), st.integers(1, 40), st.sampled_from(["\n", "\r\n", "\n \n"]))
def test_jsonl_equals_json(values: list[object], compression: str, block_size: int, line_end: str) -> None:
    content = "".join(json.dumps(value) + line_end for value in values)
    got = in_file(
        PACK[compression](content.encode()),
        lambda path: asyncio.run(read_all(path=path, compression=compression, format="jsonl", block_size=block_size)),
    )
    assert got == values


@pytest.mark.asyncio
async def test_blocks_of_the_usual_size_and_a_row_longer_than_many(tmp_path: Path) -> None:
    lines = [str(number) * (number % 50) for number in range(50_000)]
    path = tmp_path / "big.txt.zst"
    path.write_bytes(PACK["zstd"](("\n".join(lines) + "\n").encode()))
    assert await drain(await opened(path=path, prefetch=True, batch_size=10_000), 100_000) == lines
    body = "x\n" * 200_000
    table = tmp_path / "long.csv"
    with open(table, "w", newline="") as file:
        csv.writer(file).writerows([["id", "body"], ["1", body], ["2", "short"], ["3", body]])
    rows = await read_all(path=table, format="csv", block_size=1000)
    assert [(row["id"], len(row["body"])) for row in rows] == [("1", len(body)), ("2", 5), ("3", len(body))]


@pytest.mark.asyncio
async def test_csv_options(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(b"\xef\xbb\xbfa;b\r\n1;2\r\n\r\n3;4\r\n")
    options: dict[str, Any] = {"path": path, "format": "CSV", "delimiter": ";"}
    assert await read_all(**options) == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]
    assert await read_all(**options, header=False) == [["a", "b"], ["1", "2"], ["3", "4"]]
    assert await read_all(**options, columns=["x", "y"]) == [{"x": "a", "y": "b"}, {"x": "1", "y": "2"}, {"x": "3", "y": "4"}]
    assert await read_all(**options, columns=["x", "y"], header=True) == [{"x": "1", "y": "2"}, {"x": "3", "y": "4"}]
    wide = tmp_path / "wide.csv"
    names = [f"c'{number}\\" for number in range(700)]
    wide.write_text(",".join(names) + "\n" + ",".join("v" for _ in names) + "\n")
    assert await read_all(path=wide, format="csv") == [dict.fromkeys(names, "v")]


@pytest.mark.asyncio
async def test_other_encodings(tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_bytes("gr\xfc\xdfe\nzwei\n".encode("cp1252"))
    assert await read_all(path=path, encoding="cp1252") == ["gr\xfc\xdfe", "zwei"]
    path.write_bytes('"gr\xfc\xdfe"\n2\n'.encode("latin-1"))
    assert await read_all(path=path, encoding="latin-1", format="jsonl") == ["gr\xfc\xdfe", 2]
    path.write_bytes(b"\xef\xbb\xbfone\ntwo")
    assert await read_all(path=path, encoding="utf-8-sig") == ["one", "two"]
    with pytest.raises(ConfigError, match="UTF-8"):
        FileSource(path=path, encoding="utf-16")
    with pytest.raises(ConfigError, match="not a known"):
        FileSource(path=path, encoding="klingon")


@pytest.mark.asyncio
async def test_folders_globs_and_lists(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("b.txt", "a.txt", ".hidden", "sub/c.txt", "sub/.d.txt", ".git/e.txt", "[x].log"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    base = str(tmp_path)
    assert await read_all(path=tmp_path) == ["[x].log", "a.txt", "b.txt"]
    assert await read_all(path=base + "/", recursive=True) == ["[x].log", "a.txt", "b.txt", "sub/c.txt"]
    assert await read_all(path=base + "/*.txt") == ["a.txt", "b.txt"]
    assert await read_all(path=base + "/**/*.txt") == ["a.txt", "b.txt", "sub/c.txt"]
    assert await read_all(path=base + "/[x].log") == ["[x].log"]
    assert await read_all(path=[tmp_path / "b.txt", base + "/*.txt"]) == ["b.txt", "a.txt"]
    assert await drain(await opened(share=(1, 2), path=base + "/*.txt")) == ["b.txt"]
    (tmp_path / "empty").mkdir()
    with caplog.at_level(logging.WARNING):
        assert await read_all(path=tmp_path / "empty") == []
    assert "no files here" in caplog.text


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("path", "words"),
    [("nowhere.txt", "No such file"), ("*.nothing", "no file matches"), ("a/b", "Not a directory"), ("fifo", "not a regular")],
)
async def test_what_cannot_be_read_is_named_with_the_next_step(tmp_path: Path, path: str, words: str) -> None:
    (tmp_path / "a").write_text("")
    os.mkfifo(tmp_path / "fifo")
    source = FileSource(path=str(tmp_path / path))
    with pytest.raises(ConnectorError, match=words) as caught:
        await source.open(FunctionContext("job", "files"))
    assert str(tmp_path / path) in str(caught.value) and caught.value.hint
    await source.close()


@pytest.mark.asyncio
async def test_a_file_that_goes_between_open_and_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1\n")
    (tmp_path / "b").write_text("2\n")
    source = await opened(path=tmp_path)
    (tmp_path / "b").unlink()
    (tmp_path / "b").mkdir()
    records, failure = await read_until_failure(source)
    assert records == ["1"] and failure.place == str(tmp_path / "b") and "folder" in failure.hint


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"paht": "x"}, "did you mean 'path'"),
        ({"path": "x", "batchsize": 5}, "did you mean 'batch_size'"),
        ({}, "must be a path"),
        ({"path": []}, "names no path"),
        ({"path": 5}, "must be a path"),
        ({"path": ["a", None]}, "must be a path"),
        ({"path": "x", "format": "jsonlx"}, "did you mean 'jsonl'"),
        ({"path": "x", "compression": "rar"}, "must be one of auto, none, gzip, lz4, zstd"),
        ({"path": "x", "batch_size": 0}, "above 0"),
        ({"path": "x", "batch_size": True}, "above 0"),
        ({"path": "x", "prefetch": "yes"}, "True or False"),
        ({"path": "x", "delimiter": ";;"}, "one character"),
        ({"path": "x", "columns": "ab"}, "list of names"),
        ({"path": "x", "columns": ["a", "a"]}, "distinct"),
        ({"path": "x", "on_bad_line": "ignore"}, "fail, skip"),
    ],
)
def test_wrong_options_are_refused_when_the_graph_is_built(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        FileSource(options)


@pytest.mark.asyncio
async def test_what_is_not_open_yet_can_be_copied_and_sent(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("a\n")
    source = FileSource(path=tmp_path / "in")
    for twin in (copy.deepcopy(source), pickle.loads(pickle.dumps(source))):
        await twin.open(FunctionContext("job", "files"))
        assert await drain(twin) == ["a"]


def test_options_as_mapping_and_keywords() -> None:
    FileSource({"path": "x"}, format="jsonlines", compression=None)
    with pytest.raises(ConfigError, match="one mapping or keywords"):
        FileSource(cast("dict[str, object]", "data.csv"))


@pytest.mark.asyncio
async def test_files_that_come_later_are_not_mixed_in(tmp_path: Path) -> None:
    for name in ("b", "d", "f"):
        (tmp_path / name).write_text(f"{name}1\n{name}2\n")
    source = await opened(share=(0, 2), path=tmp_path)
    assert await source.read(1) == ["b1"]
    position = source.position()
    await source.close()
    for name in ("a", "c", "e", "g"):
        (tmp_path / name).write_text(f"{name}1\n")
    assert await drain(await opened(position, (0, 2), path=tmp_path)) == ["b2", "f1", "f2"]


@pytest.mark.asyncio
async def test_a_growing_file_is_shared_without_gap_or_overlap(tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_text("".join(f"{number}\n" for number in range(20)))
    sources = [await opened(share=(index, 3), path=path, split_size=5, block_size=8) for index in range(3)]
    got = list(await sources[0].read(3) or ())
    with open(path, "a") as file:
        file.writelines(f"{number}\n" for number in range(20, 40))
    for source in sources:
        got.extend(await drain(source))
    assert sorted(map(int, got)) == [*range(40)]


@pytest.mark.asyncio
async def test_addresses(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('h\n"x\ny"\n\n2\n')
    (tmp_path / "b.csv").write_text("h\n3\n4\n")
    source = await opened(path=tmp_path, format="csv")
    assert source.address(0) == ""
    await source.read(2)
    assert [source.address(index) for index in range(3)] == [f"{tmp_path}/a.csv:2", f"{tmp_path}/a.csv:5", ""]
    await source.read(2)
    position = source.position()
    assert source.address(3) == f"{tmp_path}/b.csv:3"
    await source.close()
    (tmp_path / "b.csv").write_text("h\n3\n4\n5\n")
    resumed = await opened(position=position, path=tmp_path, format="csv")
    await resumed.read(5)
    assert resumed.address(4) == f"{tmp_path}/b.csv:4"
    await resumed.close()
    lines = tmp_path / "lines"
    lines.write_text("aa\nbb\ncc\ndd\n")
    second = await opened(share=(1, 2), path=lines, split_size=6)
    assert await second.read(9) == ["cc", "dd"]
    assert second.address(1) == f"{lines}: line 2 after byte 6"
    await second.close()


@pytest.mark.asyncio
async def test_reading_leaves_the_loop_free_and_a_cancelled_read_returns_its_block_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "in"
    path.write_text("a\nb\n")
    entered, let_go = threading.Event(), threading.Event()
    offload = ports.offload

    async def slow(function: Callable[[], Any], /) -> Any:
        def held() -> Any:
            entered.set()
            assert let_go.wait(20)
            return function()

        return await offload(held)

    source = await opened(path=path)
    monkeypatch.setattr(ports, "offload", slow)
    reading = asyncio.ensure_future(source.read(1))
    while not entered.is_set():  # noqa: ASYNC110 - another thread changes it
        await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait((reading,))
    assert reading.cancelled()
    let_go.set()
    assert await source.read(1) == ["a"]
    assert await drain(source) == ["b"]


@pytest.mark.asyncio
async def test_close_waits_for_the_block_under_way_even_if_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "in"
    path.write_text("a\n")
    source = await opened(path=path)
    let_go = asyncio.Event()

    async def failing(function: Callable[[], Any], /) -> Any:
        await let_go.wait()
        raise MemoryError

    monkeypatch.setattr(ports, "offload", failing)
    reading = asyncio.ensure_future(source.read(1))
    await asyncio.sleep(0)
    reading.cancel()
    closing = asyncio.ensure_future(source.close())
    await asyncio.sleep(0)
    assert not closing.done()
    let_go.set()
    await closing


def test_prefetch_reads_ahead_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").write_text("aaaa\nbbbb\ncccc\n")
    calls: list[int] = []

    async def counted(function: Callable[[], Any], /) -> Any:
        calls.append(1)
        return function()

    async def hauls(prefetch: bool) -> Sequence[int]:
        source = await opened(path=tmp_path / "in", block_size=5, prefetch=prefetch)
        calls.clear()
        assert await source.read(1) == ["aaaa"]
        for _ in range(20):
            await asyncio.sleep(0)
        seen = list(calls)
        assert await drain(source) == ["bbbb", "cccc"]
        return seen

    monkeypatch.setattr(ports, "offload", counted)
    assert len(asyncio.run(hauls(prefetch=False))) == 1
    assert len(asyncio.run(hauls(prefetch=True))) == 2
