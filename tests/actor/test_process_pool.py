"""Methods that run in worker processes: what travels there and back, and what becomes of workers that die or are given up."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import sage_actor as sage
from sage_actor.actor.process_pool import ProcessPool
from sage_actor.errors import SerializationError
from sage_actor.testing import Simulation

# This module is not importable in a worker. What stands inside of a function travels by value; so everything here does.


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except FileNotFoundError:
        return False


async def begun(path: Path) -> int:
    """The process id that a function in a worker has written down."""
    async with asyncio.timeout(30):
        while not path.exists():  # noqa: ASYNC110 - it comes from another process
            await asyncio.sleep(0)
    return int(path.read_text())


def cases() -> dict[str, Callable[..., Any]]:
    """Functions as a class would hold them; the first argument is the placeholder for the actor."""

    class Rebuilt(Exception):
        """Survives pickling, with its fields."""

    class Lost(Exception):
        def __init__(self, first: str, second: str) -> None:
            super().__init__(first + second)

    class Spoiled:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
            return spoil, (os.getpid(),)

    def spoil(pid: int) -> object:
        if os.getpid() != pid:
            raise ValueError("spoiled on the way")
        return Spoiled()

    class Token:
        """Counts how often it has been unpickled in one process."""

        loads = 0

        def __setstate__(self, state: object) -> None:
            type(self).loads += 1

        def __getstate__(self) -> object:
            return 1

    token = Token()

    def add(self: object, first: int, *, second: int = 1) -> int:
        return first + second

    def pid(self: object) -> int:
        return os.getpid()

    def loads(self: object) -> int:
        return token.loads

    def rebuilt(self: object) -> None:
        try:
            raise KeyError("below")
        except KeyError as cause:
            raise Rebuilt("as itself", 5) from cause

    def lost(self: object) -> None:
        raise Lost("as", "text")

    def leave(self: object) -> None:
        sys.exit(3)

    def unpicklable(self: object) -> object:
        return threading.Lock()

    def spoiled(self: object) -> object:
        return Spoiled()

    def run_loop(self: object) -> str:
        async def answer() -> str:
            return "from a loop of its own"

        return asyncio.run(answer())

    def die(self: object, code: int) -> None:
        sys.stderr.write("famous last words\n")
        os._exit(code)

    def killed(self: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def crash(self: object) -> None:
        ctypes.string_at(0)

    def wait_for(self: object, own: str, others: list[str]) -> int:
        """Write one's number down and wait until the others have done so."""
        Path(own).with_suffix(".part").write_text(str(os.getpid()))
        Path(own).with_suffix(".part").rename(own)
        while not all(Path(other).exists() for other in others):
            threading.Event().wait(0.005)
        return os.getpid()

    def read(self: Any) -> object:
        return self.total

    def write(self: Any) -> None:
        self.total = 5

    def delete(self: Any) -> None:
        del self.total

    def call(self: Any) -> object:
        return self.add(1)

    def show(self: object) -> str:
        return repr(self)

    return {name: value for name, value in locals().items() if callable(value)}


CASES = cases()


class Caller:
    """A pool whose functions are called by name."""

    def __init__(self, size: int | None) -> None:
        self.pool = ProcessPool("pool-of-a-test", size)

    async def __call__(self, name: str, *arguments: object, **options: object) -> Any:
        async with asyncio.timeout(30):
            return await self.pool.run(CASES[name], arguments, options)


@pytest_asyncio.fixture
async def one() -> AsyncIterator[Caller]:
    caller = Caller(1)
    yield caller
    await caller.pool.aclose()


# -- there and back --


@pytest.mark.asyncio
async def test_one_worker_makes_call_after_call(one: Caller) -> None:
    assert await one("add", 1) == 2
    assert await one("add", 1, second=4) == 5
    pid = await one("pid")
    assert pid != os.getpid()
    assert [await one("pid") for _ in range(3)] == [pid] * 3
    assert [await one("loads") for _ in range(3)] == [1] * 3, "the function is loaded once"
    assert await one("run_loop") == "from a loop of its own"
    assert await asyncio.gather(*(one("add", n) for n in range(5))) == [1, 2, 3, 4, 5]
    assert "1 of 1 workers, 0 busy" in repr(one.pool)


