"""Demand accounts against plain models: what Reactive Streams and GenStage promise, for every order of events."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sage_actor.actor.demand import MAX_DEMAND, BoundedBuffer, Demand, DemandWindow
from sage_actor.errors import ActorError, ConfigError

FEW = st.integers(0, 20)
SOME = st.integers(1, 20)


# -- one account ------------------------------------------------------------------------------------------------------


class DemandModel(RuleBasedStateMachine):
    """Every order of requests, deliveries and ends; the model is two sums and a word."""

    def __init__(self) -> None:
        super().__init__()
        self.demand = Demand()
        self.requested = 0
        self.delivered = 0
        self.ended = ""

    @rule(n=SOME)
    def request(self, n: int) -> None:
        self.demand.request(n)
        if not self.ended:
            self.requested += n

    @rule(n=st.integers(max_value=0))
    def request_nothing(self, n: int) -> None:
        if self.ended:
            self.demand.request(n)
        else:
            with pytest.raises(ActorError):
                self.demand.request(n)

    @rule(k=FEW)
    def take(self, k: int) -> None:
        granted = self.demand.take(k)
        assert granted == (0 if self.ended else min(k, self.requested - self.delivered))
        self.delivered += granted

    @precondition(lambda self: self.delivered > 0)
    @rule(how=st.sampled_from(["cancelled", "completed", "failed"]))
    def end(self, how: str) -> None:
        error = OSError(how)
        if how == "failed":
            first = self.demand.fail(error)
        else:
            first = self.demand.cancel() if how == "cancelled" else self.demand.complete()
        assert first is not bool(self.ended)
        if not self.ended:
            self.ended = how
            assert self.demand.error is (error if how == "failed" else None)

    @invariant()
    def agrees(self) -> None:
        assert self.demand.delivered == self.delivered <= self.requested
        assert self.demand.outstanding == (0 if self.ended else self.requested - self.delivered)
        assert (self.demand.ended or "") == self.ended


# Delivered never exceeds requested, demand adds, nothing after the end, the first end counts.
TestDemandModel = DemandModel.TestCase
for number in ("A28", "A29", "A31"):
    pytest.mark.rule(number)(TestDemandModel)


@pytest.mark.rule("A29")
@given(st.lists(st.integers(1, MAX_DEMAND * 2), max_size=6), st.integers(0, MAX_DEMAND))
def test_demand_adds_and_saturates(requests: list[int], k: int) -> None:
    demand = Demand()
    for n in requests:
        demand.request(n)
    assert demand.outstanding == min(sum(requests), 2**63 - 1)
    assert demand.take(k) == min(k, sum(requests))


@pytest.mark.rule("A29")
@pytest.mark.parametrize("n", [0, -1, -(2**63)])
def test_asking_for_nothing_is_an_error_and_changes_nothing(n: int) -> None:
    demand = Demand()
    demand.request(3)
    with pytest.raises(ActorError, match=rf"a request for {n} records .* 1 or more"):
        demand.request(n)
    assert (demand.outstanding, demand.ended) == (3, None)


@pytest.mark.rule("A32")
def test_completion_and_failure_need_no_demand() -> None:
    done, failed, error = Demand(), Demand(), OSError("gone")
    assert done.complete()
    assert failed.fail(error)
    assert (done.ended, failed.ended, failed.error) == ("completed", "failed", error)


@pytest.mark.rule("A28")
@pytest.mark.parametrize("end", [Demand.cancel, Demand.complete, lambda demand: demand.fail(OSError())])  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType, reportUnknownMemberType]
def test_nothing_is_granted_or_signalled_after_the_end(end: Callable[[Demand], bool]) -> None:
    pumped: list[int] = []
    demand = Demand(lambda: pumped.append(1))
    demand.request(5)
    assert end(demand)
    assert demand.take(5) == 0
    demand.request(5)
    demand.pump()
    assert (demand.outstanding, len(pumped)) == (0, 1)
    assert [demand.cancel(), demand.complete(), demand.fail(OSError())] == [False, False, False]


@pytest.mark.rule("A31")
def test_the_end_lets_go_of_the_producer() -> None:
    class Producer:
        def deliver(self) -> None: ...

    producer = Producer()
    demand = Demand(producer.deliver)
    gone = weakref.ref(producer)
    del producer
    gc.collect()
    assert gone() is not None
    demand.cancel()
    gc.collect()
    assert gone() is None


@pytest.mark.rule("A31")
def test_cancel_comes_from_any_thread_and_exactly_one_end_counts() -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(50):
            demand = Demand()
            demand.request(10)
            ends: list[str] = []

            def end(how: str, act: Callable[[], bool], ends: list[str] = ends) -> None:
                if act():
                    ends.append(how)

            threads = [threading.Thread(target=end, args=("cancelled", demand.cancel)) for _ in range(3)]
            for thread in threads:
                thread.start()
            end("completed", demand.complete)
            for thread in threads:
                thread.join()
            assert ends == [demand.ended]
            assert demand.take(10) == 0
    finally:
        sys.setswitchinterval(interval)


# -- delivering -------------------------------------------------------------------------------------------------------


class Delivery:
    """A producer with `total` records that hands on inline to a consumer, which asks for more while it receives."""

    def __init__(self, total: int, asks: Callable[[int], int]) -> None:
        self.left = total
        self.asks = asks
        self.received = 0
        self.requested = 0
        self.depth = self.deepest = 0
        self.demand = Demand(self.deliver)

    def request(self, n: int) -> None:
        self.requested += n
        self.demand.request(n)

    def deliver(self) -> None:
        self.depth += 1
        self.deepest = max(self.deepest, self.depth)
        while self.left and self.demand.take(1):
            self.left -= 1
            self.received += 1
            assert self.received <= self.requested
            more = self.asks(self.received)
            if more:
                self.request(more)
        self.depth -= 1
        if not self.left:
            self.demand.complete()


@pytest.mark.rule("A30")
def test_requests_while_delivering_do_not_deepen_the_stack() -> None:
    delivery = Delivery(50_000, lambda _: 1)
    delivery.request(1)
    assert (delivery.received, delivery.deepest, delivery.demand.ended) == (50_000, 1, "completed")


@pytest.mark.rule("A30")
def test_a_deliver_that_hands_on_one_at_a_time_runs_again() -> None:
    """The other shape of producer, without a loop of its own: each request made inside makes it run once more."""
    received: list[int] = []

    def deliver() -> None:
        if demand.take(1):
            received.append(len(received))
            if len(received) < 20_000:
                demand.request(1)

    demand = Demand(deliver)
    demand.request(1)
    assert len(received) == 20_000


@pytest.mark.rule("A28")
@pytest.mark.rule("A30")
@given(st.integers(0, 60), st.lists(st.integers(0, 3), min_size=1, max_size=10), st.lists(SOME, min_size=1, max_size=8))
def test_everything_asked_for_arrives_and_nothing_else(total: int, pattern: list[int], asked: list[int]) -> None:
    delivery = Delivery(total, lambda received: pattern[received % len(pattern)])
    for n in asked:
        delivery.request(n)
    assert delivery.received == min(total, delivery.requested)
    assert delivery.deepest == 1


@pytest.mark.rule("A31")
@given(st.integers(1, 30), st.integers(1, 30))
def test_a_cancel_while_delivering_is_the_last_word(total: int, at: int) -> None:
    def cancels(received: int) -> int:
        if received == at:
            assert delivery.demand.cancel()
        return 1

    delivery = Delivery(total, cancels)
    delivery.request(1)
    assert delivery.received == min(total, at)
    assert delivery.demand.ended == ("cancelled" if at <= total else "completed")


def test_a_deliver_that_raises_reaches_the_caller_and_can_run_again() -> None:
    calls: list[int] = []

    def deliver() -> None:
        calls.append(demand.outstanding)
        if len(calls) == 1:
            raise OSError("once")

    demand = Demand(deliver)
    with pytest.raises(OSError, match="once"):
        demand.request(2)
    demand.request(1)
    assert calls == [2, 3], "the request holds"


@pytest.mark.rule("A33")
@given(st.lists(st.tuples(st.sampled_from(["request", "send", "arrive", "process"]), SOME), max_size=60))
def test_no_more_may_arrive_than_is_neither_processed_nor_buffered(steps: list[tuple[str, int]]) -> None:
    """With P requested, N processed and B buffered at the consumer, what is on the way or may yet be sent is P - B - N."""
    demand = Demand()
    requested = processed = buffered = flying = 0
    for what, n in steps:
        if what == "request":
            demand.request(n)
            requested += n
        elif what == "send":
            flying += demand.take(n)
        elif what == "arrive":
            flying, buffered = flying - min(n, flying), buffered + min(n, flying)
        else:
            processed, buffered = processed + min(n, buffered), buffered - min(n, buffered)
        assert demand.outstanding <= requested - processed - buffered
        assert demand.outstanding + flying == requested - processed - buffered


# -- the window -------------------------------------------------------------------------------------------------------


@pytest.mark.rule("A34")
def test_the_window_begins_with_a_thousand_and_half_of_it() -> None:
    window = DemandWindow()
    assert (window.ask(), window.outstanding, window.batch_limit) == (1000, 1000, 500)
    window.arrived(1000)
    window.processed(499)
    assert window.ask() == 0, "501 are outstanding"
    window.processed(1)
    assert window.ask() == 500, "at the lower mark it fills up"
    assert window.ask() == 0


class Split:
    """GenStage's own arithmetic for a consumer that is given `events` at once: batches, each with what it asks for."""

    def __init__(self, most: int, least: int) -> None:
        self.most, self.least, self.pending = most, least, most

    def batches(self, events: int) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        while events:
            batch = min(events, self.most - self.least)
            events -= batch
            left = self.pending - batch
            if left <= self.least:
                self.pending, ask = self.most, self.most - left
            else:
                self.pending, ask = left, 0
            found.append((batch, ask))
        return found


