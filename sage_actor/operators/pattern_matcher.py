"""The automaton of a pattern, without effects: what one event does to the beginnings that wait for it.

A run is a beginning of a match. Which events may come next are its moves; each is open until it is taken, or until an event
closes it. Taking a move leaves the run as it was, less that move, and bears a longer run: so each beginning is kept once, and
each match is found once. Runs name events by place (timestamp, number within that instant); the events lie elsewhere, once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sage_actor.dataflow.pattern import UNBOUNDED, Condition, Negation, Pattern, PatternStep

__all__ = ["Outcome", "PatternMatcher", "Place", "Run", "events_of"]

Place = tuple[int, int]
"""Timestamp of an event, and its number among those of its key with that timestamp."""


class Run(NamedTuple):
    """A beginning of a match; plain data, saved as it is.

    Attributes:
        steps, places: which step each of its events is for, and which events.
        repeats: how many events the last step has so far.
        moves: bits of the moves that are still open.
        fresh: no event has come since its last one.
        waits: it is a match if nothing forbidden comes until its time is over.
        grown: a longer run has come of it.
    """

    steps: tuple[int, ...]
    places: tuple[Place, ...]
    repeats: int
    moves: int
    fresh: bool
    waits: bool
    grown: bool

    @property
    def began(self) -> int:
        """Timestamp of its first event."""
        return self.places[0][0]


@dataclass(frozen=True, slots=True)
class Move:
    """One way on: the next event is for this step, as its count-th."""

    step: int
    count: int
    strict: bool
    negations: tuple[Negation, ...]


class Outcome(NamedTuple):
    """What an event has led to: the runs that go on, and matches, in order."""

    runs: list[Run]
    matches: list[Run]


class PatternMatcher:
    """Applies events to runs. Answers depend on its arguments alone; what a user's condition raises is passed on."""

    def __init__(self, pattern: Pattern[Any]) -> None:
        self.pattern = pattern
        self.steps = pattern.steps
        self.span = pattern.span
        self.forbidden = pattern.last
        self._moves: dict[tuple[int, int], tuple[Move, ...]] = {}

    def feed(self, runs: Sequence[Run], place: Place, event: Any, event_at: Callable[[Place], Any]) -> Outcome:
        """The next event of the key.

        Args:
            runs: those of the key, none of which has run out of time.
            place: the event's place, behind all that the runs hold.
            event: the event.
            event_at: finds an event of a run.
        """
        look = Look(self, event, event_at)
        kept: list[Run] = []
        born: list[Run] = []
        for run in runs:
            after = self._apply(run, place, look, born)
            if after is not None:
                kept.append(after)
        for step, _ in enumerate(self.steps):
            if look.fits(step, None):
                born.append(self._grown(None, Move(step, 1, False, ()), place))
            if not self.steps[step].optional:
                break
        born.sort(key=order_of)
        matches = [run for run in born if not self.forbidden and self.is_complete(run)]
        kept.extend(run for run in born if run.moves or run.waits)
        return self.skipped(kept, matches)

    def expire(self, runs: Sequence[Run], now: int) -> tuple[Outcome, list[Run]]:
        """Event time has reached `now`, and all events until then have been fed: the runs whose time is over end.

        Returns:
            The runs that go on and the matches that waited for this; and the runs that came to nothing, of which the longest only.
        """
        if self.span is None:
            return Outcome(list(runs), []), []
        over = [run for run in runs if run.began + self.span <= now]
        kept = [run for run in runs if run.began + self.span > now]
        matches = sorted((run for run in over if run.waits), key=order_of)
        nothing = [run for run in over if not run.waits and not run.grown and (self.forbidden or not self.is_complete(run))]
        outcome = self.skipped(kept, matches)
        if self.pattern.skip == "past_last":
            nothing = [run for run in nothing if not any(run.places[0] <= match.places[-1] for match in outcome.matches)]
        return outcome, sorted(nothing, key=order_of)

    def skipped(self, runs: list[Run], matches: list[Run]) -> Outcome:
        """Apply what the pattern says of matches and beginnings that overlap."""
        if self.pattern.skip == "none" or not matches:
            return Outcome(runs, matches)
        chosen: list[Run] = []
        for match in matches:
            if not chosen or match.places[0] > chosen[-1].places[-1]:
                chosen.append(match)
        return Outcome([run for run in runs if run.places[0] > chosen[-1].places[-1]], chosen)

    def is_complete(self, run: Run) -> bool:
        """Whether it needs no further event."""
        last = run.steps[-1]
        return run.repeats >= self.steps[last].least and all(step.optional for step in self.steps[last + 1 :])

    def _apply(self, run: Run, place: Place, look: Look, born: list[Run]) -> Run | None:
        moves = self.moves(run.steps[-1], run.repeats)
        still_open = 0
        grown = run.grown
        for bit, move in enumerate(moves):
            if not run.moves >> bit & 1:
                continue
            if run.fresh and any(negation.immediate and look.is_negated(negation, run) for negation in move.negations):
                continue
            if look.fits(move.step, run):
                born.append(self._grown(run, move, place))
                grown = True
                continue
            if move.strict or any(not negation.immediate and look.is_negated(negation, run) for negation in move.negations):
                continue
            still_open |= 1 << bit
        waits = run.waits and not any(look.is_negated(negation, run) for negation in self.forbidden)
        return run._replace(moves=still_open, fresh=False, waits=waits, grown=grown) if still_open or waits else None

    def _grown(self, run: Run | None, move: Move, place: Place) -> Run:
        steps = (move.step,) if run is None else (*run.steps, move.step)
        places = (place,) if run is None else (*run.places, place)
        grown = Run(steps, places, move.count, (1 << len(self.moves(move.step, move.count))) - 1, fresh=True, waits=False, grown=False)
        return grown._replace(waits=bool(self.forbidden) and self.is_complete(grown))

    def moves(self, last: int, count: int) -> tuple[Move, ...]:
        """The ways on from `count` events of a step."""
        step = self.steps[last]
        if step.most == UNBOUNDED:
            count = min(count, step.least)  # in an endless loop all counts beyond the least are alike
        found = self._moves.get((last, count))
        if found is None:
            found = self._moves[last, count] = tuple(self._ways(last, step, count))
        return found

    def _ways(self, last: int, step: PatternStep, count: int) -> list[Move]:
        ways: list[Move] = []
        if count < step.most:
            ways.append(Move(last, count + 1, step.consecutive, ()))
        if count >= step.least:
            negations: tuple[Negation, ...] = ()
            for number in range(last + 1, len(self.steps)):
                following = self.steps[number]
                negations += following.negations
                ways.append(Move(number, 1, following.strict, negations))
                if not following.optional:
                    break
        return ways


