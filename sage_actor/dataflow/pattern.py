"""Patterns: sequences of events of one key that mean something together (complex event processing)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, Self, TypeVar

from sage_actor.dataflow.functions import check_plain
from sage_actor.dataflow.watermarks import milliseconds
from sage_actor.errors import GraphError

__all__ = ["UNBOUNDED", "Condition", "Negation", "Pattern", "PatternStep", "Skip"]

T = TypeVar("T")

UNBOUNDED = 2**62
"""As many as there are."""
Skip = Literal["none", "past_last"]


@dataclass(frozen=True, slots=True)
class Condition:
    """What an event must fulfil. `sees_match`: it also gets what has been matched so far, name -> events."""

    function: Callable[..., object]
    sees_match: bool


@dataclass(frozen=True, slots=True)
class Negation:
    """What must not come between a step and the next one; `immediate`: must not come as the very next event."""

    name: str
    immediate: bool
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class PatternStep:
    """One named step: `least` to `most` events that fulfil all conditions.

    Attributes:
        strict: its first event must come right behind the event before.
        optional: there may be none at all.
        consecutive: its events must come right behind one another.
        negations: what must not come between the event before and its first one.
    """

    name: str
    strict: bool = False
    conditions: tuple[Condition, ...] = ()
    least: int = 1
    most: int = 1
    optional: bool = False
    consecutive: bool = False
    negations: tuple[Negation, ...] = ()


@dataclass(frozen=True)
class Pattern(Generic[T]):
    """A sequence of steps, described from `begin` on; each method gives a new pattern.

        Pattern.begin("small").where(lambda e: e.amount < 1).next("large").where(lambda e: e.amount > 500).within("1m")

    The events of a key are looked at in the order of their timestamps, once event time has passed them. A step takes the next event
    that fulfils its conditions: after `next` that must be the very next event of the key, after `then` others in between are
    passed over. With several events per step (`times`, `one_or_more`) and optional steps there may be several matches with the
    same beginning; each is a match of its own, unless ``skip="past_last"``.

    `where`, `times`, `one_or_more`, `optional` speak of the step before them. Without `within` a beginning waits for its end for
    ever, and is kept as long; with it, matches span at most that much event time and what is kept is bounded.
    """

    steps: tuple[PatternStep, ...]
    skip: Skip = "none"
    span: int | None = None
    last: tuple[Negation, ...] = ()
    """Negations behind the last step, which must hold until the time of `within` is over."""

    @staticmethod
    def begin(name: str, *, skip: Skip = "none") -> Pattern[Any]:
        """The first step.

        Args:
            name: under which its events are found in the match.
            skip: "none" gives every match; "past_last" gives, after each match, only such that begin behind its last event.
        """
        if skip not in ("none", "past_last"):
            raise GraphError(f"pattern: skip must be 'none' or 'past_last', not {skip!r}")
        return Pattern((PatternStep(named(name, ())),), skip)

    def next(self, name: str) -> Self:
        """A step whose event is the very next one of the key."""
        return self._step(name, strict=True)

    def then(self, name: str) -> Self:
        """A step whose event comes later; what does not fulfil its conditions is passed over."""
        return self._step(name, strict=False)

    def not_next(self, name: str) -> Self:
        """What must not be the very next event. Belongs between two steps."""
        return replace(self, last=(*self.last, Negation(named(name, self._names()), immediate=True)))

    def not_followed_by(self, name: str) -> Self:
        """What must not come until the next step, or, at the end of a pattern, until the time of `within` is over.

        An event that fulfils both this and the next step counts for the next step.
        """
        return replace(self, last=(*self.last, Negation(named(name, self._names()), immediate=False)))

    def where(self, condition: Callable[[T], object] | Callable[[T, dict[str, list[T]]], object]) -> Self:
        """What an event must fulfil; several hold all together.

        Args:
            condition: a function of the event, or of the event and of what is matched so far (name -> events).
        """
        check_plain(condition, "pattern: where")
        added = Condition(condition, required_positionals(condition) >= 2)
        if self.last:
            newest = self.last[-1]
            return replace(self, last=(*self.last[:-1], replace(newest, conditions=(*newest.conditions, added))))
        newest_step = self.steps[-1]
        return self._change("where", conditions=(*newest_step.conditions, added))

    def times(self, least: int, most: int | None = None, *, consecutive: bool = False) -> Self:
        """Exactly `least` events, or `least` to `most`; others in between are passed over, unless `consecutive`."""
        most = least if most is None else most
        if least < 1 or most < least:
            raise GraphError(
                f"pattern step {self.steps[-1].name!r}: times needs 1 <= least <= most, not {least} and {most}; optional() allows none"
            )
        return self._change("times", least=least, most=most, consecutive=consecutive)

    def one_or_more(self, *, consecutive: bool = False) -> Self:
        """As many events as there are, at least one: a match for each number of them."""
        return self._change("one_or_more", least=1, most=UNBOUNDED, consecutive=consecutive)

    def optional(self) -> Self:
        """The step may be left out."""
        return self._change("optional", optional=True)

    def within(self, span: str | int) -> Self:
        """From its first to its last event a match takes at most this much event time ("10s", or milliseconds)."""
        milli = milliseconds(span, "pattern: within")
        if milli < 0:
            raise GraphError(f"pattern: within must not be negative, not {span!r}")
        return replace(self, span=milli)

    def check(self) -> None:
        """Raise GraphError if it cannot match anything sensible."""
        if all(step.optional for step in self.steps):
            raise GraphError("pattern: every step is optional; one must not be")
        for negation in self.last:
            if negation.immediate:
                raise GraphError(f"pattern: not_next({negation.name!r}) stands at the end; it belongs between two steps")
            if self.span is None:
                raise GraphError(f"pattern: not_followed_by({negation.name!r}) at the end needs within(...): until when it must not come")

    def _step(self, name: str, *, strict: bool) -> Self:
        step = PatternStep(named(name, self._names()), strict, negations=self.last)
        return replace(self, steps=(*self.steps, step), last=())

    def _change(self, what: str, **changes: Any) -> Self:
        if self.last:
            raise GraphError(f"pattern: {what} does not go with a negation ({self.last[-1].name!r})")
        return replace(self, steps=(*self.steps[:-1], replace(self.steps[-1], **changes)))

    def _names(self) -> Sequence[str]:
        negations = [*self.last, *(negation for step in self.steps for negation in step.negations)]
        return [*(step.name for step in self.steps), *(negation.name for negation in negations)]


def named(name: str, taken: Sequence[str]) -> str:
    """A name for a step that no other has."""
    if not name or not isinstance(name, str):
        raise GraphError(f"pattern: a step needs a non-empty name, not {name!r}")
    if name in taken:
        raise GraphError(f"pattern: two steps are named {name!r}; events are found by the name of their step, give one another name")
    return name


def required_positionals(function: Callable[..., object]) -> int:
    """How many positional arguments it insists on; 1 where Python cannot tell."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 1
    return sum(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
