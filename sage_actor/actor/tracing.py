"""Traces: which ask led to which, and how long each waited and took."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from sage_actor.errors import ActorError, ActorFailed, ConfigError
from sage_actor.ports import Clock

if TYPE_CHECKING:
    from sage_actor._core.reply import Reply, Request
    from sage_actor.actor.lifecycle import Lifecycle

__all__ = ["MemoryTracer", "OpenSpan", "Span", "SpanOutcome", "Tracer"]

SpanOutcome = Literal["answered", "failed", "cancelled"]

_OUTCOMES: dict[int, SpanOutcome] = {1: "answered", 2: "failed", 3: "cancelled"}  # by `Reply.state`
_ONE_UP = 2  # columns by which an ask stands further right than the one it was made for


class OpenSpan(Protocol):
    """What a tracer keeps of one ask while it is under way. Called on the actor's loop; must neither wait nor raise."""

    def handling(self, reply: Reply[Any]) -> None:
        """The handler begins now; once more if the message was stashed and is handled again."""
        ...

    def settled(self, reply: Reply[Any]) -> None:
        """The ask has its answer, its error, or was cancelled (`reply.state`). Once; the handler may still run, or never have."""
        ...


class Tracer(Protocol):
    """Told of every ask of a system: ``ActorSystem(tracer=...)``. Tells belong to no trace: what their handlers ask begins one.

    Called on the asking code's own stack, before anything else happens to the ask; must neither wait nor raise.
    """

    def asked(self, reply: Reply[Any], parent: Request | None) -> OpenSpan | None:
        """An ask begins.

        Args:
            reply: it; ``reply.target.path`` is the actor, ``reply.handler`` the method (None: `receive`).
            parent: the request on whose behalf it is made, None for code outside of handlers. ``parent.span`` is what this
                method answered for it.

        Returns:
            what is to be told of it from now on, or None to hear no more.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One ask, finished.

    Attributes:
        trace_id: the same for an ask and all that were made on its behalf, at any depth; 32 hexadecimal digits.
        span_id: its own; 16 hexadecimal digits.
        parent_id: of the ask it was made for; "" for the first of a trace.
        actor: path of the actor asked.
        method: the method, or "receive".
        asked_at: when, in seconds of the system's clock (monotonic).
        began_at: when the handler began; None if it had not when the ask was settled.
        ended_at: when the ask was settled.
        outcome: how.
        error: class of the error, "" unless it failed. For a failed handler the class of what it raised.
    """

    trace_id: str
    span_id: str
    parent_id: str
    actor: str
    method: str
    asked_at: float
    began_at: float | None
    ended_at: float
    outcome: SpanOutcome
    error: str


class MemoryTracer:
    """Keeps the last finished asks of a system in memory.

        tracer = MemoryTracer()
        async with sage.ActorSystem("shop", tracer=tracer) as system:
            await orders.ask(Orders.place, order)
            print(tracer.render(tracer.trace_ids[-1]))

    Whether a trace is kept is decided once, at its first ask, so that it is whole or absent. One tracer may serve several
    systems, and may be read from any thread.

    Args:
        keep: finished asks that are kept; older ones go.
        sample: share of the traces that are kept, from 0 to 1, by the system's own chance.

    Raises:
        ConfigError: `keep` below 1, or `sample` is no share.
    """

    def __init__(self, *, keep: int = 1000, sample: float = 1.0) -> None:
        if keep < 1:
            raise ConfigError("tracer.keep", f"must be at least 1, not {keep}")
        if not 0.0 <= sample <= 1.0:
            raise ConfigError("tracer.sample", f"is a share from 0 to 1, not {sample}")
        self._sample = sample
        self._finished: deque[Span] = deque(maxlen=keep)

    def asked(self, reply: Reply[Any], parent: Request | None) -> OpenSpan:
        above = _span_above(parent)
        if isinstance(above, _Unsampled):
            return above
        lifecycle: Lifecycle = reply.target.lifecycle
        chance = lifecycle.system.random
        if above is not None:
            trace_id, parent_id = above.trace_id, above.span_id
        elif self._sample < 1.0 and chance.random() >= self._sample:
            return _UNSAMPLED
        else:
            trace_id, parent_id = f"{chance.getrandbits(128):032x}", ""
        return _Recorded(self._finished, trace_id, f"{chance.getrandbits(64):016x}", parent_id, lifecycle.system.clock)

    @property
    def spans(self) -> tuple[Span, ...]:
        """The finished asks that are kept, first finished first: an ask as a rule stands after those made on its behalf."""
        return tuple(self._finished)

    @property
    def trace_ids(self) -> tuple[str, ...]:
        """The traces that are kept, the one with the latest ask last."""
        return tuple(reversed(dict.fromkeys(span.trace_id for span in reversed(self.spans))))

    def trace(self, trace_id: str) -> tuple[Span, ...]:
        """The asks of one trace, first asked first; empty if none is kept."""
        return tuple(sorted((span for span in self.spans if span.trace_id == trace_id), key=lambda span: span.asked_at))

    def render(self, trace_id: str) -> str:
        """One trace as text: a line an ask, those made on its behalf below it and further right.

        Raises:
            ActorError: no finished ask of that trace is kept.
        """
        spans = self.trace(trace_id)
        if not spans:
            raise ActorError(f"no finished ask of trace {trace_id!r} is kept; `trace_ids` has those that are")
        return _drawn(trace_id, spans)

    def clear(self) -> None:
        """Forget what is kept; asks under way are kept when they finish."""
        self._finished.clear()


