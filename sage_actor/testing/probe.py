"""Probe: an actor in the hands of a test, which sees what it is sent and answers when the test says so."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, overload

from sage_actor._core.actor_cell import Handler, current_request
from sage_actor._core.reply import Reply
from sage_actor.actor.actor import Actor
from sage_actor.actor.handlers import handlers_of
from sage_actor.actor.idleness import busy_actors, is_idle
from sage_actor.actor.inspection import shortened
from sage_actor.actor.mailbox import MailboxSettings
from sage_actor.actor.supervision import FixedDelay
from sage_actor.durations import parse_duration
from sage_actor.errors import BadCall
from sage_actor.ports import Clock, system_clock
from sage_actor.testing.manual_clock import ManualClock

if TYPE_CHECKING:
    from types import FunctionType

    from sage_actor._core.actor_ref import ActorRef
    from sage_actor.actor.system import ActorSystem
    from sage_actor.actor.watching import Terminated

__all__ = ["MethodCall", "Probe", "ProbeActor"]

A = TypeVar("A", bound=Actor)
T = TypeVar("T")

_PATIENCE: Final = 3.0
_SETTLING_TURNS: Final = 500
_MOST_LISTED: Final = 20
_MAILBOX: Final = MailboxSettings(capacity=1_000_000, stash_capacity=1_000_000)
_RESTART: Final = FixedDelay(attempts=None, delay=0.0)


@dataclass(frozen=True, slots=True)
class MethodCall:
    """A call of a method, as a probe sees it.

    Attributes:
        method: its name.
        arguments: what it was called with.
        options: keyword arguments.
    """

    method: str
    arguments: tuple[object, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict[str, object], hash=False)

    def __str__(self) -> str:
        given = [shortened(argument) for argument in self.arguments]
        given += [f"{name}={shortened(value)}" for name, value in self.options.items()]
        return f"{self.method}({', '.join(given)})"


@dataclass(slots=True, eq=False)
class _Entry:
    """A message that has come; `settled` gives the answer or raises, once the test has decided."""

    message: object
    reply: Reply[Any] | None
    settled: Callable[[], object] | None = None

    def __str__(self) -> str:
        text = str(self.message) if isinstance(self.message, MethodCall) else shortened(self.message)
        return text if self.reply is None else f"ask {text}"


class Probe:
    """An actor that a test holds: what it is sent comes out of `receive` and `expect`, in the order of arrival.

        probe = await Probe.spawn(system, name="audit")
        ref = await system.spawn(Shop, probe.stand_in(Audit))
        await ref.tell(Shop.sell, "tea")
        await probe.expect_call(Audit.record, "sold", "tea")

    It is an ordinary actor of the system, with an ordinary ref. It takes every message. An ask stays unanswered until `reply`
    (or `answer_with`) answers it, holds up nothing meanwhile, and fails with `ActorStopped` when the probe ends before. A call
    of a method comes as a `MethodCall`.

    **Waiting.** Time-outs are those of the system's clock: 3 seconds unless told otherwise, virtual ones in a simulation. On a
    `ManualClock` no time passes while a test waits, so there a wait ends when nothing can come any more: everything has run
    that can run, the clock has not been moved meanwhile (another task may be in `advance`: that is waited for), and no actor is
    busy. While one is busy with something that no clock moves, such as a thread, it is waited for, up to the time-out on the
    machine's clock. What does not come fails with an `AssertionError` that says what has come and who is busy.

    For the event loop of its system. Made by `spawn`.
    """

    def __init__(self, system: ActorSystem) -> None:
        self._system = system
        self._entries: list[_Entry] = []
        self._taken = 0
        self._open: dict[Reply[Any], _Entry] = {}
        self._last: _Entry | None = None
        self._answers: Callable[[object], object] | None = None
        self._failures: deque[Exception] = deque()
        self._ended: dict[ActorRef[Any], Terminated] = {}
        self._waiters: list[asyncio.Future[None]] = []
        self._table: dict[FunctionType, Handler] = {}
        self._ref: ActorRef[ProbeActor] | None = None

    @classmethod
    async def spawn(cls, system: ActorSystem, *, name: str | None = None, mailbox: MailboxSettings = _MAILBOX) -> Probe:
        """Make a probe in a system.

        Args:
            system: a running one.
            name: of its actor, as for `ActorSystem.spawn`.
            mailbox: its bounds; its `stash_capacity` bounds the asks that are held. Practically none unless given.

        Raises:
            NameTaken: a living actor has that name.
        """
        probe = cls(system)
        probe._ref = await system.spawn(ProbeActor, probe, name=name, restart=_RESTART, mailbox=mailbox)
        return probe

    def __repr__(self) -> str:
        return f"<Probe {self.ref.path!r}, {len(self._entries)} messages came, {len(self._entries) - self._taken} wait to be taken>"

    @property
    def ref(self) -> ActorRef[Any]:
        """The probe's ref; it fits wherever a ref of some actor is wanted."""
        if self._ref is None:
            raise AssertionError("a probe is made by `await Probe.spawn(system)`")
        return self._ref

    def stand_in(self, cls: type[A]) -> ActorRef[A]:
        """The probe's ref, typed as one of `cls`, and able to take calls of its methods (as `MethodCall`, none is executed).

        A call whose arguments do not fit is refused with `BadCall`, as by the real one. Methods that answer in parts cannot be
        stood in for. The probe may stand in for several classes.
        """
        for function, handler in handlers_of(cls, outermost=Actor).items():
            if not handler.streaming:
                self._table[function] = Handler(_recorder(self, handler), handler.name, plain=False)
        return cast("ActorRef[A]", self.ref)

    # -- what has come --

    @property
    def messages(self) -> tuple[object, ...]:
        """Everything that has come so far, oldest first, whether it was taken by `receive` and `expect` or not."""
        return tuple(entry.message for entry in self._entries)

    @property
    def unanswered(self) -> tuple[object, ...]:
        """The messages of asks that wait for an answer, oldest first."""
        return tuple(entry.message for reply, entry in self._open.items() if not reply.done() and entry.settled is None)

    async def receive(self, *, timeout: float | str = _PATIENCE) -> object:
        """Take the next message, of whatever kind.

        Raises:
            AssertionError: none comes.
        """
        return (await self._next("a message", timeout)).message

    @overload
    async def expect(self, wanted: type[T], /, *, timeout: float | str = _PATIENCE) -> T: ...
    @overload
    async def expect(self, wanted: Callable[[Any], bool], /, *, timeout: float | str = _PATIENCE) -> object: ...
    @overload
    async def expect(self, wanted: T, /, *, timeout: float | str = _PATIENCE) -> T: ...
    async def expect(self, wanted: object, /, *, timeout: float | str = _PATIENCE) -> object:
        """Take the next message, which must be what is wanted; answers it.

        Args:
            wanted: a class it is an instance of, a function that says True to it, or a value it is equal to.
            timeout: seconds, or "2s".

        Raises:
            AssertionError: another one came (and was taken), or none.
        """
        words, fits = _pattern(wanted)
        entry = await self._next(words, timeout)
        if not fits(entry.message):
            raise AssertionError(self._told(f"expected {words}, and {entry} came"))
        return entry.message

    async def expect_call(
        self, method: Callable[..., object], /, *arguments: object, timeout: float | str = _PATIENCE, **options: object
    ) -> MethodCall:
        """Take the next message, which must be a call of that method; arguments, if any are given here, must be equal to its own.

        Args:
            method: of a class that the probe stands in for.
            arguments: what it must have been called with.
            timeout: seconds, or "2s".
            options: the same for keyword arguments.

        Raises:
            AssertionError: another one came (and was taken), or none.
        """
        name = getattr(method, "__name__", repr(method))
        wanted = MethodCall(name, arguments, options)
        words = f"a call {wanted if arguments or options else name}"
        message = (entry := await self._next(words, timeout)).message
        if isinstance(message, MethodCall) and message.method == name and (message == wanted or not (arguments or options)):
            return message
        raise AssertionError(self._told(f"expected {words}, and {entry} came"))

    async def expect_nothing(self, seconds: float | str = 0.0) -> None:
        """Take nothing; fail if something waits to be taken, or comes meanwhile.

        Args:
            seconds: how long to wait for it, on the system's clock; a `ManualClock` is advanced by so much. 0: until everything
                has run that can run now, without waiting for what is busy with something outside.

        Raises:
            AssertionError: a message came. It can still be taken.
        """
        span = parse_duration(seconds, key="seconds")
        clock = self._system.clock
        if isinstance(clock, ManualClock):
            await clock.advance(span)
        elif span:
            await self._until(self._has_next, span, clock)
        else:
            quiet = 0
            for _ in range(_SETTLING_TURNS):
                await asyncio.sleep(0)
                quiet = quiet + 1 if is_idle(self._system) else 0
                if quiet == 2 or self._has_next():
                    break
        if self._has_next():
            raise AssertionError(self._told(f"expected nothing, and {self._entries[self._taken]} came"))

    def clear(self) -> None:
        """Forget what has come and was not taken. Asks among it stay unanswered."""
        self._taken = len(self._entries)

    # -- what it does --

    def reply(self, value: object = None) -> None:
        """Answer the message taken last, which must have been an ask. Nothing happens if its caller has given up.

        Raises:
            AssertionError: it was no ask, or it was answered before.
        """
        self._settle(lambda: value, "reply")

    def fail(self, error: Exception) -> None:
        """Have the message taken last fail, as if its handler had raised: its ask fails, and the probe restarts.

        Raises:
            AssertionError: it was no ask, or it was answered before.
        """
        self._settle(functools.partial(_throw, error), "fail")

    def answer_with(self, function: Callable[[Any], object] | None) -> None:
        """Answer asks from now on with what `function` makes of their message; None: hold them again.

        An awaitable is awaited. What it raises fails the probe, as a handler would. Asks that are held already stay so.
        """
        self._answers = function

    def fail_next(self, error: Exception) -> None:
        """The next message fails the probe with that error: an ask fails, and a fresh instance goes on behind the same ref.

        The message counts as one that has come. Called more than once, the errors take their turns.
        """
        self._failures.append(error)

    def watch(self, ref: ActorRef[Any]) -> None:
        """Watch an actor, for `expect_terminated`."""
        self.ref.cell.lifecycle.deathwatch.watch(ref.cell.lifecycle)

    async def expect_terminated(self, ref: ActorRef[Any], *, timeout: float | str = _PATIENCE) -> Terminated:
        """Wait for the end of an actor, which is watched from now on if it was not. Answers at once if it is known already.

        Such news is no message: it stands in no order with those, and `receive` does not see it.

        Raises:
            AssertionError: it has not ended.
        """
        if ref not in self._ended:
            self.watch(ref)
        await self._wait(lambda: ref in self._ended, f"the end of {ref.path!r}", timeout)
        return self._ended[ref]

    # -- for its actor --

    def came(self, message: object, actor: ProbeActor) -> object:
        """A message has reached the actor, or an ask that was held comes once more. For the actor alone."""
        request = current_request()
        own = isinstance(request, Reply) and request.target is actor.ref.cell
        reply = cast("Reply[object]", request) if own else None
        entry = None if reply is None else self._open.get(reply)
        if entry is None:
            entry = _Entry(message, reply)
            self._entries.append(entry)
            self._wake()
            if self._failures:
                entry.settled = _settled_at_once
                raise self._failures.popleft()
            if reply is None:
                return None
            if self._answers is not None:
                entry.settled = _settled_at_once
                return self._answers(message)
            self._open[reply] = entry
        elif entry.settled is not None and reply is not None:
            del self._open[reply]
            return entry.settled()
        # Not a handler that waits: a probe that holds asks is idle, and ends without ado.
        actor.context.stash()
        return None

    def ended(self, ended: Terminated) -> None:
        """A watched actor has ended. For the actor alone."""
        self._ended[ended.ref] = ended
        self._wake()

    def table(self) -> dict[FunctionType, Handler]:
        """The methods it stands in for. For the actor alone."""
        return self._table

    # -- waiting --

    def _has_next(self) -> bool:
        return self._taken < len(self._entries)

    async def _next(self, words: str, timeout: float | str) -> _Entry:
        await self._wait(self._has_next, words, timeout)
        self._last = self._entries[self._taken]
        self._taken += 1
        return self._last

    def _settle(self, outcome: Callable[[], object], doing: str) -> None:
        entry = self._last
        if entry is None or entry.reply is None:
            last = "no message was taken yet" if entry is None else f"the message taken last was no ask: {entry}"
            raise AssertionError(self._told(f"nothing to {doing}: {last}"))
        if entry.settled is not None:
            raise AssertionError(self._told(f"nothing to {doing}: this one has its answer already: {entry}"))
        entry.settled = outcome
        self.ref.cell.unstash()  # all of them come by once more; those without an answer are put aside again

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _wait(self, condition: Callable[[], bool], words: str, timeout: float | str) -> None:
        limit = parse_duration(timeout, key="timeout")
        clock = self._system.clock
        if condition():
            return
        why = f"not within {limit:g} s"
        if not isinstance(clock, ManualClock):
            await self._until(condition, limit, clock)
        else:
            await _settle(clock, condition)
            if not condition() and not is_idle(self._system):
                await self._until(condition, limit, system_clock)
            elif not condition():
                why = f"all is idle, and the manual clock stands at {clock.monotonic():g} s; advance it first, or in another task"
        if not condition():
            raise AssertionError(self._told(f"expected {words}, and none came: {why}"))

    async def _until(self, condition: Callable[[], bool], limit: float, clock: Clock) -> None:
        over = False

        def time_is_up() -> None:
            nonlocal over
            over = True
            self._wake()

        alarm = clock.call_later(limit, time_is_up)
        try:
            while not condition() and not over:
                waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._waiters.append(waiter)
                await waiter
        finally:
            alarm.cancel()

    def _told(self, problem: str) -> str:
        lines = [f"probe {self.ref.path!r}: {problem}"]
        for title, entries in (("taken before", self._entries[: self._taken]), ("still waiting", self._entries[self._taken :])):
            listed = [str(entry) for entry in entries[-_MOST_LISTED:]]
            if len(entries) > _MOST_LISTED:
                listed.insert(0, f"({len(entries) - _MOST_LISTED} more)")
            lines.append(f"{title}: {', '.join(listed) or 'nothing'}")
        busy = busy_actors(self._system)
        lines += [f"busy: {line}" for line in busy[:_MOST_LISTED]]
        return "\n  ".join(lines)


