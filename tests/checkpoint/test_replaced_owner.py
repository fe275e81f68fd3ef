"""An owner that was replaced while it stood still."""

from __future__ import annotations

from pathlib import Path

import pytest

from sage_actor.checkpoint.manifest import Manifest
from sage_actor.checkpoint.storage import open_storage
from sage_actor.errors import Fenced


@pytest.mark.rule("F42")
@pytest.mark.asyncio
async def test_it_does_not_take_over_again(tmp_path: Path) -> None:
    first, second = open_storage(str(tmp_path), "job"), open_storage(str(tmp_path), "job")
    await first.begin_attempt(resume=True)
    await second.begin_attempt(resume=True)
    with pytest.raises(Fenced):
        await first.begin_attempt(resume=True)
    await second.complete(Manifest("job", 1, 2, 0))
    await second.begin_attempt(resume=True)


@pytest.mark.rule("F42")
@pytest.mark.asyncio
async def test_nor_does_it_begin_anew_when_its_successor_has_finished_the_job(tmp_path: Path) -> None:
    first, second = open_storage(str(tmp_path), "job"), open_storage(str(tmp_path), "job")
    await first.begin_attempt(resume=True)
    await second.begin_attempt(resume=True)
    await second.discard()
    with pytest.raises(Fenced):
        await first.begin_attempt(resume=True)
