"""Names of folders and files: safe for any job and operator, and telling."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sage_actor.checkpoint.part_names import attempt_of, checkpoint_of, job_folder, part_prefix


@given(st.lists(st.text(min_size=1, max_size=300), min_size=2, max_size=2, unique=True))
def test_job_names_become_safe_and_different_folders(names: list[str]) -> None:
    folders = [job_folder(name) for name in names]
    assert folders[0] != folders[1]
    for folder in folders:
        assert folder.isascii()
        assert 0 < len(folder) <= 120
        assert not folder.startswith(".")
        assert "/" not in folder
        assert "\0" not in folder


def test_part_names_tell_attempt_and_checkpoint() -> None:
    name = part_prefix("parts/00000003-abc", 12, "../évil/uid", 4)
    assert name.count("/") == 2
    assert attempt_of(name.split("/")[1]) == 3
    assert checkpoint_of(name.split("/")[2]) == 12
    assert checkpoint_of(".00000012-x.tmp") == 12
    assert checkpoint_of("letter") == attempt_of("letter") == 0
