"""One worker as a Ray actor, seen from its owner: what it sends, how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, cast

from sage_actor.backends.ray_api import WorkerHandle, is_death, shown_reason
from sage_actor.backends.ray_endpoint import RayEndpoint, on_loop
from sage_actor.backends.ray_worker import LAST_WORDS, last_words, machine
from sage_actor.errors import BackendError, BackendUnavailable, FrameError, WorkerLost

__all__ = ["RayActor"]

_LAST_FRAMES: Final = 1.0  # seconds that the last frames of a process that is gone may take
_POLLS: Final = 3  # calls of `collect` that are open at a time


class RayActor:
    """The owner's view of a worker. Used from the owner's loop only."""

    def __init__(
        self, worker: int, handle: WorkerHandle, *, failed: Callable[[BackendError], None], ended: Callable[[RayActor], None]
    ) -> None:
        """
        Args:
            failed: called when it reports that frames may be lost, or when Ray itself is gone.
            ended: called once when its entry has ended or its process is gone, after every frame that has come.
        """
        self.worker = worker
        self.handle = handle
        self.pid = 0
        self.host = ""
        self.left = False
        """Its entry returned: it ended because it wanted to, or because it was asked to."""
        self.failed = False
        """What broke was reported, so its end is no news."""
        self.exit_code: int | None = None
        self.last_words = ""
        self.ended = asyncio.Event()
        self._on_failed = failed
        self._on_ended = ended
        self._loop = asyncio.get_running_loop()
        self._endpoint: RayEndpoint | None = None
        self._open_polls = 0
        self._broken: BaseException | None = None
        self._stderr = ""
        self._process = -1
        self._node = -1
        self._gone = asyncio.Event()

    def introduced(self, pid: int, node: int, host: str, place: str, stderr: str) -> None:
        """Take note of who it is: it has answered. `node` is the process that represents its node in the cluster."""
        self.pid, self.host = pid, host
        if place and place == machine():
            self._stderr = stderr
            self._process = self._watch(pid, self._see_gone)
            self._node = self._watch(node, self._see_node_gone)

    def collect_into(self, endpoint: RayEndpoint) -> None:
        """From here on what it sends arrives there."""
        self._endpoint = endpoint
        for _ in range(_POLLS):
            self._poll(endpoint)

    def tell_end(self, news: bytes) -> None:
        """It has said that its entry ended, and how."""
        told: dict[str, object] = json.loads(news)
        self.left = bool(told["left"])
        self.exit_code = cast("int", told["status"])
        self.last_words = str(told.get("words", ""))
        failure = cast("list[str] | None", told.get("failed"))
        if failure is not None and not self.failed:
            self.failed = True
            self._on_failed(self._failure(*failure))
        self._tell_ended()

    def lost(self) -> WorkerLost:
        """The error that says how it ended."""
        return WorkerLost(self.worker, self.pid, self.exit_code, self.last_words)

    def ask_to_end(self) -> None:
        """Have its entry cancelled. It may take its time, and cannot while user code blocks its loop."""
        if not self.ended.is_set():
            with contextlib.suppress(Exception):  # Ray was shut down: there is nobody to ask
                self.handle.stop.remote()

    async def wait_gone(self) -> None:
        """Return when the process of a killed actor is gone."""
        if self._process >= 0:
            await self._gone.wait()
        else:
            with contextlib.suppress(Exception):  # the call fails: that is what we wait for
                while True:  # it may answer a last time before the kill arrives
                    await asyncio.shield(asyncio.wrap_future(self.handle.ping.remote().future()))

    def kill_here(self) -> None:
        """Kill its process without Ray, if it is one of this machine."""
        if self._process >= 0:
            with contextlib.suppress(OSError):  # it has ended
                signal.pidfd_send_signal(self._process, signal.SIGKILL)

    def close(self) -> None:
        """Let go of it. Idempotent."""
        self._endpoint = None
        for descriptor in (self._process, self._node):
            if descriptor >= 0:
                self._loop.remove_reader(descriptor)
                os.close(descriptor)
        self._process = self._node = -1

    def _watch(self, pid: int, ended: Callable[[], None]) -> int:
        """A descriptor of a process of this machine, whose end is told; -1 where that cannot be had."""
        try:
            descriptor = os.pidfd_open(pid)
        except (OSError, AttributeError):  # it has ended already, or there is no such call on this system
            return -1
        self._loop.add_reader(descriptor, ended)
        return descriptor

    def _poll(self, endpoint: RayEndpoint) -> None:
        try:
            answer = self.handle.collect.remote(endpoint.has_all_before(self.worker)).future()
        except Exception as error:  # noqa: BLE001 - Ray raises what it likes where it was shut down
            self._break(error)
            return
        self._open_polls += 1
        answer.add_done_callback(lambda done: on_loop(self._loop, lambda: self._answered(done)))

    def _answered(self, done: Future[object]) -> None:
        self._open_polls -= 1
        error = done.exception()
        if error is not None:
            self._break(error)
            return
        endpoint = self._endpoint
        if endpoint is None:
            return
        answer = done.result()
        if isinstance(answer, bytes):
            endpoint.take(answer, memoryview(b""))
        else:
            content, bulk = cast("tuple[bytes, bytes]", answer)
            endpoint.take(content, memoryview(bulk))
        if self._broken is not None:
            self._break(self._broken)
        elif not self.ended.is_set():
            self._poll(endpoint)

    def _break(self, error: BaseException) -> None:
        """A call has failed. A death is told once the other calls are answered too: they may hold the last frames."""
        self._broken = self._broken or error
        if self.ended.is_set() or self._endpoint is None:
            return
        if not is_death(self._broken):
            self.failed = True
            self._on_failed(self._failure("BackendUnavailable", "ray", f"{type(self._broken).__name__}: {shown_reason(self._broken)}"))
            self._tell_ended()
        elif not self._open_polls:
            self._tell_lost(f"Ray says: {shown_reason(self._broken)}")

    def _see_gone(self) -> None:
        self._loop.remove_reader(self._process)
        self._gone.set()
        self._loop.call_later(_LAST_FRAMES, self._tell_lost, "Its process has ended, and Ray does not say why.")

    def _see_node_gone(self) -> None:
        """Ray finds out only after its heartbeats are missed for long."""
        self._loop.remove_reader(self._node)
        self._loop.call_later(_LAST_FRAMES, self._tell_lost, "Its Ray node on this machine has ended (the process 'raylet').")

    def _tell_lost(self, reason: str) -> None:
        if not self.ended.is_set() and self._endpoint is not None:
            self._endpoint = None  # it is too late for what may still come
            words = last_words(self._stderr)
            room = LAST_WORDS - len(reason) - 1
            self.last_words = f"{reason}\n{words[-room:]}"
            self._tell_ended()

    def _tell_ended(self) -> None:
        if not self.ended.is_set():
            self.ended.set()
            self._on_ended(self)

    def _failure(self, kind: str, *parts: str) -> BackendError:
        where = f"worker {self.worker} (process {self.pid} on {self.host})"
        if kind == BackendUnavailable.__name__:
            backend, reason, *hint = parts
            return BackendUnavailable(backend, f"{where}: {reason}", *hint)
        return FrameError(f"{where}: {' '.join(parts)}")