@pytest.mark.asyncio
async def test_what_a_function_raises_comes_back_as_itself(one: Caller) -> None:
    with pytest.raises(CASES["Rebuilt"]) as caught:  # type: ignore[call-overload]
        await one("rebuilt")
    assert caught.value.args == ("as itself", 5)
    assert repr(caught.value.__cause__) == "KeyError('below')"
    assert "in the worker process" in caught.value.__notes__[0]
    assert "in rebuilt" in caught.value.__notes__[0]


@pytest.mark.asyncio
async def test_what_cannot_travel_comes_back_as_text(one: Caller) -> None:
    with pytest.raises(sage.ActorError, match=r"method 'lost': Lost: astext(?s:.*)worker process(?s:.*)in lost"):
        await one("lost")
    with pytest.raises(sage.ActorError, match=r"method 'leave': SystemExit: 3"):
        await one("leave")
    with pytest.raises(sage.ActorError, match=r"its result \(lock\) cannot travel back"):
        await one("unpicklable")
    with pytest.raises(sage.ActorError, match="its result cannot be unpickled in its owner: ValueError: spoiled on the way"):
        await one("spoiled")
    with pytest.raises(SerializationError, match=r"argument 2 of 'add' \(lock\)"):
        await one("add", 1, threading.Lock())
    with pytest.raises(SerializationError, match=r"argument 'second' of 'add' \(lock\)"):
        await one("add", 1, second=threading.Lock())
    lock = threading.Lock()
    with pytest.raises(SerializationError, match="method 'locked'"):

        def locked(self: object) -> bool:
            return lock.locked()

        await one.pool.run(locked, (), {})
    assert await one("add", 1) == 2, "and the worker goes on"


@pytest.mark.parametrize("name", ["read", "write", "delete", "call"])
def test_the_actors_state_is_not_there(name: str) -> None:
    """In a simulation, where it is no different; see also `test_an_actor_whose_methods_run_elsewhere`."""

    async def main() -> None:
        pool = ProcessPool("pool-of-a-test", 1)
        with pytest.raises(sage.ActorError, match=r"^self\.(total|add): method .* pass the values that it needs as arguments"):
            await pool.run(CASES[name], (), {})
        assert await pool.run(CASES["show"], (), {}) == "<an actor in another process>"

    Simulation(3).run(main)


# -- many, and none --


@pytest.mark.asyncio
async def test_as_many_at_a_time_as_there_are_workers(tmp_path: Path) -> None:
    caller = Caller(2)
    own = [str(tmp_path / f"{number}") for number in range(2)]
    pids = await asyncio.gather(caller("wait_for", own[0], own), caller("wait_for", own[1], own))
    assert len(set(pids)) == 2
    release = tmp_path / "release"
    held = [asyncio.ensure_future(caller("wait_for", str(tmp_path / name), [str(release)])) for name in "ab"]
    for name in "ab":
        await begun(tmp_path / name)
    third = asyncio.ensure_future(caller("pid"))
    await asyncio.sleep(0)
    assert "2 of 2 workers, 2 busy" in repr(caller.pool)
    release.touch()
    assert set(await asyncio.gather(*held)) == set(pids)
    assert await third in pids
    await caller.pool.aclose()
    assert not any(lives(pid) for pid in pids)


def test_the_default_size_is_that_of_the_machine() -> None:
    assert ProcessPool("pool-of-a-test").size == os.cpu_count()
    with pytest.raises(sage.ActorError, match="at least 1"):
        ProcessPool("pool-of-a-test", 0)


# -- workers that die --


