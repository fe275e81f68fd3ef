"""Traces: every ask under the ask it was made for, with its times and its end."""

from __future__ import annotations

import asyncio
import re
from random import Random

import pytest

import sage_actor as sage
from sage_actor._core.reply import Reply, Request
from sage_actor.actor.tracing import MemoryTracer, OpenSpan, Span
from sage_actor.testing import ManualClock


class Leaf(sage.Actor):
    def __init__(self, gate: asyncio.Event | None = None) -> None:
        self.gate = gate
        self.stashed = False

    def plain(self, number: int) -> int:
        return number + 1

    async def slow(self, number: int) -> int:
        await asyncio.sleep(0)
        return number + 2

    async def gated(self) -> str:
        assert self.gate is not None
        await self.gate.wait()
        return "open"

    def breaks(self) -> None:
        raise ValueError("broken")

    def later(self) -> str:
        if not self.stashed:
            self.stashed = True
            self.context.stash()
            return ""
        return "served"

    def go_on(self) -> None:
        self.context.unstash()

    def receive(self, message: object) -> object:
        return message


class Branch(sage.Actor):
    def __init__(self, *below: sage.ActorRef[Leaf]) -> None:
        self.below = below

    async def both(self) -> tuple[int, int]:
        first = await self.below[0].ask(Leaf.plain, 1)
        return first, await self.below[1].ask(Leaf.slow, 2)

    async def side_by_side(self) -> list[int]:
        return list(await asyncio.gather(*(leaf.ask(Leaf.slow, 0) for leaf in self.below)))

    async def in_a_task(self) -> int:
        return await asyncio.ensure_future(self.below[0].ask(Leaf.plain, 1))

    async def tells(self) -> None:
        await self.below[0].tell(Leaf.plain, 1)

    async def asks_the_broken(self) -> None:
        await self.below[0].ask(Leaf.breaks)


class Root(sage.Actor):
    def __init__(self, branch: sage.ActorRef[Branch]) -> None:
        self.branch = branch

    async def through(self) -> tuple[int, int]:
        return await self.branch.ask(Branch.both)

    async def told(self) -> None:
        await self.branch.ask(Branch.both)


def by_name(spans: tuple[Span, ...]) -> dict[str, Span]:
    return {f"{span.actor}.{span.method}": span for span in spans}


@pytest.mark.asyncio
@pytest.mark.parametrize("inline", [True, False])
async def test_a_trace_follows_asks_through_actors(inline: bool) -> None:
    tracer = MemoryTracer()
    async with sage.ActorSystem("traced", tracer=tracer, inline_asks=inline) as system:
        leaves = [await system.spawn(Leaf, name=f"leaf{number}") for number in range(2)]
        branch = await system.spawn(Branch, *leaves, name="branch")
        root = await system.spawn(Root, branch, name="root")
        assert await root.ask(Root.through) == (2, 4)
        assert await leaves[0].ask("hello") == "hello"
    spans = by_name(tracer.spans)
    top = spans["root.through"]
    assert (top.parent_id, top.outcome, top.error) == ("", "answered", "")
    assert spans["branch.both"].parent_id == top.span_id
    assert spans["leaf0.plain"].parent_id == spans["leaf1.slow"].parent_id == spans["branch.both"].span_id
    assert {spans[name].trace_id for name in ("root.through", "branch.both", "leaf0.plain", "leaf1.slow")} == {top.trace_id}
    assert spans["leaf0.receive"].trace_id != top.trace_id, "the next ask from outside begins a trace of its own"
    assert tracer.trace_ids == (top.trace_id, spans["leaf0.receive"].trace_id)
    assert [span.method for span in tracer.trace(top.trace_id)] == ["through", "both", "plain", "slow"], "in the order of the asks"
    assert re.fullmatch("[0-9a-f]{32}", top.trace_id)
    assert len({span.span_id for span in tracer.spans}) == 5
    assert all(re.fullmatch("[0-9a-f]{16}", span.span_id) for span in tracer.spans)
    for span in tracer.spans:
        assert span.began_at is not None
        assert span.asked_at <= span.began_at <= span.ended_at


@pytest.mark.asyncio
async def test_asks_side_by_side_and_in_tasks_belong_to_the_handler_that_made_them() -> None:
    tracer = MemoryTracer()
    async with sage.ActorSystem("traced", tracer=tracer) as system:
        leaves = [await system.spawn(Leaf) for _ in range(3)]
        branch = await system.spawn(Branch, *leaves, name="branch")
        await branch.ask(Branch.side_by_side)
        await branch.ask(Branch.in_a_task)
    for trace_id in tracer.trace_ids:
        first, *others = tracer.trace(trace_id)
        assert first.actor == "branch"
        assert {span.parent_id for span in others} == {first.span_id}
    assert [len(tracer.trace(trace_id)) for trace_id in tracer.trace_ids] == [4, 2]


