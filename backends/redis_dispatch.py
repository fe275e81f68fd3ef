"""An owner's side of the agents: tells them what is wanted of its workers, hears what became of these, notices agents that are gone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final, cast

from sage_actor.actor.worker_agents import AgentInfo
from sage_actor.backends.redis_address import RedisAddress
from sage_actor.backends.redis_keys import EXPIRY, RedisKeys
from sage_actor.backends.redis_line import Command, RedisLine
from sage_actor.backends.redis_registry import beat, record, state, state_place, work
from sage_actor.backends.redis_remote_worker import RemoteWorker
from sage_actor.backends.redis_rounds import Life, RedisRounds
from sage_actor.backends.redis_trust import Trust
from sage_actor.errors import BackendError, BackendUnavailable

__all__ = ["Dispatch", "owner_channel"]

LOGGER: Final = logging.getLogger("sage_actor.backends")


def owner_channel(prefix: str) -> str:
    """The channel that the owner of a group listens to, for as long as it is connected."""
    return f"{prefix}:owner"


class Dispatch:
    """Rounds between one owner and the agents of its workers.

    A worker whose agent is gone, or that nobody can reach because the server is, has ended as far as its owner can know. Its
    process then ends by itself: it, and its agent, listen to the owner's heartbeat.
    """

    def __init__(self, keys: RedisKeys, trust: Trust, *, failed: Callable[[BackendError], None]) -> None:
        """Nothing is connected before `open`.

        Args:
            failed: called once when the server was away for too long.
        """
        self._trust = trust
        self._failed = failed
        self._workers: list[RemoteWorker] = []
        self._agents: dict[str, AgentInfo] = {}
        self._lives: dict[str, Life] = {}
        self._ringing: set[str] = set()
        self._doubted: set[str] = set()
        self._asked: list[tuple[str, list[RemoteWorker]]] = []
        self._address = keys.address
        self._rounds = RedisRounds(
            keys.address,
            owner_channel(keys.prefix),
            ask=self._ask,
            answer=self._answer,
            broken=self._broken,
            patience=RedisAddress.of(keys.address).patience,
        )

    async def open(self) -> None:
        """Begin.

        Raises:
            BackendUnavailable: the server is not there.
        """
        await self._rounds.open()

    def add(self, worker: RemoteWorker) -> None:
        """Look after a worker that is leased."""
        agent = worker.agent
        self._workers.append(worker)
        self._agents[agent.id] = agent
        self._lives.setdefault(agent.id, Life())
        self.wanted(agent.id)

    def wanted(self, agent: str) -> None:
        """Something is wanted of a worker of that agent: tell it now."""
        self._ringing.add(agent)
        self._rounds.ring()

    async def aclose(self) -> None:
        """End the rounds, and give back what is leased. Idempotent; never raises for a server that is gone."""
        await self._rounds.aclose()
        agents, self._agents = self._agents, {}
        if not agents:
            return
        line = RedisLine(self._address)
        try:
            await line.connect()
            commands: list[Command] = []
            for agent in agents:
                leases = [worker.lease for worker in self._workers if worker.agent.id == agent]
                commands += [("HDEL", work(agent), *leases), ("HDEL", state(agent), *leases), ("PUBLISH", record(agent), "")]
            await line.call(commands)
        except BackendUnavailable:
            pass  # gone, and the leases with it; or else the agents delete them when they do not hear us
        finally:
            await line.aclose()

    def _ask(self) -> Sequence[Command]:
        living = [worker for worker in self._workers if not worker.ended.is_set()]
        by_agent = [(agent, workers) for agent in self._agents if (workers := [worker for worker in living if worker.agent.id == agent])]
        commands: list[Command] = [("PUBSUB", "NUMSUB", *(record(agent) for agent, _ in by_agent))]
        for agent, workers in by_agent:
            commands.append(("GET", beat(agent)))
            commands.append(("HMGET", state(agent), *(worker.lease for worker in workers)))
            # Told again each time: a server that has lost its memory would otherwise end our workers.
            commands.append(("HSET", work(agent), *(part for worker in workers for part in (worker.lease, worker.assignment))))
            commands.append(("EXPIRE", work(agent), EXPIRY))
        commands += [("PUBLISH", record(agent), "") for agent in self._ringing]
        self._ringing.clear()
        self._asked = by_agent
        return commands

    def _answer(self, replies: list[object]) -> None:
        listeners = cast("list[bytes | int]", replies[0])
        for at, (agent, workers) in enumerate(self._asked):
            beats, states = replies[1 + 4 * at], cast("list[bytes | None]", replies[2 + 4 * at])
            for worker, sealed in zip(workers, states, strict=True):
                told = None if sealed is None else self._trust.unseal(state_place(agent, worker.lease), sealed)
                if told is not None:
                    worker.take(told)
                elif sealed is not None and worker.lease not in self._doubted:
                    self._doubted.add(worker.lease)
                    LOGGER.warning("agent %r told of worker %d with another secret: not believed", worker.agent.name, worker.worker)
            if not self._lives[agent].look(beats, connected=bool(listeners[2 * at + 1])):
                self._gone(agent, "does not answer any more: was it killed, or its machine cut off?")

    def _gone(self, agent: str, reason: str) -> None:
        info = self._agents[agent]
        for worker in self._workers:
            if worker.agent.id == agent:
                worker.out_of_reach(f"its agent {info.name!r} on {info.host} (process {info.pid}) {reason}")

    def _broken(self, error: BackendUnavailable) -> None:
        self._failed(error)
        for worker in self._workers:
            worker.out_of_reach(str(error))