@st.composite
def marks(draw: st.DrawFn) -> tuple[int, int]:
    most = draw(st.integers(1, 20))
    return most, draw(st.integers(0, most - 1))


@pytest.mark.rule("A34")
@given(marks(), st.lists(st.integers(0, 20), max_size=40))
def test_the_window_asks_as_genstage_does(most_and_least: tuple[int, int], arrivals: list[int]) -> None:
    most, least = most_and_least
    window, model = DemandWindow(most, least), Split(most, least)
    coming = window.ask()
    assert coming == most
    for wanted in arrivals:
        events = min(wanted, coming)
        assert window.arrived(events) == 0
        found: list[tuple[int, int]] = []
        while window.held:
            batch = min(window.held, window.batch_limit)
            window.processed(batch)
            found.append((batch, window.ask()))
        assert found == model.batches(events)
        coming += sum(ask for _, ask in found) - events
        assert least < window.outstanding <= most


@pytest.mark.rule("A33")
@pytest.mark.rule("A34")
@given(marks(), st.lists(st.tuples(st.sampled_from(["send", "process"]), SOME), max_size=60))
def test_a_window_over_an_account_never_starves_and_never_overflows(most_and_least: tuple[int, int], steps: list[tuple[str, int]]) -> None:
    window, demand = DemandWindow(*most_and_least), Demand()
    demand.request(window.ask())
    for what, n in steps:
        if what == "send":
            assert window.arrived(demand.take(n)) == 0, "a producer that takes leave cannot exceed"
        else:
            window.processed(min(n, window.held))
        if asked := window.ask():
            demand.request(asked)
        assert demand.outstanding + window.held == window.outstanding <= most_and_least[0]
        assert demand.outstanding or window.held, "somebody can always move"


