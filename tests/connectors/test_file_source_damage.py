"""FileSource: damaged lines, damaged files, files that changed since."""

from __future__ import annotations

import gzip
import importlib
import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from sage_actor.connectors import FileSource
from sage_actor.dataflow.context import FunctionContext
from sage_actor.errors import ConnectorError

PACK: dict[str, Callable[[bytes], bytes]] = {
    "none": lambda data: data,
    "gzip": gzip.compress,
    "lz4": importlib.import_module("lz4.frame").compress,
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data),
}


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


BAD: dict[str, tuple[bytes, list[object], list[object], int]] = {
    # content, records before the bad line, records without the bad lines, number of the first bad line
    "text": (b"one\r\n\ntwo\xff\nthree\n\xc3\n", ["one", ""], ["one", "", "three"], 3),
    "jsonl": (b'1\n\n{"a":}\n2 3\n"\xff"\n[1,\n4\n', [1], [1, 4], 3),
    "csv": (b'a,b\n1,"x\ny"\n\n2\n3,4,5\n6,\xff\n7,8\n', [{"a": "1", "b": "x\ny"}], [{"a": "1", "b": "x\ny"}, {"a": "7", "b": "8"}], 5),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("block_size", [1, 12, 4096])
@pytest.mark.parametrize("form", BAD)
async def test_bad_lines_fail_or_are_skipped_and_counted(
    tmp_path: Path, form: str, block_size: int, caplog: pytest.LogCaptureFixture
) -> None:
    content, before, without, line = BAD[form]
    path = tmp_path / "in"
    path.write_bytes(content)
    options: dict[str, Any] = {"path": path, "format": form, "block_size": block_size}
    records, failure = await read_until_failure(await opened(**options))
    assert records == before
    assert failure.place == f"{path}:{line}" and "on_bad_line='skip'" in failure.hint
    source = await opened(**options, on_bad_line="skip")
    with caplog.at_level(logging.WARNING):
        assert await drain(source) == without
    bad = {"text": 2, "jsonl": 4, "csv": 3}[form]
    assert source.bad_lines == bad and f"passed over {bad} bad lines" in caplog.text
    for cut in range(len(without) + 1):
        source = await opened(**options, on_bad_line="skip")
        for _ in range(cut):
            await source.read(1)
        position = source.position()
        await source.close()
        source = await opened(position=position, **options, on_bad_line="skip")
        assert await drain(source) == without[cut:]
        assert source.bad_lines == bad


@pytest.mark.asyncio
@pytest.mark.parametrize("block_size", [1, 4096])
async def test_a_stray_quote_is_found_by_its_line(tmp_path: Path, block_size: int) -> None:
    path = tmp_path / "in.csv"
    path.write_text('a,b\n1,2\n3,"4\n5,6\n7,8\n')
    options: dict[str, Any] = {"path": path, "format": "csv", "block_size": block_size}
    records, failure = await read_until_failure(await opened(**options))
    assert records == [{"a": "1", "b": "2"}]
    assert failure.place == f"{path}:3" and "never closed" in failure.reason
    assert [row["a"] for row in await read_all(**options, on_bad_line="skip")] == ["1", "5", "7"]
    bounded = {**options, "max_record_size": 6}
    assert [row["a"] for row in await read_all(**bounded, on_bad_line="skip")] == ["1", "5", "7"]


@pytest.mark.asyncio
async def test_headers_that_cannot_be(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("a,b,a\n1,2,3\n")
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "names 'a' twice"),
        ({"columns": ["x"], "header": True}, "3 fields where columns= names 1"),
    ]
    for options, words in cases:
        _, failure = await read_until_failure(await opened(path=path, format="csv", **options))
        assert failure.place == f"{path}:1" and words in failure.reason
    path.write_text("")
    assert await read_all(path=path, format="csv") == []


@pytest.mark.asyncio
@pytest.mark.parametrize("form", ["text", "csv", "jsonl"])
async def test_a_line_without_end_is_refused(tmp_path: Path, form: str) -> None:
    path = tmp_path / "in"
    path.write_text("1\n2\n" + "3" * 5000 + "\n")
    source = await opened(path=path, format=form, block_size=100, max_record_size=1000, header=False)
    records, failure = await read_until_failure(source)
    assert [str(record).strip("[]'") for record in records] == ["1", "2"]
    assert failure.place == f"{path}:3" and "longer than 1000" in failure.reason


