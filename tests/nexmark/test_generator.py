"""The generator: the same events for the same seed, in the proportions and the order that Nexmark prescribes."""

from __future__ import annotations

import pickle
from collections import Counter
from math import gcd

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.nexmark.events import Auction, Bid, Event, Person, row
from benchmarks.nexmark.generator import AUCTIONS_IN_FLIGHT, FIRST_ID, LEAD, Settings, generate


def rows(events: list[Event]) -> list[tuple[object, ...]]:
    return [row(event) for event in events]


def test_a_seed_decides_everything() -> None:
    assert rows(generate(2000, Settings(seed=5))) == rows(generate(2000, Settings(seed=5)))
    assert rows(generate(2000, Settings(seed=5))) != rows(generate(2000, Settings(seed=6)))


def test_more_events_begin_like_fewer() -> None:
    assert rows(generate(3000))[:1000] == rows(generate(1000))


def test_two_persons_six_auctions_and_the_rest_bids_in_a_hundred() -> None:
    assert Counter(type(event) for event in generate(5000)) == {Person: 100, Auction: 300, Bid: 4600}


@given(st.integers(1, 400).filter(lambda group: gcd(group, 953) == 1), st.integers(1, 5))
def test_a_group_is_permuted_as_a_whole(group: int, groups: int) -> None:
    settings = Settings(group=group)
    order = [settings.permuted(number) for number in range(group * groups)]
    assert sorted(order) == list(range(group * groups))
    assert all(permuted // group == number // group for number, permuted in enumerate(order))


def test_numbers_and_times_come_in_the_order_of_the_group() -> None:
    straight, mixed = generate(1000, Settings(group=1)), generate(1000, Settings(group=100))
    assert [event.date_time for event in straight] == sorted(event.date_time for event in straight)
    assert [event.date_time for event in mixed] == [straight[Settings(group=100).permuted(n)].date_time for n in range(1000)]
    assert [event.date_time for event in mixed] != sorted(event.date_time for event in mixed)
    assert [type(event) for event in mixed] == [type(straight[Settings(group=100).permuted(n)]) for n in range(1000)]


def test_a_group_that_is_no_permutation_is_refused() -> None:
    with pytest.raises(ValueError, match="953"):
        Settings(group=953 * 2)


def test_time_goes_on_by_the_rate() -> None:
    events = generate(1001, Settings(rate=100, generators=2, group=1))
    assert events[1000].date_time - events[0].date_time == 1000 * 2 * 1_000_000 // 100 // 1000


@pytest.mark.parametrize("group", [1, 100])
def test_every_number_is_given_once_and_bids_are_for_auctions_nearby(group: int) -> None:
    events = generate(50_000, Settings(group=group))
    persons = [event.id for event in events if isinstance(event, Person)]
    auctions = [event.id for event in events if isinstance(event, Auction)]
    assert sorted(persons) == list(range(FIRST_ID, FIRST_ID + 1000))
    assert sorted(auctions) == list(range(FIRST_ID, FIRST_ID + 3000))
    latest = 0
    for event in generate(50_000, Settings(group=1)):
        if isinstance(event, Auction):
            latest = event.id
            assert event.date_time < event.expires and event.initial_bid < event.reserve and 10 <= event.category <= 14
        elif isinstance(event, Bid):
            assert max(latest - AUCTIONS_IN_FLIGHT, FIRST_ID) <= event.auction <= latest + LEAD
            assert 100 <= event.price <= 100_000_000


def test_half_of_the_bids_are_for_hot_auctions_and_three_in_four_from_hot_bidders() -> None:
    bids = [event for event in generate(50_000) if isinstance(event, Bid)]
    assert 0.48 < sum(bid.auction % 100 == 0 for bid in bids) / len(bids) < 0.53
    assert 0.73 < sum(bid.bidder % 100 == 1 for bid in bids) / len(bids) < 0.78
    assert 0.48 < sum(bid.channel in {"Google", "Facebook", "Baidu", "Apple"} for bid in bids) / len(bids) < 0.52
    numbered = [bid for bid in bids if bid.channel.startswith("channel-")]
    assert 0.88 < sum("channel_id=" in bid.url for bid in numbered) / len(numbered) < 0.92


def test_events_travel() -> None:
    events = generate(200)
    assert rows(pickle.loads(pickle.dumps(events))) == rows(events)
