"""What the demo adds to a dataflow: how it deals files, and where its checkpoints are."""

from __future__ import annotations

from pathlib import Path

import pytest

from sage_actor.cli.census import Deal, SourceFile, library_files
from sage_actor.cli.demo_checkpoints import checkpoints_of_demo
from sage_actor.dataflow.context import FunctionContext


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[SourceFile]:
    monkeypatch.setenv("SAGE_ACTOR_HOME", str(tmp_path / "home"))
    return library_files()[:20]


def names_in(home: Path) -> set[str]:
    return {path.name for path in (home / "home" / "checkpoints").iterdir()}


def test_one_demo_at_a_time_has_the_checkpoints_and_leaves_none(
    files: list[SourceFile], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with checkpoints_of_demo("local", files) as first, checkpoints_of_demo("local", files) as second:
        assert first is not None
        assert first.is_dir()
        assert second is None
        with checkpoints_of_demo("process", files) as other:
            assert other not in (None, first)
    assert "another demo runs on this backend" in capsys.readouterr().err
    assert names_in(tmp_path) == set()


def test_what_a_killed_demo_left_is_found_by_the_next_over_the_same_files_only(files: list[SourceFile]) -> None:
    with checkpoints_of_demo("redis://127.0.0.1:1/0", files) as first:
        assert first is not None
        (first / "left").touch()
    with checkpoints_of_demo("redis://127.0.0.1:2/0", files) as again, checkpoints_of_demo("redis://127.0.0.1:1/0", files[1:]) as other:
        assert again == first
        assert (again / "left").exists()
        assert other not in (None, again)


def test_without_a_place_there_are_no_checkpoints(
    files: list[SourceFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "checkpoints").touch()
    with checkpoints_of_demo("local", files) as folder:
        assert folder is None
    assert "no checkpoints, since" in capsys.readouterr().err


@pytest.mark.asyncio
async def test_files_are_dealt_one_at_a_time_and_a_task_goes_on_where_it_was(files: list[SourceFile]) -> None:
    def context(index: int) -> FunctionContext:
        return FunctionContext(job="census", operator_name="files", subtask_index=index, parallelism=3)

    dealt: list[SourceFile] = []
    for index in range(3):
        source = Deal(files)
        await source.open(context(index))
        for _ in range(2):
            part = await source.read(100)
            assert part is not None
            dealt += part
        resumed = Deal(files)
        await resumed.open(context(index))
        await resumed.seek(source.position())
        while (part := await resumed.read(100)) is not None:
            assert len(part) == 1
            dealt += part
    assert sorted(dealt, key=files.index) == files
