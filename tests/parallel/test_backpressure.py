"""Admission: never more than the threshold, first come, first served, and nothing lost by cancelling."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_actor import BackpressureController, PoolError

STEPS = st.lists(st.tuples(st.sampled_from(["acquire", "release", "cancel"]), st.integers(0, 20)), max_size=80)


@given(st.integers(1, 5), STEPS)
def test_the_count_keeps_to_the_threshold_and_the_order(threshold: int, steps: list[tuple[str, int]]) -> None:
    async def main() -> None:
        room = BackpressureController(threshold)
        order: list[int] = []  # numbers in the order of admission
        waiting: dict[int, asyncio.Task[None]] = {}
        cancelled: set[int] = set()
        released = 0

        async def enter(number: int) -> None:
            await room.acquire()
            order.append(number)

        for number, (what, which) in enumerate(steps):
            if what == "acquire":
                waiting[number] = asyncio.ensure_future(enter(number))
            elif what == "release" and released < len(order):
                room.release()
                released += 1
            elif what == "cancel":
                pending = [n for n, task in waiting.items() if not task.done()]
                if pending:
                    victim = pending[which % len(pending)]
                    waiting[victim].cancel()
                    cancelled.add(victim)
            for _ in range(4):
                await asyncio.sleep(0)
            assert room.in_use == len(order) - released <= threshold
            assert order == sorted(order)
            asked = [n for n in waiting if n not in cancelled]
            assert order == asked[: len(order)]
            assert room.waiting == len(asked) - len(order)
            assert room.waiting == 0 or room.in_use == threshold
        for task in waiting.values():
            task.cancel()
        await asyncio.gather(*waiting.values(), return_exceptions=True)

    asyncio.run(main())


@pytest.mark.asyncio
async def test_with_two_marks_nobody_gets_in_before_the_lower_one() -> None:
    room = BackpressureController(4, resume_at=1)
    assert all(room.try_acquire() for _ in range(4))
    waiting = asyncio.ensure_future(room.acquire())
    await asyncio.sleep(0)
    room.release(2)
    await asyncio.sleep(0)
    assert not waiting.done()
    assert not room.try_acquire()
    room.release()
    await waiting
    assert room.in_use == 2


@pytest.mark.asyncio
async def test_let_in_and_cancelled_in_one_turn_hands_the_room_on() -> None:
    room = BackpressureController(1)
    await room.acquire()
    first, second = asyncio.ensure_future(room.acquire()), asyncio.ensure_future(room.acquire())
    await asyncio.sleep(0)
    room.release()
    first.cancel()
    await second
    assert first.cancelled()
    assert (room.in_use, room.waiting) == (1, 0)


@pytest.mark.asyncio
async def test_cancelled_and_passed_over_in_one_turn_hands_the_room_on() -> None:
    room = BackpressureController(1)
    await room.acquire()
    first, second = asyncio.ensure_future(room.acquire()), asyncio.ensure_future(room.acquire())
    await asyncio.sleep(0)
    first.cancel()
    room.release()
    with pytest.raises(asyncio.CancelledError):
        await first
    await second
    assert (room.in_use, room.waiting) == (1, 0)


@pytest.mark.asyncio
async def test_a_larger_amount_passes_alone_and_one_that_gives_up_lets_smaller_ones_by() -> None:
    room = BackpressureController(3)
    assert room.try_acquire(10)
    room.release(10)
    await room.acquire(2)
    large, small = asyncio.ensure_future(room.acquire(2)), asyncio.ensure_future(room.acquire(1))
    await asyncio.sleep(0)
    assert not small.done(), "it came later"
    large.cancel()
    await small
    assert room.in_use == 3


@pytest.mark.asyncio
async def test_a_raised_threshold_lets_in_at_once() -> None:
    room = BackpressureController(1)
    await room.acquire()
    waiting = [asyncio.ensure_future(room.acquire()) for _ in range(3)]
    await asyncio.sleep(0)
    room.set_threshold(3)
    await asyncio.gather(*waiting[:2])
    assert (room.in_use, room.waiting) == (3, 1)
    waiting[2].cancel()


def test_senseless_marks_and_releases_are_refused() -> None:
    with pytest.raises(PoolError, match="threshold=0"):
        BackpressureController(0)
    with pytest.raises(PoolError, match="below the threshold of 3"):
        BackpressureController(3, resume_at=3)
    room = BackpressureController(2)
    assert room.try_acquire()
    with pytest.raises(PoolError, match="2 given back, but only 1"):
        room.release(2)
