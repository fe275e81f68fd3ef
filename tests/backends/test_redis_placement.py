"""Which agent takes which worker: all or none, never more than there is, spread evenly; and who is believed and taken for dead."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_actor.actor.backend import WorkerResources
from sage_actor.backends.redis_placement import Room, Wishes, place, take_wishes
from sage_actor.backends.redis_rounds import Life
from sage_actor.backends.redis_trust import Trust, open_note
from sage_actor.errors import BackendUnavailable
from sage_actor.testing import ManualClock

GIGABYTE = 1 << 30

needs = st.builds(
    WorkerResources,
    num_cpus=st.none() | st.sampled_from([0.5, 1.0, 2.0]),
    memory=st.none() | st.sampled_from([GIGABYTE, 3 * GIGABYTE]),
    custom=st.dictionaries(st.sampled_from(["disk", "licence"]), st.sampled_from([0.0, 1.0, 2.0]), max_size=2),
)
rooms = st.lists(
    st.builds(
        Room,
        agent=st.just(""),
        slots=st.integers(-1, 4),
        cpus=st.sampled_from([0.0, 1.0, 4.0]),
        memory=st.none() | st.sampled_from([GIGABYTE, 8 * GIGABYTE]),
        custom=st.dictionaries(st.sampled_from(["disk", "licence"]), st.sampled_from([1.0, 3.0]), max_size=2),
    ),
    max_size=4,
).map(lambda made: [Room(f"agent {n}", r.slots, r.cpus, r.memory, r.custom) for n, r in enumerate(made)])


@settings(deadline=None)
@given(st.lists(needs, max_size=6), rooms)
def test_nobody_gives_more_than_it_has(wanted: list[WorkerResources], there: list[Room]) -> None:
    chosen = place(wanted, there)
    if chosen is None:
        assert wanted, "nothing fits anywhere"
        return
    assert len(chosen) == len(wanted)
    for room in there:
        mine = [need for need, agent in zip(wanted, chosen, strict=True) if agent == room.agent]
        assert len(mine) <= max(room.slots, 0)
        if any(need.num_cpus for need in mine):
            assert sum(need.num_cpus or 0 for need in mine) <= room.cpus
        if room.memory is not None:
            assert sum(need.memory or 0 for need in mine) <= room.memory
        for name in {name for need in mine for name in need.custom}:
            assert sum(need.custom.get(name, 0) for need in mine) <= room.custom.get(name, 0)


@settings(deadline=None)
@given(st.integers(0, 12), st.lists(st.integers(0, 4), max_size=5))
def test_where_only_slots_count_all_fit_exactly_if_there_are_enough_and_the_fullest_comes_last(wanted: int, slots: list[int]) -> None:
    there = [Room(f"agent {n}", free, 1.0) for n, free in enumerate(slots)]
    chosen = place([WorkerResources()] * wanted, there)
    assert (chosen is not None) == (wanted <= sum(slots))
    if chosen is not None:
        left = [free - chosen.count(f"agent {n}") for n, free in enumerate(slots)]
        used = [n for n in range(len(slots)) if f"agent {n}" in chosen]
        assert all(left[n] >= max(left) - 1 for n in used), "somebody with two slots more was passed over"


def test_what_asks_for_a_rare_thing_goes_first() -> None:
    there = [Room("plain", 1, 4.0), Room("rare", 1, 4.0, None, {"licence": 1.0})]
    assert place([WorkerResources(), WorkerResources(custom={"licence": 1.0})], there) == ["plain", "rare"]
    assert place([WorkerResources(custom={"licence": 1.0})] * 2, there) is None


def test_tenths_fill_a_whole() -> None:
    tenth = WorkerResources(num_cpus=0.1, custom={"disk": 0.1})
    assert place([tenth] * 3, [Room("only", 9, 0.3, None, {"disk": 0.3})]) == ["only"] * 3
    assert place([tenth] * 4, [Room("only", 9, 0.3, None, {"disk": 0.3})]) is None


def test_wishes_are_taken_out_of_the_address() -> None:
    assert take_wishes("redis://host/0") == (Wishes(), "redis://host/0")
    wishes, rest = take_wishes("rediss://u:p@host:1/2?group=gpu&ssl_ca_certs=/etc/ca.pem&wait=500ms&patience=20")
    assert wishes == Wishes("gpu", 0.5)
    assert rest == "rediss://u:p@host:1/2?ssl_ca_certs=/etc/ca.pem&patience=20"
    with pytest.raises(BackendUnavailable, match=r"wait='soon'.*write `\?wait=30s`"):
        take_wishes("redis://host/0?wait=soon")
    with pytest.raises(BackendUnavailable, match=r"redis://user:password@host:6379/0"):
        take_wishes("redis://user:hidden@[bad/0")


def test_a_note_is_believed_only_where_it_was_put_and_with_the_same_secret() -> None:
    ours, theirs = Trust("one secret text"), Trust("another secret text")
    sealed = ours.seal("here", {"want": "run"})
    assert Trust("one secret text").unseal("here", sealed) == {"want": "run"}
    assert ours.unseal("there", sealed) is None
    assert theirs.unseal("here", sealed) is None
    assert ours.unseal("here", sealed.replace(b"run", b"end")) is None
    assert ours.unseal("here", b"") is None
    assert open_note(sealed) == {"want": "run"}, "counting needs no secret"
    assert open_note(b"x" * 16 + b"[]") is None
    assert open_note(b"short") is None
    assert ours.key_of("a") == ours.key_of("a") != ours.key_of("b")
    assert ours.key_of("a") != theirs.key_of("a")


def lives(connected: list[bool], beats: Sequence[int | None], step: float) -> list[bool]:
    async def look() -> list[bool]:
        clock = ManualClock()
        life = Life(clock)
        seen: list[bool] = []
        for here, beat in zip(connected, beats, strict=True):
            await clock.advance(step)
            seen.append(life.look(beat, connected=here))
        return seen

    return asyncio.run(look())


def test_a_beat_that_goes_on_is_life_connected_or_not() -> None:
    assert all(lives([False] * 20, list(range(20)), 0.5))


def test_a_beat_that_stands_still_is_death_after_five_seconds_or_soon_if_the_connection_ended_too() -> None:
    assert lives([True] * 12, [1] * 12, 0.5) == [True] * 11 + [False]
    assert lives([False] * 5, [1] * 5, 0.5) == [True] * 4 + [False]


def test_a_beat_that_a_server_has_forgotten_is_waited_for() -> None:
    assert lives([False] * 12, [1, *[None] * 11], 0.5) == [True] * 12
    assert lives([False] * 14, [1, *[None] * 13], 0.5)[-2:] == [False] * 2


def test_time_in_which_nobody_looked_is_no_silence() -> None:
    assert all(lives([True] * 6, [1] * 6, 60.0))
