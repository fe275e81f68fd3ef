"""The simulation: schedules that follow from a seed, virtual time, and what it reports when a program goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import itertools
import pickle
import random
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable

import pytest

from sage_actor.ports import current_clock, current_random, offload, system_clock, system_random
from sage_actor.testing import Faults, Simulation, SimulationFailed, SimulationStuck
from sage_actor.testing.simulation import NotSimulated, SimulationDiverged, SimulationEndless, TasksLeft, UnhandledErrors

SEEDS = range(200)


class Account:
    """With the classic mistake: it reads, waits, and writes what it computed from what it had read."""

    def __init__(self) -> None:
        self.balance = 0

    async def deposit(self, amount: int) -> None:
        before = self.balance
        await asyncio.sleep(0)
        self.balance = before + amount


async def two_deposits() -> int:
    """In asyncio's own order the second deposit always begins after the first has ended."""
    account = Account()

    async def second() -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        await account.deposit(1)

    async with asyncio.TaskGroup() as group:
        group.create_task(account.deposit(1))
        group.create_task(second())
    return account.balance


async def busy_town() -> list[tuple[int, float]]:
    """A bit of everything whose order the seed decides; returns who came when."""
    clock, chance = current_clock(), current_random()
    queue: asyncio.Queue[int] = asyncio.Queue(2)
    seen: list[tuple[int, float]] = []

    async def produce(number: int) -> None:
        for _ in range(3):
            await clock.sleep(chance.choice((0.0, 0.5, 1.0)))
            await queue.put(number)

    async def consume() -> None:
        while True:
            number = await queue.get()
            seen.append((await offload(functools.partial(int, number)), clock.monotonic()))
            queue.task_done()

    async with asyncio.TaskGroup() as group:
        consumers = [group.create_task(consume()) for _ in range(2)]
        async with asyncio.TaskGroup() as producers:
            for number in range(4):
                producers.create_task(produce(number))
        await queue.join()
        for consumer in consumers:
            consumer.cancel()
    return seen


# -- order --------------------------------------------------------------------------------------------------------------------


def test_a_race_that_asyncio_never_shows_is_found() -> None:
    assert asyncio.run(two_deposits()) == 2
    assert Simulation(0).run(two_deposits) == 2, "seed 0 keeps to asyncio's own order"
    lost = [seed for seed in SEEDS if Simulation(seed).run(two_deposits) == 1]
    assert lost
    assert all(Simulation(seed).run(two_deposits) == 1 for seed in lost[:5]), "a failing seed fails again"


def test_a_task_may_be_left_far_behind() -> None:
    """One step of the late task against twelve of the other: a coin for each step would need four thousand seeds."""

    async def late() -> bool:
        steps = 0

        async def run_on() -> None:
            nonlocal steps
            while steps < 12:
                steps += 1
                await asyncio.sleep(0)

        async def look() -> int:
            await asyncio.sleep(0)
            return steps

        running, looking = asyncio.create_task(run_on()), asyncio.create_task(look())
        await asyncio.gather(running, looking)
        return looking.result() == 12

    assert any(Simulation(seed).run(late) for seed in SEEDS)


def test_every_order_of_a_few_tasks_comes_up() -> None:
    async def main() -> str:
        order = ""

        async def arrive(name: str) -> None:
            nonlocal order
            order += name

        async with asyncio.TaskGroup() as group:
            for name in "abcd":
                group.create_task(arrive(name))
        return order

    assert Simulation(0).run(main) == "abcd"
    assert {Simulation(seed).run(main) for seed in SEEDS} == {"".join(order) for order in itertools.permutations("abcd")}


def test_one_seed_is_one_run_and_other_seeds_are_others() -> None:
    hashes: list[str] = []
    for seed in SEEDS:
        first, second = Simulation(seed), Simulation(seed)
        assert first.run(busy_town) == second.run(busy_town)
        assert (first.log_hash, first.steps, first.virtual_seconds) == (second.log_hash, second.steps, second.virtual_seconds)
        hashes.append(first.log_hash)
    assert len(set(hashes)) > 150


def test_a_simulation_runs_again_alike() -> None:
    simulation = Simulation(7)
    assert (simulation.log_hash, simulation.steps) == ("", 0)
    results = [(simulation.run(busy_town), simulation.log_hash, simulation.steps) for _ in range(2)]
    assert results[0] == results[1]


