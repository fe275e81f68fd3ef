"""The three kinds of event of an online auction: somebody registers, somebody offers an item, somebody bids."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Auction", "Bid", "Event", "Person", "is_auction", "is_bid", "is_person", "row", "time_of"]


@dataclass(slots=True)
class Person:
    """Somebody has registered."""

    id: int
    name: str
    email: str
    credit_card: str
    city: str
    state: str
    date_time: int
    extra: str


@dataclass(slots=True)
class Auction:
    """An item is offered until `expires`."""

    id: int
    item_name: str
    description: str
    initial_bid: int
    reserve: int
    date_time: int
    expires: int
    seller: int
    category: int
    extra: str


@dataclass(slots=True)
class Bid:
    """Somebody offers a price for an auction's item."""

    auction: int
    bidder: int
    price: int
    channel: str
    url: str
    date_time: int
    extra: str


Event = Person | Auction | Bid


def is_person(event: Event) -> bool:
    """Whether the event is a registration."""
    return event.__class__ is Person


def is_auction(event: Event) -> bool:
    """Whether the event is an offer."""
    return event.__class__ is Auction


def is_bid(event: Event) -> bool:
    """Whether the event is a bid."""
    return event.__class__ is Bid


def time_of(event: Event) -> int:
    """Event time, milliseconds since the epoch."""
    return event.date_time


def row(event: Event) -> tuple[object, ...]:
    """The columns of an event in their declared order; what is compared and stored."""
    return tuple(getattr(event, name) for name in event.__slots__)  # type: ignore[union-attr]
