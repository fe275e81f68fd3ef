"""The ``redis`` backend: workers run where agents are, or as child processes; the streams of a Redis server link them."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable, Sequence

from sage_actor.actor.backend import WorkerResources
from sage_actor.actor.worker_agents import AgentInfo, AgentOffer
from sage_actor.backends.redis_agent import RedisAgent
from sage_actor.backends.redis_assigned_worker import assignment
from sage_actor.backends.redis_dispatch import Dispatch
from sage_actor.backends.redis_endpoint import OPENER, RedisEndpoint
from sage_actor.backends.redis_keys import RedisKeys
from sage_actor.backends.redis_leasing import Leasing, look_around
from sage_actor.backends.redis_line import RedisLine, shown
from sage_actor.backends.redis_placement import Wishes, needs_of, take_wishes
from sage_actor.backends.redis_registry import told_resources
from sage_actor.backends.redis_remote_worker import RemoteWorker
from sage_actor.backends.redis_trust import Note, Trust
from sage_actor.backends.worker_group import ProcessGroup, WorkerStart
from sage_actor.backends.worker_limits import limits_of
from sage_actor.errors import BackendUnavailable
from sage_actor.ports import offload

__all__ = ["RedisBackend", "RedisGroup", "create"]


class RedisGroup(ProcessGroup):
    """Workers of agents or of our own, and their keys."""

    def __init__(self, backend: str, group: str, entry: str, keys: RedisKeys, trust: Trust | None = None) -> None:
        """Nothing is started.

        Args:
            trust: with it the workers are those of agents.
        """
        super().__init__(backend, group, entry)
        self._keys = keys
        self._trust = trust
        self._dispatch = Dispatch(keys, trust, failed=self._failed) if trust is not None else None

    async def assign(self, leasing: Leasing, needs: Sequence[WorkerResources]) -> None:
        """Have agents start every worker; `wait_ready` tells when they are up.

        Raises:
            BackendUnavailable: there is no room for them, or the server is not there.
        """
        dispatch, trust = self._dispatch, self._trust
        if dispatch is None or trust is None:
            raise BackendUnavailable(self._backend, f"group {self._group!r} was made for workers of its own")
        await dispatch.open()
        notes = [
            assignment(self._keys, worker, group=self._group, entry=self._entry, resources=told_resources(need))
            for worker, need in enumerate(needs, 1)
        ]

        def add(note: Note, agent: AgentInfo) -> None:
            worker = RemoteWorker(
                note, agent, trust=trust, failed=self._failed, ended=self._ended, wanted=lambda: dispatch.wanted(agent.id)
            )
            self._processes.append(worker)
            dispatch.add(worker)

        def leased(agents: Sequence[AgentInfo]) -> None:
            for note, agent in zip(notes, agents, strict=True):
                add(note, agent)

        await leasing.lease(notes, leased)

    async def _clean_up(self) -> None:
        if self._dispatch is not None:
            await self._dispatch.aclose()
        line = RedisLine(self._keys.address)
        try:
            await line.connect()
            await line.call([("UNLINK", *self._keys.all())])
        except BackendUnavailable:
            pass  # gone, and the keys with it; or else they expire
        finally:
            await line.aclose()


class RedisBackend:
    """Starts groups of workers whose frames travel through a Redis server (6.2 or later).

    Where agents have registered there (``sage worker``), they start the workers, all of them; otherwise this process does. A
    backend that has used agents keeps to them: a job whose agents are gone waits for others.
    """

    __slots__ = ("_address", "_kept", "_wishes", "hosts_in_owner", "name")

    def __init__(self, address: str, wishes: Wishes) -> None:
        self.name = shown(address)
        self.hosts_in_owner = False
        self._address = address
        self._wishes = wishes
        self._kept = bool(wishes.label)

    async def start(self, count: int, *, group: str, entry: str, resources: Sequence[WorkerResources] = ()) -> RedisGroup:
        """Start `count` workers; see `Backend.start`. Cancelling it leaves nothing behind."""
        trust: Trust | None = None
        if count and (self._kept or await self._has_agents()):
            trust = await offload(Trust.of_account)
            self._kept = True
        prefix = f"sage:{group}:{secrets.token_hex(8)}"
        secret = secrets.token_bytes(32) if trust is None else trust.key_of(prefix)
        keys = RedisKeys(self._address, prefix, count, secret)
        started = RedisGroup(self.name, group, entry, keys, trust)
        endpoint = RedisEndpoint(0, keys, silent=started.silent)
        await endpoint.open()
        started.opened(endpoint)
        try:
            if trust is not None:
                await started.assign(Leasing(self._address, self._wishes, trust), needs_of(resources, count, self.name))
            else:
                for worker, limits in enumerate(limits_of(resources, count, self.name), 1):
                    started.start_worker(worker, WorkerStart(OPENER, keys.arguments(), limits=limits))
            await started.wait_ready()
            endpoint.expect_beats()
        except BaseException:
            await started.kill()
            raise
        return started

    async def run_agent(self, offer: AgentOffer, *, stopping: asyncio.Event, note: Callable[[str], None]) -> None:
        """Be an agent; see `AgentBackend.run_agent`."""
        trust = await offload(Trust.of_account)
        await RedisAgent(self._address, offer, trust, note).run(stopping)

    async def agents(self) -> Sequence[AgentInfo]:
        """Every living agent; see `AgentBackend.agents`."""
        trust = await offload(Trust.of_account)
        return [agent.info for agent in await look_around(self._address, trust)]

    async def slots(self) -> int:
        """Slots of the agents that this backend may use, leased ones too; 0 without any. Three round trips."""
        if not await self._has_agents():
            return 0
        trust = await offload(Trust.of_account)
        usable = Leasing(self._address, self._wishes, trust).usable(await look_around(self._address, trust))
        return sum(agent.info.slots for agent in usable)

    async def _has_agents(self) -> bool:
        """Whether there are agents that we should use, or say why we may not."""
        return any(agent.info.label == self._wishes.label for agent in await look_around(self._address, None))


def create(address: str) -> RedisBackend:
    """The factory of the entry points ``redis`` and ``rediss``.

    Raises:
        BackendUnavailable: the address is not one, or redis-py is missing, or this is not a POSIX system.
    """
    if "://" not in address:
        raise BackendUnavailable(address, "the redis backend needs an address", "write backend='redis://localhost:6379/0'")
    if os.name != "posix":
        raise BackendUnavailable(shown(address), f"workers cannot be started on {os.name!r}", "write backend='local'")
    wishes, rest = take_wishes(address)
    return RedisBackend(rest, wishes)
