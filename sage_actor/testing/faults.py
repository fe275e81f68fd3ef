"""Faults for actors: handlers that fail, wait, or never see their message, when and where a test (or its seed) says so."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, Literal

from sage_actor._core.actor_cell import Handler, current_request
from sage_actor._core.reply import Call, Reply
from sage_actor.durations import parse_duration
from sage_actor.errors import ActorError, ActorStopped, BadCall
from sage_actor.ports import current_random, system_random
from sage_actor.testing.mailboxes import Waiting
from sage_actor.testing.probe import ProbeActor

if TYPE_CHECKING:
    from sage_actor._core.actor_ref import ActorRef
    from sage_actor.actor.actor import Actor
    from sage_actor.actor.lifecycle import Lifecycle
    from sage_actor.actor.system import ActorSystem

__all__ = ["Fault", "FaultInjector", "FaultKind", "InjectedFailure", "Struck"]

FaultKind = Literal["fail", "delay", "drop", "kill", "crash", "start"]
When = Literal["before", "after", "either"]
ErrorSource = Exception | Callable[[], Exception]

DROPPED: Final = "dropped by fault injection"


class InjectedFailure(Exception):
    """What a handler raises that `FaultInjector.crash_rate` has struck: no error of the library, nor of the program under test."""


@dataclass(frozen=True, slots=True)
class Struck:
    """One fault that was brought about. One that was to come after its handler counts too if the handler was interrupted.

    Attributes:
        kind: "fail", "delay", "drop", "kill", "crash" (by `crash_rate`) or "start".
        path: of the actor.
        method: the handler's name, "receive" for a message that names none; "" for a start.
        message: the message that was struck, None for a start. Does not count for equality.
    """

    kind: FaultKind
    path: str
    method: str
    message: Waiting | None = field(default=None, compare=False)


class Fault:
    """A fault that is going to happen. Made by the methods of `FaultInjector`.

    Attributes:
        kind: what will happen.
        struck: how often it has happened.
    """

    def __init__(self, kind: FaultKind, path: str, method: str | None, where: Callable[[Waiting], bool] | None, times: int | None) -> None:
        if times is not None and times < 1:
            raise ActorError(f"fault {kind!r} for actor {path!r}: times={times} must be at least 1, or None for every time")
        self.kind: FaultKind = kind
        self.struck = 0
        self.when: When = "before"
        self.error: ErrorSource = InjectedFailure
        self.seconds = 0.0
        self.probability = 1.0
        self._path = path
        self._method = method
        self._where = where
        self._times = times

    def __repr__(self) -> str:
        left = "every time" if self._times is None else f"{self._times - self.struck} times"
        return f"<fault {self.kind!r} for {self._path!r}{'' if self._method is None else '.' + self._method}, {left} from now on>"

    def cancel(self) -> None:
        """It does not happen any more."""
        self._times = self.struck

    @property
    def over(self) -> bool:
        """Whether it has happened as often as it should, or was cancelled."""
        return self._times is not None and self.struck >= self._times

    def concerns(self, path: str) -> bool:
        """Whether it is meant for that actor."""
        return self._path == path

    def strikes(self, path: str, method: str, message: Waiting | None, chance: Random) -> bool:
        """Whether it happens to this message; counted if it does. For the injector alone."""
        if self._path != path or self.over or self._method not in {None, method}:
            return False
        if self._where is not None and (message is None or not self._where(message)):
            return False
        if self.probability < 1.0 and chance.random() >= self.probability:
            return False
        self.struck += 1
        return True


class FaultInjector:
    """Makes actors of one system fail, as a test wants it. Costs nothing where there is none.

        async with sage.ActorSystem("test") as system:
            faults = FaultInjector(system)  # before the actors
            worker = await system.spawn(Worker)
            faults.fail(worker, OSError("disk full"), on=Worker.save)
            await worker.tell(Worker.save, "a")  # fails; the supervisor takes over

    It stands between the mail and the handlers of every actor that is spawned after it was made, across restarts, passivation and
    `become`. (An actor spawned before comes under it with its next instance; until then `fail` and the others refuse it, and
    what was sent to it before stays untouched.) Timer ticks are handlers too, and are not dropped. Out of its reach: hooks such
    as `on_terminated`, methods that answer in parts, and probes.

    For one message the faults are looked at in the order they were made: delays add up, of the others the first that fits happens.

    Args:
        system: whose actors; it has one injector at most.
        seed: of everything that happens by chance. None: in a simulation its seed decides, elsewhere 0.

    Raises:
        ActorError: the system has an injector already.
    """

    def __init__(self, system: ActorSystem, *, seed: int | None = None) -> None:
        if system.interceptor is not None:
            raise ActorError(f"actor system {system.name!r} has a fault injector already; use that one")
        self._system = system
        self._chance = Random(_drawn_seed() if seed is None else seed)
        self._faults: list[Fault] = []
        self._struck: list[Struck] = []
        self._known: set[Lifecycle] = set()
        self._crashes = 0.0
        self._start_crashes = 0.0
        self._crash_when: When = "before"
        system.interceptor = self

    @property
    def struck(self) -> tuple[Struck, ...]:
        """What has happened so far, in order."""
        return tuple(self._struck)

    # -- what may be ordered --

    def fail(
        self,
        ref: ActorRef[Any],
        error: ErrorSource,
        *,
        times: int | None = 1,
        on: Callable[..., object] | None = None,
        where: Callable[[Waiting], bool] | None = None,
        when: Literal["before", "after"] = "before",
    ) -> Fault:
        """Have the next handler calls that fit raise.

        Args:
            ref: the actor.
            error: the exception, or a class or function that makes one.
            times: how many calls; None: all of them.
            on: only calls of that method; ``Worker.receive`` stands for messages that name none.
            where: only messages to which this says True.
            when: "before": the handler does not run; "after": it has run to its end, and its answer is lost.
        """
        fault = self._order("fail", ref, on, where, times)
        fault.error, fault.when = error, when
        return fault

    def delay(
        self,
        ref: ActorRef[Any],
        seconds: float | str,
        *,
        times: int | None = None,
        on: Callable[..., object] | None = None,
        where: Callable[[Waiting], bool] | None = None,
    ) -> Fault:
        """Have handler calls that fit begin so much later, on the system's clock; the actor counts as busy meanwhile."""
        seconds = parse_duration(seconds, key="fault delay")
        fault = self._order("delay", ref, on, where, times)
        fault.seconds = seconds
        return fault

    def drop(
        self,
        ref: ActorRef[Any],
        probability: float = 1.0,
        *,
        times: int | None = None,
        on: Callable[..., object] | None = None,
        where: Callable[[Waiting], bool] | None = None,
    ) -> Fault:
        """Have messages that fit never reach their handler: each becomes a dead letter with the reason "dropped by fault
        injection", and if it was asked, its ask fails with `ActorStopped` and the same reason."""
        _check_chance("probability", probability)
        fault = self._order("drop", ref, on, where, times)
        fault.probability = probability
        return fault

    def kill(
        self,
        ref: ActorRef[Any],
        *,
        on: Callable[..., object] | None = None,
        where: Callable[[Waiting], bool] | None = None,
        when: Literal["before", "after"] = "before",
    ) -> Fault:
        """Have the actor killed (as by `ActorSystem.kill`) over the next message that fits, which becomes a dead letter.

        With "after" its handler has run, and its answer is lost. To kill an actor now, ``await system.kill(ref)``.
        """
        fault = self._order("kill", ref, on, where, 1)
        fault.when = when
        return fault

    def fail_start(self, actor: ActorRef[Any] | str, error: ErrorSource, *, times: int | None = 1) -> Fault:
        """Have the next starts of an actor fail, as if its class had raised.

        Args:
            actor: its ref: then its restarts are meant; or its path, before it is spawned.
            error: the exception, or a class or function that makes one.
            times: how many starts; None: all of them.
        """
        fault = Fault("start", actor if isinstance(actor, str) else actor.path, None, None, times)
        fault.error = error
        self._faults.append(fault)
        return fault

    def crash_rate(self, handlers: float, *, starts: float = 0.0, when: When = "before") -> None:
        """Have handlers of all actors fail by chance, with `InjectedFailure`, until `clear` or another rate.

        Args:
            handlers: the chance of each handler call, ticks included.
            starts: the chance of each start of an instance that replaces another; the first start of an actor is spared.
            when: before or after the handler has run; "either" lets chance decide.
        """
        _check_chance("crash_rate", handlers)
        _check_chance("starts", starts)
        self._crashes, self._start_crashes, self._crash_when = handlers, starts, when

    def clear(self, ref: ActorRef[Any] | None = None) -> None:
        """Order nothing any more for an actor, or for none at all (rates included). What is delayed already stays so."""
        self._faults = [] if ref is None else [fault for fault in self._faults if not fault.concerns(ref.path)]
        if ref is None:
            self._crashes = self._start_crashes = 0.0

    # -- for the runtime --

    def handlers(self, lifecycle: Lifecycle, actor: Actor, handlers: dict[FunctionType, Handler]) -> dict[FunctionType, Handler]:
        """See `Interceptor`."""
        if isinstance(actor, ProbeActor):
            return handlers
        again = lifecycle in self._known
        if len(self._known) > 2 * self._system.living + 64:
            self._known = {known for known in self._known if known.cell.state_name != "stopped"}
        self._known.add(lifecycle)
        fault = self._first("start", lifecycle.path)
        if fault is not None:
            self._struck.append(Struck("start", lifecycle.path, ""))
            raise _made(fault.error)
        if again and self._start_crashes and self._chance.random() < self._start_crashes:
            self._struck.append(Struck("start", lifecycle.path, ""))
            raise InjectedFailure(f"a start of actor {lifecycle.path!r}, by the crash rate")
        between: dict[Handler, Handler] = {}  # bases and overrides share one
        return {function: between.get(handler) or between.setdefault(handler, self._between(lifecycle, handler))
                for function, handler in handlers.items()}  # fmt: skip

    def behaviour(self, lifecycle: Lifecycle, actor: Actor, receive: Callable[[Any], object]) -> Callable[[Any], object]:
        """See `Interceptor`."""
        if isinstance(actor, ProbeActor):
            return receive
        plain = lifecycle.handler_of(receive).plain

        @functools.wraps(receive)
        def between(message: object) -> object:
            strike = self._strike(lifecycle, "receive", lambda asked: Waiting(message, asked=asked))
            return receive(message) if strike is None else strike.carry_out(lambda: receive(message), plain=plain)

        return between

    def _between(self, lifecycle: Lifecycle, handler: Handler) -> Handler:
        if handler.streaming:
            return handler
        # A method that runs elsewhere: what is decided about it is decided here, before.
        return Handler(_Between(self, lifecycle, handler), handler.name, plain=handler.plain, interruptible=handler.interruptible)

    def _order(
        self,
        kind: FaultKind,
        ref: ActorRef[Any],
        on: Callable[..., object] | None,
        where: Callable[[Waiting], bool] | None,
        times: int | None,
    ) -> Fault:
        lifecycle: Lifecycle = ref.cell.lifecycle
        if isinstance(ref.cell.actor, ProbeActor):
            raise ActorError(f"actor {ref.path!r} is a probe: its own methods (fail_next, reply) say what it does")
        if lifecycle not in self._known:
            raise ActorError(f"actor {ref.path!r} was spawned before the fault injector was made (or elsewhere); make the injector first")
        self._faults = [fault for fault in self._faults if not fault.over]
        fault = Fault(kind, ref.path, None if on is None else _method_name(ref, on), where, times)
        self._faults.append(fault)
        return fault

    def _first(self, kind: FaultKind, path: str) -> Fault | None:
        return next((fault for fault in self._faults if fault.kind == kind and fault.strikes(path, "", None, self._chance)), None)

    def _strike(self, lifecycle: Lifecycle, method: str, waiting: Callable[[bool], Waiting]) -> _Strike | None:
        """What happens to the message that is about to be handled; None for nothing."""
        if not self._faults and not self._crashes:
            return None
        request = current_request()
        own = request if isinstance(request, Call) and request.target is lifecycle.cell else None
        tick = own is not None and own.signal
        message = waiting(isinstance(own, Reply))
        seconds = 0.0
        decided: Fault | None = None
        for fault in self._faults:
            unfit = fault.kind == "start" or (fault.kind == "drop" and tick) or (decided is not None and fault.kind != "delay")
            if unfit or not fault.strikes(lifecycle.path, method, message, self._chance):
                continue
            self._struck.append(Struck(fault.kind, lifecycle.path, method, message))
            if fault.kind == "delay":
                seconds += fault.seconds
            else:
                decided = fault
        if decided is None and self._crashes and self._chance.random() < self._crashes:
            decided = self._crash(lifecycle, method, message)
        return None if decided is None and not seconds else _Strike(lifecycle, decided, seconds)

    def _crash(self, lifecycle: Lifecycle, method: str, message: Waiting) -> Fault:
        self._struck.append(Struck("crash", lifecycle.path, method, message))
        fault = Fault("crash", lifecycle.path, method, None, 1)
        fault.error = InjectedFailure(f"{method} of actor {lifecycle.path!r}, by the crash rate")
        fault.when = self._chance.choice(("before", "after")) if self._crash_when == "either" else self._crash_when
        return fault