@pytest.mark.asyncio
async def test_a_worker_that_dies_fails_its_call_and_is_replaced(one: Caller) -> None:
    before = await one("pid")
    with pytest.raises(sage.WorkerLost) as caught:
        await one("die", 3)
    assert (caught.value.worker, caught.value.pid, caught.value.exit_code) == (1, before, 3)
    assert caught.value.last_words == "famous last words\n"
    with pytest.raises(sage.WorkerLost) as caught:
        await one("killed")
    assert (caught.value.worker, caught.value.exit_code) == (2, -signal.SIGKILL)
    with pytest.raises(sage.WorkerLost, match="Segmentation fault") as caught:
        await one("crash")
    assert caught.value.exit_code == -signal.SIGSEGV
    assert await one("add", 1) == 2


@pytest.mark.asyncio
async def test_a_worker_that_died_between_two_calls_is_replaced(one: Caller) -> None:
    before = await one("pid")
    os.kill(before, signal.SIGKILL)
    async with asyncio.timeout(30):
        while lives(before):  # noqa: ASYNC110 - the news is the kernel's
            await asyncio.sleep(0)
    with contextlib.suppress(sage.WorkerLost):  # this call may be quicker than the news
        await one("pid")
    assert await one("pid") != before


@pytest.mark.asyncio
async def test_cancelling_a_call_kills_its_worker(one: Caller, tmp_path: Path) -> None:
    call = asyncio.ensure_future(one("wait_for", str(tmp_path / "own"), [str(tmp_path / "never")]))
    pid = await begun(tmp_path / "own")
    waiting, given_up = asyncio.ensure_future(one("pid")), asyncio.ensure_future(one("pid"))
    await asyncio.sleep(0)
    given_up.cancel()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert not lives(pid), "when it is cancelled it does not run any more"
    assert await waiting not in {pid, os.getpid()}
    with pytest.raises(asyncio.CancelledError):
        await given_up


@pytest.mark.asyncio
async def test_cancelling_a_call_whose_worker_starts(one: Caller) -> None:
    call = asyncio.ensure_future(one("pid"))
    for _ in range(5):
        await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert "0 of 1 workers" in repr(one.pool)
    assert await one("add", 1) == 2


# -- the end --


@pytest.mark.asyncio
async def test_closing_breaks_calls_off(tmp_path: Path) -> None:
    caller = Caller(2)
    idle = await caller("pid")
    calls = [asyncio.ensure_future(caller("wait_for", str(tmp_path / name), [str(tmp_path / "never")])) for name in "ab"]
    pids = [await begun(tmp_path / name) for name in "ab"]
    waiting = asyncio.ensure_future(caller("pid"))
    await asyncio.sleep(0)
    assert idle in pids
    await asyncio.gather(caller.pool.aclose(), caller.pool.aclose())
    assert not any(lives(pid) for pid in pids)
    for call in calls:
        with pytest.raises(sage.ActorError, match="closed while this call was under way"):
            await call
    for late in (waiting, asyncio.ensure_future(caller("pid"))):
        with pytest.raises(sage.ActorError, match="is closed"):
            await late
    await caller.pool.aclose()


@pytest.mark.asyncio
async def test_closing_while_a_worker_starts() -> None:
    caller = Caller(1)
    call = asyncio.ensure_future(caller("pid"))
    for _ in range(5):
        await asyncio.sleep(0)
    await caller.pool.aclose()
    with pytest.raises(sage.ActorError, match="is closed"):
        await call


# -- actors --


def worker_class() -> Any:
    class Expected(Exception):
        pass

    class Worker(sage.Actor):
        expected_errors = (Expected,)

        def __init__(self) -> None:
            self.total = 0

        @sage.blocking(pool="process")
        def square(self, number: int, *, plus: int = 0) -> int:
            return number * number + plus

        @sage.blocking(pool="process")
        def read(self) -> int:
            return self.total

        @sage.blocking(pool="process")
        def refuse(self) -> None:
            raise Expected

        @sage.blocking(pool="process")
        def confuse(self) -> int:
            return 1 + "one"  # type: ignore[operator,no-any-return]

        def refuse_here(self) -> None:
            raise Expected

        @sage.interruptible
        @sage.blocking(pool="process")
        def hold(self, own: str) -> None:
            Path(own).with_suffix(".part").write_text(str(os.getpid()))
            Path(own).with_suffix(".part").rename(own)
            threading.Event().wait()

    return Worker


