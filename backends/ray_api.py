"""The part of Ray's interface that the backend uses, with types. Ray is imported when a group starts, never before."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Protocol, cast

from sage_actor.errors import BackendUnavailable

__all__ = [
    "ActorClass",
    "Call",
    "Ray",
    "RayServices",
    "Reference",
    "RuntimeContext",
    "WorkerHandle",
    "is_death",
    "load_ray",
    "load_services",
    "shown_reason",
]


class Reference(Protocol):
    """The coming result of a call."""

    def future(self) -> Future[object]:
        """It as a future, which a thread of Ray resolves."""
        ...


class Call(Protocol):
    """A method of an actor in another process."""

    def remote(self, *arguments: object) -> Reference:
        """Call it. Blocks while large arguments are copied into the object store, never for the answer."""
        ...


class WorkerHandle(Protocol):
    """A `RayWorker` in another process."""

    introduce: Call
    begin: Call
    deliver: Call
    collect: Call
    stop: Call
    ping: Call


class ActorClass(Protocol):
    """A class whose instances are Ray actors."""

    def options(self, **options: object) -> ActorClass:
        """The same class with other options."""
        ...

    def remote(self, *arguments: object) -> WorkerHandle:
        """Have an actor started somewhere; it may not run yet."""
        ...


class RuntimeContext(Protocol):
    """What Ray says about this process."""

    @property
    def gcs_address(self) -> str:
        """Host and port of the cluster's head."""
        ...

    def get_node_id(self) -> str:
        """The node that this process is connected to."""
        ...


class Ray(Protocol):
    """The module ``ray``."""

    __version__: str

    def init(self, address: str | None = None, **options: object) -> object:
        """Connect this process to a cluster, or start one. Blocks for seconds."""
        ...

    def shutdown(self) -> None:
        """Disconnect, and end the cluster if it was started by this process. Blocks."""
        ...

    def is_initialized(self) -> bool:
        """Whether this process is connected."""
        ...

    def remote(self, actor: type) -> ActorClass:
        """Make an actor class of a class."""
        ...

    def kill(self, actor: WorkerHandle, *, no_restart: bool = True) -> None:
        """End an actor's process at once. Blocks for the cluster's answer."""
        ...

    def cluster_resources(self) -> Mapping[str, float]:
        """What all nodes have together. Blocks for the cluster's answer."""
        ...

    def nodes(self) -> Sequence[Mapping[str, object]]:
        """Every node that is or was. Blocks for the cluster's answer."""
        ...

    def get_runtime_context(self) -> RuntimeContext:
        """Who and where this process is."""
        ...


class RayServices(Protocol):
    """How Ray finds a cluster."""

    def canonicalize_bootstrap_address(self, address: str | None) -> str | None:
        """Host and port of the cluster that is meant; None if a new one is to be started."""
        ...

    def find_bootstrap_address(self, folder: str | None) -> str | None:
        """What the last ``ray start`` has written down, unless ``ray stop`` took it back."""
        ...


def load_services() -> RayServices:
    """Ray's own module; not part of its documented interface.

    Raises:
        ImportError: this Ray has none.
    """
    return cast("RayServices", importlib.import_module("ray._private.services"))


def load_ray(backend: str) -> Ray:
    """The module itself.

    Raises:
        BackendUnavailable: it is not installed, or does not load.
    """
    try:
        return cast("Ray", importlib.import_module("ray"))
    except ImportError as error:
        raise BackendUnavailable(
            backend, f"the package 'ray' cannot be imported ({error})", 'install it: pip install "sage-actor[ray]"'
        ) from error


def is_death(error: BaseException) -> bool:
    """Whether a call failed because the actor's process or node has ended; any other failure may have lost frames."""
    from ray.exceptions import ActorUnavailableError, RayActorError

    return isinstance(error, RayActorError) and not isinstance(error, ActorUnavailableError)


def shown_reason(error: BaseException) -> str:
    """What Ray says about the end of an actor, without its general advice; one line."""
    text = str(error)
    _, found, reason = text.partition("The actor is dead because ")
    reason = (reason if found else text).partition("Some common causes")[0]
    return " ".join(reason.split())[:500].removesuffix(".")