class _Strike:
    """What happens to one message."""

    def __init__(self, lifecycle: Lifecycle, fault: Fault | None, seconds: float) -> None:
        self._lifecycle = lifecycle
        self._fault = fault
        self._seconds = seconds
        self.raised = False

    def carry_out(self, run: Callable[[], object], *, plain: bool) -> object:
        """Let it happen around the real handler, which `run` calls: at once for a plain one, else in a coroutine."""
        fault = self._fault
        if fault is not None and fault.kind == "drop":
            self._drop()
        if not plain or self._seconds or (fault is not None and fault.kind == "kill"):
            return self._carry_out_later(run)
        if fault is not None and fault.when == "before":
            raise self._error(fault)
        result = run()
        if fault is not None and not inspect.isawaitable(result):
            raise self._error(fault)
        return result if fault is None else self._fail_after(fault, result)

    async def _carry_out_later(self, run: Callable[[], object]) -> object:
        fault = self._fault
        if self._seconds:
            await self._lifecycle.system.clock.sleep(self._seconds)
        if fault is not None and fault.when == "before":
            await self._end_with(fault)
        result = run()  # not earlier: a coroutine that is never begun leaves no other one behind
        if inspect.isawaitable(result):
            result = await result
        if fault is not None:
            await self._end_with(fault)
        return result

    async def _fail_after(self, fault: Fault, result: Any) -> None:
        await result
        raise self._error(fault)

    async def _end_with(self, fault: Fault) -> None:
        if fault.kind != "kill":
            raise self._error(fault)
        _ = self._lifecycle.finish(None, at_once=True)
        await asyncio.get_running_loop().create_future()  # until it is interrupted

    def _error(self, fault: Fault) -> Exception:
        self.raised = True
        return _made(fault.error)

    def _drop(self) -> None:
        """The way of a call that does not fit goes to the dead letters, and harms nobody; only the caller is told otherwise."""
        request, path = current_request(), self._lifecycle.path
        if isinstance(request, Reply) and request.target is self._lifecycle.cell:
            request.fail(ActorStopped(path, DROPPED))
        raise BadCall(path, DROPPED)


