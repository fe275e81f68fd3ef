"""This process's connection to Ray: one for all groups, made when the first starts, ended a while after the last has closed."""

from __future__ import annotations

import asyncio
import functools
import logging
import queue
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, TypeVar, cast

from sage_actor.backends.ray_api import Ray, load_ray, load_services
from sage_actor.errors import BackendUnavailable

__all__ = ["RayConnection", "connection"]

R = TypeVar("R")

_CONNECT: Final = 3.0  # seconds for a cluster's head to take a connection
_LINGER: Final = 30.0  # seconds that an unused connection is kept: a job that restarts must not start a cluster anew


class RayConnection:
    """Whatever blocks in Ray is done by a thread of its own, one thing after another.

    That thread also *stays* while a cluster that it has started runs: Linux ends the processes of such a cluster when the thread
    that started them ends, which is how a killed owner leaves nothing behind.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[Callable[[], None]] | None = None
        # The rest belongs to the thread.
        self._users = 0
        self._address: str | None = None
        self._made_here = False
        self._places: list[tuple[str, int]] = []  # where the cluster's head and our own node listen

    async def acquire(self, address: str | None, backend: str) -> Ray:
        """Connect if nobody has yet; a `release` must follow. Cancelling the wait leaves it released.

        Args:
            address: of a cluster, or "auto" for the one that runs here; None starts one where none runs.
            backend: what it is called in messages.

        Raises:
            BackendUnavailable: Ray is missing, the cluster cannot be reached or started, or this process uses another one.
        """
        acquiring = self._submit(functools.partial(self._acquire, address, backend))
        try:
            return await asyncio.shield(asyncio.wrap_future(acquiring))
        except asyncio.CancelledError:
            acquiring.add_done_callback(self._undo)
            raise

    def release(self) -> None:
        """One group less needs the connection."""
        self._submit(self._release)

    async def call(self, function: Callable[[], R]) -> R:
        """Have the thread call something that blocks. Cancelling the wait lets it end unseen."""
        return await asyncio.shield(asyncio.wrap_future(self._submit(function)))

    def _undo(self, acquiring: Future[Ray]) -> None:
        if acquiring.exception() is None:
            self.release()

    def _submit(self, function: Callable[[], R]) -> Future[R]:
        future: Future[R] = Future()

        def job() -> None:
            try:
                result = function()
            except BaseException as error:  # noqa: BLE001 - whatever Ray raises is its caller's
                future.set_exception(error)
            else:
                future.set_result(result)

        with self._lock:
            if self._jobs is None:
                self._jobs = queue.SimpleQueue()
                threading.Thread(target=self._work, args=(self._jobs,), name="sage-ray", daemon=True).start()
            self._jobs.put(job)
        return future

    def _work(self, jobs: queue.SimpleQueue[Callable[[], None]]) -> None:
        while True:
            try:
                job = jobs.get(timeout=None if self._users else _LINGER if self._made_here else 0.0)
            except queue.Empty:
                if self._made_here:
                    self._submit(self._end_unused)  # as any other thing to do: what Ray raises must not end this thread
                    continue
                with self._lock:
                    if jobs.empty():
                        self._jobs = None
                        return
            else:
                job()

    def _acquire(self, address: str | None, backend: str) -> Ray:
        ray = load_ray(backend)
        if self._made_here and self._address != address:
            if self._users:
                used = self._address or "a cluster of its own"
                raise BackendUnavailable(
                    backend, f"this process is connected to {used}, and Ray allows one connection", "end that job first"
                )
            self._disconnect()
        if self._made_here and not all(map(_answers, self._places)):
            # A driver whose node has ended never recovers: what it asks for waits for ever.
            if self._users:
                raise BackendUnavailable(backend, "the Ray cluster does not answer any more", "end the jobs that use it, and start again")
            self._disconnect()
        if not ray.is_initialized():
            self._connect(ray, address, backend)
        elif not self._made_here and address not in (None, "auto"):
            raise BackendUnavailable(
                backend, "this process has called ray.init itself, and Ray allows one connection", "write backend='ray' to use that one"
            )
        self._users += 1
        return ray

    def _connect(self, ray: Ray, address: str | None, backend: str) -> None:
        # Quiet: from any thread but the main one Ray warns that it does not take over SIGTERM, which is just as well.
        options: dict[str, object] = {"logging_level": logging.ERROR, "log_to_driver": True}
        if address is None or "://" not in address:
            options["include_dashboard"] = False
        try:
            ray.init(_reachable(address), **options)
        except Exception as error:  # Ray raises what it likes where it cannot connect or start
            where = "no cluster was found or could be started" if address is None else f"there is no cluster to be reached at {address!r}"
            text = " ".join(str(error).split())[:500]
            hint = "`ray start --head` starts one, `ray status` shows what runs; one that asks for a token also needs RAY_AUTH_MODE=token"
            raise BackendUnavailable(backend, f"{where}: {type(error).__name__}: {text}", hint) from error
        self._made_here = True
        self._address = address
        self._places = [] if address is not None and "://" in address else _places_of(ray)

    def _release(self) -> None:
        self._users -= 1

    def _end_unused(self) -> None:
        if not self._users:
            self._disconnect()

    def _disconnect(self) -> None:
        if self._made_here:
            self._made_here = False
            load_ray("ray").shutdown()


def _reachable(address: str | None) -> str | None:
    """The address for ``ray.init``, looked into beforehand: Ray waits two minutes for a cluster that was killed.

    Raises:
        ConnectionError: nothing listens there.
    """
    if address not in (None, "auto"):
        return address
    try:
        services = load_services()  # what ``ray.init`` asks too: RAY_ADDRESS, then what ``ray start`` has written down
        found = services.canonicalize_bootstrap_address(address)
        written = services.find_bootstrap_address(None)
    except (ImportError, AttributeError):  # a Ray that is built otherwise: it finds out by itself
        return address
    if found is None:
        return "local"
    if not _answers(_place(found)):
        if address is None and written is not None and services.canonicalize_bootstrap_address(written) == found:
            return "local"  # killed, so that nobody has taken back the note about it
        raise ConnectionError(f"nothing answers at {found}")
    return address


def _place(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _answers(place: tuple[str, int]) -> bool:
    try:
        socket.create_connection(place, timeout=_CONNECT).close()
    except OSError:
        return False
    return True


def _places_of(ray: Ray) -> list[tuple[str, int]]:
    """Where the head of our cluster listens, and the node that this process is connected to."""
    context = ray.get_runtime_context()
    own = [node for node in ray.nodes() if node["NodeID"] == context.get_node_id()]
    return [_place(context.gcs_address), *((str(node["NodeManagerAddress"]), cast("int", node["NodeManagerPort"])) for node in own)]


connection = RayConnection()
"""Ray keeps one connection per process, and so do we."""
