"""The queue that thieves take from, and the threads that work with it."""

from __future__ import annotations

import gc
import itertools
import threading
import weakref
from collections import Counter
from concurrent.futures import Future

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_actor import PoolError, ThreadPool, WorkStealingQueue

STEPS = st.lists(st.one_of(st.integers(0, 9), st.sampled_from(["pop", "steal"])), max_size=60)


@given(STEPS)
def test_the_owner_takes_the_newest_and_thieves_the_oldest(steps: list[int | str]) -> None:
    queue: WorkStealingQueue[int] = WorkStealingQueue()
    model: list[int] = []
    for step in steps:
        if step == "pop":
            assert queue.pop() == (model.pop() if model else None)
        elif step == "steal":
            assert queue.steal() == (model.pop(0) if model else None)
        else:
            assert isinstance(step, int)
            queue.push(step)
            model.append(step)
        assert (len(queue), queue.snapshot()) == (len(model), model)


def test_every_item_is_given_out_once_however_many_take() -> None:
    queue = WorkStealingQueue(range(20_000))
    taken: list[list[int]] = [[] for _ in range(4)]

    def take(place: int) -> None:
        turn = queue.pop if place == 0 else queue.steal
        while (item := turn()) is not None:
            taken[place].append(item)

    threads = [threading.Thread(target=take, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(itertools.chain.from_iterable(taken)) == list(range(20_000))


def test_calls_from_outside_are_made_in_their_order() -> None:
    made: list[int] = []
    with ThreadPool(1) as pool:
        futures = [pool.submit(made.append, i) for i in range(100)]
        for future in futures:
            future.result(10)
    assert made == list(range(100))


def test_what_a_call_submits_is_stolen_by_idle_threads_oldest_first() -> None:
    begun, go = threading.Event(), threading.Event()
    who: dict[int, str] = {}

    def child(number: int) -> None:
        who[number] = threading.current_thread().name

    with ThreadPool(2) as pool:

        def parent() -> None:
            for number in range(50):
                pool.submit(child, number)
            begun.set()
            go.wait(10)

        whole = pool.submit(parent)
        begun.wait(10)
        while len(who) < 50:  # the parent's own thread is held, so only the other one can have made them
            pool.submit(lambda: None).result(10)
        go.set()
        whole.result(10)
        statistics = pool.statistics()
    assert len(set(who.values())) == 1
    assert statistics.stolen == 50
    assert list(who) == list(range(50))


def test_errors_and_answers_find_their_caller() -> None:
    with ThreadPool(3) as pool:
        good: Future[int] = pool.submit(divmod(7, 2).__getitem__, 1)
        bad = pool.submit(int, "x")
        assert good.result(10) == 1
        with pytest.raises(ValueError, match="invalid literal"):
            bad.result(10)
        statistics = pool.statistics()
    assert (statistics.done, statistics.failed, statistics.queued) == (1, 1, 0)


class Argument:
    """Something that can be told to have gone."""


@pytest.mark.parametrize("fails", [False, True])
def test_an_idle_pool_keeps_neither_arguments_nor_answers(fails: bool) -> None:
    def call(argument: Argument) -> Argument:
        if fails:
            raise ValueError
        return argument

    gone = threading.Event()
    gc.disable()  # what only a collection frees stays for who knows how long
    try:
        with ThreadPool(1) as pool:
            argument = Argument()
            weakref.finalize(argument, gone.set)
            pool.submit(call, argument).exception(10)
            del argument
            assert gone.wait(10)
    finally:
        gc.enable()


def test_what_was_cancelled_before_it_began_never_runs() -> None:
    gate, made = threading.Event(), Counter[str]()
    with ThreadPool(1) as pool:
        held = pool.submit(gate.wait, 10)
        queued = pool.submit(made.update, ["ran"])
        assert queued.cancel()
        gate.set()
        held.result(10)
    assert not made


def test_closing_with_drain_makes_what_is_queued_and_without_cancels_it() -> None:
    for drain, expected in ((True, 20), (False, 0)):
        gate, made = threading.Event(), []
        pool = ThreadPool(1)
        running = pool.submit(gate.wait, 10)
        while pool.statistics().running == 0:
            pass
        futures = [pool.submit(made.append, i) for i in range(20)]
        pool.shut(drain=drain)
        gate.set()
        pool.close(drain=drain)
        assert running.done()
        assert len(made) == expected
        assert [future.cancelled() for future in futures] == [not drain] * 20
        with pytest.raises(PoolError, match="is closed"):
            pool.submit(made.append, 1)


def test_a_call_cannot_close_its_own_pool() -> None:
    with ThreadPool(1, name="mine") as pool, pytest.raises(PoolError, match="'mine': a call in it cannot close it"):
        pool.submit(pool.close).result(10)


def test_a_pool_of_no_threads_is_refused() -> None:
    with pytest.raises(PoolError, match="size=0"):
        ThreadPool(0)
