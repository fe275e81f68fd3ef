"""Sealed entries come out only as they were sealed, in order, each once."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_actor.backends.redis_keys import RedisKeys
from sage_actor.backends.redis_seal import Sealer, Unsealer
from sage_actor.errors import FrameError

SECRET = b"k" * 32


def test_entries_come_out_in_order() -> None:
    key = os.urandom(32)
    sealer, unsealer = Sealer(key, 1, 2), Unsealer(key, 1, 2)
    came = [unsealer.unseal(*sealer.seal(pieces)) for pieces in ([b"a"], [], [b"c" * 1000, memoryview(b"d")])]
    assert [content is not None and bytes(content) for content in came] == [b"a", b"", b"c" * 1000 + b"d"]
    assert sealer.next == unsealer.next == 3


@given(st.binary(max_size=40), st.data())
def test_any_change_is_noticed(content: bytes, data: st.DataObject) -> None:
    message, signature = Sealer(SECRET, 1, 2).seal([content])
    entry = bytearray(message + signature)
    at = data.draw(st.integers(0, len(entry) - 1))
    entry[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(FrameError, match="from worker 1 to worker 2"):
        Unsealer(SECRET, 1, 2).unseal(bytes(entry[: len(message)]), bytes(entry[len(message) :]))


@given(st.binary(max_size=40), st.integers(0, 60))
def test_a_shortened_entry_is_noticed(content: bytes, at: int) -> None:
    message, signature = Sealer(SECRET, 1, 2).seal([content])
    if at < len(message):
        with pytest.raises(FrameError, match="wrong signature"):
            Unsealer(SECRET, 1, 2).unseal(message[:at], signature)
    with pytest.raises(FrameError, match="wrong signature"):
        Unsealer(SECRET, 1, 2).unseal(message, signature[: at % len(signature)])


def test_what_another_group_or_pair_wrote_is_refused() -> None:
    entry = Sealer(SECRET, 1, 2).seal([b"content"])
    for unsealer in (Unsealer(b"other" * 6, 1, 2), Unsealer(SECRET, 3, 2), Unsealer(SECRET, 1, 3), Unsealer(SECRET, 2, 1)):
        with pytest.raises(FrameError, match="wrong signature"):
            unsealer.unseal(*entry)


@pytest.mark.rule("F41")
def test_a_missing_entry_is_refused_and_a_repeated_one_dropped() -> None:
    sealer, unsealer = Sealer(SECRET, 1, 2), Unsealer(SECRET, 1, 2)
    first, second, third = (sealer.seal([content]) for content in (b"1", b"2", b"3"))
    unsealer.unseal(*first)
    with pytest.raises(FrameError, match="entry 1 from worker 1 to worker 2 is missing: number 2 came instead"):
        unsealer.unseal(*third)
    assert unsealer.unseal(*second) is not None
    assert unsealer.unseal(*first) is None
    assert unsealer.unseal(*second) is None
    assert unsealer.unseal(*third) is not None


def test_what_shows_the_keys_of_a_group_shows_neither_password_nor_secret() -> None:
    keys = RedisKeys("redis://user:hidden@host/0", "sage:group", 2, b"very secret")
    assert "sage:group" in repr(keys)
    assert "hidden" not in repr(keys)
    assert "secret" not in repr(keys)
