"""Which agents take which workers: what an address wishes, and a pure choice among the room there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from sage_actor.actor.backend import WorkerResources
from sage_actor.backends.redis_address import shown
from sage_actor.durations import parse_duration
from sage_actor.errors import BackendUnavailable, ConfigError

__all__ = ["Room", "Wishes", "needs_of", "place", "take_wishes"]

_WAIT: Final = 30.0
_ROUNDING: Final = 1e-9  # three times 0.1 is more than 0.3


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the address says about agents.

    Attributes:
        label: agents of this label only; "" for those without one.
        wait: seconds to wait for room where agents are, but too few.
    """

    label: str = ""
    wait: float = _WAIT


def take_wishes(address: str) -> tuple[Wishes, str]:
    """The wishes in an address (``?group=gpu&wait=10s``), and the address without them.

    Raises:
        BackendUnavailable: it is no address, or ``wait`` is no duration.
    """
    try:
        parts = urlsplit(address)
    except ValueError as error:
        raise BackendUnavailable(shown(address), str(error), "write redis://user:password@host:6379/0") from error
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    given = dict(pairs)
    rest = urlencode([(name, value) for name, value in pairs if name not in ("group", "wait")], safe="/")
    try:
        wait = parse_duration(given["wait"], key="wait") if "wait" in given else _WAIT
    except (ConfigError, ValueError) as error:
        raise BackendUnavailable(shown(address), f"wait={given['wait']!r} is no duration: {error}", "write `?wait=30s`") from error
    return Wishes(given.get("group", ""), wait), urlunsplit(parts._replace(query=rest))


def needs_of(resources: Sequence[WorkerResources], count: int, backend: str) -> Sequence[WorkerResources]:
    """What each of `count` workers needs of its agent.

    Raises:
        BackendUnavailable: something is asked for that no agent gives.
    """
    if not resources:
        return [WorkerResources()] * count
    if len(resources) != count:
        raise BackendUnavailable(backend, f"resources of {len(resources)} workers were given for {count}", "give those of each worker")
    for worker, need in enumerate(resources, 1):
        if need.num_gpus:
            raise BackendUnavailable(
                backend, f"worker {worker} asks for num_gpus={need.num_gpus:g}: agents hand out no GPUs",
                "name a group of agents that have them (redis://host/0?group=gpu), or use ray",
            )  # fmt: skip
    return resources


@dataclass(slots=True)
class Room:
    """What an agent has left; `place` takes from a copy."""

    agent: str
    slots: int
    cpus: float
    memory: int | None = None
    custom: Mapping[str, float] = field(default_factory=dict[str, float])

    def take(self, need: WorkerResources) -> Room | None:
        """What would be left with one more worker; None if it does not fit."""
        custom = dict(self.custom)
        for name, amount in need.custom.items():
            custom[name] = custom.get(name, 0.0) - amount
            if custom[name] < -_ROUNDING:
                return None
        cpus = self.cpus - (need.num_cpus or 0.0)
        memory = None if self.memory is None else self.memory - (need.memory or 0)
        if self.slots < 1 or (need.num_cpus and cpus < -_ROUNDING) or (need.memory and memory is not None and memory < 0):
            return None
        return Room(self.agent, self.slots - 1, cpus, memory, custom)


def place(needs: Sequence[WorkerResources], rooms: Sequence[Room]) -> list[str] | None:
    """An agent for each worker, or None if they do not all fit: all of them or none, so that two jobs never wait for each other.

    Each goes where most slots are free, the most demanding first; the same input gives the same answer. It is greedy: a packing
    that only a search would find is not found.
    """
    left = {room.agent: room for room in rooms}
    found: dict[int, str] = {}

    def weight(worker: int) -> tuple[float, int, float]:
        need = needs[worker]
        return (-sum(need.custom.values()), -(need.memory or 0), -(need.num_cpus or 0.0))

    for worker in sorted(range(len(needs)), key=weight):
        fitting = [after for room in left.values() if (after := room.take(needs[worker])) is not None]
        if not fitting:
            return None
        chosen = max(fitting, key=lambda room: room.slots)
        left[chosen.agent] = chosen
        found[worker] = chosen.agent
    return [found[worker] for worker in range(len(needs))]
