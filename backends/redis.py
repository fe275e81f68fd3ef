"""The ``redis`` backend: workers are child processes, linked by the streams of a Redis server."""

from __future__ import annotations

import os
import secrets
from typing import Final

from sage_actor.backends.redis_endpoint import RedisEndpoint, open_in_worker
from sage_actor.backends.redis_keys import RedisKeys
from sage_actor.backends.redis_line import RedisLine, shown
from sage_actor.backends.worker_group import ProcessGroup, WorkerStart
from sage_actor.errors import BackendUnavailable

__all__ = ["RedisBackend", "RedisGroup", "create"]

_OPENER: Final = f"{open_in_worker.__module__}:{open_in_worker.__name__}"


class RedisGroup(ProcessGroup):
    """Worker processes, and their keys."""

    def __init__(self, backend: str, group: str, entry: str, keys: RedisKeys) -> None:
        super().__init__(backend, group, entry)
        self._keys = keys

    async def _clean_up(self) -> None:
        line = RedisLine(self._keys.address)
        try:
            await line.connect()
            await line.call([("UNLINK", *self._keys.all())])
        except BackendUnavailable:
            pass  # gone, and the keys with it; or else they expire
        finally:
            await line.aclose()


class RedisBackend:
    """Starts groups of child processes whose frames travel through a Redis server (6.2 or later)."""

    __slots__ = ("_address", "hosts_in_owner", "name")

    def __init__(self, address: str) -> None:
        self.name = shown(address)
        self.hosts_in_owner = False
        self._address = address

    async def start(self, count: int, *, group: str, entry: str) -> RedisGroup:
        """Start `count` workers; see `Backend.start`. Cancelling it leaves nothing behind."""
        keys = RedisKeys(self._address, f"sage:{group}:{secrets.token_hex(4)}", count, secrets.token_bytes(32))
        started = RedisGroup(self.name, group, entry, keys)
        endpoint = RedisEndpoint(0, keys, silent=started.silent)
        await endpoint.open()
        started.opened(endpoint)
        try:
            for worker in range(1, count + 1):
                started.start_worker(worker, WorkerStart(_OPENER, keys.arguments()))
            await started.wait_ready()
            endpoint.expect_beats()
        except BaseException:
            await started.kill()
            raise
        return started


def create(address: str) -> RedisBackend:
    """The factory of the entry points ``redis`` and ``rediss``.

    Raises:
        BackendUnavailable: the address is not one, or redis-py is missing, or this is not a POSIX system.
    """
    if "://" not in address:
        raise BackendUnavailable(address, "the redis backend needs an address", "write backend='redis://localhost:6379/0'")
    if os.name != "posix":
        raise BackendUnavailable(shown(address), f"workers cannot be started on {os.name!r}", "write backend='local'")
    return RedisBackend(address)
