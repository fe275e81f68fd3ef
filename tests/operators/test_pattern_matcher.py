"""The automaton of patterns against a search through all subsequences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, combinations_with_replacement, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_actor.dataflow.pattern import Negation, Pattern, PatternStep
from sage_actor.errors import GraphError
from sage_actor.operators.pattern_matcher import PatternMatcher, Run

Event = tuple[str, int]
"""A letter and its timestamp."""
Found = tuple[tuple[int, ...], tuple[int, ...]]
"""Which steps, and the indices of the events."""


class Letters:
    """A condition: the letter is one of these."""

    def __init__(self, letters: str) -> None:
        self.letters = letters

    def __call__(self, event: Event) -> bool:
        return event[0] in self.letters


def drive(pattern: Pattern[Event], events: Sequence[Event]) -> tuple[list[Found], list[Found]]:
    """Feed events in order of time, and let runs expire at every instant, as the stage does."""
    matcher = PatternMatcher(pattern)
    index: dict[tuple[int, int], int] = {}
    runs: list[Run] = []
    matches: list[Run] = []
    timeouts: list[Run] = []
    instants = {time for _, time in events}
    if pattern.span is not None:
        instants |= {time + pattern.span for _, time in events}
    for now in sorted(instants):
        for number, place in enumerate(place for place, (_, time) in enumerate(events) if time == now):
            index[now, number] = place
            outcome = matcher.feed(runs, (now, number), events[place], lambda asked: events[index[asked]])
            runs = outcome.runs
            matches += outcome.matches
        outcome, nothing = matcher.expire(runs, now)
        runs = outcome.runs
        matches += outcome.matches
        timeouts += nothing
    if pattern.span is not None:
        assert runs == []

    def shown(found: list[Run]) -> list[Found]:
        return [(run.steps, tuple(index[place] for place in run.places)) for run in found]

    return shown(matches), shown(timeouts)


def fits(conditions: Sequence[Any], event: Event) -> bool:
    return all(condition.function(event) for condition in conditions)


def negations_between(steps: Sequence[PatternStep], before: int, after: int) -> list[Negation]:
    return [negation for step in steps[before + 1 : after + 1] for negation in step.negations]


def is_way(pattern: Pattern[Event], events: Sequence[Event], before: tuple[int, int], after: tuple[int, int]) -> bool:
    """Whether one event of a match may follow another: what stands between them, by the definition of the steps."""
    (p, i), (q, j) = before, after
    step = pattern.steps[q]
    if p == q:
        strict, negations = step.consecutive, []
    else:
        strict, negations = step.strict, negations_between(pattern.steps, p, q)
    if strict and j != i + 1:
        return False
    if any(fits(step.conditions, events[k]) for k in range(i + 1, j)):
        return False
    for negation in negations:
        if negation.immediate and fits(negation.conditions, events[i + 1]):
            return False
        if not negation.immediate and any(fits(negation.conditions, events[k]) for k in range(i + 1, j)):
            return False
    return True


def beginnings(pattern: Pattern[Event], events: Sequence[Event]) -> Iterator[Found]:
    """All sequences of events that fulfil the pattern as far as they go."""
    steps = pattern.steps
    for length in range(1, len(events) + 1):
        for chosen in combinations(range(len(events)), length):
            if pattern.span is not None and events[chosen[-1]][1] - events[chosen[0]][1] > pattern.span:
                continue
            for labels in combinations_with_replacement(range(len(steps)), length):
                if not all(fits(steps[s].conditions, events[i]) for s, i in zip(labels, chosen, strict=True)):
                    continue
                counts = [labels.count(number) for number in range(len(steps))]
                if any(
                    counts[n] > steps[n].most
                    or (n < labels[-1] and counts[n] < steps[n].least and not (counts[n] == 0 and steps[n].optional))
                    for n in range(len(steps))
                ):
                    continue
                pairs = list(zip(labels, chosen, strict=True))
                if all(is_way(pattern, events, a, b) for a, b in pairwise(pairs)):
                    yield labels, chosen


def is_complete(pattern: Pattern[Event], found: Found) -> bool:
    last = found[0][-1]
    return found[0].count(last) >= pattern.steps[last].least and all(step.optional for step in pattern.steps[last + 1 :])


def after_within(pattern: Pattern[Event], events: Sequence[Event], found: Found) -> list[Event]:
    """Events behind the last one of a beginning that come in its time."""
    first, last = found[1][0], found[1][-1]
    return [event for event in events[last + 1 :] if pattern.span is None or event[1] - events[first][1] <= pattern.span]


def expected_matches(pattern: Pattern[Event], events: Sequence[Event]) -> list[Found]:
    candidates: list[tuple[Any, tuple[int, ...], tuple[int, ...]]] = []
    for found in beginnings(pattern, events):
        if not is_complete(pattern, found):
            continue
        labels, chosen = found
        moment: tuple[int, int, int] = (events[chosen[-1]][1], 0, chosen[-1])
        if pattern.last:
            assert pattern.span is not None
            if any(fits(negation.conditions, event) for negation in pattern.last for event in after_within(pattern, events, found)):
                continue
            moment = (events[chosen[0]][1] + pattern.span, 1, 0)
        candidates.append((moment, chosen, labels))
    candidates.sort()
    taken: list[Found] = []
    for _, chosen, labels in candidates:
        if pattern.skip == "none" or not taken or chosen[0] > taken[-1][1][-1]:
            taken.append((labels, chosen))
    return taken


def is_open(pattern: Pattern[Event], events: Sequence[Event], found: Found) -> bool:
    """Whether some event, had it come in time, would have gone on with a beginning."""
    steps, last = pattern.steps, found[0][-1]
    count = found[0].count(last)
    later = after_within(pattern, events, found)
    targets: list[tuple[int, bool, list[Negation]]] = []
    if count < steps[last].most:
        targets.append((last, steps[last].consecutive, []))
    if count >= steps[last].least:
        for number in range(last + 1, len(steps)):
            targets.append((number, steps[number].strict, negations_between(steps, last, number)))
            if not steps[number].optional:
                break
    for number, strict, negations in targets:
        closed = (strict and later) or any(fits(steps[number].conditions, event) for event in later)
        for negation in negations:
            closed = closed or any(fits(negation.conditions, event) for event in (later[:1] if negation.immediate else later))
        if not closed:
            return True
    return False


def expected_timeouts(pattern: Pattern[Event], events: Sequence[Event]) -> list[Found]:
    matches = expected_matches(pattern, events)
    possible = list(beginnings(pattern, events))
    grown = {(labels[:-1], chosen[:-1]) for labels, chosen in possible}
    return [
        found
        for found in possible
        if found not in grown
        and found not in matches
        and (pattern.last or not is_complete(pattern, found))
        and is_open(pattern, events, found)
    ]


letters = st.sampled_from(["a", "b", "c", "a", "b", "c", "ab", "bc"])


@st.composite
def patterns(draw: st.DrawFn) -> Pattern[Event]:
    pattern: Pattern[Any] = Pattern.begin("0", skip=draw(st.sampled_from(["none", "past_last"])))
    for number in range(draw(st.integers(1, 3))):
        if number:
            if draw(st.booleans()):
                negate = pattern.not_next if draw(st.booleans()) else pattern.not_followed_by
                pattern = negate(f"n{number}").where(Letters(draw(letters)))
            pattern = pattern.next(f"{number}") if draw(st.booleans()) else pattern.then(f"{number}")
        pattern = pattern.where(Letters(draw(letters)))
        match draw(st.integers(0, 4)):
            case 1:
                pattern = pattern.one_or_more(consecutive=draw(st.booleans()))
            case 2:
                least = draw(st.integers(1, 2))
                pattern = pattern.times(least, draw(st.integers(least, 3)), consecutive=draw(st.booleans()))
            case _:
                pass
        if draw(st.integers(0, 3)) == 0:
            pattern = pattern.optional()
    if all(step.optional for step in pattern.steps):
        pattern = pattern.then("last").where(Letters("a"))
    if draw(st.integers(0, 4)) == 0:
        return pattern.not_followed_by("end").where(Letters(draw(letters))).within(draw(st.integers(0, 8)))
    return pattern.within(draw(st.integers(0, 8))) if draw(st.booleans()) else pattern


events_in_order = st.lists(st.tuples(st.sampled_from("abc"), st.integers(-5, 5)), max_size=6).map(
    lambda events: sorted(events, key=lambda event: event[1])
)


@given(patterns(), events_in_order)
@settings(max_examples=600, deadline=None)
def test_matches_are_those_that_a_search_finds(pattern: Pattern[Event], events: list[Event]) -> None:
    pattern.check()
    assert drive(pattern, events)[0] == expected_matches(pattern, events)


@given(patterns().filter(lambda pattern: pattern.span is not None and pattern.skip == "none"), events_in_order)
@settings(max_examples=200, deadline=None)
def test_beginnings_that_could_have_gone_on_time_out(pattern: Pattern[Event], events: list[Event]) -> None:
    assert sorted(drive(pattern, events)[1]) == sorted(expected_timeouts(pattern, events))


def test_a_condition_may_look_at_what_is_matched_so_far() -> None:
    rising: Pattern[Event] = (
        Pattern.begin("low").where(Letters("a")).then("higher").where(lambda event, match: event[1] > 2 * match["low"][0][1])
    )
    assert drive(rising, [("a", 3), ("b", 5), ("c", 7)])[0] == [((0, 1), (0, 2))]


def test_within_includes_its_last_millisecond() -> None:
    pair: Pattern[Event] = Pattern.begin("a").where(Letters("a")).then("b").where(Letters("b")).within("1s")
    assert drive(pair, [("a", 0), ("b", 1000)])[0] == [((0, 1), (0, 1))]
    assert drive(pair, [("a", 0), ("b", 1001)]) == ([], [((0,), (0,))])


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Pattern.begin("a").then("a"), "two steps are named 'a'"),
        (lambda: Pattern.begin("a").not_next("b").then("b"), "two steps are named 'b'"),
        (lambda: Pattern.begin(""), "non-empty name"),
        (lambda: Pattern.begin("a", skip="all"), "'none' or 'past_last'"),  # type: ignore[arg-type]
        (lambda: Pattern.begin("a").times(0), "1 <= least <= most"),
        (lambda: Pattern.begin("a").times(3, 2), "1 <= least <= most"),
        (lambda: Pattern.begin("a").within("-1s"), "must not be negative"),
        (lambda: Pattern.begin("a").not_next("b").optional(), "does not go with a negation"),
        (lambda: Pattern.begin("a").optional().check(), "every step is optional"),
        (lambda: Pattern.begin("a").not_next("b").within("1s").check(), "belongs between two steps"),
        (lambda: Pattern.begin("a").not_followed_by("b").check(), "needs within"),
        (lambda: Pattern.begin("a").where(3), "needs a function"),  # type: ignore[arg-type]
    ],
)
def test_what_makes_no_sense_is_refused(make: Any, problem: str) -> None:
    with pytest.raises(GraphError, match=problem):
        make()
