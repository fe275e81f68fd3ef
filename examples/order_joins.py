"""Joins: orders with their payments, with the price as of their time, and what stayed unpaid.

Three questions about two streams need three joins. *Which payment belongs to this order?* An interval join: at most ten minutes
later. *What did it cost then?* An as-of join with the prices: the newest that is not newer than the order. *Which orders were
not paid in the hour?* A window join that keeps the orders without a partner. Each answer is checked against plain loops.
"""

from __future__ import annotations

import asyncio
import random
from typing import NamedTuple

import sage_actor as sage

MINUTE, HOUR = 60_000, 3_600_000


class Order(NamedTuple):
    id: str
    time: int
    item: str


class Payment(NamedTuple):
    order: str
    time: int


class Price(NamedTuple):
    item: str
    time: int
    cents: int


def events() -> tuple[list[Order], list[Payment], list[Price]]:
    chance = random.Random(3)
    orders = [Order(f"o{i}", i * 20_000 + chance.randrange(5_000), chance.choice(("pen", "ink", "book"))) for i in range(400)]
    paid = [order for order in orders if chance.random() < 0.8]
    payments = sorted((Payment(order.id, order.time + chance.randrange(15 * MINUTE)) for order in paid), key=lambda p: p.time)
    prices = [Price(item, t, chance.randrange(100, 2_000)) for t in range(0, 3 * HOUR, 7 * MINUTE) for item in ("pen", "ink", "book")]
    return orders, payments, prices


async def main() -> None:
    orders, payments, prices = events()
    async with sage.Environment("orders", parallelism=2) as env:
        timed_orders = env.from_collection(orders).assign_timestamps(lambda o: o.time, sage.BoundedDisorder("5s"))
        timed_payments = env.from_collection(payments).assign_timestamps(lambda p: p.time, sage.Monotonic())
        timed_prices = env.from_collection(prices).assign_timestamps(lambda p: p.time, sage.Monotonic())
        by_id, by_item = timed_orders.key_by(lambda o: o.id), timed_orders.key_by(lambda o: o.item)
        by_order = timed_payments.key_by(lambda p: p.order)

        in_time = by_id.interval_join(by_order, lower=0, upper="10m").map(lambda pair: (pair[0].id, pair[1].time)).collect()
        priced = by_item.as_of_join(timed_prices.key_by(lambda p: p.item)).map(lambda pair: (pair[0].id, pair[1].cents)).collect()
        hourly = by_id.join(by_order, window=sage.Tumbling("1h"), how="left")
        unpaid = hourly.filter(lambda pair: pair[1] is None).map(lambda pair: pair[0].id).collect()
        await env.execute()

    time_of = {payment.order: payment.time for payment in payments}
    assert sorted(in_time) == sorted(
        (o.id, time_of[o.id]) for o in orders if o.id in time_of and o.time <= time_of[o.id] <= o.time + 10 * MINUTE
    )
    assert sorted(priced) == sorted(
        (o.id, max((p for p in prices if p.item == o.item and p.time <= o.time), key=lambda p: p.time).cents) for o in orders
    )
    assert sorted(unpaid) == sorted(o.id for o in orders if o.id not in time_of or time_of[o.id] // HOUR != o.time // HOUR)
    print(f"{len(orders)} orders: {len(in_time)} paid within ten minutes, {len(unpaid)} not within their hour, all priced")


asyncio.run(main())