def test_the_log_is_the_same_in_another_process_with_another_hash_seed() -> None:
    program = (
        "import asyncio; from sage_actor.testing import Simulation\n"
        "async def child(n):\n    await asyncio.sleep(n / 2)\n"
        "async def main():\n    await asyncio.gather(*(child(n) for n in range(9)))\n"
        "s = Simulation(5); s.run(main); print(s.log_hash)"
    )
    runs = [
        subprocess.run([sys.executable, "-c", program], env={"PYTHONHASHSEED": str(n), **debug}, capture_output=True, text=True, check=True)
        for n, debug in ((1, {}), (2, {"PYTHONASYNCIODEBUG": "1"}))
    ]
    assert runs[0].stdout == runs[1].stdout
    assert len(runs[0].stdout.strip()) == 32


@pytest.mark.parametrize("seed", range(0, 200, 7))
def test_callbacks_of_one_owner_keep_their_order(seed: int) -> None:
    """Callbacks of one future, methods of one object, plain functions: as asyncio promises it."""

    async def main() -> None:
        loop, future = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
        lists: dict[str, list[int]] = {"future": [], "method": [], "function": []}
        for number in range(8):
            future.add_done_callback(lambda _, number=number: lists["future"].append(number))
        future.set_result(None)
        for number in range(8):
            loop.call_soon(lists["method"].append, number)
            loop.call_soon(lambda number=number: lists["function"].append(number))
        await asyncio.sleep(1000)
        assert lists == {kind: list(range(8)) for kind in lists}

    Simulation(seed).run(main)


# -- time ---------------------------------------------------------------------------------------------------------------------


def test_virtual_hours_pass_in_milliseconds() -> None:
    async def a_day() -> None:
        for _ in range(24):
            await asyncio.sleep(3600)

    simulation, begun = Simulation(3), time.perf_counter()
    simulation.run(a_day)
    assert simulation.virtual_seconds == 24 * 3600
    assert time.perf_counter() - begun < 5  # a day would be noticed


def test_clocks_and_chance_of_the_simulation_are_found_through_the_ports() -> None:
    async def main() -> tuple[float, int, float, float, float]:
        clock = current_clock()
        at_first = clock.now_ms()
        called = asyncio.Event()
        clock.call_later(1.001, called.set)
        clock.call_later(1.0, lambda: pytest.fail("called off")).cancel()
        await called.wait()
        return clock.monotonic(), clock.now_ms() - at_first, current_random().random(), system_random.random(), random.random()

    assert Simulation(4).run(main) == Simulation(4).run(main)
    assert Simulation(4).run(main)[:2] == (1.001, 1001)
    assert Simulation(4).run(main)[2:] != Simulation(5).run(main)[2:]
    assert current_clock() is system_clock
    assert current_random() is system_random


def test_chance_outside_goes_on_as_if_nothing_had_happened() -> None:
    random.seed(1)
    expected = random.random()
    random.seed(1)
    Simulation(3).run(busy_town)
    assert random.random() == expected


def test_with_busy_steps_timers_come_due_while_work_is_ready() -> None:
    async def main() -> bool:
        try:
            async with asyncio.timeout(0.05):
                for _ in range(20):
                    await asyncio.sleep(0)
        except TimeoutError:
            return True
        return False

    assert not any(Simulation(seed).run(main) for seed in range(20))
    assert all(Simulation(seed, busy=1.0).run(main) for seed in range(20))


# -- asyncio's own things -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(0, 60, 3))
def test_the_primitives_of_asyncio_work(seed: int) -> None:
    async def numbers() -> AsyncIterator[int]:
        for number in range(3):
            await asyncio.sleep(0)
            yield number

    async def main() -> None:
        loop = asyncio.get_running_loop()
        lock, event, limit, condition = asyncio.Lock(), asyncio.Event(), asyncio.Semaphore(2), asyncio.Condition()
        inside = most = 0

        async def in_turn(number: int) -> int:
            nonlocal inside, most
            await event.wait()
            async with limit:
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(10)
                inside -= 1
            async with lock, condition:
                condition.notify_all()
            return number

        working = asyncio.gather(*(in_turn(number) for number in range(5)))
        event.set()
        async with condition:
            await condition.wait()
        assert await working == [0, 1, 2, 3, 4]
        assert most == 2
        assert loop.time() == 30.0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                await asyncio.Event().wait()
        assert loop.time() == 90.0
        assert [number async for number in numbers()] == [0, 1, 2]
        with contextlib.suppress(asyncio.CancelledError):
            shielded = asyncio.shield(asyncio.sleep(3600))
            await asyncio.sleep(0)
            shielded.cancel()
            await shielded
        await asyncio.sleep(3600)
        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(3600))
                group.create_task(_fail())

    Simulation(seed).run(main)


