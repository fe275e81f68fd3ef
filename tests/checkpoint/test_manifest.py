"""Entries of the log: what was written is read, what was changed is noticed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_actor.checkpoint.manifest import (
    AttemptEntry,
    CheckpointEntry,
    EndEntry,
    Entry,
    Manifest,
    OperatorManifest,
    decode_entry,
    encode_entry,
)
from sage_actor.errors import CheckpointDamaged, CheckpointError
from sage_actor.state.parts import FileRef, OperatorPart, TableInfo

PART = OperatorPart("ü/id", 1, 2, 128, 64, 127, "rocksdb", {"a": TableInfo("split", 3)}, [FileRef("parts/1/x", 2**40, 2**32 - 1)])
MANIFEST = Manifest(
    "jöb", 3, 2, 1_700_000_000_000, "at_least_once", operators={"ü/id": OperatorManifest("sum", "fold", 2, 128, [PART], [0])}
)
ENTRIES: list[Entry] = [
    AttemptEntry("jöb", 1, 1, "abc", 1, 1, 5, "s3://bucket/save"),
    CheckpointEntry("jöb", 2, "abc", MANIFEST),
    EndEntry("jöb", 3, 1, "abc", 1, 6),
]


@pytest.mark.parametrize("entry", ENTRIES)
def test_round_trip(entry: Entry) -> None:
    assert decode_entry(encode_entry(entry), "jöb", "file") == entry


def test_files_and_size() -> None:
    assert MANIFEST.files() == {"parts/1/x": PART.files[0]}
    assert MANIFEST.size == 2**40


@given(st.sampled_from(ENTRIES), st.data())
def test_any_damage_is_noticed(entry: Entry, data: st.DataObject) -> None:
    content = bytearray(encode_entry(entry))
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        damaged = bytes(content[:at])
    else:
        content[at] ^= data.draw(st.integers(1, 255))
        damaged = bytes(content)
    try:
        found = decode_entry(damaged, "jöb", "file")
    except CheckpointError:
        return
    assert found == entry  # a changed space or letter case in the first line changes nothing


@given(st.binary(max_size=200))
def test_foreign_files_are_damaged_ones(content: bytes) -> None:
    with pytest.raises(CheckpointDamaged):
        decode_entry(content, "job", "file")
