"""One actor against a model of its mailbox: any sequence of sends, cancellations, failures, stashing, and an end."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import sage_actor as sage
from sage_actor._core.actor_ref import ActorRef
from sage_actor.testing import ManualClock

# What is put aside once or twice, and what it does when it is handled in the end.
ASIDE = {"aside note": (1, "note"), "aside fail": (1, "fail"), "aside unstash": (1, "unstash"), "aside twice": (2, "note")}
KINDS = ["note", "note later", "hold", "hold softly", "fail", "fail later", "expected", "stash", "stash later", "unstash", "bad", *ASIDE]
KIND = st.sampled_from(["hold", "hold softly", "hold softly", "unstash", *KINDS])  # only behind one that is held do mailboxes fill


class Subject(sage.Actor):
    """The real thing. What it handles stands in a list that outlives its restarts."""

    expected_errors = (KeyError,)

    def __init__(self, handled: list[int], asides: Counter[int], gates: dict[int, asyncio.Event]) -> None:
        self.handled = handled
        self.asides = asides
        self.gates = gates
        self.stashing = True

    def note(self, number: int) -> int:
        self.handled.append(number)
        return number

    async def note_later(self, number: int) -> int:
        await asyncio.sleep(0)
        return self.note(number)

    async def hold(self, number: int) -> int:
        await self.gates[number].wait()
        return self.note(number)

    @sage.interruptible
    async def hold_softly(self, number: int) -> int:
        return await self.hold(number)

    def fail(self, number: int) -> None:
        self.note(number)
        raise ValueError(number)

    async def fail_later(self, number: int) -> None:
        await asyncio.sleep(0)
        self.fail(number)

    def expected(self, number: int) -> None:
        self.note(number)
        raise KeyError(number)

    def stash(self, number: int) -> int:
        if self.stashing:
            self.context.stash()
            return -1
        return self.note(number)

    async def stash_later(self, number: int) -> int:
        await asyncio.sleep(0)
        return self.stash(number)

    def unstash(self, number: int) -> int:
        self.stashing = False
        self.context.unstash()
        return self.note(number)

    def aside(self, number: int, times: int, then: str) -> int:
        if self.asides[number] < times:
            self.asides[number] += 1
            self.context.stash()
            return -1
        getattr(self, then)(number)
        return number

    def bad(self) -> None:
        raise AssertionError("it is called with an argument too many")


@dataclass(eq=False)
class Sent:
    """One message, as the model sees it; `outcome` is what its sender will have learned."""

    number: int
    kind: str
    asked: bool
    given_up: bool = False
    outcome: str = "pending"

    def settle(self, outcome: str) -> None:
        if self.outcome == "pending":
            self.outcome = outcome


class Model:
    """What the rules say, for a loop on which everything that can happen has happened."""

    def __init__(self, capacity: int, overflow: str) -> None:
        self.capacity = capacity
        self.overflow = overflow
        self.queue: list[Sent] = []
        self.line: list[Sent] = []
        self.stash: list[Sent] = []
        self.replayed: list[Sent] = []
        self.held: Sent | None = None
        self.stashing = True
        self.asides: Counter[int] = Counter()
        self.handled: list[int] = []
        self.dead: list[int] = []
        self.accepted = self.failed = self.expected = self.never_accepted = self.bad = 0

    def send(self, sent: Sent, waits: bool) -> str:
        """What the call says: accepted, dropped, full, or that it waits."""
        if len(self.queue) < self.capacity and not self.line:
            self.accept(sent)
        elif self.overflow == "wait":
            if not waits:
                return "full"
            self.line.append(sent)
            return "waits"
        elif self.overflow == "fail":
            sent.settle("full")
            return "full"
        elif self.overflow == "drop_new":
            self.accepted += 1
            self.kill(sent, "full")
            return "dropped"
        else:
            self.kill(self.queue.pop(0), "full")
            self.accept(sent)
        self.run()
        return "accepted"

    def accept(self, sent: Sent) -> None:
        self.accepted += 1
        self.queue.append(sent)
        if not sent.asked:
            sent.settle("accepted")

    def kill(self, sent: Sent, outcome: str) -> None:
        self.dead.append(sent.number)
        sent.settle(outcome)

    def run(self) -> None:
        while self.held is None:
            if not self.replayed and not self.queue and not self.line:
                return
            if self.replayed:
                self.handle(self.replayed.pop(0))
            elif self.queue:
                self.handle(self.queue.pop(0))
            self.admit()
        self.admit()

    def admit(self) -> None:
        while self.line and len(self.queue) < self.capacity:
            self.accept(self.line.pop(0))

    def handle(self, sent: Sent) -> None:
        kind = sent.kind.removesuffix(" later")
        if sent.given_up:
            self.kill(sent, "cancelled")
        elif kind in ("hold", "hold softly"):
            self.held = sent
        elif kind == "bad":
            self.kill(sent, "bad")
        elif (kind == "stash" and self.stashing) or self.asides[sent.number] < ASIDE.get(kind, (0, ""))[0]:
            self.asides[sent.number] += 1
            self.stash.append(sent)
        else:
            kind = ASIDE.get(kind, (0, kind))[1]
            self.handled.append(sent.number)
            sent.settle({"fail": "failed", "expected": "expected"}.get(kind, "answered"))
            if kind == "unstash":
                self.stashing = False
                self.replayed, self.stash = self.stash + self.replayed, []
            elif kind == "fail" or (kind == "expected" and not sent.asked):
                self.failed += 1
                self.stashing = True
                self.replayed, self.stash = self.stash + self.replayed, []
            elif kind == "expected":
                self.expected += 1

    def release(self) -> None:
        assert self.held is not None
        held, self.held = self.held, None
        self.handled.append(held.number)
        held.settle("answered")
        self.run()

    def give_up(self, sent: Sent) -> None:
        if sent in self.line:
            self.line.remove(sent)
        elif sent is self.held and sent.kind == "hold softly" and sent.asked:
            self.held = None
            self.kill(sent, "cancelled")
        sent.given_up = True
        sent.settle("cancelled")
        self.run()

    def end(self, gently: bool) -> None:
        """By a kill, or by a stop after which the message in hand is let go."""
        if self.held is not None:
            held, self.held = self.held, None
            if gently:
                self.handled.append(held.number)
                held.settle("answered")
            else:
                self.kill(held, "stopped")
        for sent in [*self.stash, *self.replayed, *self.queue]:
            self.kill(sent, "stopped")
        for sent in self.line:
            sent.settle("stopped" if sent.asked else "refused")
            if not sent.asked:
                self.dead.append(sent.number)
                self.never_accepted += 1
        self.stash, self.replayed, self.queue, self.line = [], [], [], []


ERRORS = {
    sage.MailboxFull: "full", sage.ActorFailed: "failed", sage.BadCall: "bad", KeyError: "expected", sage.ActorStopped: "stopped",
}  # fmt: skip


def outcome_of(future: Any) -> str:
    """What the sender has learned, in the model's words."""
    if not future.done():
        return "pending"
    if future.cancelled():
        return "cancelled"
    error = future.exception()
    if error is not None:
        return ERRORS[type(error)]
    if isinstance(future, asyncio.Task):
        return "accepted" if future.result() else "refused"
    return "answered"


class ActorMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = ManualClock()
        self.handled: list[int] = []
        self.gates: dict[int, asyncio.Event] = {}
        self.futures: list[tuple[Sent, Any]] = []
        self.count = 0

    def settle(self) -> None:
        self.runner.run(self.clock.advance(0))

    @initialize(
        capacity=st.integers(1, 3),
        overflow=st.sampled_from(["wait", "fail", "drop_new", "drop_old"]),
        inline=st.booleans(),
        stop=st.booleans(),
    )
    def start(self, capacity: int, overflow: Any, inline: bool, stop: bool) -> None:
        self.model = Model(capacity, overflow)
        self.gently = stop
        restart = sage.FixedDelay(attempts=None, delay=0)
        self.system = sage.ActorSystem("model", clock=self.clock, restart=restart, inline_asks=inline, stop_timeout=0)
        self.ref: ActorRef[Subject] = self.runner.run(self.spawn(capacity, overflow))
        self.settle()

    async def spawn(self, capacity: int, overflow: Any) -> ActorRef[Subject]:
        await self.system.__aenter__()
        mailbox = sage.MailboxSettings(capacity=capacity, overflow=overflow)
        return await self.system.spawn(Subject, self.handled, Counter(), self.gates, mailbox=mailbox)

    def next_message(self, kind: str, asked: bool) -> tuple[Sent, tuple[Any, ...]]:
        self.count += 1
        self.gates[self.count] = asyncio.Event()
        arguments: tuple[Any, ...] = (self.count, *ASIDE.get(kind, ()))
        return Sent(self.count, kind, asked), (getattr(Subject, "aside" if kind in ASIDE else kind.replace(" ", "_")), *arguments)

    @rule(kind=KIND)
    def tell_nowait(self, kind: str) -> None:
        sent, call = self.next_message(kind, asked=False)

        async def tell() -> str:
            try:
                return "accepted" if self.ref.tell_nowait(*call) else "dropped"
            except sage.MailboxFull:
                return "full"

        assert self.runner.run(tell()) == self.model.send(sent, waits=False)

    @rule(kind=KIND)
    def tell(self, kind: str) -> None:
        sent, call = self.next_message(kind, asked=False)

        async def tell() -> bool:
            return await self.ref.tell(*call)

        async def begin() -> asyncio.Task[bool]:
            return asyncio.create_task(tell())

        task = self.runner.run(begin())
        self.settle()
        said = self.model.send(sent, waits=True)
        if said == "dropped":
            sent.outcome = "refused"
        elif said == "full":
            sent.outcome = "full"
        self.futures.append((sent, task))

    @rule(kind=KIND)
    def ask(self, kind: str) -> None:
        sent, call = self.next_message(kind, asked=True)

        async def ask() -> sage.Reply[Any]:
            return self.ref.ask(*call)

        reply = self.runner.run(ask())
        self.model.send(sent, waits=True)
        self.futures.append((sent, reply))

    @rule()
    def release(self) -> None:
        held = self.model.held
        if held is None:
            return
        self.runner.run(self.open(held.number))
        self.model.release()

    async def open(self, number: int) -> None:
        self.gates[number].set()

    @rule(which=st.integers(0, 5))
    def give_up(self, which: int) -> None:
        pending = [each for each in self.futures if each[0].outcome == "pending"]
        if pending:
            self.cancel(*pending[which % len(pending)])

    @rule(kind=KIND)
    def ask_and_give_up(self, kind: str) -> None:
        self.ask(kind)
        self.settle()
        sent, future = self.futures[-1]
        if sent.outcome == "pending":
            self.cancel(sent, future)

    def cancel(self, sent: Sent, future: Any) -> None:
        async def cancel() -> None:
            assert future.cancel()

        self.runner.run(cancel())
        self.model.give_up(sent)

    @invariant()
    def compare(self) -> None:
        if not hasattr(self, "model"):
            return
        self.settle()
        model, found = self.model, self.system.statistics().actors[0]
        assert self.handled == model.handled
        assert [letter.message[0] for letter in self.system.dead_letters] == model.dead  # type: ignore[index]
        assert (found.accepted, found.handled, found.dead_lettered) == (model.accepted, len(model.handled), len(model.dead))
        assert (found.queued, found.stashed, found.waiting_senders) == (len(model.queue), len(model.stash), len(model.line))
        assert found.in_hand == (model.held is not None)
        assert (found.failed, found.expected_errors, found.restarts) == (model.failed, model.expected, model.failed)
        assert found.accepted == found.handled + found.dead_lettered + found.queued + found.stashed + found.in_hand
        for sent, future in self.futures:
            assert (sent.number, outcome_of(future)) == (sent.number, sent.outcome)

    def teardown(self) -> None:
        if not hasattr(self, "model"):
            self.runner.close()
            return
        try:
            self.runner.run(self.end())
            model, cell = self.model, self.ref.cell
            model.end(self.gently)
            assert self.handled == model.handled
            assert Counter(letter.message[0] for letter in self.system.dead_letters) == Counter(model.dead)  # type: ignore[index]
            assert cell.dead_lettered == len(model.dead) - model.never_accepted
            assert cell.statistics().accepted == cell.handled + cell.dead_lettered
            for sent, future in self.futures:
                assert (sent.number, outcome_of(future)) == (sent.number, sent.outcome)
        finally:
            self.runner.run(self.leave())
            self.runner.close()

    async def end(self) -> None:
        stopping = asyncio.create_task(self.system.stop(self.ref, drain=False, timeout=10 if self.gently else 0))
        await self.clock.advance(0)
        for gate in self.gates.values():
            gate.set()
        await self.clock.advance(0)
        await stopping
        assert asyncio.all_tasks() == {asyncio.current_task()}

    async def leave(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await self.system.aclose(drain=False)


ActorMachine.TestCase.settings = settings(max_examples=120, stateful_step_count=30, deadline=None)


@pytest.mark.rule("A41")
class TestActorAgainstModel(ActorMachine.TestCase):  # type: ignore[misc, name-defined]
    """Accounts, order, dead letters and what every sender learns, after each step."""
