"""A supervisor and its children: applies the verdicts of `supervisor_scope` to living actors."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from sage_actor.actor.supervision import NoRestart
from sage_actor.actor.supervisor_scope import Supervision, affected, verdict

if TYPE_CHECKING:
    from sage_actor.actor.lifecycle import Lifecycle
    from sage_actor.actor.system import ActorSystem

__all__ = ["Family", "Supervisor"]


class Supervisor(Protocol):
    """Who stands above a family: an actor, or the system itself."""

    def escalated(self, error: BaseException) -> None:
        """The family's children have been stopped because of this error; now it is the supervisor's own failure."""
        ...


class Family:
    """The children of one supervisor, first started first, and what becomes of them when one fails."""

    __slots__ = ("_budget", "_by_name", "_owner", "supervision", "system")

    def __init__(self, system: ActorSystem, owner: Supervisor, supervision: Supervision) -> None:
        self.system = system
        self.supervision = supervision
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
        decided = verdict(
            self.supervision, child.strategy, child.failures, self._budget, self.system.clock.monotonic(), error, self.system.random
        )
        self._budget = decided.budget_times
        self.system.log_failure(child, error, decided)
        if decided.action == "resume":
            child.cell.run()
        elif decided.action == "stop":
            child.stop_soon(error)
        elif decided.action == "escalate":
            self.system.start_soon(self._escalate(error), f"escalation from {child.path}")
        else:
            temporary = [other for other in self.children if isinstance(other.strategy, NoRestart)]
            to_stop, to_start = affected(self.supervision.scope, self.children, child, temporary=temporary)
            for member in to_stop:
                member.pause()
            self.system.start_soon(self._restart(child, to_stop, to_start, decided.delay, error), f"restart of {child.path}")

    async def _restart(
        self, failed: Lifecycle, to_stop: list[Lifecycle], to_start: list[Lifecycle], delay: float, error: BaseException
    ) -> None:
        for member in to_stop:
            if member in to_start:
                await member.tear_down(error)
            else:
                await asyncio.shield(member.finish(error))
        await failed.pause_for(delay)
        for member in to_start:
            if not member.ending and not await self._start_again(member):
                return  # decided anew, for this member and those after it

    async def _start_again(self, member: Lifecycle) -> bool:
        """Start a member; a start that fails is a failure like any other, decided anew. False if that took the matter over."""
        try:
            await member.start_again()
        except Exception as error:  # noqa: BLE001 - constructors and on_start are user code; what they raise is the verdict's business
            if not member.ending:
                member.start_failed(error)
            return False
        return True

    async def _escalate(self, error: BaseException) -> None:
        await self.stop_all(error)
        self._owner.escalated(error)

    async def stop_all(self, reason: BaseException | None, *, drain: bool = False, timeout: float | None = None) -> None:
        """End every child, last started first, each awaited before the next."""
        while self._by_name:
            child = next(reversed(self._by_name.values()))
            # Shielded: who waits here may be cancelled; the child's end is not.
            await asyncio.shield(child.finish(reason, drain=drain, timeout=timeout))
            self._by_name.pop(child.name, None)