class _Unsampled:
    """Stands for all asks of the traces that are not kept."""

    __slots__ = ()

    def handling(self, reply: Reply[Any]) -> None:
        pass

    def settled(self, reply: Reply[Any]) -> None:
        pass


_UNSAMPLED = _Unsampled()


class _Recorded:
    """One ask under way that will be kept."""

    __slots__ = ("_asked_at", "_began_at", "_clock", "_finished", "_parent_id", "span_id", "trace_id")

    def __init__(self, finished: deque[Span], trace_id: str, span_id: str, parent_id: str, clock: Clock) -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self._parent_id = parent_id
        self._finished = finished
        self._clock = clock
        self._asked_at = clock.monotonic()
        self._began_at: float | None = None

    def handling(self, reply: Reply[Any]) -> None:
        self._began_at = self._clock.monotonic()

    def settled(self, reply: Reply[Any]) -> None:
        outcome = _OUTCOMES[reply.state]
        error = reply.exception() if outcome == "failed" else None
        if isinstance(error, ActorFailed) and error.__cause__ is not None:
            error = error.__cause__
        span = Span(
            trace_id=self.trace_id,
            span_id=self.span_id,
            parent_id=self._parent_id,
            actor=reply.target.path,
            method="receive" if reply.handler is None else reply.handler.name,
            asked_at=self._asked_at,
            began_at=self._began_at,
            ended_at=self._clock.monotonic(),
            outcome=outcome,
            error="" if error is None else type(error).__name__,
        )
        self._finished.append(span)


def _span_above(request: Request | None) -> _Recorded | _Unsampled | None:
    """The span of the nearest ask on whose behalf a request works; hooks and told messages in between have none."""
    while request is not None:
        span: object = request.span
        if span is not None:
            return span if isinstance(span, _Recorded | _Unsampled) else None
        request = request.parent
    return None


def _drawn(trace_id: str, spans: Sequence[Span]) -> str:
    known = {span.span_id for span in spans}
    below: dict[str, list[Span]] = {}
    for span in spans:
        below.setdefault(span.parent_id if span.parent_id in known else "", []).append(span)
    begun = min(span.asked_at for span in spans)
    rows: list[tuple[str, str, str, str, str]] = []
    pending = [(0, span) for span in reversed(below[""])]
    while pending:
        depth, span = pending.pop()
        rows.append((
            " " * (_ONE_UP * depth) + f"{span.actor} {span.method}",
            f"at {_milliseconds(span.asked_at - begun)}",
            f"took {_milliseconds(span.ended_at - span.asked_at)}",
            "not begun" if span.began_at is None else f"waited {_milliseconds(span.began_at - span.asked_at)}",
            span.outcome + (f" ({span.error})" if span.error else ""),
        ))  # fmt: skip
        pending += [(depth + 1, child) for child in reversed(below.get(span.span_id, []))]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    number = f"{len(rows)} ask" + ("s" if len(rows) > 1 else "")
    lines = [f"trace {trace_id}: {number} in {_milliseconds(max(span.ended_at for span in spans) - begun)}"]
    if any(span.parent_id and span.parent_id not in known for span in spans):
        lines.append("(asks further up are still under way, or no longer kept)")
    for label, at, took, waited, outcome in rows:
        lines.append(f"{label:<{widths[0]}}  {at:>{widths[1]}}  {took:>{widths[2]}}  {waited:>{widths[3]}}  {outcome}")
    return "\n".join(lines)


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms"
