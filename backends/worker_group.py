"""A group of worker processes that this process has started: bringing them up, watching them, ending them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from sage_actor.actor.backend import PATIENCE, Endpoint, WorkerInfo
from sage_actor.backends.losses import Losses
from sage_actor.backends.worker_limits import WorkerLimits
from sage_actor.backends.worker_main import Setup
from sage_actor.backends.worker_process import WorkerProcess
from sage_actor.errors import BackendError, BackendUnavailable, WorkerLost

__all__ = ["OwnerEndpoint", "ProcessGroup", "StartedWorker", "WorkerStart"]

_START: Final = 60.0  # seconds for a worker to import its entry; a cold disk and a big entry are slow
_LAST_FRAMES: Final = 1.0  # seconds that a lost worker's last frames may take before its loss is told


class OwnerEndpoint(Endpoint, Protocol):
    """What the group asks of its own endpoint beyond the public face."""

    losses: Losses

    def after_last_frame(self, worker: int, callback: Callable[[], None]) -> None:
        """Call back once everything that an ended worker managed to send has been delivered."""
        ...

    async def abort(self) -> None:
        """Close without flushing, silently. Idempotent."""
        ...


class StartedWorker(Protocol):
    """What the group asks of each of its workers; see `WorkerProcess`."""

    worker: int
    pid: int
    host: str
    ready: asyncio.Event
    ended: asyncio.Event
    exit_code: int | None
    left: bool
    failed: bool

    @property
    def last_words(self) -> str:
        """The end of what it wrote to stderr, or what is said about its end."""
        ...

    @property
    def place(self) -> str:
        """Where it runs, for messages."""
        ...

    def lost(self) -> WorkerLost:
        """The error that says how it ended."""
        ...

    def ask_to_end(self) -> None:
        """Have its entry cancelled."""
        ...

    def kill(self) -> None:
        """End it without asking; `ended` tells when it has."""
        ...

    def close(self) -> None:
        """Let go of one that has ended. Idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class WorkerStart:
    """How a worker opens its endpoint: the function that does it, its arguments, and the open files that it inherits; its limits."""

    opener: str
    arguments: Mapping[str, str]
    descriptors: Sequence[int] = ()
    limits: WorkerLimits = field(default_factory=WorkerLimits)


class ProcessGroup:
    """The workers of one job as child processes. Implements `WorkerGroup`."""

    def __init__(self, backend: str, group: str, entry: str) -> None:
        self._backend = backend
        self._group = group
        self._entry = entry
        self._endpoint: OwnerEndpoint | None = None
        self._processes: list[StartedWorker] = []
        self._before_endpoint = Losses()
        self._closing: asyncio.Future[None] | None = None
        self._is_closing = False

    @property
    def endpoint(self) -> OwnerEndpoint:
        """The owner's own end (worker 0)."""
        if self._endpoint is None:
            raise BackendUnavailable(self._backend, f"group {self._group!r} has not started")
        return self._endpoint

    @property
    def workers(self) -> Sequence[WorkerInfo]:
        """The workers as they were started; lost ones stay listed."""
        return tuple(WorkerInfo(process.worker, process.pid, process.host) for process in self._processes)

    def start_worker(self, worker: int, start: WorkerStart) -> None:
        """Start one process; `wait_ready` tells when it is up.

        Raises:
            BackendUnavailable: the system gives no process or no file descriptor.
        """
        setup = Setup(
            worker=worker, owner=os.getpid(), path=list(sys.path), entry=self._entry, opener=start.opener, arguments=dict(start.arguments)
        )
        if start.limits.cores is not None:
            setup["cores"] = list(start.limits.cores)
        if start.limits.memory is not None:
            setup["memory"] = start.limits.memory
        try:
            process = WorkerProcess(setup, group=self._group, descriptors=start.descriptors, failed=self._failed, ended=self._ended)
        except OSError as error:
            raise BackendUnavailable(
                self._backend,
                f"worker {worker} of group {self._group!r} does not start: {error}",
                "fewer workers, or `ulimit -n`, may help",
            ) from error
        self._processes.append(process)

    async def wait_ready(self) -> None:
        """Return when every worker's entry runs.

        Raises:
            BackendUnavailable: one ended before, or none of them answers in time; with its stderr.
        """
        for process in self._processes:
            try:
                async with asyncio.timeout(_START):
                    await process.ready.wait()
            except TimeoutError:
                reason = f"worker {process.worker} ({process.place}) does not answer within {_START:.0f} s"
                raise self._not_up(process, reason) from None
            if process.ended.is_set() and not process.left:
                raise self._not_up(process, f"worker {process.worker} ({process.place}) ended with {process.exit_code} while starting")

    def _not_up(self, process: StartedWorker, reason: str) -> BackendUnavailable:
        words = process.last_words.strip()
        return BackendUnavailable(self._backend, f"{reason}; it said:\n{words}" if words else f"{reason}; it wrote nothing to stderr")

    def opened(self, endpoint: OwnerEndpoint) -> None:
        """The group is whole: `endpoint` is told from here on what goes wrong, and what already has."""
        self._endpoint = endpoint
        self._before_endpoint.start(endpoint.losses.report)

    def _failed(self, error: BackendError) -> None:
        if not self._is_closing:
            self._before_endpoint.report(error)

    def silent(self, worker: int) -> None:
        """Take note that a worker does not answer any more, though it may live."""
        for process in self._processes:
            if process.worker == worker and not (self._is_closing or process.failed or process.ended.is_set()):
                process.failed = True
                self._before_endpoint.report(process.lost())

    def _ended(self, process: StartedWorker) -> None:
        if self._is_closing or process.left or process.failed:
            return
        endpoint = self._endpoint
        told = False

        def tell() -> None:
            nonlocal told
            if not told:
                told = True
                if not self._is_closing:
                    self._before_endpoint.report(process.lost())

        if endpoint is not None:
            asyncio.get_running_loop().call_later(_LAST_FRAMES, tell)
            endpoint.after_last_frame(process.worker, tell)
        else:
            tell()

    async def aclose(self, patience: float = PATIENCE) -> None:
        """End every worker, kill what has not ended after `patience` seconds, reap them all; see `WorkerGroup.aclose`.

        Cancelling it cancels only the wait: the group ends all the same, and another call waits for that.
        """
        if self._closing is None:
            self._is_closing = True
            self._closing = asyncio.ensure_future(self._close(patience))
        await asyncio.shield(self._closing)

    async def kill(self) -> None:
        """End every worker at once, without asking. Idempotent."""
        if self._closing is None:
            self._is_closing = True
            self._closing = asyncio.ensure_future(self._close(0.0))
        await asyncio.shield(self._closing)

    async def _close(self, patience: float) -> None:
        endpoint = self._endpoint
        if endpoint is not None:
            endpoint.losses.close()
        self._before_endpoint.close()
        try:
            if patience:
                for process in self._processes:
                    process.ask_to_end()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(patience):
                        for process in self._processes:
                            await process.ended.wait()
        finally:
            for process in self._processes:
                process.kill()
            for process in self._processes:
                await process.ended.wait()
                process.close()
            if endpoint is not None:
                await endpoint.abort()
            await self._clean_up()

    async def _clean_up(self) -> None:
        """Remove what the group has left outside of its processes; a backend with such things overrides it."""
