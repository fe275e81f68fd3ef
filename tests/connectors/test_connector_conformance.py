"""Our sources and sinks against the public conformance rules, over all formats and compressions."""

from __future__ import annotations

import csv
import gzip
import importlib
import io
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
import zstandard

from sage_actor.connectors import ConsoleSink, FileSink, FileSource
from sage_actor.dataflow.context import FunctionContext
from sage_actor.dataflow.source import Source
from sage_actor.errors import ConnectorError
from sage_actor.testing.connector_conformance import SINK_RULES, SOURCE_RULES, SinkCase, SourceCase, rule_name

Records = list[object]

TEXT = 'one\n\nthree \u2028 \xe9\r\nfour\x0b\n\u2028 \x1c five \N{SNOWMAN}\nsix\r\r\n seven, "x"\nlast'.encode()
TEXT_RECORDS: Records = ["one", "", "three \u2028 \xe9", "four\x0b", "\u2028 \x1c five \N{SNOWMAN}", "six\r", ' seven, "x"', "last"]
CSV = 'a,b\n1,"x\ny"\n\n2,"q ""q"", \r\n"\r\n"3","\n\n\n"\n4,\N{SNOWMAN}\n5,\u2028\n'.encode()
CSV_RECORDS: Records = [
    {"a": "1", "b": "x\ny"},
    {"a": "2", "b": 'q "q", \r\n'},
    {"a": "3", "b": "\n\n\n"},
    {"a": "4", "b": "\N{SNOWMAN}"},
    {"a": "5", "b": "\u2028"},
]
JSONL = '{"a":1}\n\n[2,"\N{SNOWMAN}"]\r\n  \nnull\n"x\\ny"\n1.5\n{}'.encode()
JSONL_RECORDS: Records = [{"a": 1}, [2, "\N{SNOWMAN}"], None, "x\ny", 1.5, {}]
CONTENT = {"text": (TEXT, TEXT_RECORDS), "csv": (CSV, CSV_RECORDS), "jsonl": (JSONL, JSONL_RECORDS)}

LZ4 = importlib.import_module("lz4.frame")  # it has no types

PACK: dict[str, Callable[[bytes], bytes]] = {
    "none": lambda data: data,
    "gzip": gzip.compress,
    "lz4": LZ4.compress,
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data),
}
UNPACK: dict[str, Callable[[bytes], bytes]] = {
    "none": lambda data: data,
    "gzip": gzip.decompress,
    "lz4": lambda data: LZ4.open(io.BytesIO(data)).read(),
    "zstd": lambda data: zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True).read(),
}

SourceRule = Callable[[SourceCase[object]], Awaitable[None]]
SinkRule = Callable[[SinkCase[object]], Awaitable[None]]


