"""An event loop in virtual time whose every choice follows from a seed."""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import random
import re
import threading
from asyncio import base_events
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from concurrent.futures import Executor
from contextvars import Context
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any, Final, NoReturn, TypeVar, TypeVarTuple, Unpack

from sage_actor.ports import Cancellable
from sage_actor.testing.simulated_process import PROCESS, SimulatedProcess
from sage_actor.testing.simulation_errors import NotSimulated, SimulationEndless, SimulationStuck
from sage_actor.testing.simulation_schedule import Chooser, Schedule, callback_of, name_of

__all__ = ["Faults", "SimulatedClock", "SimulationLoop"]

R = TypeVar("R")
Ts = TypeVarTuple("Ts")

_EPOCH_MS: Final = 1_704_067_200_000  # 2024-01-01: where the wall clock of every simulation starts
_OFFLOAD_SECONDS: Final = 0.01  # the longest that an offloaded call takes to begin, and then to be heard of
_BURIALS: Final = 50  # how often a killed coroutine may await on its way out
_SETTLING_STEPS: Final = 10_000  # after which something that yields for ever counts as unfinished


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What goes wrong by chance in a simulated run, at instants that follow from the seed.

    Attributes:
        cancel: the chance, at every step, that one of the tasks in question is cancelled. Never the main one.
        tasks: which tasks: a regular expression that is searched for in their names.
    """

    cancel: float = 0.0
    tasks: str = ""


class _Buried(BaseException):
    """Ends the coroutines of killed processes when the run is over."""


class SimulatedClock:
    """The `Clock` of a simulation: monotonic time starts at 0, the wall clock at the first instant of 2024 (UTC)."""

    def __init__(self, loop: SimulationLoop) -> None:
        self._loop = loop
        self._ahead_ms = 0

    def monotonic(self) -> float:
        return self._loop.time()

    def now_ms(self) -> int:
        return _EPOCH_MS + self._ahead_ms + round(self._loop.time() * 1e6) // 1000

    def jump(self, milliseconds: int) -> None:
        """Somebody sets the wall clock, forwards or backwards; monotonic time and timers know nothing of it."""
        self._ahead_ms += milliseconds

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Cancellable:
        return self._loop.call_later(seconds, callback)


class SimulationLoop(base_events.BaseEventLoop):
    """An asyncio event loop for one seeded run; `Simulation` makes one, and so may a test that wants the loop alone.

    Time is virtual: it stands still while anything is ready, and then jumps to the next timer (with `busy`, each step also takes
    up to that many seconds, so that timers come due while work is waiting). The order of ready callbacks is drawn from the
    seed, see `Schedule`. Tasks without a name are called ``Task-1``, ``Task-2``, … in each loop.

    Of the outside world there is nothing: sockets, pipes, processes, signals and executors raise `NotSimulated`, and so does
    a call from another thread. `run_in_executor` with the default executor (hence `asyncio.to_thread`) and
    `sage_actor.ports.offload` run the function on the loop, at a later instant.

    Args:
        seed: decides order, chance and faults.
        max_steps: callbacks that may run before `SimulationEndless` is raised.
        busy: the most virtual seconds that one step takes.
        faults: what goes wrong.
    """

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]
    _stopping: bool
    _thread_id: int | None

    def __init__(self, seed: int, *, max_steps: int = 1_000_000, busy: float = 0.0, faults: Faults | None = None) -> None:
        super().__init__()
        self.set_debug(False)  # PYTHONASYNCIODEBUG must not change a run
        self.seed = seed
        self.max_steps = max_steps
        self.steps = 0
        self.errors: list[tuple[str, BaseException | None]] = []
        self._busy = busy
        self._faults = faults if faults is not None and faults.cancel > 0 else None
        self._chance = random.Random(seed)
        self.schedule = Schedule.drawn(seed, self._chance)
        self._chooser = Chooser(self.schedule, self._chance)
        self.sage_random = random.Random(self._chance.getrandbits(64))
        self.sage_clock = SimulatedClock(self)
        self._now = 0.0
        self._settling = False
        self._log = hashlib.blake2b(digest_size=16)
        self._logged_at = -1.0
        self._numbers: dict[int, int] = {}  # of tasks, by id; each creation writes its own, so a reused id is right again
        self._created = 0
        self._dead: dict[asyncio.Task[Any], SimulatedProcess] = {}
        self._burying = False
        self._unborn: list[Any] = []  # coroutines that were to be tasks when the run was over

    # -- time and order ---------------------------------------------------------------------------------------------------

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    @property
    def log_hash(self) -> str:
        """A hash over everything that has run so far: what, in which order, and at which virtual time."""
        return self._log.hexdigest()

    def settle(self) -> None:
        """Run what is ready, and what becomes ready by it, without letting time pass."""
        self._settling = True
        limit, self.max_steps = self.max_steps, self.steps + _SETTLING_STEPS
        try:
            self.run_forever()
        except SimulationEndless:
            pass  # what yields for ever is not finished, and will be told as such
        finally:
            self._settling = False
            self.max_steps = limit

    def begin_cleanup(self, steps: int) -> None:
        """Nothing goes wrong by chance any more, and so many more steps may be taken."""
        self._faults = None
        self.max_steps = self.steps + steps

    def _run_once(self) -> None:  # the one method of the base class that waits and chooses
        self._take_up_timers()
        ready = self._ready
        while not ready:
            if self._settling or self._stopping:
                self._stopping = True
                return
            self._jump()
        handle = self._chooser.take(ready)
        if handle.cancelled():
            return
        process: SimulatedProcess | None = handle._context.get(PROCESS)  # type: ignore[attr-defined]
        if process is not None and not process.admits(handle):
            return
        if self.steps >= self.max_steps:
            ready.appendleft(handle)
            raise SimulationEndless(self.seed, self.max_steps, self._now, self.unfinished())
        self.steps += 1
        if self._faults is not None and self._chance.random() < self._faults.cancel:
            self._strike(self._faults.tasks)
        self._note(handle)
        handle._run()
        if self._busy:
            self._now += self._chance.random() * self._busy

    def _take_up_timers(self) -> None:
        timers = self._scheduled
        while timers and (timers[0].cancelled() or timers[0].when() <= self._now):
            timer = heapq.heappop(timers)
            if not timer.cancelled():
                self._ready.append(timer)

    def _jump(self) -> None:
        """Let time pass until the next timer; none of those at the head is cancelled."""
        if not self._scheduled:
            raise SimulationStuck(self.seed, self.unfinished())
        self._now = max(self._now, self._scheduled[0].when())
        self._take_up_timers()

    def _note(self, handle: asyncio.Handle) -> None:
        if self._now != self._logged_at:
            self._logged_at = self._now
            self._log.update(b"@%r" % self._now)
        callback = callback_of(handle)
        owner: object = getattr(callback, "__self__", None)
        number = self._numbers.get(id(owner), 0) if _is_task(owner) else 0
        self._log.update(b"#%d" % number if number else b";" + name_of(callback).encode())

    # -- tasks ------------------------------------------------------------------------------------------------------------

    def create_task(  # later Pythons have more arguments, and hand them on
        self, coro: Generator[Any, None, R] | Coroutine[Any, Any, R], *, name: object = None, context: Context | None = None, **more: Any
    ) -> asyncio.Task[R]:
        """As in any loop. The task is known by its number in the log, and in name if it is given none."""
        self._created += 1
        number = self._created
        if name is None:
            name = f"Task-{number}"
        task = super().create_task(coro, name=name, context=context, **more)
        self._numbers[id(task)] = number
        if self._burying:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            self._unborn.append(task.get_coro())
            return task
        process: SimulatedProcess | None = PROCESS.get() if context is None else context.get(PROCESS)
        if process is not None:
            process.tasks.add(task)
            if not process.alive:  # the callback in which it was killed runs on to its end
                self._mourn(process, task)
        return task

    def unfinished_tasks(self) -> list[asyncio.Task[Any]]:
        """The tasks that are not done, oldest first; those of crashed processes will never be, and do not count."""
        return sorted(asyncio.all_tasks(self) - self._dead.keys(), key=lambda task: self._numbers.get(id(task), 0))

    # -- processes --------------------------------------------------------------------------------------------------------

    def kill(self, process: SimulatedProcess) -> None:
        """A simulated process is no more: nothing of it runs from now on, not even the rest of a ``finally``."""
        if process.alive:
            process.alive = False
            for task in process.tasks:
                if not task.done():
                    self._mourn(process, task)
            process.parked.clear()  # not before: what is parked may be all that still holds a task

    def _mourn(self, process: SimulatedProcess, task: asyncio.Task[Any]) -> None:
        """Keep a task that will never go on: a coroutine that is dropped would still run its ``finally``."""
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        self._dead[task] = process

    def resume(self, process: SimulatedProcess) -> None:
        """A stalled process goes on where it stood."""
        process.stalled = False
        self._ready.extend(process.parked)
        process.parked.clear()

    def bury(self) -> None:
        """The run is over: let go of what killed processes held. What their ``finally`` blocks do now concerns nobody."""
        self._burying = True
        asyncio._set_running_loop(self)  # else what they begin now would find, or make, another one
        try:
            for task, process in self._dead.items():
                coroutine: Any = task.get_coro()
                for _ in range(_BURIALS):
                    try:
                        # Thrown, not closed: closing leaves an asynchronous generator that is being awaited neither open nor closed.
                        process.context.copy().run(coroutine.throw, _Buried())
                    except BaseException:  # noqa: BLE001 - what comes out of the user's coroutine at last concerns nobody
                        break
        finally:
            asyncio._set_running_loop(None)
        for unborn in self._unborn:
            unborn.close()
        self._unborn.clear()
        self._dead.clear()
        self._ready.clear()
        self._scheduled.clear()

    def _asyncgen_finalizer_hook(self, agen: AsyncGenerator[Any, Any]) -> None:
        """As in any loop; those of killed processes are not even closed."""
        if not self._burying:
            super()._asyncgen_finalizer_hook(agen)  # type: ignore[misc]

    def unfinished(self) -> list[str]:
        """The same in words: name and where each waits, outermost call first."""
        return [_described(task) for task in self.unfinished_tasks()]

    def _strike(self, pattern: str) -> None:
        candidates = [
            task for task in self.unfinished_tasks() if self._numbers.get(id(task), 0) > 1 and re.search(pattern, task.get_name())
        ]
        if candidates:
            self._chance.choice(candidates).cancel("a fault of the simulation")

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Collects in `errors` what other loops only write to the log."""
        if self._burying:
            return
        exception = context.get("exception")
        message = str(context.get("message", "error"))
        source = context.get("task") or context.get("future") or context.get("handle")
        where = f" ({source.get_name()})" if isinstance(source, asyncio.Task) else ""
        self.errors.append((f"{message}{where}: {exception!r}" if exception is not None else f"{message}{where}", exception))

    # -- the outside world ------------------------------------------------------------------------------------------------

    async def sage_offload(self, function: Callable[[], R], /) -> R:
        """Run a blocking function on the loop, at a later instant, and hear of it at another one.

        Cancelling the wait abandons the call: it still happens, as in a thread, and its result is dropped.
        """
        heard: asyncio.Future[Callable[[], R]] = self.create_future()

        def call() -> None:
            outcome = _outcome_of(function)
            self.call_later(self._chance.random() * _OFFLOAD_SECONDS, hear, outcome)

        def hear(outcome: Callable[[], R]) -> None:
            if not heard.done():
                heard.set_result(outcome)

        self.call_later(self._chance.random() * _OFFLOAD_SECONDS, call)
        return (await heard)()

    def run_in_executor(self, executor: Executor | None, func: Callable[[Unpack[Ts]], R], *args: *Ts) -> asyncio.Future[R]:
        """Run a function on the loop, at a later instant, in place of the default executor.

        Raises:
            NotSimulated: an executor was given.
        """
        if executor is not None:
            raise NotSimulated("run_in_executor with an executor of its own")
        return self.create_task(self.sage_offload(lambda: func(*args)))

    def call_soon_threadsafe(self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None) -> asyncio.Handle:
        """`call_soon`, on the loop's own thread.

        Raises:
            NotSimulated: another thread called; the run will fail as well, since that thread's instant cannot be decided.
        """
        if self._thread_id not in {None, threading.get_ident()}:
            refused = NotSimulated(f"call_soon_threadsafe from thread {threading.current_thread().name!r}")
            self.errors.append((str(refused), refused))
            raise refused
        return self.call_soon(callback, *args, context=context)


