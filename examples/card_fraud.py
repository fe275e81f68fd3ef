"""Patterns (complex event processing): a card that is tried out with small sums before a large one, and orders nobody shipped.

The first pattern: two or more small payments, then a large one, all within ten minutes, and no PIN change in between, which
would mean that the owner is there. The second: an order that is not followed by its shipment within two days; what is missing is
found when event time has passed the deadline. Beginnings that came to nothing can be had too.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import sage_actor as sage

MINUTE, HOUR = 60_000, 3_600_000


class Event(NamedTuple):
    card: str
    time: int
    kind: str
    amount: float = 0.0


EVENTS = [
    Event("c1", 1 * MINUTE, "pay", 0.5),
    Event("c2", 1 * MINUTE, "pay", 0.9),
    Event("c1", 3 * MINUTE, "pay", 0.7),
    Event("c2", 4 * MINUTE, "pay", 0.4),
    Event("c1", 5 * MINUTE, "pay", 35.0),  # neither small nor large: passed over
    Event("c2", 5 * MINUTE, "pin"),  # the owner
    Event("c1", 8 * MINUTE, "pay", 900.0),
    Event("c2", 8 * MINUTE, "pay", 800.0),
    Event("c3", 9 * MINUTE, "pay", 0.1),
    Event("c3", 10 * MINUTE, "pay", 0.2),
    Event("c3", 30 * MINUTE, "pay", 700.0),  # too late to belong together
]


def small(event: Event) -> bool:
    return event.kind == "pay" and event.amount < 1


def large(event: Event) -> bool:
    return event.kind == "pay" and event.amount > 500


async def fraud() -> None:
    tested = (
        sage.Pattern.begin("tests", skip="past_last")
        .where(small)
        .times(2, 5)
        .not_followed_by("pin")
        .where(lambda e: e.kind == "pin")
        .then("large")
        .where(large)
        .within("10m")
    )
    given_up: sage.OutputTag[object] = sage.OutputTag("given up")
    async with sage.Environment("fraud") as env:
        keyed = env.from_collection(EVENTS).assign_timestamps(lambda e: e.time, sage.BoundedDisorder("1m")).key_by(lambda e: e.card)
        matches = keyed.pattern(tested).timeout_output(given_up)
        alerts = matches.select(lambda card, found: (card, [e.amount for e in found["tests"]], found["large"][0].amount)).collect()
        # The condition may look at what is matched so far: payments of one card that rise three times running.
        rising = (
            sage.Pattern.begin("first", skip="past_last")
            .where(lambda e: e.kind == "pay")
            .next("second")
            .where(lambda e, found: e.amount > found["first"][0].amount)
            .next("third")
            .where(lambda e, found: e.amount > found["second"][0].amount)
        )
        risen = keyed.pattern(rising).select(lambda card, found: card, name="rising").collect()
        halves = matches.side_output(given_up).collect()
        await env.execute()
    assert list(alerts) == [("c1", [0.5, 0.7], 900.0)]
    assert sorted(risen) == ["c1", "c3"]
    print(f"alerts: {list(alerts)}; {len(halves)} beginnings came to nothing")


async def unshipped() -> None:
    orders = [("o1", 0, "order"), ("o2", HOUR, "order"), ("o1", 20 * HOUR, "ship"), ("o3", 30 * HOUR, "order"), ("o2", 60 * HOUR, "ship")]
    never = (
        sage.Pattern.begin("order").where(lambda e: e[2] == "order").not_followed_by("ship").where(lambda e: e[2] == "ship").within("2d")
    )
    async with sage.Environment("unshipped") as env:
        keyed = env.from_collection(orders).assign_timestamps(lambda e: e[1], sage.Monotonic()).key_by(lambda e: e[0])
        overdue = keyed.pattern(never).select(lambda order, _: order).collect()
        await env.execute()
    assert sorted(overdue) == ["o2", "o3"], "o2 was shipped, but after more than two days"
    print(f"not shipped in time: {sorted(overdue)}")


async def main() -> None:
    await fraud()
    await unshipped()


asyncio.run(main())