@pytest.mark.asyncio
@pytest.mark.parametrize("rule", SOURCE_RULES, ids=rule_name)
@pytest.mark.parametrize("compression", PACK)
@pytest.mark.parametrize("form", CONTENT)
async def test_file_source_conforms(tmp_path: Path, form: str, compression: str, rule: SourceRule) -> None:
    data, expected = CONTENT[form]
    path = tmp_path / "in"
    middle = data.index(b"\n", len(data) // 2) + 1
    path.write_bytes(PACK[compression](data[:middle]) + PACK[compression](data[middle:]))  # two members or frames
    for block_size in (1, 5, 4096) if rule.__name__ != "cancelled_read_loses_nothing" else (5,):

        def make(size: int = block_size) -> Source[object]:
            return FileSource(path=path, format=form, compression=compression, block_size=size, split_size=7)

        await rule(
            SourceCase(
                make, expected, splits=(1, 2, 3, 4, 5) if rule.__name__.startswith("shares") else (1, 2, 3), rescalable=True, cancel_turns=5
            )
        )


@pytest.mark.asyncio
@pytest.mark.parametrize("rule", SOURCE_RULES, ids=rule_name)
async def test_file_source_with_prefetch_over_many_files_conforms(tmp_path: Path, rule: SourceRule) -> None:
    expected: Records = []
    for number in range(4):
        lines = [f"{number}.{line}" for line in range(number * 2)]
        (tmp_path / f"{number}.txt").write_text("\n".join(lines))
        expected.extend(lines)

    def make() -> Source[object]:
        return FileSource({"path": tmp_path, "prefetch": True, "block_size": 6, "batch_size": 3})

    await rule(SourceCase(make, expected, splits=(1, 2, 3, 4, 5), rescalable=True))


@pytest.mark.asyncio
async def test_the_rules_notice_a_source_that_loses_records() -> None:
    class Lossy(Source[object]):
        def __init__(self) -> None:
            self._left: list[object] = [1, 2, 3]

        async def read(self, limit: int) -> Sequence[object] | None:
            return [self._left.pop(0)] if len(self._left) > 1 else None

    with pytest.raises(AssertionError, match="2 records came, expected 3"):
        await SOURCE_RULES[0](SourceCase(Lossy, [1, 2, 3]))


def read_text(data: bytes) -> Records:
    return [*data.decode().split("\n")[:-1]]


def read_jsonl(data: bytes) -> Records:
    return [json.loads(line) for line in data.splitlines()]


def read_csv(data: bytes) -> Records:
    return [*csv.DictReader(io.StringIO(data.decode(), newline=""))]


BATCHES: dict[str, tuple[list[Records], Callable[[bytes], Records]]] = {
    "text": ([["a", "b"], ["c \N{SNOWMAN}"], ["", "d\r", "e\x0b\u2028"]], read_text),
    "jsonl": ([[{"n": 1}, [2]], ["x\ny"], [None, 4.5, {"\N{SNOWMAN}": {}}]], read_jsonl),
    "csv": (
        [
            [{"a": "1", "b": 'x, "y"'}, {"a": "\N{SNOWMAN}", "b": ""}],
            [{"a": "p\nq", "b": "\r"}],
            [{"a": "r\r\ns", "b": " "}, {"a": "", "b": "\u2028"}],
        ],
        read_csv,
    ),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("rule", SINK_RULES, ids=rule_name)
@pytest.mark.parametrize("compression", PACK)
@pytest.mark.parametrize("form", BATCHES)
async def test_file_sink_conforms(tmp_path: Path, form: str, compression: str, rule: SinkRule) -> None:
    batches, parse = BATCHES[form]
    path = tmp_path / "new" / "out"
    for block_size in (1, 1 << 20):

        def make(size: int = block_size) -> FileSink:
            return FileSink(path=path, format=form, compression=compression, block_size=size)

        await rule(SinkCase(make, batches, lambda: parse(UNPACK[compression](path.read_bytes()))))


@pytest.mark.asyncio
@pytest.mark.parametrize("rule", SINK_RULES, ids=rule_name)
async def test_console_sink_conforms(capsys: pytest.CaptureFixture[str], rule: SinkRule) -> None:
    shown: list[str] = []

    def make() -> ConsoleSink:
        capsys.readouterr()
        shown.clear()
        return ConsoleSink()

    def read_back() -> Sequence[object]:
        shown.append(capsys.readouterr().out)
        return "".join(shown).splitlines()

    await rule(SinkCase(make, [["a", "b"], ["c"], ["d", "e"]], read_back))


@pytest.mark.asyncio
async def test_the_rules_notice_a_sink_that_forgets(tmp_path: Path) -> None:
    class Forgetful(FileSink):
        async def write(self, batch: Sequence[object]) -> None:
            await super().write(batch[1:])

    path = tmp_path / "out"
    case: SinkCase[object] = SinkCase(lambda: Forgetful(path=path), [["a", "b"]], lambda: read_text(path.read_bytes()))
    with pytest.raises(AssertionError, match="'b', expected 'a'"):
        await SINK_RULES[0](case)


@pytest.mark.asyncio
async def test_unopened_connectors_say_so() -> None:
    with pytest.raises(ConnectorError, match="not open"):
        await FileSink(path="x").write(["a"])
    with pytest.raises(ConnectorError, match="not open"):
        await FileSource(path="x").read(1)
    assert FunctionContext(job="j", operator_name="o").parallelism == 1