class Look:
    """One event as the conditions see it. What depends on the event alone is asked once."""

    __slots__ = ("event", "event_at", "known", "matcher", "seen")

    def __init__(self, matcher: PatternMatcher, event: Any, event_at: Callable[[Place], Any]) -> None:
        self.matcher = matcher
        self.event = event
        self.event_at = event_at
        self.known: dict[int, bool] = {}
        self.seen: dict[int, dict[str, list[Any]]] = {}

    def fits(self, step: int, run: Run | None) -> bool:
        """Whether the event fulfils the conditions of a step, for a run, or as the first event of a match."""
        return all(self._holds(condition, run) for condition in self.matcher.steps[step].conditions)

    def is_negated(self, negation: Negation, run: Run) -> bool:
        """Whether the event is what must not come."""
        return all(self._holds(condition, run) for condition in negation.conditions)

    def _holds(self, condition: Condition, run: Run | None) -> bool:
        if condition.sees_match:
            return bool(condition.function(self.event, {} if run is None else self._match(run)))
        known = self.known.get(id(condition))
        if known is None:
            known = self.known[id(condition)] = bool(condition.function(self.event))
        return known

    def _match(self, run: Run) -> dict[str, list[Any]]:
        found = self.seen.get(id(run))
        if found is None:
            found = self.seen[id(run)] = events_of(self.matcher.steps, run, self.event_at)
        return found


def events_of(steps: Sequence[PatternStep], run: Run, event_at: Callable[[Place], Any]) -> dict[str, list[Any]]:
    """The events of a run by the names of their steps, in order."""
    events: dict[str, list[Any]] = {}
    for step, place in zip(run.steps, run.places, strict=True):
        events.setdefault(steps[step].name, []).append(event_at(place))
    return events


def order_of(run: Run) -> tuple[tuple[Place, ...], tuple[int, ...]]:
    """Matches of one moment come by their events, then by their steps."""
    return run.places, run.steps