@pytest.mark.asyncio
async def test_a_tell_ends_a_trace_and_its_handler_begins_one() -> None:
    tracer = MemoryTracer()
    async with sage.ActorSystem("traced", tracer=tracer) as system:
        leaves = [await system.spawn(Leaf, name=f"leaf{number}") for number in range(2)]
        branch = await system.spawn(Branch, *leaves, name="branch")
        root = await system.spawn(Root, branch)
        await branch.ask(Branch.tells)
        await root.tell(Root.told)
        await system.wait_idle()
    traces = [[span.method for span in tracer.trace(trace_id)] for trace_id in tracer.trace_ids]
    assert traces == [["tells"], ["both", "plain", "slow"]]


@pytest.mark.asyncio
async def test_times_are_those_of_the_systems_clock() -> None:
    clock, tracer, gate = ManualClock(start=100.0), MemoryTracer(), asyncio.Event()
    async with sage.ActorSystem("traced", tracer=tracer, clock=clock, inline_asks=False) as system:
        leaf = await system.spawn(Leaf, gate)
        first = leaf.ask(Leaf.gated)
        second = leaf.ask(Leaf.plain, 1)
        await clock.advance(2)
        gate.set()
        await asyncio.gather(first, second)
    spans = {span.method: span for span in tracer.spans}
    assert (spans["gated"].asked_at, spans["gated"].began_at, spans["gated"].ended_at) == (100.0, 100.0, 102.0)
    assert (spans["plain"].asked_at, spans["plain"].began_at, spans["plain"].ended_at) == (100.0, 102.0, 102.0)


@pytest.mark.asyncio
async def test_every_end_of_an_ask_is_told_once() -> None:
    clock, tracer, gate = ManualClock(), MemoryTracer(), asyncio.Event()
    never = sage.FixedDelay(attempts=None, delay=0)
    async with sage.ActorSystem("traced", tracer=tracer, clock=clock, restart=never) as system:
        leaf = await system.spawn(Leaf, gate, name="leaf")
        branch = await system.spawn(Branch, leaf, name="branch")
        with pytest.raises(sage.ActorFailed):
            await branch.ask(Branch.asks_the_broken)
        await system.wait_idle()
        held = leaf.ask(Leaf.gated)
        late = leaf.ask(Leaf.plain, 1, timeout=1)
        given_up = leaf.ask(Leaf.plain, 2)
        await asyncio.sleep(0)
        given_up.cancel()
        await clock.advance(1.5)
        with pytest.raises(sage.AskTimeout):
            await late
        gate.set()
        await held
        await system.wait_idle()
        await system.stop(leaf)
        with pytest.raises(sage.ActorStopped):
            await leaf.ask(Leaf.plain, 3)
    ends = [(span.method, span.outcome, span.error, span.began_at is None) for span in tracer.spans]
    assert ends == [
        ("breaks", "failed", "ValueError", False),
        ("asks_the_broken", "failed", "ActorFailed", False),
        ("plain", "cancelled", "", True),
        ("plain", "failed", "AskTimeout", True),
        ("gated", "answered", "", False),
        ("plain", "failed", "ActorStopped", True),
    ]


@pytest.mark.asyncio
async def test_a_stashed_ask_begins_when_it_is_handled_for_good() -> None:
    clock, tracer = ManualClock(), MemoryTracer()
    async with sage.ActorSystem("traced", tracer=tracer, clock=clock) as system:
        leaf = await system.spawn(Leaf)
        waiting = leaf.ask(Leaf.later)
        await clock.advance(5)
        await leaf.ask(Leaf.go_on)
        assert await waiting == "served"
    span = next(span for span in tracer.spans if span.method == "later")
    assert (span.asked_at, span.began_at, span.ended_at) == (0.0, 5.0, 5.0)


@pytest.mark.asyncio
async def test_sampling_is_decided_at_the_root_for_the_whole_trace() -> None:
    tracer = MemoryTracer(sample=0.5, keep=10_000)
    async with sage.ActorSystem("traced", tracer=tracer) as system:
        system.random = Random(1)
        leaves = [await system.spawn(Leaf) for _ in range(2)]
        branch = await system.spawn(Branch, *leaves)
        root = await system.spawn(Root, branch)
        for _ in range(200):
            await root.ask(Root.through)
    sizes = {len(tracer.trace(trace_id)) for trace_id in tracer.trace_ids}
    assert sizes == {4}, "a trace is whole or absent"
    assert 60 < len(tracer.trace_ids) < 140
    for share, kept in ((0.0, 0), (1.0, 4)):
        tracer = MemoryTracer(sample=share)
        async with sage.ActorSystem("traced", tracer=tracer) as system:
            leaves = [await system.spawn(Leaf) for _ in range(2)]
            await (await system.spawn(Root, await system.spawn(Branch, *leaves))).ask(Root.through)
        assert len(tracer.spans) == kept


