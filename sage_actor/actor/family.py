"""A supervisor and its children: applies the verdicts of `supervisor_scope` to living actors."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from sage_actor.actor.restarting import start_again, tear_down
from sage_actor.actor.supervision import NoRestart
from sage_actor.actor.supervisor_scope import Supervision, Verdict, affected, verdict

if TYPE_CHECKING:
    from sage_actor.actor.lifecycle import Lifecycle
    from sage_actor.actor.system import ActorSystem

__all__ = ["Family", "Supervisor"]


class Supervisor(Protocol):
    """Who stands above a family: an actor, or the system itself."""

    def suspend(self, error: BaseException) -> int | None:
        """This error of a child is to become the supervisor's own, once the children have ended.

        Answers what `escalated` is to be given then; None if it is not to be called.
        """
        ...

    def escalated(self, error: BaseException, turn: int) -> None:
        """The family's children have been stopped because of this error; now it is the supervisor's own failure."""
        ...


class Family:
    """The children of one supervisor, first started first, and what becomes of them when one fails."""

    __slots__ = ("_budget", "_by_name", "_owner", "escalating", "supervision", "system")

    def __init__(self, system: ActorSystem, owner: Supervisor, supervision: Supervision) -> None:
        self.system = system
        self.supervision = supervision
        self.escalating = 0  # failures on their way to the owner
        self._owner = owner
        self._by_name: dict[str, Lifecycle] = {}
        self._budget: tuple[float, ...] = ()

    @property
    def children(self) -> list[Lifecycle]:
        """The living ones."""
        return list(self._by_name.values())

    def find(self, name: str) -> Lifecycle | None:
        """The living child of that name."""
        return self._by_name.get(name)

    def add(self, name: str, child: Lifecycle) -> None:
        """A child begins; its name is taken from now on."""
        self._by_name[name] = child

    def remove(self, name: str, child: Lifecycle) -> None:
        """A child has ended; its name is free."""
        if self._by_name.get(name) is child:
            del self._by_name[name]

    def failed(self, child: Lifecycle, error: BaseException) -> None:
        """Decide about a failure and see to it. The child serves nothing meanwhile; its failure time is recorded already."""
        decided = self._verdict(self.supervision, child, error)
        if decided.action == "resume" and not child.started:  # what has no instance to go on with can only be started
            decided = self._verdict(replace(self.supervision, decide=None), child, error)
        self._budget = decided.budget_times
        self.system.log_failure(child, error, decided)
        if decided.action == "resume":
            child.resume()
        elif decided.action == "stop":
            child.stop_soon(error)
        elif decided.action == "escalate":
            child.pause()
            turn = self._owner.suspend(error)
            self.escalating += 1
            self.system.start_soon(self._escalate(self.children, error, turn), f"escalation from {child.path}")
        else:
            # One that starts for the first time, or sleeps without an instance, comes after this restart, as if spawned later.
            living = [other for other in self.children if other is child or not (other.cell.passive or other.is_new)]
            temporary = [other for other in living if isinstance(other.strategy, NoRestart)]
            to_stop, to_start = affected(self.supervision.scope, living, child, temporary=temporary)
            turns = {member: member.pause() for member in to_stop}
            self.system.start_soon(self._restart(child, to_stop, to_start, turns, decided.delay, error), f"restart of {child.path}")

    def _verdict(self, supervision: Supervision, child: Lifecycle, error: BaseException) -> Verdict:
        now = self.system.clock.monotonic()
        return verdict(supervision, child.strategy, child.failures, self._budget, now, error, self.system.random)

    async def _restart(
        self,
        failed: Lifecycle,
        to_stop: list[Lifecycle],
        to_start: list[Lifecycle],
        turns: dict[Lifecycle, int],
        delay: float,
        error: BaseException,
    ) -> None:
        # Every member may be stopped, or taken over by a restart of more members, at any await in here.
        for member in to_stop:
            if member in to_start:
                await tear_down(member, turns[member], error)
            elif member.turns_taken == turns[member]:
                await asyncio.shield(member.finish(error))
        for member in to_start:
            if member.turns_taken == turns[member]:
                member.restarts_with = failed
        if failed.turns_taken == turns[failed]:
            await failed.pause_for(delay)
        for member in to_start:
            if member.turns_taken == turns[member]:
                member.restarts_with = None
        for member in to_start:
            await self._start_again(member, turns[member])

    async def _start_again(self, member: Lifecycle, turn: int) -> None:
        """Start a member; a start that fails is a failure like any other, decided anew, if need be for those after it too."""
        try:
            await start_again(member, turn)
        except Exception as error:  # noqa: BLE001 - constructors and on_start are user code; what they raise is the verdict's business
            if not member.ending and member.turns_taken == turn:
                member.start_failed(error)

    async def _escalate(self, children: list[Lifecycle], error: BaseException, turn: int | None) -> None:
        try:
            for child in reversed(children):
                await asyncio.shield(child.finish(error))
            if turn is not None:
                self._owner.escalated(error, turn)
        finally:
            self.escalating -= 1

    async def stop_all(
        self, reason: BaseException | None, *, drain: bool = False, timeout: float | None = None, owner: Lifecycle | None = None
    ) -> None:
        """End every child, last started first, each awaited before the next; at once from when the owner is to end at once."""
        while self._by_name:
            child = next(reversed(self._by_name.values()))
            # Shielded: who waits here may be cancelled; the child's end is not.
            at_once = owner is not None and owner.at_once
            await asyncio.shield(child.finish(reason, drain=drain, timeout=timeout, at_once=at_once))
            self.remove(child.name, child)
