"""The ``local`` backend: everything lives in the owner, on its own loop."""

from __future__ import annotations

from collections.abc import Sequence

from sage_actor.actor.backend import PATIENCE, Buffer, FrameHandler, LostHandler, WorkerInfo, WorkerResources
from sage_actor.backends.loopback import Loopback
from sage_actor.errors import BackendUnavailable

__all__ = ["LocalBackend", "LocalEndpoint", "LocalGroup", "create"]


class LocalEndpoint:
    """Worker 0 of a group without others. Frames to itself arrive on a later turn; frames to anybody else are dropped."""

    __slots__ = ("_loopback", "worker")

    def __init__(self) -> None:
        self.worker = 0
        self._loopback = Loopback(0)

    def start(self, receive: FrameHandler, lost: LostHandler) -> None:
        """Begin delivering; `lost` is never called."""
        self._loopback.start(receive)

    def send(self, to: int, parts: Sequence[Buffer]) -> None:
        """Send one frame; see `Endpoint.send`."""
        if to == 0:
            self._loopback.send(parts)

    async def flush(self) -> None:
        """Return at once: nothing ever leaves this process."""

    async def aclose(self) -> None:
        """Drop what was not delivered yet. Idempotent."""
        self._loopback.close()


class LocalGroup:
    """A group that has only its owner."""

    __slots__ = ("endpoint", "workers")

    def __init__(self) -> None:
        self.endpoint = LocalEndpoint()
        self.workers: Sequence[WorkerInfo] = ()

    async def aclose(self, patience: float = PATIENCE) -> None:
        """Close the endpoint; there is nobody to wait for. Idempotent."""
        await self.endpoint.aclose()


class LocalBackend:
    """Starts groups whose tasks all share the owner's loop."""

    __slots__ = ("hosts_in_owner", "name")

    def __init__(self) -> None:
        self.name = "local"
        self.hosts_in_owner = True

    async def start(self, count: int, *, group: str, entry: str, resources: Sequence[WorkerResources] = ()) -> LocalGroup:
        """A group without workers: `count` is taken as 0, `entry` is never imported, and nobody gets `resources`."""
        return LocalGroup()


def create(address: str) -> LocalBackend:
    """The factory of the entry point ``local``."""
    if address != "local":
        raise BackendUnavailable(address, "the local backend takes no address", "write backend='local'")
    return LocalBackend()
