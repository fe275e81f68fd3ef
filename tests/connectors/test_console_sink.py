"""ConsoleSink: what shows on standard output, and what happens when nobody reads it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sage_actor.connectors import ConsoleSink
from sage_actor.dataflow.context import FunctionContext
from sage_actor.errors import ConfigError, ConnectorError

CONTEXT = FunctionContext(job="job", operator_name="console")


@pytest.mark.asyncio
async def test_a_line_per_record_and_one_write_per_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counting(io.StringIO):
        writes = 0

        def write(self, text: str, /) -> int:
            self.writes += 1
            return super().write(text)

    output = Counting()
    monkeypatch.setattr(sys, "stdout", output)
    sink = ConsoleSink({"prefix": "> "})
    await sink.open(CONTEXT)
    await sink.write([1, None, "x"])
    await sink.write([{"a": 1}])
    await sink.close()
    assert output.getvalue() == "> 1\n> None\n> x\n> {'a': 1}\n" and output.writes == 2


@pytest.mark.asyncio
async def test_characters_the_terminal_lacks_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    sink = ConsoleSink()
    await sink.open(CONTEXT)
    await sink.write(["a\N{SNOWMAN}"])
    assert raw.getvalue() == b"a\\u2603\n"


@pytest.mark.asyncio
async def test_no_or_closed_output_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = ConsoleSink()
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(ConnectorError, match="has none; write to a file"):
        await sink.open(CONTEXT)
    output = io.StringIO()
    output.close()
    monkeypatch.setattr(sys, "stdout", output)
    await sink.open(CONTEXT)
    with pytest.raises(ConnectorError, match="cannot be written"):
        await sink.write(["a"])
    await sink.close()


def test_a_reader_that_goes_away_gives_one_clear_error() -> None:
    code = """
import asyncio, sys
from sage_actor.connectors import ConsoleSink
from sage_actor.errors import ConnectorError
from sage_actor.dataflow.context import FunctionContext

async def main():
    sink = ConsoleSink()
    await sink.open(FunctionContext(job="job", operator_name="console"))
    sys.stdin.readline()
    try:
        for _ in range(1000):
            await sink.write(["x" * 1000])
    except ConnectorError as error:
        sys.stderr.write(f"{error}\\n")
    await sink.close()

asyncio.run(main())
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=Path(__file__).parents[2]
    ) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        process.stdout.close()
        process.stdin.write(b"go" + os.linesep.encode())
        process.stdin.flush()
        errors = process.stderr.read().decode().splitlines()
        assert process.wait(30) == 0
    assert len(errors) == 1 and "standard output: the program that reads the output has ended" in errors[0]


def test_unknown_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'prefix'"):
        ConsoleSink({"prefx": ""})
