"""The event generator of Nexmark, seeded: the same settings give the same events on every machine.

Event number n decides everything but the dice: of 50 in a row one is a person, three are auctions, 46 are bids, and time goes on by
`interval_us` with each. In an out-of-order group of g the numbers are permuted, so that ids and times come in that order too.
One known slip of the reference generator is put right here: it adds the first person's id to a bidder twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import gcd
from random import Random

from benchmarks.nexmark.events import Auction, Bid, Event, Person

__all__ = ["Settings", "generate"]

FIRST_ID = 1000
FIRST_CATEGORY, CATEGORIES = 10, 5
PERSONS, AUCTIONS, ALL = 1, 3, 50
AUCTIONS_IN_FLIGHT, PERSONS_ACTIVE, LEAD = 100, 1000, 10
HOT_AUCTIONS, HOT_SELLERS, HOT_BIDDERS, HOT_CHANNELS = 2, 4, 4, 2
"""One in so many is not hot."""
HOT_STEP = 100
CHANNELS = 10_000
PERSON_BYTES, AUCTION_BYTES, BID_BYTES = 200, 500, 100
PERMUTING = 953

STATES = ("AZ", "CA", "ID", "OR", "WA", "WY")
CITIES = ("Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland", "Bend", "Redmond", "Seattle", "Kent", "Cheyenne")
FIRST_NAMES = ("Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter")
LAST_NAMES = ("Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris")
HOT_CHANNEL_NAMES = ("Google", "Facebook", "Baidu", "Apple")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the events depend on.

    Attributes:
        rate: events a second of event time, all generators together.
        group: how many neighbouring events are permuted; 1 keeps them in order. Must have no factor in common with 953.
        base_time: event time of number 0, milliseconds since the epoch.
    """

    seed: int = 1
    rate: float = 10_000
    group: int = 100
    generators: int = 1
    base_time: int = 1_436_918_400_000

    def __post_init__(self) -> None:
        if self.rate <= 0 or self.group < 1 or self.generators < 1 or gcd(self.group, PERMUTING) != 1:
            raise ValueError(f"rate, group and generators must be positive and group not a multiple of {PERMUTING}: {self}")

    @property
    def interval_us(self) -> float:
        """Microseconds of event time between two events of one generator."""
        return 1e6 * self.generators / self.rate

    def time_of(self, number: int) -> int:
        """Event time of an event number."""
        return self.base_time + int(number * self.interval_us) // 1000

    def permuted(self, number: int) -> int:
        """The event number that comes at this place."""
        return number // self.group * self.group + PERMUTING * number % self.group


def generate(count: int, settings: Settings = Settings()) -> list[Event]:
    """The first `count` events, in order of arrival."""
    return list(Generator(settings).events(count))


