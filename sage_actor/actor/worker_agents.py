"""Workers started anywhere: what an agent is, and what a backend that has them can be asked.

An *agent* is a process that somebody starts on a machine (``sage worker --backend ADDRESS``). It says how many workers it
has room for and waits; a job that starts on that backend leases room from the agents, and they start its workers. Without
any agent the job starts its workers itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol, cast, runtime_checkable

from sage_actor import plugins
from sage_actor.errors import BackendUnavailable

__all__ = ["SECRETS", "AgentBackend", "AgentInfo", "AgentOffer", "shared_secret"]

SECRETS = "sage_actor.secrets"
"""The entry-point group of secrets that machines share: each entry is a function that returns the text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentOffer:
    """What one agent has to give.

    Attributes:
        name: what it is called in messages; need not be unique.
        slots: workers that it runs at the same time at most.
        label: with one, it takes only jobs that name it (``redis://...?group=LABEL``); "" takes those that name none.
        custom: further resources by name.
    """

    name: str
    slots: int
    label: str = ""
    custom: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentInfo:
    """An agent as others see it.

    Attributes:
        id: unique to this run of it.
        name, slots, label, custom: what it offers, see `AgentOffer`.
        host, pid: where it runs.
        cpus, memory: cores and bytes of that machine.
        version, python: of sage_actor there, and of Python ("3.11").
        used: slots that are leased now.
        jobs: the groups that lease them, sorted.
        heard: seconds since it last said that it is there.
        leaving: it was told to stop and takes nothing more.
        trusted: it has the same secret as we.
    """

    id: str
    name: str
    slots: int
    label: str
    custom: Mapping[str, float]
    host: str
    pid: int
    cpus: float
    memory: int | None
    version: str
    python: str
    used: int
    jobs: tuple[str, ...]
    heard: float
    leaving: bool
    trusted: bool


@runtime_checkable
class AgentBackend(Protocol):
    """What a backend with agents has beside `Backend`."""

    async def run_agent(self, offer: AgentOffer, *, stopping: asyncio.Event, note: Callable[[str], None]) -> None:
        """Be an agent until `stopping` is set; then take nothing more, end the workers, sign off, and return.

        Cancelling it kills the workers at once, and signs off too.

        Args:
            note: told in one line what happens.

        Raises:
            BackendUnavailable: what carries the messages cannot be reached at first; later losses are waited out.
        """
        ...

    async def agents(self) -> Sequence[AgentInfo]:
        """Every living agent, whoever may use it, by name."""
        ...

    async def slots(self) -> int:
        """Workers that the agents which this backend may use can run altogether, leased slots included; 0 without agents."""
        ...


def shared_secret(name: str) -> str:
    """The secret of that name. What provides it lies above this layer (it reads files and the environment), so it is found by name.

    Raises:
        BackendUnavailable: nothing installed provides it.
        ConfigError: it cannot be read or written.
    """
    provider = plugins.find(SECRETS, name)
    if provider is None:
        raise BackendUnavailable(name, f"no entry point {name!r} in group {SECRETS!r}", "install sage_actor again: its metadata is older")
    return cast("Callable[[], str]", provider)()
