"""Judging where each event loop has a floor of its own: rates of one interleaved run, several goals, both loops."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

from benchmarks.result import Result
from benchmarks.rounds import LOOPS, Options, interleaved, median

__all__ = ["Goal", "Rates", "judge", "rates_of"]

Rates = dict[str, list[float]]
"""Operations a second, by name, a figure for each round."""


@dataclass(frozen=True, slots=True)
class Goal:
    """One figure to reach on every loop, relative to figures of the same round.

    Figures of a loop are called "uvloop ask"; a peer that has no loop is found under its bare name.
    """

    name: str
    floor: str
    at_least: float = 0.0
    peer: str = ""
    of_peer: float | None = None
    rate: float = 0.0


@dataclass(frozen=True, slots=True)
class Reached:
    """What became of a goal on one loop. `share` is the part of the target that was reached: met from 1 on, inf without a target."""

    ours: float
    floor: float
    peer: float | None
    to_floor: float
    to_peer: float | None
    by_round: list[float]
    share: float


def rates_of(options: Options, runs: Mapping[str, Callable[[], Mapping[str, float]]]) -> Rates:
    """Every run once a round; each answers one rate or several, by name."""
    rates: Rates = {}
    for answers in interleaved(options.rounds, runs).values():
        for answer in answers:
            for name, rate in answer.items():
                rates.setdefault(name, []).append(rate)
    return rates


def ratios(ours: Sequence[float], other: Sequence[float]) -> list[float]:
    """How many times as fast, round by round."""
    return [a / b for a, b in zip(ours, other, strict=True)]


def look(goal: Goal, loop: str, rates: Rates) -> Reached:
    """One goal on one loop."""
    ours, floor = rates[f"{loop} {goal.name}"], rates[f"{loop} {goal.floor}"]
    peer = rates.get(f"{loop} {goal.peer}", rates.get(goal.peer))
    by_round = ratios(ours, floor)
    to_peer = None if peer is None else median(ratios(ours, peer))
    shares = [median(by_round) / goal.at_least] if goal.at_least else []
    if goal.of_peer is not None and to_peer is not None:
        shares.append(to_peer / goal.of_peer)
    if goal.rate:
        shares.append(median(ours) / goal.rate)
    return Reached(
        median(ours), median(floor), None if peer is None else median(peer), median(by_round), to_peer, by_round, min(shares, default=inf)
    )


def judge(
    case: str,
    unit: str,
    options: Options,
    rates: Rates,
    goals: Sequence[Goal],
    *,
    target: str,
    notes: Sequence[str] = (),
    detail: Mapping[str, object] | None = None,
) -> Result:
    """The row shows the goal, on the loop, that is furthest from its target; `met` says that all are met on all loops.

    The detail has, for each loop and goal, ours, its floor and both ratios, then the rate of everything else that ran.
    """
    reached = {(goal.name, loop): look(goal, loop, rates) for goal in goals for loop in LOOPS}
    (shown, loop), worst = min(reached.items(), key=lambda entry: entry[1].share)
    figures: dict[str, object] = {}
    judged: set[str] = set()
    for (name, on), one in reached.items():
        judged.add(f"{on} {name}")
        figures[f"{on} {name}"] = {
            "ours": one.ours,
            "floor": one.floor,
            "ratio_floor": one.to_floor,
            "ratio_peer": one.to_peer,
            "ratio_floor_by_round": one.by_round,
        }
    figures["rates"] = {name: median(values) for name, values in rates.items() if name not in judged}
    words = [*notes, f"shown: {shown} on {loop}, the furthest from its target"]
    if options.short:
        words.append("short run: not judged")
    return Result(
        case,
        unit,
        worst.ours,
        worst.floor,
        worst.peer,
        worst.to_floor,
        worst.to_peer,
        target,
        None if options.short else worst.share >= 1.0,
        "; ".join(word for word in words if word),
        figures | dict(detail or {}),
    )