class Generator:
    """The dice and the tables that one sequence of events is made with."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        random = Random(settings.seed)
        self.random: Callable[[], float] = random.random
        self.letters = "".join(random.choices("abcdefghijklmnopqrstuvwxyz", k=65_536))
        self.spaced = "".join(" " if random.random() < 1 / 13 else letter for letter in self.letters)
        self.hot_channels = [(name, self.url()) for name in HOT_CHANNEL_NAMES]
        self.channels = [(f"channel-{i}", self.channel_url(i)) for i in range(CHANNELS)]

    def events(self, count: int) -> Iterator[Event]:
        """Event numbers 0 to count - 1, permuted within their groups, as events."""
        settings = self.settings
        for place in range(count):
            number = settings.permuted(place)
            epoch, rest = divmod(number, ALL)
            time = settings.time_of(number)
            if rest < PERSONS:
                yield self.person(epoch, time)
            elif rest < PERSONS + AUCTIONS:
                yield self.auction(number, epoch, AUCTIONS * epoch + rest - PERSONS, time)
            else:
                yield self.bid(epoch, AUCTIONS * epoch + AUCTIONS - 1, time)

    def person(self, latest: int, time: int) -> Person:
        """The registration of the latest person."""
        below = self.below
        name = f"{FIRST_NAMES[below(len(FIRST_NAMES))]} {LAST_NAMES[below(len(LAST_NAMES))]}"
        email = f"{self.text(7)}@{self.text(5)}.com"
        card = " ".join(f"{below(10_000):04d}" for _ in range(4))
        city, state = CITIES[below(len(CITIES))], STATES[below(len(STATES))]
        size = 8 + len(name) + len(email) + len(card) + len(city) + len(state)
        return Person(latest + FIRST_ID, name, email, card, city, state, time, self.padding(size, PERSON_BYTES))

    def auction(self, number: int, latest_person: int, latest: int, time: int) -> Auction:
        """The offer of the latest auction."""
        below = self.below
        hot = below(HOT_SELLERS) > 0
        seller = (latest_person // HOT_STEP * HOT_STEP if hot else self.any_person(latest_person)) + FIRST_ID
        category = FIRST_CATEGORY + below(CATEGORIES)
        initial = self.price()
        horizon = self.settings.time_of(number + AUCTIONS_IN_FLIGHT * ALL // AUCTIONS) - time
        expires = time + 1 + below(max(horizon * 2, 1))
        name, description = self.text(20), self.text(100)
        reserve = initial + self.price()
        extra = self.padding(8 + len(name) + len(description) + 8 * 5, AUCTION_BYTES)
        return Auction(latest + FIRST_ID, name, description, initial, reserve, time, expires, seller, category, extra)

    def bid(self, latest_person: int, latest_auction: int, time: int) -> Bid:
        """A bid for an auction in flight, hot ones first."""
        below = self.below
        if below(HOT_AUCTIONS) > 0:
            auction = latest_auction // HOT_STEP * HOT_STEP
        else:
            least = max(latest_auction - AUCTIONS_IN_FLIGHT, 0)
            auction = least + below(latest_auction - least + 1 + LEAD)
        bidder = latest_person // HOT_STEP * HOT_STEP + 1 if below(HOT_BIDDERS) > 0 else self.any_person(latest_person)
        price = self.price()
        hot = below(HOT_CHANNELS) > 0
        channel, url = self.hot_channels[below(4)] if hot else self.channels[below(CHANNELS)]
        return Bid(auction + FIRST_ID, bidder + FIRST_ID, price, channel, url, time, self.padding(32, BID_BYTES))

    def any_person(self, latest: int) -> int:
        """One of the persons active, or of the next few that have not registered yet."""
        active = min(latest + 1, PERSONS_ACTIVE)
        return latest + 1 - active + self.below(active + LEAD)

    def below(self, limit: int) -> int:
        """A whole number from 0 to limit - 1."""
        return int(self.random() * limit)

    def price(self) -> int:
        """Cents, spread evenly over six orders of magnitude."""
        return round(100 * 10 ** (6 * self.random()))

    def text(self, limit: int) -> str:
        """Between 3 and `limit` - 1 characters, with spaces inside."""
        length = 3 + self.below(limit - 3)
        start = self.below(65_536 - length)
        return self.spaced[start : start + length].strip() or "x"

    def padding(self, size: int, wanted: int) -> str:
        """Letters that bring a record of `size` to about `wanted` bytes, a fifth more or less."""
        missing = wanted - size
        if missing <= 0:
            return ""
        spread = round(missing * 0.2)
        length = missing - spread + self.below(2 * spread)
        start = self.below(65_536 - length)
        return self.letters[start : start + length]

    def url(self) -> str:
        """An address with three folders."""
        one, two, three = (self.text(5).replace(" ", "_") for _ in range(3))
        return f"https://www.nexmark.com/{one}/{two}/{three}/item.htm?query=1"

    def channel_url(self, channel: int) -> str:
        """The address of a numbered channel; nine in ten carry a channel id (the number's bits reversed)."""
        reversed_bits = int(f"{channel:032b}"[::-1], 2)
        number = abs(reversed_bits - 2**32 if reversed_bits >= 2**31 else reversed_bits)
        return f"{self.url()}&channel_id={number}" if self.below(10) > 0 else self.url()
