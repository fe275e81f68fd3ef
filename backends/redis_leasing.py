"""How a job comes to slots: which agents it may use, waiting for room, and what is said where there is none."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Final, cast

from sage_actor.actor.worker_agents import AgentInfo
from sage_actor.backends.redis_agent import own_version, python_version
from sage_actor.backends.redis_line import RedisLine, shown
from sage_actor.backends.redis_placement import Wishes
from sage_actor.backends.redis_registry import Agent, Overtaken, lease, read_agents, resources_of
from sage_actor.backends.redis_trust import Note, Trust
from sage_actor.errors import BackendUnavailable
from sage_actor.ports import system_clock

__all__ = ["Leasing", "look_around"]

LOGGER: Final = logging.getLogger("sage_actor.backends")

_AGAIN: Final = 0.25
_SAME: Final = "copy `redis.secret` from one machine's data directory to the other's, or set SAGE_ACTOR_SECRET to the same text on both"


async def look_around(address: str, trust: Trust | None) -> list[Agent]:
    """Every living agent.

    Raises:
        BackendUnavailable: the server is not there.
    """
    line = RedisLine(address)
    try:
        await line.connect()
        agents, _ = await read_agents(line, trust)
    finally:
        await line.aclose()
    return agents


class Leasing:
    """Slots for the workers of one group, all of them or none."""

    def __init__(self, address: str, wishes: Wishes, trust: Trust) -> None:
        self._address = address
        self._wishes = wishes
        self._trust = trust

    def usable(self, agents: Sequence[Agent]) -> list[Agent]:
        """Those that may be used, full ones too."""
        return [agent for agent in agents if self._meant(agent) and not agent.info.leaving and not self._fault(agent.info)]

    async def lease(self, assignments: Sequence[Note], leased: Callable[[Sequence[AgentInfo]], None]) -> None:
        """Lease a slot for each assignment; wait for room as long as is wished, saying so once.

        Args:
            leased: gets the agents, in the order of the assignments, as soon as they are leased; also if this is being cancelled.

        Raises:
            BackendUnavailable: there is no room, or nobody who may be used; it says how much there is, and what is wrong with the others.
        """
        line = RedisLine(self._address)
        deadline = system_clock.monotonic() + self._wishes.wait
        told = False
        try:
            await line.connect()
            while True:
                agents, generation = await read_agents(line, self._trust)
                late = system_clock.monotonic() >= deadline
                # One that is not connected is back, or not seen any more, by one of the next looks.
                allowed = self.usable(agents)
                usable = [agent for agent in allowed if agent.connected or late]
                with contextlib.suppress(Overtaken):
                    if await self._try(line, usable, generation, assignments, leased):
                        return
                    faults = [fault for agent in agents if self._meant(agent) and (fault := self._fault(agent.info))]
                    lacking = _lacking(allowed, assignments)
                    if late or (faults and not allowed) or lacking:
                        raise self._shortage(usable, [*faults, *lacking], len(assignments))
                    if not told:
                        told = True
                        LOGGER.warning("%s; waiting up to %.0f s for more", self._room(usable, len(assignments)), self._wishes.wait)
                    await system_clock.sleep(_AGAIN)
        finally:
            await line.aclose()

    async def _try(
        self,
        line: RedisLine,
        usable: Sequence[Agent],
        generation: bytes,
        assignments: Sequence[Note],
        leased: Callable[[Sequence[AgentInfo]], None],
    ) -> bool:
        async def lease_all() -> bool:
            chosen = await lease(line, usable, generation, self._trust, assignments)
            if chosen is None:
                return False
            infos = {agent.info.id: agent.info for agent in usable}
            leased([infos[agent] for agent in chosen])
            return True

        # What is leased must be known, so that it can be given back: a cancellation waits for the server's word.
        leasing = asyncio.ensure_future(lease_all())
        try:
            return await asyncio.shield(leasing)
        except asyncio.CancelledError:
            with contextlib.suppress(BackendUnavailable, Overtaken):
                await leasing
            raise

    def _meant(self, agent: Agent) -> bool:
        return agent.info.label == self._wishes.label

    def _fault(self, agent: AgentInfo) -> str:
        """Why an agent may not be used, and what to do; "" if it may."""
        who = f"agent {agent.name!r} on {agent.host}"
        if not agent.trusted:
            return f"{who} has another secret: {_SAME}, and start it again"
        theirs, ours = (agent.version, agent.python), (own_version(), python_version())
        if theirs != ours:
            return (
                f"{who} runs sage_actor {theirs[0]} on Python {theirs[1]}, this job {ours[0]} on {ours[1]}: "
                "install the same on both, and start it again"
            )
        return ""

    def _room(self, usable: Sequence[Agent], wanted: int) -> str:
        slots = sum(agent.info.slots for agent in usable)
        free = slots - sum(len(agent.leased) for agent in usable)
        label = f" of group {self._wishes.label!r}" if self._wishes.label else ""
        agents = f"{len(usable)} {'agent' if len(usable) == 1 else 'agents'}{label}"
        workers = f"{wanted} {'worker' if wanted == 1 else 'workers'}"
        if free >= wanted:
            return f"{workers} with the resources that they ask for do not fit in the {free} free of {slots} slots of {agents}"
        return f"{workers} need as many slots, and {agents} {'has' if len(usable) == 1 else 'have'} {max(free, 0)} free of {slots}"

    def _shortage(self, usable: Sequence[Agent], faults: Sequence[str], wanted: int) -> BackendUnavailable:
        reason = "; ".join((self._room(usable, wanted), *faults))
        address, label = shown(self._address), f" --group {self._wishes.label}" if self._wishes.label else ""
        return BackendUnavailable(
            address,
            reason,
            f"start more with `sage worker --backend {address}{label}`, see `sage worker --list --backend {address}`, use fewer workers, "
            "or wait longer with ?wait=60s in the address",
        )


def _lacking(usable: Sequence[Agent], assignments: Sequence[Note]) -> list[str]:
    """What no agent has, even with nothing to do: waiting for it would be in vain."""
    if not usable:
        return []
    said: list[str] = []
    for note in assignments:
        need = resources_of(cast("Note", note["resources"]))
        if not any(agent.whole().take(need) for agent in usable):
            asked = {"num_cpus": need.num_cpus, "memory": need.memory, **need.custom}
            told = ", ".join(f"{name}={amount:g}" for name, amount in asked.items() if amount)
            said.append(f"no agent has what worker {note['worker']} asks for: {told}")
    return said