class ProbeActor(Actor):
    """The actor of a probe; each of its lives reports to the same one."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe

    async def on_start(self) -> None:
        # Its own table, which may grow, in place of the one that all actors of a class share.
        self.ref.cell.install(self, self.receive, self.probe.table())

    async def on_terminated(self, ended: Terminated) -> None:
        self.probe.ended(ended)

    def receive(self, message: object) -> object:
        return self.probe.came(message, self)


async def _settle(clock: ManualClock, condition: Callable[[], bool]) -> None:
    """Let everything run that can, until twice in a row it has brought nothing; a clock that another task moves is waited for."""
    quiet = 0
    while not condition() and quiet < 2:
        before = clock.monotonic()
        await clock.advance(0)
        quiet = quiet + 1 if clock.monotonic() == before else 0


def _recorder(probe: Probe, handler: Handler) -> Callable[..., object]:
    signature = inspect.signature(handler.function)

    def record(actor: ProbeActor, *arguments: object, **options: object) -> object:
        try:
            signature.bind(actor, *arguments, **options)
        except TypeError as error:
            raise BadCall(actor.ref.path, f"{handler.name}: {error}") from error
        return probe.came(MethodCall(handler.name, arguments, options), actor)

    return record


def _pattern(wanted: object) -> tuple[str, Callable[[object], bool]]:
    """What is wanted, in words and as a test."""
    if isinstance(wanted, type):
        return f"an instance of {wanted.__name__}", lambda message: isinstance(message, wanted)
    if _is_predicate(wanted):
        test = cast("Callable[[object], object]", wanted)
        return f"a message to which {getattr(test, '__name__', repr(test))} says True", lambda message: bool(test(message))
    return shortened(wanted), lambda message: bool(message == wanted)


def _is_predicate(wanted: object) -> bool:
    return inspect.isroutine(wanted) or isinstance(wanted, functools.partial)


def _settled_at_once() -> None:
    """Stands for the outcome of an ask that was never held."""


def _throw(error: Exception) -> None:
    raise error
