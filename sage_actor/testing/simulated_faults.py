"""What goes wrong in one simulated run: a list that follows from a seed, can be read, replayed and shortened."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["COUNTED", "KILL_POINTS", "TEARING_POINT", "FaultRates", "PlannedFault", "draw_faults", "shrink"]

FaultKind = Literal[
    "kill",
    "task",
    "function",
    "stall",
    "acknowledgement",
    "notification",
    "lost frame",
    "doubled frame",
    "old frame",
    "full",
    "failing",
    "slow",
    "clock",
]
COUNTED: Final = ("function", "acknowledgement", "notification", "lost frame", "doubled frame", "old frame")
"""What strikes at an occasion of its own kind; other faults, but kills, strike at a time."""

KILL_POINTS: Final = (
    "before state fsync",
    "after state fsync",
    "before acknowledgement",
    "after acknowledgement",
    "before manifest",
    "after manifest, before notification",
    "before pre-commit",
    "before commit",
    "between the commits of two sinks",
    "after commit",
    "during restore",
)
"""Where a process can be killed, in the order in which a checkpoint passes them."""


TEARING_POINT: Final = "after manifest, before notification"
"""Where a checkpoint can be damaged without harm to what is exactly once: it is complete, and nobody has committed anything for it."""


@dataclass(frozen=True, slots=True)
class PlannedFault:
    """One thing that goes wrong.

    Attributes:
        kind: ``kill`` a process at a point; a ``task`` dies, a ``function`` raises; a process ``stall``s; an ``acknowledgement`` or
            ``notification`` of a checkpoint is lost, or a frame of records; a frame comes twice, or is followed by one of an attempt
            that is over; the disk is ``full``, ``failing`` or ``slow``; the wall ``clock`` is set.
        at: the virtual second; for kills, functions and lost messages: at the how manyeth occasion, counted from when the fault
            before it of the same kind has struck.
        point: of a kill: one of `KILL_POINTS`.
        scope: of a kill: ``process`` (the one that passes), ``job`` (the owner; its workers follow), ``machine`` (everything, and what the
            disk had not synced is lost), ``torn`` (the same, and a file of the checkpoint that has just become complete is damaged,
            although it was synced), or ``zombie``: the owner stands still, is replaced, and goes on; of a stall: ``process`` (a
            worker) or ``job``.
        amount: seconds that it lasts, or that a notification is late (0: it is lost); milliseconds that the clock is set ahead.
    """

    kind: FaultKind
    at: float
    point: str = ""
    scope: str = ""
    amount: float = 0.0

    def __str__(self) -> str:
        when = f"at second {self.at:.3f}"
        if self.kind == "kill" and self.scope == "zombie":
            return f"the job stands still at passage {self.at:g} of {self.point!r}"
        if self.kind == "kill" and self.scope == "torn":
            return f"kill the machine at passage {self.at:g} of {self.point!r}, and damage what it wrote last"
        if self.kind == "kill":
            return f"kill the {self.scope} at passage {self.at:g} of {self.point!r}"
        if self.kind == "function":
            return f"a function raises at its call {self.at:g}"
        if self.kind in ("acknowledgement", "notification"):
            return f"{self.kind} {self.at:g} " + (f"is {self.amount:.3f} s late" if self.amount else "is lost")
        if self.kind in COUNTED:
            return f"{self.kind} at occasion {self.at:g}"
        if self.kind == "task":
            return f"a task dies {when}"
        if self.kind == "stall":
            return f"a {'worker' if self.scope == 'process' else 'job'} stands still {when} for {self.amount:.3f} s"
        if self.kind == "clock":
            return f"the clock is set {self.amount:+g} ms {when}"
        return f"the disk is {self.kind} {when} for {self.amount:.3f} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRates:
    """How many faults of each kind a run gets at most; how many it gets is drawn, mostly fewer.

    Attributes:
        kills: at least one, as long as this is above 0.
        seconds: within which those bound to a time strike.
        points: where processes are killed.
        whole: the share of kills that hit the whole job, not a worker alone.
    """

    kills: int = 3
    tasks: int = 1
    functions: int = 2
    stalls: int = 1
    acknowledgements: int = 2
    notifications: int = 6
    frames: int = 2
    disk: int = 1
    clocks: int = 1
    seconds: float = 4.0
    points: Sequence[str] = KILL_POINTS
    whole: float = 0.5

    @classmethod
    def none(cls) -> FaultRates:
        """Nothing goes wrong."""
        return cls(kills=0, tasks=0, functions=0, stalls=0, acknowledgements=0, notifications=0, frames=0, disk=0, clocks=0)


def draw_faults(seed: int, rates: FaultRates) -> list[PlannedFault]:
    """The faults of a seed."""
    chance = random.Random(f"faults {seed}")
    faults = [_kill(chance, rates) for _ in range(chance.randint(1, rates.kills) if rates.kills else 0)]

    def some(most: int) -> range:
        return range(chance.randint(0, most) if chance.random() < 0.5 else 0)

    def moment() -> float:
        return chance.random() * rates.seconds

    faults += [PlannedFault("task", moment()) for _ in some(rates.tasks)]
    faults += [PlannedFault("function", chance.randint(1, 150)) for _ in some(rates.functions)]
    faults += [
        PlannedFault("stall", moment(), scope=chance.choice(("process", "job")), amount=chance.choice((0.05, 0.5, 5.0)))
        for _ in some(rates.stalls)
    ]
    faults += [PlannedFault("acknowledgement", chance.randint(1, 12)) for _ in some(rates.acknowledgements)]
    faults += [
        PlannedFault("notification", chance.randint(1, 8), amount=chance.choice((0.0, chance.random()))) for _ in some(rates.notifications)
    ]
    faults += [PlannedFault(chance.choice(("lost frame", "doubled frame", "old frame")), chance.randint(1, 60)) for _ in some(rates.frames)]
    for _ in some(rates.disk):
        kind: FaultKind = chance.choice(("full", "failing", "slow"))
        faults.append(PlannedFault(kind, moment(), amount=chance.random() * 0.5))
    faults += [PlannedFault("clock", moment(), amount=chance.choice((-3_600_000, -700, 900, 86_400_000))) for _ in some(rates.clocks)]
    return faults


def _kill(chance: random.Random, rates: FaultRates) -> PlannedFault:
    scope = "process" if chance.random() >= rates.whole else chance.choice(("job", "machine", "zombie"))
    point = chance.choice(rates.points)
    if scope == "machine" and point == TEARING_POINT and chance.random() < 0.5:
        scope = "torn"
    return PlannedFault("kill", chance.randint(1, 6), point=point, scope=scope)


def shrink(faults: Sequence[PlannedFault], fails: Callable[[Sequence[PlannedFault]], bool]) -> list[PlannedFault]:
    """Leave faults out, one by one and over again, as long as the run still fails without them.

    Args:
        faults: with which it fails.
        fails: runs it with fewer.
    """
    left = list(faults)
    again = True
    while again:
        again = False
        for index in reversed(range(len(left))):
            fewer = left[:index] + left[index + 1 :]
            if fails(fewer):
                left = fewer
                again = True
    return left
