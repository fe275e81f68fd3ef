"""Demand: how much a consumer has asked for, and what its producer may therefore deliver.

Pure accounts after Reactive Streams and GenStage; they count and decide, and hold no queue of waiters and no task:

* `Demand` stands between one producer and one consumer: what was requested, what may be delivered, how it ended.
* `DemandWindow` is the consumer's policy: when to ask, and for how many.
* `BoundedBuffer` is where a producer keeps what nobody has asked for yet.

Who goes beyond the demand? A producer that delivers what `Demand.take` grants cannot. What comes from elsewhere and exceeds the
demand all the same is counted by the consumer's window and delivered: it exists, and losing it would be the worse fault. It fills
the window like everything else, so the next request is smaller by it.

All of it belongs to one thread; only `Demand.cancel` may be called from any.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Generic, Literal, TypeVar, get_args

from sage_actor.errors import ActorError, ConfigError

__all__ = ["MAX_DEMAND", "BoundedBuffer", "Demand", "DemandWindow", "Ended", "Keep"]

T = TypeVar("T")

Ended = Literal["cancelled", "completed", "failed"]
Keep = Literal["first", "last"]

MAX_DEMAND: Final = 2**63 - 1
"""The most that can be outstanding; requesting more than that is the same as requesting this."""


class Demand:
    """The account between one producer and one consumer.

    Never more is granted than was requested, and nothing after the end, whoever brought it about. What was granted before a
    cancellation may still arrive after it.

    Args:
        deliver: called when something may have become deliverable: after a request and on `pump`. It takes what it can and
            hands it on. It never runs inside itself: a request made while it hands on (directly or from the consumer's
            code) makes it run once more afterwards, so the depth of the stack does not grow with the number of records.
            What it raises reaches the outermost caller. It is let go at the end.
    """

    __slots__ = ("_again", "_deliver", "_delivered", "_delivering", "_ended", "_error", "_outstanding", "_right_to_end")

    def __init__(self, deliver: Callable[[], None] | None = None) -> None:
        self._deliver = deliver
        self._outstanding = 0
        self._delivered = 0
        self._ended: Ended | None = None
        self._right_to_end = [True]
        self._error: BaseException | None = None
        self._delivering = False
        self._again = False

    @property
    def outstanding(self) -> int:
        """Requested and not yet taken; 0 after the end."""
        return 0 if self._ended else self._outstanding

    @property
    def delivered(self) -> int:
        """How many have been taken since the beginning."""
        return self._delivered

    @property
    def ended(self) -> Ended | None:
        """How the account ended, or None while it is open. The first end counts."""
        return self._ended

    @property
    def error(self) -> BaseException | None:
        """What the producer failed with, if it did."""
        return self._error

    def request(self, n: int) -> None:
        """Ask for `n` more; what was asked before still holds. Without effect after the end, whatever `n` is.

        Raises:
            ActorError: `n` is not positive. The account stays open and unchanged: who asked wrongly is told, not the producer.
        """
        if self._ended:
            return
        if n <= 0:
            raise ActorError(f"a request for {n} records asks for nothing; request 1 or more, or cancel()")
        self._outstanding = min(MAX_DEMAND, self._outstanding + n)
        self.pump()

    def take(self, k: int) -> int:
        """Take leave to deliver up to `k` now; the answer is granted and counted as delivered. 0 after the end.

        Raises:
            ActorError: `k` is negative.
        """
        if k < 0:
            raise ActorError(f"cannot deliver {k} records; take 0 or more")
        granted = min(k, self.outstanding)
        self._outstanding -= granted
        self._delivered += granted
        return granted

    def pump(self) -> None:
        """Let `deliver` run, because the producer has something new. Returns at once if it runs already; then it runs again."""
        self._again = True
        if self._delivering:
            return
        self._delivering = True
        try:
            while self._again:
                self._again = False
                deliver = self._deliver
                if deliver is not None:
                    deliver()
        finally:
            self._delivering = False
            self._again = False

    def cancel(self) -> bool:
        """The consumer wants no more. May be called any number of times and from any thread; True if this call ended it."""
        return self._end("cancelled")

    def complete(self) -> bool:
        """The producer has no more; needs no demand. True if this call ended the account: only then the consumer is told."""
        return self._end("completed")

    def fail(self, error: BaseException) -> bool:
        """The producer failed; needs no demand. True if this call ended the account: only then the consumer is told."""
        if not self._end("failed"):
            return False
        self._error = error
        return True

    def _end(self, how: Ended) -> bool:
        try:
            self._right_to_end.pop()  # atomic, where looking and then setting is not: a cancel may come from another thread
        except IndexError:
            return False
        self._ended = how
        self._deliver = None
        return True


class DemandWindow:
    """When a consumer asks for more: never more than `max_demand` at hand or on the way, and not for single records.

    The consumer asks for `max_demand` first. Whenever no more than `min_demand` of what it asked for is left to process, it
    fills up to `max_demand` again. The owner calls `ask` at the start and after each batch.

    Args:
        max_demand: the most that may be asked for and not yet processed.
        min_demand: at this or less the window is filled up; None means half of `max_demand`.

    Raises:
        ConfigError: `max_demand` is not positive, or `min_demand` not between 0 and ``max_demand - 1``.
    """

    __slots__ = ("_coming", "_excess", "_held", "_lost", "_max", "_min")

    def __init__(self, max_demand: int = 1000, min_demand: int | None = None) -> None:
        if max_demand < 1:
            raise ConfigError("demand.max", f"must be at least 1, not {max_demand}")
        self._max = max_demand
        self._min = max_demand // 2 if min_demand is None else min_demand
        if not 0 <= self._min < max_demand:
            raise ConfigError("demand.min", f"must be from 0 to {max_demand - 1}, one below demand.max, not {min_demand}")
        self._coming = 0
        self._held = 0
        self._excess = 0
        self._lost = 0

    @property
    def outstanding(self) -> int:
        """Asked for and not processed: on the way, or here and waiting; what came in excess and waits here included."""
        return self._coming + self._held

    @property
    def held(self) -> int:
        """Arrived and not yet processed."""
        return self._held

    @property
    def excess(self) -> int:
        """How many arrived, over all, that nobody had asked for."""
        return self._excess

    @property
    def lost(self) -> int:
        """How many were lost, over all, in a consumer that crashed."""
        return self._lost

    @property
    def batch_limit(self) -> int:
        """The most that may be processed as one batch: the distance of the two marks, so that asking never waits for a whole window."""
        return self._max - self._min

    def ask(self) -> int:
        """How many to request now; they count as asked for. 0 while more than `min_demand` are outstanding."""
        if self.outstanding > self._min:
            return 0
        asked = self._max - self.outstanding
        self._coming += asked
        return asked

    def arrived(self, n: int) -> int:
        """Note that `n` arrived; returns how many of them exceed what was asked for. All of them are to be processed."""
        excess = max(0, n - self._coming)
        self._coming -= n - excess
        self._held += n
        self._excess += excess
        return excess

    def processed(self, n: int) -> None:
        """Note that `n` of what arrived are done.

        Raises:
            ActorError: more than are held.
        """
        if n > self._held:
            raise ActorError(f"{n} records processed, but only {self._held} of those that arrived were left; call arrived() first")
        self._held -= n

    def lose(self) -> int:
        """Note that the consumer crashed with all that it held; returns how many that were. They will not come again."""
        lost, self._held = self._held, 0
        self._lost += lost
        return lost


class BoundedBuffer(Generic[T]):
    """What a producer has made before anybody asked for it: in order, up to a capacity, drops counted and handed back.

    Args:
        capacity: the most it holds.
        keep: on overflow, "last" drops the oldest, "first" the newest.

    Raises:
        ConfigError: a capacity that is not positive, or another `keep`.
    """

    __slots__ = ("_capacity", "_dropped", "_items", "_keep")

    def __init__(self, capacity: int = 10_000, *, keep: Keep = "last") -> None:
        if capacity < 1:
            raise ConfigError("buffer.capacity", f"must be at least 1, not {capacity}")
        if keep not in get_args(Keep):
            raise ConfigError("buffer.keep", f"{keep!r} is none of {', '.join(get_args(Keep))}")
        self._capacity = capacity
        self._keep: Keep = keep
        self._items: deque[T] = deque()
        self._dropped = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def capacity(self) -> int:
        """The most it holds."""
        return self._capacity

    @property
    def dropped(self) -> int:
        """How many were dropped over all."""
        return self._dropped

    def put(self, items: Sequence[T]) -> list[T]:
        """Append in order; returns what was dropped for it, in the order in which it came."""
        dropped: list[T] = []
        for item in items:
            if len(self._items) < self._capacity:
                self._items.append(item)
            elif self._keep == "last":
                dropped.append(self._items.popleft())
                self._items.append(item)
            else:
                dropped.append(item)
        self._dropped += len(dropped)
        return dropped

    def pop(self, k: int) -> list[T]:
        """Take up to `k`, oldest first: with ``k = demand.take(len(buffer))`` exactly what may be delivered."""
        return [self._items.popleft() for _ in range(min(k, len(self._items)))]
