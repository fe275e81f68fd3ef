"""The ``ray`` backend: workers are Ray actors, linked by their calls, on a cluster that runs or is started for them."""

from __future__ import annotations

import os
from collections.abc import Sequence

from sage_actor.actor.backend import WorkerGroup, WorkerResources
from sage_actor.backends.local import LocalGroup
from sage_actor.backends.ray_connection import connection
from sage_actor.backends.ray_group import RayGroup
from sage_actor.errors import BackendUnavailable

__all__ = ["RayBackend", "create"]


class RayBackend:
    """Starts groups of Ray actors.

    Where no cluster runs, one is started on this machine by the first group, and ended half a minute after the last has closed,
    or with this process. A cluster that runs already, or a connection that the program itself has made, is left as it was.
    """

    __slots__ = ("_cluster", "hosts_in_owner", "name")

    def __init__(self, address: str, cluster: str | None) -> None:
        """`cluster` is what Ray calls an address; None for the one that runs on this machine, or a new one."""
        self.name = address
        self.hosts_in_owner = False
        self._cluster = cluster

    async def start(self, count: int, *, group: str, entry: str, resources: Sequence[WorkerResources] = ()) -> WorkerGroup:
        """Start `count` workers; see `Backend.start`. Cancelling it leaves nothing behind."""
        if not count:
            return LocalGroup()  # nobody to start, nobody to talk to: no reason to wake a cluster
        ray = await connection.acquire(self._cluster, self.name)
        started = RayGroup(self.name, group, connection, ray)
        try:
            await started.open(count, entry, resources)
        except BaseException:
            await started.kill()
            raise
        return started


def create(address: str) -> RayBackend:
    """The factory of the entry point ``ray``: ``ray``, ``ray://auto``, or ``ray://host:port`` (a Ray Client server).

    Raises:
        BackendUnavailable: the address is not one of these, or this is not a POSIX system. Whether Ray is there is found out when
            a group starts.
    """
    if os.name != "posix":
        raise BackendUnavailable(address, f"workers cannot be ended for certain on {os.name!r}", "write backend='local'")
    _, scheme, place = address.partition("://")
    if not scheme:
        return RayBackend(address, None)
    if place == "auto":
        return RayBackend(address, "auto")
    host, _, port = place.rpartition(":")
    if not host or not port.isdigit():
        raise BackendUnavailable(
            address, "this is no address of a Ray cluster", "write backend='ray', 'ray://auto' or 'ray://host:10001' (a Ray Client server)"
        )
    return RayBackend(address, address)
