"""A backend of sage_actor whose workers are child processes and whose frames pass through a TCP hub in the owner."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence

from sage_actor import BackendUnavailable
from sage_actor.actor.backend import WorkerResources
from tidal_backend.child import Child
from tidal_backend.endpoints import Hub
from tidal_backend.group import TidalGroup

__all__ = ["TidalBackend", "create"]

_COMING_UP = 60.0


class TidalBackend:
    """Starts groups of child processes on this machine."""

    name = "tidal://"
    hosts_in_owner = False

    async def start(self, count: int, *, group: str, entry: str, resources: Sequence[WorkerResources] = ()) -> TidalGroup:
        """Start the hub, then every worker; returns when each is connected and has imported its entry."""
        _refuse(self.name, resources)
        token = secrets.token_bytes(16)
        hub = Hub(count, token)
        started = TidalGroup(hub)
        try:
            port = await hub.listen()
            for worker in range(1, count + 1):
                setup = {"worker": worker, "port": port, "token": token.hex(), "entry": entry}
                started.children.append(Child(worker, group, setup, started.ended))
            await self._all_up(started, hub)
        except OSError as error:
            await started.aclose(0.0)
            raise BackendUnavailable(self.name, f"{count} workers do not start: {error}", "fewer, or `ulimit -n`, may help") from error
        except BaseException:
            await started.aclose(0.0)
            raise
        hub.stop_listening()
        return started

    async def _all_up(self, started: TidalGroup, hub: Hub) -> None:
        ends = [asyncio.ensure_future(child.ended.wait()) for child in started.children]
        up = asyncio.ensure_future(hub.all_ready.wait())
        try:
            async with asyncio.timeout(_COMING_UP):
                while not hub.all_ready.is_set():
                    await asyncio.wait({up, *(end for end in ends if not end.done())}, return_when=asyncio.FIRST_COMPLETED)
                    for child in started.children:
                        if child.ended.is_set() and not hub.is_ready(child.worker):
                            said = child.last_words.strip() or "nothing"
                            raise BackendUnavailable(
                                self.name, f"worker {child.worker} ended with {child.exit_code} while starting; it said:\n{said}"
                            )
        except TimeoutError:
            raise BackendUnavailable(self.name, f"not all workers came up within {_COMING_UP:.0f} s") from None
        finally:
            for waiting in (up, *ends):
                waiting.cancel()


def _refuse(name: str, resources: Sequence[WorkerResources]) -> None:
    """Children share the machine as they find it: whatever is asked for cannot be kept."""
    for number, wanted in enumerate(resources, 1):
        asked = {"num_cpus": wanted.num_cpus, "num_gpus": wanted.num_gpus, "memory": wanted.memory, **wanted.custom}
        for resource, amount in asked.items():
            if amount is not None:
                raise BackendUnavailable(name, f"worker {number} is to have {resource}={amount:g}, which this backend cannot give")


def create(address: str) -> TidalBackend:
    """The factory that the entry point names."""
    if address not in ("tidal", "tidal://"):
        raise BackendUnavailable(address, "the tidal backend has no address", "write backend='tidal://'")
    return TidalBackend()