@pytest.mark.asyncio
@pytest.mark.parametrize("form", ["text", "csv"])
@pytest.mark.parametrize("compression", ["gzip", "lz4", "zstd"])
async def test_a_truncated_file_gives_what_precedes_and_then_its_place(tmp_path: Path, compression: str, form: str) -> None:
    rng = random.Random(7)
    lines = [f"{rng.getrandbits(200):x}" for _ in range(20_000)]
    data = PACK[compression](("h\n" + "\n".join(lines)).encode())
    path = tmp_path / "in"
    path.write_bytes(data[: len(data) * 2 // 3])
    source = await opened(path=path, compression=compression, format=form)
    records, failure = await read_until_failure(source)
    texts = [record["h"] for record in records] if form == "csv" else records[1:]
    assert len(texts) > 5000 and texts == lines[: len(texts)]
    assert str(path) in failure.place and "byte" in failure.place and "truncated" in failure.reason


@pytest.mark.asyncio
@pytest.mark.parametrize("compression", ["gzip", "lz4", "zstd"])
async def test_what_is_not_compressed_so_is_refused(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "in"
    path.write_text("these are plain words, not a frame\n")
    records, failure = await read_until_failure(await opened(path=path, compression=compression))
    assert records == [] and f"decompressed as {compression}" in failure.reason and "compression='none'" in failure.hint
    path.write_bytes(b"")
    assert await read_all(path=path, compression=compression) == []


@pytest.mark.asyncio
async def test_gzip_padding_is_ignored_and_extensions_tell(tmp_path: Path) -> None:
    for extension, compression in ((".gz", "gzip"), (".LZ4", "lz4"), (".zst", "zstd")):
        padding = b"\0" * 100_000 if compression == "gzip" else b""
        (tmp_path / f"in{extension}").write_bytes(PACK[compression](b"a\nb") + padding)
    assert await read_all(path=tmp_path) == ["a", "b"] * 3


@pytest.mark.asyncio
@pytest.mark.parametrize("compression", ["none", "gzip"])
async def test_seek_refuses_files_that_changed(tmp_path: Path, compression: str) -> None:
    file = tmp_path / ("in.gz" if compression == "gzip" else "in.txt")
    pack = PACK[compression]
    content = b"".join(b"line %d of many\n" % number for number in range(1000))
    file.write_bytes(pack(content))
    source = await opened(path=file, block_size=100)
    for _ in range(900):
        await source.read(1)
    position = place = source.position()
    await source.close()

    async def refusal(data: bytes, position: object) -> str:
        file.write_bytes(data)
        source = await opened(path=tmp_path)
        with pytest.raises(ConnectorError) as caught:
            await source.seek(position)
        await source.close()
        return str(caught.value)

    assert "has shrunk" in await refusal(pack(content[:200]), position)
    assert "its first" in await refusal(pack(b"L" + content[1:] + content), position)
    unmarked = {**place, "mark": None}  # what is found without: as for a file whose beginning is the same
    assert "ends before byte" in await refusal(pack(content[:200]), unmarked)
    if compression == "none":
        assert "no line begins" in await refusal(content[:5000] + content[5000:].replace(b"\n", b"_"), position)
    assert "fewer records" in await refusal(pack(content[: place["offset"]] + b"x\n"), {**unmarked, "skip": 9})
    file.unlink()
    (tmp_path / "other.txt").write_text("")
    source = await opened(path=tmp_path)
    with pytest.raises(ConnectorError, match="is gone"):
        await source.seek(position)
    await source.close()


@pytest.mark.asyncio
async def test_a_file_may_grow(tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_bytes(b"a\nb\n")
    source = await opened(path=path)
    assert await source.read(1) == ["a"]
    position = source.position()
    await source.close()
    path.write_bytes(b"a\nb\nc\n")
    source = await opened(path=path)
    await source.seek(position)
    assert await source.read(9) == ["b", "c"]
    await source.close()
