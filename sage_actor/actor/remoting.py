"""The seam between an actor system and what gives it workers: `sage_actor.remote`, found by name when a backend is asked for."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, cast, get_args

from sage_actor.errors import ActorError, ConfigError

if TYPE_CHECKING:
    from sage_actor._core.actor_ref import ActorRef
    from sage_actor.actor.backend import Backend
    from sage_actor.actor.system import ActorSystem

__all__ = ["Place", "Remoting", "Serialization", "SystemWorker", "WorkerSettings", "open_remoting", "remoting_of"]

Place = int | Literal["least_loaded"] | None
"""Where an actor shall live: a worker by its number, counted from 0; the one with the least to do; None: where `spawn` is called."""

Serialization = Literal["pickle", "msgspec"]

OPENER: Final = "sage_actor.remote.owner:open_owner"


@dataclass(frozen=True, slots=True)
class SystemWorker:
    """One worker of an actor system.

    Attributes:
        number: what `spawn(..., worker=number)` calls it.
        pid: its process id.
        host: where it runs.
        alive: False once it is lost; it stays so.
    """

    number: int
    pid: int
    host: str
    alive: bool


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What an actor system was told about its workers."""

    backend: str | Backend
    workers: int
    serialization: Serialization
    allow: tuple[type, ...]


class Remoting(Protocol):
    """The workers of a system, as it sees them."""

    @property
    def workers(self) -> tuple[SystemWorker, ...]:
        """All of them, lost ones included, in the order of their numbers."""
        ...

    async def start(self) -> None:
        """Start the workers; returns when all are ready for actors."""
        ...

    def spawn(
        self, cls: Callable[..., Any], args: tuple[object, ...], worker: int | Literal["least_loaded"], options: Mapping[str, object]
    ) -> Coroutine[Any, Any, ActorRef[Any]]:
        """Spawn on a worker; the contract is that of `ActorSystem.spawn`."""
        ...

    async def stop_actors(self, drain: bool) -> None:
        """End the actors of all workers."""
        ...

    async def aclose(self) -> None:
        """End the workers. Idempotent."""
        ...


def remoting_of(system: ActorSystem) -> Remoting:
    """What links a system with its workers.

    Raises:
        ActorError: it has none.
    """
    if system.remoting is None:
        raise ActorError(f"actor system {system.name!r} has no workers to spawn on; say ActorSystem(..., backend='process')")
    return system.remoting


def worker_settings(
    backend: str | Backend | None, workers: int | None, serialization: Serialization, allow: Sequence[type]
) -> WorkerSettings | None:
    """Check what an `ActorSystem` was told about workers; None where it has none.

    Raises:
        ConfigError: names what makes no sense.
    """
    if backend is None:
        if workers is not None or allow or serialization != "pickle":
            raise ConfigError("workers", "workers=, serialization= and allow= are for actors on workers; name a backend= too")
        return None
    count = (os.cpu_count() or 1) if workers is None else workers
    if count < 1:
        raise ConfigError("workers", f"must be at least 1, not {count}; leave backend= out for a system without workers")
    if serialization not in get_args(Serialization):
        raise ConfigError("serialization", f"{serialization!r} is not one of {', '.join(get_args(Serialization))}")
    if allow and serialization != "msgspec":
        raise ConfigError("allow", "it lists what may travel where nothing else may; say serialization='msgspec' with it")
    return WorkerSettings(backend, count, serialization, tuple(allow))


def open_remoting(
    system: ActorSystem, backend: str | Backend | None, workers: int | None, serialization: Serialization, allow: Sequence[type]
) -> Remoting | None:
    """What links a system with its workers; nothing is started yet. None where it has none.

    Raises:
        ConfigError: names what makes no sense.
        BackendError: the backend is not known, or cannot be used.
    """
    settings = worker_settings(backend, workers, serialization, allow)
    if settings is None:
        return None
    module, _, name = OPENER.partition(":")
    opener = getattr(importlib.import_module(module), name)
    return cast("Callable[[ActorSystem, WorkerSettings], Remoting]", opener)(system, settings)
