"""ActorSystem: where actors are spawned, found, watched and stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Self, TypeVar, TypeVarTuple

from sage_actor._core.actor_cell import current_request
from sage_actor._core.actor_ref import ActorRef
from sage_actor._core.reply import Call, Reply
from sage_actor.actor.dead_letters import DeadLetters, UndeliveredMessage
from sage_actor.actor.deadlines import DeadlineWheel
from sage_actor.actor.family import Family
from sage_actor.actor.inspector import Inspector
from sage_actor.actor.instance import factory_name
from sage_actor.actor.lifecycle import Lifecycle, SpawnOptions, describe
from sage_actor.actor.mailbox import MailboxSettings
from sage_actor.actor.registry import Registry
from sage_actor.actor.remoting import Place, Remoting, Serialization, SystemWorker, open_remoting, remoting_of
from sage_actor.actor.restarting import tear_down
from sage_actor.actor.statistics import SystemStatistics, statistics_of_system
from sage_actor.actor.supervision import ExponentialDelay, FixedDelay, RestartStrategy
from sage_actor.actor.supervisor_scope import Supervision, Verdict
from sage_actor.actor.watching import Terminated
from sage_actor.durations import parse_duration
from sage_actor.errors import ActorError, ActorFailed, ActorStopped, NameTaken
from sage_actor.ports import Clock, current_clock, current_random, system_clock

if TYPE_CHECKING:
    from random import Random

    from structlog.stdlib import BoundLogger

    from sage_actor.actor.actor import Actor
    from sage_actor.actor.backend import Backend
    from sage_actor.actor.interception import Interceptor
    from sage_actor.actor.process_pool import ProcessPool
    from sage_actor.actor.sync import SyncSystem
    from sage_actor.actor.tracing import Tracer

__all__ = ["DEFAULT_MAILBOX", "DEFAULT_RESTART", "DEFAULT_SUPERVISION", "ActorSystem"]

A = TypeVar("A", bound="Actor")
R = TypeVar("R")
Ts = TypeVarTuple("Ts")

DEFAULT_RESTART = ExponentialDelay(attempts=10, delay=0.1, max_delay=30.0)
DEFAULT_SUPERVISION = Supervision()
DEFAULT_STOP_TIMEOUT = 5.0
DEFAULT_MAILBOX = MailboxSettings()


class ActorSystem:
    """A tree of actors on one event loop: ``async with ActorSystem("shop") as system: ...``.

    Leaving stops every actor, last spawned first: those that the body left in peace finish their mailboxes first; after an
    exception they only finish the message in hand. Each has `stop_timeout`. The system's tasks are plain asyncio tasks of its
    own: cancelling the body cancels none of them, and no failure of an actor cancels the body.

    Args:
        name: for messages, logs and the inspector.
        clock: where delays, deadlines and timers take time from; default: the loop's own (simulations bring one), else the
            machine's.
        restart: the strategy of actors whose `spawn` names none.
        mailbox: the settings of those whose `spawn` names none.
        supervision: how the system supervises the actors that it spawns itself.
        stop_timeout: seconds (or "10s") that an actor has to end when the system does, before it is interrupted.
        dead_letters: how many dead letters are kept.
        inline_asks: answer asks of an idle actor's plain methods at once, without a turn of the event loop.
        inspect: let ``sage monitor actors``, run under the same account, look into the system from a quarter of a second after
            its start on. Never in a simulation, nor with a clock other than the machine's.
        tracer: told of every ask, such as a `MemoryTracer`.
        backend: what workers run on ("process", "redis://host:6379/0", "ray", or a `Backend`), for `spawn(..., worker=0)`. "local"
            has none of its own: everything lives here, whatever `worker` says.
        workers: how many; default: one for each processor.
        serialization: "pickle" takes almost everything; "msgspec" only plain data, arrays, refs and what `allow` lists.
        allow: with "msgspec" the classes (structs of msgspec, dataclasses, enums, exceptions, actors) that may travel.
    """

    def __init__(
        self,
        name: str = "actors",
        *,
        clock: Clock | None = None,
        restart: RestartStrategy = DEFAULT_RESTART,
        mailbox: MailboxSettings = DEFAULT_MAILBOX,
        supervision: Supervision = DEFAULT_SUPERVISION,
        stop_timeout: float | str = 10.0,
        dead_letters: int = 1000,
        inline_asks: bool = True,
        inspect: bool = True,
        tracer: Tracer | None = None,
        backend: str | Backend | None = None,
        workers: int | None = None,
        serialization: Serialization = "pickle",
        allow: Sequence[type] = (),
    ) -> None:
        self.name = name
        self.stop_timeout = parse_duration(stop_timeout, key="stop_timeout")
        self.inline_asks = inline_asks
        self.tracer = tracer
        self.failures = 0
        self.restarts = 0
        self.spawned = 0
        self.living = 0
        self.registry = Registry()
        self.interceptor: Interceptor | None = None
        self._dead_letters = DeadLetters(dead_letters)
        self._given_clock = clock
        self.restart = restart
        self.mailbox = mailbox
        self.remoting: Remoting | None = open_remoting(self, backend, workers, serialization, allow)
        self.family = Family(self, self, supervision)
        self.base_context: Context | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False
        self._closing: asyncio.Task[None] | None = None
        self._log: BoundLogger | None = None
        self._process_pool: ProcessPool | None = None
        self._inspect = inspect
        self._inspector: Inspector | None = None
        self._sync: SyncSystem | None = None
        self.clock: Clock = system_clock
        self.random: Random
        self.cell_clock: Callable[[], float] | None = None
        self.deadlines: DeadlineWheel

    def __repr__(self) -> str:
        return f"<ActorSystem {self.name!r}, {self.living} actors>"

    async def __aenter__(self) -> Self:
        if self._loop is not None:
            raise ActorError(f"actor system {self.name!r} has been started before; make a new one")
        self._loop = asyncio.get_running_loop()
        self.base_context = copy_context()
        self.clock = self._given_clock if self._given_clock is not None else current_clock()
        self.random = current_random()
        self.cell_clock = None if self.clock is system_clock else self.clock.monotonic
        self.deadlines = DeadlineWheel(self.clock)
        if self.remoting is not None:
            await self.remoting.start()
        if self._inspect and Inspector.fits(self):
            self._inspector = Inspector(self)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        await self.aclose(drain=kind is None)

    async def aclose(self, *, drain: bool = True) -> None:
        """Stop every actor, last spawned first, and let go of everything; actors on workers before those here. Idempotent.

        Args:
            drain: let each finish its mailbox first. Cancelling the wait does not end the stopping.
        """
        if self._loop is None:
            return
        if self._closing is None:
            self._closing = self.start_task(self._close(drain), "end of the system")
        await asyncio.shield(self._closing)

    async def _close(self, drain: bool) -> None:
        if self.remoting is not None:
            await self.remoting.stop_actors(drain)
        await self.family.stop_all(None, drain=drain)
        self._closed = True
        self.deadlines.close()
        if self._inspector is not None:
            await self._inspector.aclose()
        for pool in (self._process_pool, self.remoting):
            if pool is not None:
                await pool.aclose()
        me = asyncio.current_task()
        others = [task for task in self._tasks if task is not me]
        if others:
            await asyncio.wait(others)

    # -- actors --

    def spawn(
        self,
        cls: Callable[[*Ts], A],
        /,
        *args: *Ts,
        name: str | None = None,
        restart: RestartStrategy | None = None,
        supervision: Supervision | None = None,
        mailbox: MailboxSettings | None = None,
        concurrency: int = 1,
        reentrant: bool = False,
        retry_start: bool = False,
        passivate_after: float | str | None = None,
        worker: Place = None,
    ) -> Coroutine[Any, Any, ActorRef[A]]:
        """Make an actor and start it; returns when its `on_start` has, and takes no turn of the loop without one.

        Args:
            cls: a class derived from `Actor`; for keyword arguments ``functools.partial(cls, key=value)``. It is called again,
                with the same arguments, for every restart.
            args: what it is called with.
            name: unique among living siblings; default: the class's name with a number.
            restart: what happens after a failure; default: the system's.
            supervision: how this actor supervises its own children.
            mailbox: its bounds; default: the system's.
            concurrency: how many async handlers may run at a time. They begin in the order of their messages; above 1 they
                may end in any order, and `self` changes under an awaiting handler.
            reentrant: let an ask that has come around, through others, to this actor run between the lines of the handler that
                waits for it, instead of failing it with `AskCycle`.
            retry_start: treat a failing start like a failure later on: wait and try again as `restart` says.
            passivate_after: drop the instance when the actor has been idle so long (seconds or "10m"); the next message makes
                a new one. Its ref, its name and its watchers stay.
            worker: a number from 0 on: on that worker of a system with a `backend`, to which class and arguments travel, and with
                whose names its own must not collide. "least_loaded": on the living one with the least to do. None: here.

        Raises:
            WorkerLost, SerializationError: that worker is lost; class or arguments cannot travel.
            ActorFailed: the class or `on_start` raised (the ``__cause__``); nothing is left of the actor.
            ActorStopped: it was stopped before `on_start` had returned.
            NameTaken: a living sibling has that name.
            ActorError: the system is not running, or a setting makes no sense.
        """
        if worker is not None:
            options = {"name": name, "restart": restart, "supervision": supervision, "mailbox": mailbox, "concurrency": concurrency}
            more = {"reentrant": reentrant, "retry_start": retry_start, "passivate_after": passivate_after}
            return remoting_of(self).spawn(cls, args, worker, {**options, **more})
        return self.spawn_under(
            None,
            cls,
            args,
            name=name,
            restart=restart,
            supervision=supervision,
            mailbox=mailbox,
            concurrency=concurrency,
            reentrant=reentrant,
            retry_start=retry_start,
            passivate_after=passivate_after,
        )

    async def spawn_under(
        self,
        parent: Lifecycle | None,
        cls: Callable[..., A],
        args: tuple[object, ...],
        *,
        name: str | None,
        restart: RestartStrategy | None,
        supervision: Supervision | None,
        mailbox: MailboxSettings | None,
        concurrency: int,
        reentrant: bool,
        retry_start: bool,
        passivate_after: float | str | None,
    ) -> ActorRef[A]:
        """Spawn for `spawn` and `ActorContext.spawn`, whose contract holds."""
        if self._loop is None or self._closed or (parent is not None and parent.ending):
            who = f"actor system {self.name!r}" if parent is None or not parent.ending else f"actor {parent.path!r}"
            raise ActorError(f"{who} is not running, so it spawns nothing; use it inside `async with`")
        if concurrency < 1:
            raise ActorError(f"spawn: concurrency={concurrency} must be at least 1")
        self.spawned += 1
        if name is None:
            name = f"{cls.__name__ if isinstance(cls, type) else factory_name(cls)}-{self.spawned}"
        elif not name or "/" in name:
            raise ActorError(f"spawn: {name!r} is no name for an actor: it must not be empty and has no '/' in it")
        family = self.family if parent is None else parent.family
        if family.find(name) is not None:
            raise NameTaken(name if parent is None else f"{parent.path}/{name}")
        lifecycle = Lifecycle(
            self,
            parent,
            name,
            cls,
            args,
            SpawnOptions(
                strategy=self.restart if restart is None else restart,
                supervision=DEFAULT_SUPERVISION if supervision is None else supervision,
                mailbox=self.mailbox if mailbox is None else mailbox,
                concurrency=concurrency,
                reentrant=reentrant,
                passivate_after=None if passivate_after is None else parse_duration(passivate_after, key="passivate_after"),
            ),
        )
        family.add(name, lifecycle)
        self.living += 1
        while True:
            try:
                try:
                    if lifecycle.build():
                        await lifecycle.begin(current_request())
                    else:
                        lifecycle.run()
                    return lifecycle.ref
                except Exception as error:
                    if not retry_start or not await self._wait_to_retry(lifecycle, error):
                        raise
            except BaseException as error:
                await lifecycle.give_up_start(error)
                stopped = isinstance(error, ActorStopped) and error.actor == lifecycle.path
                if stopped or not isinstance(error, Exception):
                    raise
                raise ActorFailed(lifecycle.path, describe(error), "start") from error

    async def _wait_to_retry(self, lifecycle: Lifecycle, error: Exception) -> bool:
        strategy = lifecycle.strategy
        if isinstance(strategy, FixedDelay) and strategy.attempts is None and strategy.delay == 0:
            return False  # without a bound and without a wait it would be tried in a busy circle
        delay = lifecycle.next_start(error)
        if delay is None or lifecycle.ending:
            return False
        await tear_down(lifecycle, lifecycle.turns_taken, error)
        await lifecycle.pause_for(delay)
        return not lifecycle.ending

    def lookup(self, path: str) -> ActorRef[Any] | None:
        """The living actor at a path such as "counter" or "parent/child"; None if there is none."""
        family, found = self.family, None
        for name in path.split("/"):
            found = family.find(name)
            if found is None:
                return None
            family = found.family
        return None if found is None else found.ref

    async def stop(self, ref: ActorRef[Any], *, drain: bool = True, timeout: float | str = DEFAULT_STOP_TIMEOUT) -> None:
        """End an actor; returns when it has ended, its children first, and its watchers have been told. Idempotent.

        From the call on it takes no new messages: tells become dead letters, asks fail with `ActorStopped`.

        Args:
            drain: let it finish what is in its mailbox. Otherwise only the message in hand; the rest goes to the dead letters,
                and pending asks fail.
            timeout: seconds (or "5s") for each step: draining, the message in hand, `on_stop`. After it the handler is
                interrupted (it sees `CancelledError`; a thread is left to itself). Cancelling the wait does not undo the stop.

        Raises:
            ActorError: an actor's handler awaits its own end; use ``self.context.stop()``.
        """
        await self._finish(ref, drain=drain, timeout=parse_duration(timeout, key="stop timeout"), at_once=False)

    async def _finish(self, ref: ActorRef[Any], *, drain: bool, timeout: float, at_once: bool) -> None:
        lifecycle: Lifecycle = ref.cell.lifecycle
        request = current_request()
        while request is not None:
            waiting: Lifecycle = request.target.lifecycle
            if not request.finished and lifecycle.contains(waiting):
                raise ActorError(f"actor {waiting.path!r} would wait for its own end; use self.context.stop(), which does not wait")
            request = request.parent
        if lifecycle.cell.state_name != "stopped":
            await asyncio.shield(lifecycle.finish(None, drain=drain, timeout=timeout, at_once=at_once))

    async def kill(self, ref: ActorRef[Any]) -> None:
        """Like ``stop(drain=False)``, but the message in hand is interrupted at once, in the children too."""
        await self._finish(ref, drain=False, timeout=DEFAULT_STOP_TIMEOUT, at_once=True)

    def watch(self, ref: ActorRef[Any]) -> asyncio.Future[Terminated]:
        """A future that has the actor's end, at once if it has ended already. Cancelling it ends the watch."""
        lifecycle = ref.cell.lifecycle
        future: asyncio.Future[Terminated] = self.loop.create_future()
        if lifecycle.cell.state_name == "stopped":
            future.set_result(Terminated(ref, lifecycle.reason))
            return future

        def told(ended: Terminated) -> None:
            if not future.done():
                future.set_result(ended)

        take_back = lifecycle.deathwatch.call(told)
        future.add_done_callback(lambda _: take_back())
        return future

    # -- seen from outside --

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop all of it runs on."""
        if self._loop is None:
            raise ActorError(f"actor system {self.name!r} is not running; use it inside `async with`")
        return self._loop

    @property
    def dead_letters(self) -> DeadLetters:
        """Messages that were not handled, with the reason."""
        return self._dead_letters

    @property
    def workers(self) -> tuple[SystemWorker, ...]:
        """The workers, lost ones included; none without a `backend`, or before it is entered."""
        return () if self.remoting is None else self.remoting.workers

    @property
    def sync(self) -> SyncSystem:
        """The blocking face, for other threads."""
        if self._sync is None:
            from sage_actor.actor.sync import SyncSystem

            self._sync = SyncSystem(self)
        return self._sync

    def statistics(self) -> SystemStatistics:
        """Counts of every living actor, as a tree."""
        return statistics_of_system(self)

    async def wait_idle(self, timeout: float | str | None = None) -> None:
        """Return when no actor has anything to do: no handler runs, nothing waits that could be served, nobody (re)starts or ends.

        Delays, timers and deadlines that lie ahead do not count, nor does work outside of actors. A handler that waits for
        something outside (a thread, a socket, a clock that stands) is not idle, and is waited for.

        Args:
            timeout: seconds (or "5s") of the event loop's own time after which it gives up: a manual clock stands still while
                this waits. None: as long as it takes.

        Raises:
            ActorError: the time is up. It lists who is busy, with the line of the handler that waits.
        """
        from sage_actor.actor.idleness import wait_idle

        await wait_idle(self, None if timeout is None else parse_duration(timeout, key="wait_idle timeout"))

    def everyone(self) -> list[Lifecycle]:
        """All living actors, parents before children; the runtime's own view."""
        found: list[Lifecycle] = []
        pending = self.family.children
        while pending:
            lifecycle = pending.pop()
            found.append(lifecycle)
            pending.extend(lifecycle.children)
        return found

    # -- for the runtime --

    def process_pool(self) -> ProcessPool:
        """Where methods declared ``blocking(pool="process")`` run; its processes start at the first call."""
        if self._process_pool is None:
            from sage_actor.actor.process_pool import ProcessPool

            self._process_pool = ProcessPool(f"{self.name}-pool")
        return self._process_pool

    def start_task(self, coroutine: Coroutine[Any, Any, R], name: str, *, context: Context | None = None) -> asyncio.Task[R]:
        """A task of the system's own, held until it is done; what it raises unexpectedly is logged, unless somebody awaits it."""
        task = self.loop.create_task(coroutine, name=f"{self.name}: {name}", context=self.base_context if context is None else context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def leave_behind(self, task: asyncio.Task[Any]) -> None:
        """A task of the system's that does not end although it was cancelled: nobody waits for it any more."""
        self._tasks.discard(task)

    def start_soon(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        """Like `start_task`, for what nobody awaits: what it raises is logged by the event loop."""
        self._tasks.add(self.start_task(coroutine, name))

    def suspend(self, error: BaseException) -> int:
        """Those of its actors that live now are about to be stopped for an error; others go on."""
        return 0

    def escalated(self, error: BaseException, turn: int) -> None:
        """Nobody stands above the system: its actors have been stopped, which is said, and it goes on without them."""
        self.log.error("all top-level actors were stopped: a failure was escalated to the system", error=describe(error))

    def forget(self, lifecycle: Lifecycle) -> None:
        """An actor has ended."""
        self.living -= 1
        self.registry.gone(lifecycle)

    def dead_letter(self, lifecycle: Lifecycle, item: object, reason: str) -> None:
        """A message will not be handled; it may come from another thread."""
        message, method = item, ""
        if isinstance(item, Call):
            message = item.message
            method = "" if item.handler is None else item.handler.name
        letter = UndeliveredMessage(message, lifecycle.ref, reason, method, isinstance(item, Reply), self.clock.now_ms())
        try:
            self._dead_letters.add(letter)
        except Exception as error:  # noqa: BLE001 - a subscriber is user code
            self.log_error(lifecycle, error, "a subscriber of the dead letters failed")

    @property
    def log(self) -> BoundLogger:
        """The system's logger; structlog is loaded when something is logged."""
        if self._log is None:
            from sage_actor.telemetry.logs import get_logger

            self._log = get_logger(system=self.name)
        return self._log

    def log_failure(self, lifecycle: Lifecycle, error: BaseException, decided: Verdict) -> None:
        """An actor has failed, and this is what is done about it."""
        event = f"actor {lifecycle.path!r} failed: {describe(error)}"  # in words too: not every set-up shows the values
        self.log.warning(event, actor=lifecycle.path, action=decided.action, delay=decided.delay, why=decided.reason, exc_info=error)

    def log_error(self, lifecycle: Lifecycle, error: BaseException | None, what: str) -> None:
        """Something about an actor went wrong that changes nothing else."""
        event = f"actor {lifecycle.path!r}: {what}"
        self.log.error(event, actor=lifecycle.path, error=None if error is None else describe(error), exc_info=error)