async def _fail() -> None:
    raise ValueError("on purpose")


def test_tasks_without_a_name_are_numbered_from_one_in_each_run() -> None:
    async def main() -> list[str]:
        tasks = [asyncio.create_task(asyncio.sleep(0)) for _ in range(2)]
        await asyncio.gather(*tasks)
        return [task.get_name() for task in tasks]

    assert Simulation(1).run(main) == Simulation(1).run(main) == ["Task-2", "Task-3"]


# -- off-loop work ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run_off_loop", [offload, asyncio.to_thread], ids=["offload", "to_thread"])
def test_blocking_work_runs_on_the_loop_at_a_later_instant(run_off_loop: Callable[..., object]) -> None:
    async def main() -> None:
        me, clock, begun = threading.current_thread(), current_clock(), current_clock().monotonic()
        assert await run_off_loop(threading.current_thread) is me  # type: ignore[misc]
        assert clock.monotonic() > begun
        with pytest.raises(ZeroDivisionError):
            await run_off_loop(lambda: 1 // 0)  # type: ignore[misc]

    for seed in range(20):
        Simulation(seed).run(main)


def test_abandoned_work_happens_nevertheless() -> None:
    async def main() -> None:
        done: list[int] = []
        waiting = asyncio.create_task(offload(lambda: done.append(1)))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.sleep(1000)
        assert waiting.cancelled()
        assert done == [1]

    Simulation(1).run(main)


# -- the outside world --------------------------------------------------------------------------------------------------------


async def _connect() -> None:
    await asyncio.open_connection("localhost", 80)


async def _serve() -> None:
    await asyncio.start_server(lambda *_: None, "localhost", 0)


async def _start_process() -> None:
    await asyncio.create_subprocess_exec("true")


async def _watch_a_file() -> None:
    asyncio.get_running_loop().add_reader(0, print)


async def _use_an_executor() -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor() as executor:
        await asyncio.get_running_loop().run_in_executor(executor, print)


@pytest.mark.parametrize("reach_out", [_connect, _serve, _start_process, _watch_a_file, _use_an_executor])
def test_the_outside_world_is_refused(reach_out: Callable[[], object]) -> None:
    with pytest.raises(NotSimulated, match="a simulation has no sockets"):
        Simulation(1).run(reach_out)  # type: ignore[arg-type]


def test_a_call_from_another_thread_fails_there_and_fails_the_run() -> None:
    async def main() -> None:
        loop, seen = asyncio.get_running_loop(), list[BaseException]()

        def call() -> None:
            try:
                loop.call_soon_threadsafe(print)
            except NotImplementedError as error:
                seen.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        assert isinstance(seen[0], NotSimulated)
        loop.call_soon_threadsafe(lambda: None)  # from its own thread it is a call_soon

    with pytest.raises(UnhandledErrors, match="from thread"):
        Simulation(1).run(main)


# -- what goes wrong ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_a_deadlock_is_told_with_who_waits_where(seed: int) -> None:
    async def take_both(first: asyncio.Lock, second: asyncio.Lock) -> None:
        async with first:
            await asyncio.sleep(1000)
            async with second:
                pass

    async def main() -> None:
        left, right = asyncio.Lock(), asyncio.Lock()
        async with asyncio.TaskGroup() as group:
            group.create_task(take_both(left, right), name="left-handed")
            group.create_task(take_both(right, left), name="right-handed")

    with pytest.raises(SimulationStuck) as caught:
        Simulation(seed).run(main)
    told = str(caught.value)
    assert f"seed {seed}" in told
    assert [line.partition(":")[0] for line in caught.value.waiting] == ["main", "left-handed", "right-handed"]
    assert all("take_both (test_simulation.py:" in line and "acquire (locks.py:" in line for line in caught.value.waiting[1:])


def test_what_has_no_end_is_stopped() -> None:
    async def main() -> None:
        while True:  # noqa: ASYNC110 - this is what is tested
            await asyncio.sleep(60)

    simulation = Simulation(2, max_steps=1000)
    with pytest.raises(SimulationEndless, match=r"1,000 steps.*raise max_steps(.|\n)*main: main \(test_simulation"):
        simulation.run(main)
    assert simulation.steps == 1000


def test_what_main_raises_comes_out_with_the_seed() -> None:
    with pytest.raises(ValueError, match="on purpose") as caught:
        Simulation(12).run(_fail)
    assert caught.value.__notes__ == ["in the simulation of seed 12"]


def test_tasks_left_behind_fail_the_run_or_are_cancelled() -> None:
    ended: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    async def main() -> int:
        asyncio.create_task(wait(), name="forgotten")  # noqa: RUF006 - this is what is tested
        return 1

    with pytest.raises(TasksLeft, match=r"main returned and left tasks behind(.|\n)*forgotten: wait") as caught:
        Simulation(1).run(main)
    assert len(caught.value.tasks) == 1
    assert caught.value.stubborn == ()
    assert Simulation(1, leftovers="cancel").run(main) == 1
    assert ended == ["cancelled", "cancelled"]


def test_tasks_that_end_by_themselves_at_once_are_not_left_behind() -> None:
    async def short() -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    async def main() -> None:
        asyncio.create_task(short())  # noqa: RUF006 - this is what is tested

    for seed in range(20):
        Simulation(seed).run(main)


@pytest.mark.parametrize("leftovers", ["fail", "cancel"])
def test_a_task_that_cannot_be_cancelled_is_told_in_any_case(leftovers: str) -> None:
    async def stubborn() -> None:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    async def main() -> None:
        asyncio.create_task(stubborn())  # noqa: RUF006 - this is what is tested

    with pytest.raises(TasksLeft, match="did not end when cancelled"):
        Simulation(1, leftovers=leftovers).run(main)  # type: ignore[arg-type]


def test_errors_that_nobody_handles_fail_the_run() -> None:
    async def failing_callback() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 // 0)
        await asyncio.sleep(1000)

    async def failing_task() -> None:
        asyncio.create_task(_fail(), name="unwatched")  # noqa: RUF006 - this is what is tested
        await asyncio.sleep(1000)

    with pytest.raises(UnhandledErrors, match="ZeroDivisionError") as caught:
        Simulation(1).run(failing_callback)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    with pytest.raises(UnhandledErrors, match=r"never retrieved \(unwatched\).*on purpose"):
        Simulation(1).run(failing_task)


def test_a_handler_of_its_own_takes_the_errors() -> None:
    async def main() -> list[object]:
        loop, told = asyncio.get_running_loop(), list[object]()
        loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
        loop.call_soon(lambda: 1 // 0)
        await asyncio.sleep(1000)
        return told

    assert isinstance(Simulation(1).run(main)[0], ZeroDivisionError)


def test_what_a_run_has_made_is_collected_after_it_and_not_during_it() -> None:
    class Circle:
        def __init__(self) -> None:
            self.itself = self

    async def main() -> weakref.ref[Circle]:
        reference = weakref.ref(Circle())
        assert not gc.isenabled()
        assert reference() is not None
        return reference

    assert Simulation(1).run(main)() is None
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_faults_cancel_tasks_by_name_and_never_main() -> None:
    async def work() -> str:
        for _ in range(20):
            await asyncio.sleep(0)
        return "done"

    async def main() -> tuple[bool, bool]:
        doomed, safe = asyncio.create_task(work(), name="worker-1"), asyncio.create_task(work(), name="other")
        await asyncio.wait((doomed, safe))
        return doomed.cancelled(), safe.cancelled()

    faults = Faults(cancel=0.05, tasks="^worker-")
    outcomes = [Simulation(seed, faults=faults).run(main) for seed in SEEDS]
    assert {safe for _, safe in outcomes} == {False}
    assert 20 < sum(doomed for doomed, _ in outcomes) < 200
    assert outcomes == [Simulation(seed, faults=faults).run(main) for seed in SEEDS]


@pytest.mark.parametrize(
    "error",
    [
        SimulationStuck(1, ["main: here"]),
        SimulationEndless(1, 10, 2.5, ["main: here"]),
        TasksLeft(1, ["a: here"], ["b: there"]),
        UnhandledErrors(1, ["message"]),
        SimulationDiverged(1, ("a", 1), ("b", 2)),
        NotSimulated("loop.add_reader"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_errors_survive_pickling(error: SimulationFailed | NotSimulated) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))
