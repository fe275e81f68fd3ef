"""The ``process`` backend: workers are child processes, linked by sockets and shared memory, each with each."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Final

from sage_actor.actor.backend import WorkerResources
from sage_actor.backends.segment_file import create_segment_file
from sage_actor.backends.socket_endpoint import SocketEndpoint, open_in_worker
from sage_actor.backends.worker_group import ProcessGroup, WorkerStart
from sage_actor.backends.worker_limits import limits_of
from sage_actor.errors import BackendUnavailable

__all__ = ["ProcessBackend", "create"]

_OPENER: Final = f"{open_in_worker.__module__}:{open_in_worker.__name__}"


class ProcessBackend:
    """Starts groups of child processes on this machine.

    Each pair of workers has a socket pair, made here and inherited by both: no address, no file, nobody else can connect,
    and a worker's end is seen at once by all its peers. Each worker has a file in memory, which all inherit: there it writes
    its large frames, for the receiver to use where they lie.
    """

    __slots__ = ("hosts_in_owner", "name")

    def __init__(self) -> None:
        self.name = "process"
        self.hosts_in_owner = False

    async def start(self, count: int, *, group: str, entry: str, resources: Sequence[WorkerResources] = ()) -> ProcessGroup:
        """Start `count` workers; see `Backend.start`. Cancelling it leaves nothing behind."""
        limits = limits_of(resources, count, self.name)
        started = ProcessGroup(self.name, group, entry)
        # The ends of workers that are not started yet; each process gets its own, and we keep those of worker 0.
        waiting: dict[int, dict[int, socket.socket]] = {worker: {} for worker in range(count + 1)}
        segments = _create_segment_files(count + 1)
        try:
            for worker in range(1, count + 1):
                try:
                    for peer in (0, *range(worker + 1, count + 1)):
                        waiting[worker][peer], waiting[peer][worker] = socket.socketpair()
                except OSError as error:
                    raise BackendUnavailable(
                        self.name, f"no sockets to link {count} workers each with each: {error}", "fewer workers, or `ulimit -n`, may help"
                    ) from error
                ends = waiting[worker]
                arguments = {str(peer): str(end.fileno()) for peer, end in ends.items()}
                arguments["segments"] = ",".join(map(str, segments))
                descriptors = [*(end.fileno() for end in ends.values()), *segments]
                started.start_worker(worker, WorkerStart(_OPENER, arguments, descriptors, limits[worker - 1]))
                _close(waiting.pop(worker))
            own = waiting.pop(0)
            try:
                endpoint = await SocketEndpoint.open(0, own, segments)
            except OSError as error:
                raise BackendUnavailable(self.name, f"no memory to link {count} workers: {error}", "fewer workers may help") from error
            segments = []
            started.opened(endpoint)
            await started.wait_ready()
        except BaseException:
            await started.kill()
            raise
        finally:
            for ends in waiting.values():
                _close(ends)
            for descriptor in segments:
                os.close(descriptor)
        return started


def _create_segment_files(count: int) -> list[int]:
    """One for each worker, or none at all: where memory or descriptors are short, everything goes through the sockets."""
    made: list[int] = []
    for _ in range(count):
        descriptor = create_segment_file()
        if descriptor is None:
            for other in made:
                os.close(other)
            return []
        made.append(descriptor)
    return made


def _close(ends: dict[int, socket.socket]) -> None:
    for end in ends.values():
        end.close()


def create(address: str) -> ProcessBackend:
    """The factory of the entry points ``process`` and ``multiprocessing``.

    Raises:
        BackendUnavailable: the address says more than the name, or this system cannot hand sockets to a child.
    """
    if "://" in address:
        raise BackendUnavailable(address, "the process backend takes no address", "write backend='process'")
    if os.name != "posix":
        raise BackendUnavailable(address, f"child processes cannot inherit sockets on {os.name!r}", "write backend='local'")
    return ProcessBackend()
