"""The life of a task that reads from others: drain the gate, run the chain, keep barriers apart."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from sage_actor._core.batch import BARRIER, END, IDLE, WATERMARK, Batch, Marker
from sage_actor.dataflow.watermarks import MAX_WATERMARK
from sage_actor.runtime.alignment import Alignment
from sage_actor.runtime.valve import Valve

if TYPE_CHECKING:
    from sage_actor.runtime.task import Task

__all__ = ["GateLoop"]

MERGE_BELOW = 512
"""Waiting batches smaller than this are merged before they enter the chain."""


class GateLoop:
    """Takes what waits in the gate, in order per channel, until every channel has ended.

    A channel whose barrier has come is held until all others have delivered theirs (exactly once); in at-least-once mode it
    flows on (F3, F9).
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.gate = task.gate
        channels = task.spec.inputs
        self.roles = [channel.role for channel in channels]
        self.two = any(self.roles)
        self.open = len(channels)
        self.valve = Valve([channel.timed for channel in channels])
        self.alignment = Alignment(len(channels))
        self.holds = task.mode == "exactly_once"
        self.pending: Batch | None = None
        self.pending_role: int = 0
        self.reached = self.valve.watermark

    async def run(self) -> bool:
        """Work until all input has ended; False if the gate was closed under it."""
        task, gate = self.task, self.gate
        counters = task.counters
        limit = task.settings.batch_records
        clock = time.perf_counter_ns
        flushed = clock()
        while self.open:
            items = gate.drain(limit)
            if not items:
                if task.routers:
                    await task.flush()
                begun = clock()
                task.working = False
                if not await gate.wait():
                    return False
                task.working = True
                flushed = clock()
                counters.idle_ns += flushed - begun
                task.turns.begun = flushed / 1e9
                continue
            begun = clock()
            blocked = task.blocked()
            await self._take(items)
            now = clock()
            waited = task.blocked() - blocked
            counters.busy_ns += now - begun - waited
            counters.backpressured_ns += waited
            counters.latency.record(now - begun)
            if now - flushed > 2_000_000:
                await task.flush()
                flushed = now
                await task.turns.breathe()
        return True

    async def _take(self, items: list[tuple[int, Any]]) -> None:
        counters = self.task.counters
        simple = len(self.roles) == 1
        for channel, item in items:
            if item.__class__ is Batch:
                batch: Batch = item
                counters.batches += 1
                if not simple or batch.watermarks is not None:
                    self.valve.enter(channel, batch)
                role = self.roles[channel]
                pending = self.pending
                if pending is None:
                    self.pending, self.pending_role = batch, role
                elif role != self.pending_role or len(pending) >= MERGE_BELOW or not pending.extend(batch):
                    await self._feed()
                    self.pending, self.pending_role = batch, role
            elif channel < 0:
                await self._feed()
                await self.task.attend()
            elif item.__class__ is Marker:
                await self._mark(channel, item)
        await self._feed()
        await self._advance()

    async def _feed(self) -> None:
        """Hand what was merged to the chain."""
        pending = self.pending
        if pending is not None:
            self.pending = None
            self.task.silent = False
            chain = self.task.chain
            await (chain.second(pending) if self.pending_role else chain.first(pending))

    async def _advance(self) -> None:
        if self.reached < self.valve.watermark:
            self.reached = self.valve.watermark
            await self.task.chain.advance(self.reached)

    async def _mark(self, channel: int, marker: Marker) -> None:
        kind = marker.kind
        if kind == WATERMARK:
            self.valve.advance(channel, marker.value)
            if not self.valve.idle and not self.task.has_own_time:
                self.task.silent = False
        elif kind == IDLE:
            self.valve.fall_idle(channel)
            await self._fall_idle()
        elif kind == BARRIER:
            await self._barrier(channel, marker.value)
        elif kind == END:
            self.open -= 1
            self.alignment.end(channel)
            if self.open:
                self.valve.end(channel)
                await self._fall_idle()
            await self._complete()

    async def _fall_idle(self) -> None:
        """Perhaps all inputs are silent now; where records get their time here, that says nothing about it."""
        if self.valve.idle and not self.task.has_own_time:
            await self._feed()
            await self._advance()
            self.task.fall_idle()

    async def _barrier(self, channel: int, checkpoint: int) -> None:
        given_up = self.alignment.barrier(channel, checkpoint)
        if given_up is None:
            return
        if self.holds:
            for other in given_up:
                self.gate.release(other)
            self.gate.hold(channel)
        await self._complete()

    async def _complete(self) -> None:
        """All barriers are here: what came before them is in the state, and nothing else (F4)."""
        if not self.alignment.complete():
            return
        await self._feed()
        await self._advance()
        checkpoint = self.alignment.checkpoint
        held = self.alignment.finish()
        if self.open:  # a task whose input has ended gives its last state instead
            await self.task.snapshot_at(checkpoint)
        if self.holds:
            for channel in held:
                self.gate.release(channel)

    def cancel(self, checkpoint: int) -> None:
        """A checkpoint has been given up."""
        held = self.alignment.cancel(checkpoint)
        if self.holds:
            for channel in held:
                self.gate.release(channel)

    async def finish(self) -> None:
        """Input has ended: time has no bound any more."""
        await self.task.chain.advance(MAX_WATERMARK)
