"""Durations and sizes as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_actor.durations import parse_duration, parse_size
from sage_actor.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10s", 10),
        ("5m", 300),
        ("100ms", 0.1),
        ("1h 30m", 5400),
        ("2 Minutes", 120),
        ("0.5s", 0.5),
        (".5s", 0.5),
        ("250us", 0.00025),
        ("1d", 86400),
    ],
)
def test_a_duration_with_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)
    assert parse_duration(text, "ms") == pytest.approx(seconds), "a unit outweighs the meaning of bare numbers"


def test_a_bare_number_counts_in_the_stated_unit() -> None:
    assert parse_duration(30) == 30
    assert parse_duration("30") == 30
    assert parse_duration(100, "ms") == pytest.approx(0.1)
    assert parse_duration("100", "ms") == pytest.approx(0.1)


@pytest.mark.parametrize("wrong", ["", "soon", "10 parsecs", "-1s", "1s-", -1, float("inf"), float("nan"), True, None, [1]])
def test_what_is_no_duration_is_refused_with_its_key(wrong: object) -> None:
    with pytest.raises(ConfigError, match=r"restart\.delay.*duration"):
        parse_duration(wrong, key="restart.delay")  # type: ignore[arg-type]


@given(st.integers(0, 10**9))
def test_milliseconds_and_their_text_agree(number: int) -> None:
    assert parse_duration(number, "ms") == pytest.approx(parse_duration(f"{number}ms"))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1GB", 1 << 30),
        ("4gb", 4 << 30),
        ("512MB", 512 << 20),
        ("64 MiB", 64 << 20),
        ("1.5k", 1536),
        ("7", 7),
        ("7B", 7),
        (12, 12),
        ("1t", 1 << 40),
    ],
)
def test_sizes_are_1024_based_in_any_case(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("wrong", ["", "GB", "1XB", "-1", -1, True, 1.5, None])
def test_what_is_no_size_is_refused(wrong: object) -> None:
    with pytest.raises(ConfigError, match="size"):
        parse_size(wrong)  # type: ignore[arg-type]