@pytest.mark.rule("A35")
@given(marks(), st.lists(st.tuples(st.integers(0, 40), FEW), max_size=30))
def test_excess_is_counted_delivered_and_asked_for_less(most_and_least: tuple[int, int], steps: list[tuple[int, int]]) -> None:
    """A producer from elsewhere sends what it likes. Nothing is refused; the model keeps the records themselves."""
    window = DemandWindow(*most_and_least)
    excess = 0
    here: deque[int] = deque()
    coming = window.ask()
    for sent, worked in steps:
        unasked = max(0, sent - coming)
        excess += unasked
        coming = max(0, coming - sent)
        here.extend(range(sent))
        assert window.arrived(sent) == unasked
        done = min(worked, len(here))
        for _ in range(done):
            here.popleft()
        window.processed(done)
        asked = window.ask()
        coming += asked
        assert (window.held, window.excess) == (len(here), excess)
        assert not asked or coming + len(here) == most_and_least[0], "what came in excess is asked for less"


@pytest.mark.rule("A35")
def test_what_a_crashed_consumer_held_is_lost_counted_and_replaced() -> None:
    window = DemandWindow(10, 5)
    window.ask()
    window.arrived(7)
    window.processed(2)
    assert window.lose() == 5
    assert (window.held, window.lost, window.outstanding) == (0, 5, 3), "three are still on the way"
    assert window.ask() == 7
    assert window.lose() == 0