async def use(cls: Any) -> None:
    async with sage.ActorSystem("pooled", restart=sage.FixedDelay(attempts=10, delay=0)) as system:
        ref = await system.spawn(cls)
        assert await ref.ask(cls.square, 3) == 9
        assert await ref.ask(cls.square, 3, plus=1) == 10
        for refuse in (cls.refuse, cls.refuse_here):
            with pytest.raises(cls.expected_errors):
                await ref.ask(refuse)
        with pytest.raises(sage.BadCall, match="square: missing a required argument: 'number'"):
            await ref.ask(cls.square)
        with pytest.raises(sage.BadCall, match="unexpected keyword argument 'minus'"):
            await ref.ask(cls.square, 1, minus=1)
        with pytest.raises(sage.BadCall, match=r"argument 1 of 'square' \(ActorRef\) cannot travel to another process: .* cannot leave"):
            await ref.ask(cls.square, ref)
        assert system.failures == 0, "a bad call does not harm the actor"
        with pytest.raises(sage.ActorFailed) as caught:
            await ref.ask(cls.read)
        assert "self.total" in str(caught.value.__cause__)
        assert await ref.ask(cls.square, 4) == 16


@pytest.mark.asyncio
async def test_an_actor_whose_methods_run_elsewhere() -> None:
    await use(worker_class())


@pytest.mark.asyncio
async def test_a_type_error_in_the_worker_is_no_bad_call() -> None:
    cls = worker_class()
    async with sage.ActorSystem("pooled") as system:
        ref = await system.spawn(cls, restart=sage.NoRestart())
        with pytest.raises(sage.ActorFailed) as caught:
            await ref.ask(cls.confuse)
        assert isinstance(caught.value.__cause__, TypeError)


@pytest.mark.parametrize("seed", range(5))
def test_in_a_simulation_it_is_the_same_without_a_process(seed: int) -> None:
    Simulation(seed).run(lambda: use(worker_class()))


@pytest.mark.asyncio
async def test_a_caller_that_gives_up_ends_an_interruptible_method(tmp_path: Path) -> None:
    cls = worker_class()
    async with asyncio.timeout(30), sage.ActorSystem("pooled") as system:
        ref = await system.spawn(cls)
        reply = ref.ask(cls.hold, str(tmp_path / "own"))
        pid = await begun(tmp_path / "own")
        reply.cancel()
        assert await ref.ask(cls.square, 2) == 4
        assert not lives(pid)


@pytest.mark.asyncio
async def test_killing_the_actor_ends_its_method(tmp_path: Path) -> None:
    cls = worker_class()
    async with asyncio.timeout(30), sage.ActorSystem("pooled") as system:
        ref = await system.spawn(cls)
        reply = ref.ask(cls.hold, str(tmp_path / "own"))
        pid = await begun(tmp_path / "own")
        await system.kill(ref)
        while lives(pid):  # noqa: ASYNC110 - kill waits for nobody, so the process may outlast it for a moment
            await asyncio.sleep(0)
        with pytest.raises(sage.ActorStopped):
            await reply


SCRIPT = """
import asyncio
import sage_actor as sage

print("imported as", __name__)
FACTOR = 3

class Refused(Exception):
    pass

class Triple(sage.Actor):
    expected_errors = (Refused,)

    @sage.blocking(pool="process")
    def times(self, value):
        if value < 0:
            raise Refused(value)
        return FACTOR * value

async def main():
    async with sage.ActorSystem() as system:
        ref = await system.spawn(Triple)
        print(await ref.ask(Triple.times, 2))
        try:
            await ref.ask(Triple.times, -1)
        except Refused as error:
            print("refused", error)

asyncio.run(main())
"""


def test_a_scripts_main_is_not_imported_again(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)  # no `if __name__ == "__main__"`
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout.splitlines() == ["imported as __main__", "6", "refused -1"], done.stderr