@pytest.mark.asyncio
async def test_ids_come_from_the_systems_chance() -> None:
    found: list[list[tuple[str, str]]] = []
    for _ in range(2):
        tracer = MemoryTracer()
        async with sage.ActorSystem("traced", tracer=tracer) as system:
            system.random = Random(7)
            leaf = await system.spawn(Leaf)
            await leaf.ask(Leaf.plain, 1)
        found.append([(span.trace_id, span.span_id) for span in tracer.spans])
    assert found[0] == found[1]


@pytest.mark.asyncio
async def test_only_the_last_spans_are_kept() -> None:
    tracer = MemoryTracer(keep=3)
    async with sage.ActorSystem("traced", tracer=tracer) as system:
        leaf = await system.spawn(Leaf)
        for number in range(5):
            await leaf.ask(Leaf.plain, number)
        assert len(tracer.spans) == len(tracer.trace_ids) == 3
        tracer.clear()
        assert tracer.spans == ()
        await leaf.ask(Leaf.slow, 1)
        assert [span.method for span in tracer.spans] == ["slow"]


@pytest.mark.asyncio
async def test_a_trace_is_drawn_as_a_tree_with_times() -> None:
    clock, tracer, gate = ManualClock(), MemoryTracer(), asyncio.Event()

    class Front(sage.Actor):
        def __init__(self, leaf: sage.ActorRef[Leaf]) -> None:
            self.leaf = leaf

        async def serve(self) -> None:
            await self.leaf.ask(Leaf.plain, 1)
            await self.leaf.ask(Leaf.gated)
            await self.leaf.ask(Leaf.breaks)

    async with sage.ActorSystem("traced", tracer=tracer, clock=clock, restart=sage.NoRestart()) as system:
        front = await system.spawn(Front, await system.spawn(Leaf, gate, name="leaf"), name="front")
        served = front.ask(Front.serve)
        await clock.advance(0.0125)
        unfinished = tracer.render(tracer.trace_ids[0])
        gate.set()
        with pytest.raises(sage.ActorFailed):
            await served
    (trace_id,) = tracer.trace_ids
    assert tracer.render(trace_id).splitlines() == [
        f"trace {trace_id}: 4 asks in 12.50 ms",
        "front serve     at 0.00 ms  took 12.50 ms  waited 0.00 ms  failed (ActorFailed)",
        "  leaf plain    at 0.00 ms   took 0.00 ms  waited 0.00 ms  answered",
        "  leaf gated    at 0.00 ms  took 12.50 ms  waited 0.00 ms  answered",
        "  leaf breaks  at 12.50 ms   took 0.00 ms  waited 0.00 ms  failed (ValueError)",
    ]
    assert unfinished.splitlines() == [
        f"trace {trace_id}: 1 ask in 0.00 ms",
        "(asks further up are still under way, or no longer kept)",
        "leaf plain  at 0.00 ms  took 0.00 ms  waited 0.00 ms  answered",
    ]
    with pytest.raises(sage.ActorError, match="no finished ask of trace 'nothing'"):
        tracer.render("nothing")


@pytest.mark.asyncio
async def test_any_tracer_will_do_and_may_decline() -> None:
    class Told:
        def __init__(self) -> None:
            self.events: list[str] = []

        def asked(self, reply: Reply[object], parent: Request | None) -> OpenSpan | None:
            name = "receive" if reply.handler is None else reply.handler.name
            above = None if parent is None else parent.span
            self.events.append(f"asked {name} of {reply.target.path}, {'first' if above is None else 'below'}")
            return None if name == "slow" else self

        def handling(self, reply: Reply[object]) -> None:
            self.events.append("handling")

        def settled(self, reply: Reply[object]) -> None:
            self.events.append(f"settled {reply.state}")

    tracer = Told()
    async with sage.ActorSystem("traced", tracer=tracer) as system:
        leaf = await system.spawn(Leaf, name="leaf")
        branch = await system.spawn(Branch, leaf, leaf, name="branch")
        assert await branch.ask(Branch.both) == (2, 4)
    assert tracer.events == [
        "asked both of branch, first",
        "handling",
        "asked plain of leaf, below",
        "handling",
        "settled 1",
        "asked slow of leaf, below",
        "settled 1",
    ]


@pytest.mark.parametrize(("options", "word"), [({"keep": 0}, "tracer.keep"), ({"sample": 1.5}, "tracer.sample")])
def test_settings_without_sense_are_refused(options: dict[str, int], word: str) -> None:
    with pytest.raises(sage.ConfigError, match=word):
        MemoryTracer(**options)