_OUTSIDE: Final = (
    *("add_reader", "remove_reader", "add_writer", "remove_writer", "add_signal_handler", "remove_signal_handler"),
    *("getaddrinfo", "getnameinfo", "create_connection", "create_server", "create_unix_connection", "create_unix_server"),
    *("create_datagram_endpoint", "connect_accepted_socket", "connect_read_pipe", "connect_write_pipe", "start_tls", "sendfile"),
    *("sock_recv", "sock_recv_into", "sock_recvfrom", "sock_recvfrom_into", "sock_sendall", "sock_sendto", "sock_connect"),
    *("sock_accept", "sock_sendfile", "subprocess_exec", "subprocess_shell", "set_default_executor"),
)


def _refusing(operation: str) -> Callable[..., NoReturn]:
    def refuse(*_arguments: object, **_options: object) -> NoReturn:
        raise NotSimulated(f"loop.{operation}")

    return refuse


for _operation in _OUTSIDE:
    setattr(SimulationLoop, _operation, _refusing(_operation))


def _is_task(owner: object) -> bool:
    return isinstance(owner, asyncio.Task)


def _outcome_of(function: Callable[[], R]) -> Callable[[], R]:
    """Call it now; what comes back gives its result or raises its error, whenever it is called."""
    try:
        result = function()
    except Exception as error:  # noqa: BLE001 - the offloaded function is the user's; its caller gets the error
        failure = error

        def fail() -> R:
            raise failure

        return fail
    return lambda: result


def _described(task: asyncio.Task[Any]) -> str:
    """A task in words: its name and where it waits, outermost call first."""
    places: list[str] = []
    awaited: object = task.get_coro()
    while awaited is not None:
        code, frame = _code_and_frame(awaited)
        if code is not None:
            line = frame.f_lineno if frame is not None else code.co_firstlineno
            places.append(f"{code.co_name} ({code.co_filename.rpartition('/')[2]}:{line})")
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
    return f"{task.get_name()}: " + (" > ".join(places) or repr(task.get_coro()))


def _code_and_frame(awaited: object) -> tuple[CodeType | None, FrameType | None]:
    code: object = getattr(awaited, "cr_code", None) or getattr(awaited, "gi_code", None)
    frame: object = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
    return (code if isinstance(code, CodeType) else None), (frame if isinstance(frame, FrameType) else None)
