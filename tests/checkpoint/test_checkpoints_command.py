"""``sage checkpoints``: what it prints, and its exit status."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from sage_actor.checkpoint.disk import blocks_of
from sage_actor.checkpoint.manifest import Manifest, OperatorManifest
from sage_actor.checkpoint.storage import open_storage, part_prefix
from sage_actor.cli.checkpoints import checkpoints
from sage_actor.errors import SavepointNotFound
from sage_actor.state.parts import OperatorPart


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    app.command()(checkpoints)
    return app


async def fill(folder: Path) -> str:
    storage = open_storage(str(folder), "words")
    start = await storage.begin_attempt(resume=False)
    ref = await storage.write(part_prefix(start.parts, 1, "sum", 0) + "x", blocks_of(b"0" * 1234))
    part = OperatorPart("sum", 0, 1, 128, 0, 127, "memory", {}, [ref])
    await storage.complete(Manifest("words", 1, 1, 1_700_000_000_000, operators={"sum": OperatorManifest("sum", "fold", 1, 128, [part])}))
    return storage.path_of(ref.name)


def test_lists_and_judges(tmp_path: Path, app: typer.Typer) -> None:
    part = Path(asyncio.run(fill(tmp_path)))
    shown = CliRunner().invoke(app, [str(tmp_path)])
    assert shown.exit_code == 0
    head, line = shown.output.splitlines()
    assert head.split() == ["job", "kind", "id", "taken", "bytes", "attempt", "intact", "place"]
    assert line.split()[:3] == ["words", "checkpoint", "1"]
    assert "1,234" in line
    assert " yes " in line
    part.write_bytes(b"1" * 1234)
    shown = CliRunner().invoke(app, [str(tmp_path), "--json"])
    assert shown.exit_code == 1
    assert "checksum" in json.loads(shown.output)[0]["problem"]
    assert CliRunner().invoke(app, [str(tmp_path), "--job", "other", "--json"]).output == "[]\n"


def test_nothing_there(tmp_path: Path, app: typer.Typer) -> None:
    assert isinstance(CliRunner().invoke(app, [str(tmp_path)]).exception, SavepointNotFound)
