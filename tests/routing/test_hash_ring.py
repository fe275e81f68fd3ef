"""The hash ring against what it promises: the same owners own the same keys, and a change moves no key without need."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sage_actor._core.stable_hash import stable_hash
from sage_actor.errors import ActorError, ConfigError, UnstableKey
from sage_actor.routing.hash_ring import HashRing

KEYS = range(300)
NAMES = [f"pool/{number}" for number in range(8)]


class RingModel(RuleBasedStateMachine):
    """Owners come and go. The model finds an owner without any ring: the point that follows the key, by looking at all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.ring = HashRing(points=9)
        self.owners: set[str] = set()
        self.owned: dict[int, str] = {}

    def model_owner(self, key: object) -> str:
        points = [(stable_hash((owner, number)), owner) for owner in self.owners for number in range(9)]
        at = stable_hash(key)
        return min([point for point in points if point[0] >= at] or points)[1]

    @rule(owner=st.sampled_from(NAMES))
    def add(self, owner: str) -> None:
        assert self.ring.add(owner) is (owner not in self.owners)
        self.owners.add(owner)
        moved = {key for key, before in self.owned.items() if self.ring.owner(key) != before}
        assert all(self.ring.owner(key) == owner for key in moved), "only the new one takes keys"
        self.look()

    @precondition(lambda self: len(self.owners) > 1)
    @rule(owner=st.sampled_from(NAMES))
    def remove(self, owner: str) -> None:
        assert self.ring.remove(owner) is (owner in self.owners)
        self.owners.discard(owner)
        kept = {key: before for key, before in self.owned.items() if before != owner}
        assert all(self.ring.owner(key) == before for key, before in kept.items()), "only its own keys move"
        self.look()

    def look(self) -> None:
        self.owned = {key: self.ring.owner(key) for key in KEYS}

    @precondition(lambda self: bool(self.owners))
    @invariant()
    def is_as_the_model_says(self) -> None:
        assert self.ring.owners == self.owners
        assert len(self.ring) == len(self.owners)
        for key in (0, 7, "a", ("user", 3)):
            assert self.ring.owner(key) == self.model_owner(key)


RingModel.TestCase.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)
TestRingModel = RingModel.TestCase


@given(st.lists(st.sampled_from(NAMES), min_size=1, unique=True), st.randoms(use_true_random=False))
def test_the_order_of_coming_does_not_matter(names: list[str], chance: object) -> None:
    other = sorted(names)
    assert [HashRing(names, points=5).owner(key) for key in range(50)] == [HashRing(other, points=5).owner(key) for key in range(50)]


def test_keys_are_spread_evenly() -> None:
    ring = HashRing(NAMES)
    shares = Counter(ring.owner(f"key {number}") for number in range(8000))
    assert set(shares) == set(NAMES)
    assert all(600 < share < 1400 for share in shares.values()), shares


def test_one_owner_of_n_takes_about_a_share_and_no_more() -> None:
    ring = HashRing(NAMES[:4])
    before = {number: ring.owner(number) for number in range(4000)}
    ring.add(NAMES[4])
    moved = sum(ring.owner(number) != owner for number, owner in before.items())
    assert 400 < moved < 1300, "a fifth of 4,000 is 800"


def test_equal_keys_and_other_processes_agree() -> None:
    ring = HashRing(NAMES)
    assert ring.owner(1) == ring.owner(1.0) == ring.owner(True)
    program = f"from sage_actor.routing.hash_ring import HashRing; r = HashRing({NAMES!r}); print([r.owner(f'k{{n}}') for n in range(50)])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True, env={"PYTHONHASHSEED": "7"}
    )
    assert done.stdout.strip() == repr([ring.owner(f"k{number}") for number in range(50)])


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        HashRing(points=0)
    with pytest.raises(ActorError, match="nobody"):
        HashRing().owner("a")
    with pytest.raises(UnstableKey):
        HashRing(NAMES).owner(object())
