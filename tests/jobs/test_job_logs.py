"""Reading logs by their end and from a place on."""

from __future__ import annotations

from pathlib import Path

import pytest

from sage_actor.jobs import logs
from sage_actor.jobs.logs import LogPart, read_since, read_tail


def test_no_log_yet(tmp_path: Path) -> None:
    assert read_tail(tmp_path / "x.log", 10) == LogPart("", 0)
    assert read_since(tmp_path / "x.log", 0) == LogPart("", 0)


def test_the_tail_and_what_follows_it(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_text("one\ntwo\nthree\n")
    part = read_tail(path, 2)
    assert part == LogPart("two\nthree\n", 14)
    assert read_tail(path, 0) == LogPart("", 14)
    assert read_since(path, part.next) == LogPart("", 14)
    with path.open("a") as file:
        file.write("four\nfi")
    assert read_since(path, part.next) == LogPart("four\nfi", 21)


def test_a_character_is_never_torn(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    whole = "ä€🙂".encode()
    seen, place = "", 0
    for end in range(len(whole) + 1):
        path.write_bytes(whole[:end])
        part = read_since(path, place)
        seen, place = seen + part.text, part.next
    assert seen == "ä€🙂"


def test_bytes_that_are_no_text_are_shown_not_fatal(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_bytes(b"\xff\xfe ok\n")
    assert read_since(path, 0).text.endswith(" ok\n")
    assert read_tail(path, 1).text.endswith(" ok\n")


def test_a_long_log_comes_in_pieces_of_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MOST", 10)
    path = tmp_path / "x.log"
    path.write_text("aaaa\nbbbb\ncccc\ndddd\n")
    first = read_since(path, 0)
    assert first == LogPart("aaaa\nbbbb\n", 10)
    assert read_since(path, first.next) == LogPart("cccc\ndddd\n", 20)
    assert read_tail(path, 100) == LogPart("cccc\ndddd\n", 20)