class _Between:
    """Stands in a handler in place of the method."""

    __slots__ = ("_handler", "_injector", "_lifecycle", "_strike", "sage_method")

    def __init__(self, injector: FaultInjector, lifecycle: Lifecycle, handler: Handler) -> None:
        self._injector = injector
        self._lifecycle = lifecycle
        self._handler = handler
        self._strike: _Strike | None = None
        self.sage_method = handler.function

    def __call__(self, actor: Actor, /, *arguments: object, **options: object) -> object:
        name = self._handler.name
        strike = self._strike = self._injector._strike(self._lifecycle, name, lambda asked: Waiting(arguments, name, dict(options), asked))
        if strike is None:
            return self._run(actor, arguments, options)
        return strike.carry_out(lambda: self._run(actor, arguments, options), plain=self._handler.plain)

    def _run(self, actor: Actor, arguments: tuple[object, ...], options: dict[str, object]) -> object:
        if self._handler.pool is not None:
            return self._lifecycle.run_blocking(self._handler, actor, arguments, options)
        return self._handler.function(actor, *arguments, **options)

    @property
    def __code__(self) -> object:
        """By it a cell tells a call with wrong arguments from a method that raises `TypeError`. One that a test ordered is of
        the second kind, although no line of the method has run."""
        if self._strike is not None and self._strike.raised:
            return None
        return getattr(self._handler.function, "__code__", None)


def _method_name(ref: ActorRef[Any], on: Callable[..., object]) -> str:
    function: Any = getattr(on, "__func__", on)
    handler = ref.cell.handlers.get(function)
    if handler is None or handler.streaming:
        why = "is no method of its class" if handler is None else "answers in parts, and such methods are out of reach"
        raise ActorError(f"faults for actor {ref.path!r}: {getattr(on, '__qualname__', repr(on))} {why}")
    return handler.name


def _made(error: ErrorSource) -> Exception:
    made = error if isinstance(error, Exception) else error()
    return made.with_traceback(None)  # one instance may be raised more than once


def _check_chance(what: str, chance: float) -> None:
    if not 0.0 <= chance <= 1.0:
        raise ActorError(f"faults: {what}={chance!r} must be a chance, from 0 to 1")


def _drawn_seed() -> int:
    chance = current_random()
    return 0 if chance is system_random else chance.getrandbits(64)