def test_more_processed_than_arrived_is_refused() -> None:
    window = DemandWindow(10)
    window.ask()
    window.arrived(2)
    with pytest.raises(ActorError, match="3 records processed, but only 2"):
        window.processed(3)
    assert window.held == 2


@pytest.mark.parametrize(("most", "least", "key"), [(0, None, "demand.max"), (10, 10, "demand.min"), (10, -1, "demand.min")])
def test_wrong_marks_are_refused(most: int, least: int | None, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DemandWindow(most, least)
    assert caught.value.key == key


# -- the producer's buffer --------------------------------------------------------------------------------------------


@pytest.mark.rule("A35")
def test_a_buffer_keeps_the_last_ten_thousand() -> None:
    buffer = BoundedBuffer[int]()
    assert buffer.capacity == 10_000
    assert buffer.put(range(10_003)) == [0, 1, 2]
    assert (len(buffer), buffer.dropped, buffer.pop(2)) == (10_000, 3, [3, 4])


@pytest.mark.rule("A35")
@given(st.integers(1, 8), st.sampled_from(["first", "last"]), st.lists(st.tuples(st.booleans(), st.integers(0, 12)), max_size=30))
def test_a_buffer_is_a_bounded_list_that_counts_its_drops(capacity: int, keep: str, steps: list[tuple[bool, int]]) -> None:
    buffer = BoundedBuffer[int](capacity, keep="first" if keep == "first" else "last")
    model: list[int] = []
    made = popped = dropped = 0
    for puts, n in steps:
        if puts:
            every = model + list(range(made, made + n))
            made += n
            over = max(0, len(every) - capacity)
            model = every[over:] if keep == "last" else every[:capacity]
            out = every[:over] if keep == "last" else every[capacity:]
            assert buffer.put(range(made - n, made)) == out
            dropped += len(out)
        else:
            assert buffer.pop(n) == model[:n]
            popped += len(model[:n])
            model = model[n:]
        assert (len(buffer), buffer.dropped) == (len(model), dropped)
        assert made == popped + dropped + len(buffer)


def test_a_wrong_buffer_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"buffer\.capacity"):
        BoundedBuffer[int](0)
    with pytest.raises(ConfigError, match=r"buffer\.keep.*first, last"):
        BoundedBuffer[int](keep="all")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


@pytest.mark.rule("A28")
@given(st.integers(1, 5), st.lists(st.tuples(st.booleans(), SOME), max_size=40))
def test_a_producer_with_a_buffer_delivers_in_order_and_only_what_was_asked(capacity: int, steps: list[tuple[bool, int]]) -> None:
    buffer = BoundedBuffer[int](capacity)
    received: list[int] = []
    demand = Demand(lambda: received.extend(buffer.pop(demand.take(len(buffer)))))
    made = requested = 0
    for makes, n in steps:
        if makes:
            for _ in range(n):
                buffer.put([made])
                made += 1
                demand.pump()
        else:
            requested += n
            demand.request(n)
        assert received == sorted(set(received)), "in order, none twice"
        assert len(received) <= requested
        assert made == len(received) + len(buffer) + buffer.dropped
        assert not (len(buffer) and demand.outstanding), "nothing waits for what was asked"
