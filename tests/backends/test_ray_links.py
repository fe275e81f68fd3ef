"""A direction between two Ray workers against its model, a queue: whatever order parcels arrive in, frames come once and in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_actor.backends.ray_endpoint import RayEndpoint
from sage_actor.backends.ray_link import RayInbound, RayLink
from sage_actor.backends.ray_parcel import BULK, END, LARGE, Parcel, head_of

SLOTS = 3


class Pair:
    """A link, what is under way from it, and its other end."""

    def __init__(self) -> None:
        self.under_way: list[tuple[int, Parcel]] = []
        self.most = 0
        self.came: list[bytes] = []
        self.ends: list[tuple[int, bytes]] = []
        self.link = RayLink(7, self.dispatch, slots=SLOTS)
        self.inbound = RayInbound(7, lambda sender, news: self.ends.append((sender, news)))

    def dispatch(self, number: int, parcel: Parcel) -> None:
        self.under_way.append((number, parcel))
        self.most = max(self.most, len(self.under_way))

    def receive(self, sender: int, frame: memoryview) -> None:
        assert sender == 7
        self.came.append(bytes(frame))

    def arrive(self, index: int) -> None:
        """One of those under way arrives, and its sender is told so."""
        number, parcel = self.under_way.pop(index % len(self.under_way))
        self.inbound.take(parcel[0], memoryview(parcel[1] if len(parcel) == 2 else b""))
        self.link.arrived(number)
        self.link.add_slot()


def on_loop(main: Callable[[], Coroutine[object, object, None]]) -> None:
    with asyncio.Runner() as runner:
        runner.run(main())


@given(
    steps=st.lists(
        st.one_of(st.sampled_from([0, 1, 5, LARGE - 1, LARGE, LARGE + 1]), st.tuples(st.integers(0, 9)), st.none()), max_size=40
    ),
    start=st.integers(0, 40),
)
def test_frames_arrive_once_and_in_order(steps: list[int | tuple[int] | None], start: int) -> None:
    """A number sends a frame of that size, a tuple lets a parcel arrive, None is a turn of the loop; the receiver starts at some step."""

    async def main() -> None:
        pair, sent = Pair(), []
        for at, step in enumerate(steps):
            if at == start:
                pair.inbound.start(pair.receive)
            if isinstance(step, int):
                sent.append(len(sent).to_bytes(4, "little") + bytes(step))
                pair.link.send(sent[-1])
            elif step is None:
                await asyncio.sleep(0)
            elif pair.under_way:
                pair.arrive(step[0])
        if start >= len(steps):
            pair.inbound.start(pair.receive)
        pair.link.finish(b"news")
        flushed = asyncio.ensure_future(pair.link.flush())
        await asyncio.sleep(0)
        while pair.under_way:
            pair.arrive(-1)  # the newest first
            await asyncio.sleep(0)
        await flushed
        assert pair.came == sent
        assert pair.ends == [(7, b"news")]
        assert pair.most <= SLOTS

    on_loop(main)


@pytest.mark.asyncio
async def test_frames_share_a_parcel_and_large_ones_travel_alone() -> None:
    pair = Pair()
    pair.inbound.start(pair.receive)
    for size in (1, 2, 3, LARGE, 4, 5):
        pair.link.send(bytes(size))
    await asyncio.sleep(0)
    assert [head_of(parcel[0])[0] == BULK for _, parcel in pair.under_way] == [False, True, False]
    pair.link.send(b"waits")
    await asyncio.sleep(0)
    assert len(pair.under_way) == SLOTS  # all slots are taken
    while pair.under_way:
        pair.arrive(0)
        await asyncio.sleep(0)
    assert list(map(len, pair.came)) == [1, 2, 3, LARGE, 4, 5, 5]


@pytest.mark.asyncio
async def test_flush_waits_for_what_was_sent_before_it_and_for_no_more() -> None:
    pair = Pair()
    pair.link.send(b"first")
    await asyncio.sleep(0)
    flushed = asyncio.ensure_future(pair.link.flush())
    await asyncio.sleep(0)
    pair.link.send(b"second")
    await asyncio.sleep(0)
    assert not flushed.done()
    pair.arrive(0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert flushed.done()
    assert len(pair.under_way) == 1


@pytest.mark.asyncio
async def test_a_link_to_nobody_holds_nobody_up() -> None:
    pair = Pair()
    pair.link.send(b"lost")
    await asyncio.sleep(0)
    flushed = asyncio.ensure_future(pair.link.flush())
    await asyncio.sleep(0)
    pair.link.cut()
    await flushed
    pair.link.send(b"dropped")
    pair.link.add_slot()
    await pair.link.flush()
    assert len(pair.under_way) == 1


@pytest.mark.asyncio
async def test_an_entry_that_closes_its_endpoint_still_has_its_end_told() -> None:
    pair = Pair()
    endpoint = RayEndpoint(7)
    endpoint.open_link(0, pair.link)
    await endpoint.aclose()
    endpoint.send(0, [b"dropped"])
    pair.link.finish(b"news")
    await asyncio.sleep(0)
    assert [head_of(parcel[0])[0] for _, parcel in pair.under_way] == [END]


@pytest.mark.asyncio
async def test_a_closed_owner_hears_of_ends_and_of_nothing_else() -> None:
    ends: list[tuple[int, bytes]] = []
    came: list[bytes] = []
    owner = RayEndpoint(0, ended=lambda worker, news: ends.append((worker, news)))
    link = RayLink(7, lambda number, parcel: owner.take(parcel[0], memoryview(b"")), slots=9)
    owner.start(lambda sender, frame: came.append(bytes(frame)), lambda error: None)
    link.send(b"first")
    await asyncio.sleep(0)
    await owner.aclose()
    link.send(b"second")
    await asyncio.sleep(0)
    link.finish(b"news")
    await asyncio.sleep(0)
    assert came == [b"first"]
    assert ends == [(7, b"news")]
