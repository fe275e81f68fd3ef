"""The life of a worker process: open its endpoint, import the entry, await it, leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import importlib
import io
import json
import os
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NoReturn, NotRequired, TextIO, TypedDict, cast

from sage_actor.actor.backend import Endpoint
from sage_actor.backends.worker_limits import bind_to_cores, watch_memory
from sage_actor.errors import BackendError

__all__ = ["Setup", "run"]

_YOUNG: Final = 10_000  # new objects between two looks for cycles among them
_FAREWELL: Final = 2.0  # seconds for what was sent to leave, once the entry has ended


class Setup(TypedDict):
    """What the owner tells a worker before anything else."""

    worker: int
    owner: int
    path: list[str]
    entry: str
    opener: str
    arguments: dict[str, str]
    cores: NotRequired[list[int]]
    """The cores that it is bound to; all if absent."""
    memory: NotRequired[int]
    """Bytes that it may occupy; any number if absent."""


class _Worker:
    """One worker: its control socket and the task that runs the entry."""

    def __init__(self, control: socket.socket, setup: Setup) -> None:
        self._control = control
        self._setup = setup
        self.failure: BackendError | None = None
        """What broke the links, once they are."""
        self._asked_to_end = False
        self._task: asyncio.Task[None] | None = None

    async def main(self) -> None:
        """Run the entry to its end.

        Raises:
            BackendError: what carries the frames failed meanwhile.
            BaseException: whatever the entry raised.
        """
        setup = self._setup
        opener = cast("Callable[[int, Mapping[str, str], Callable[[BackendError], None]], Awaitable[Endpoint]]", _load(setup["opener"]))
        entry = cast("Callable[[Endpoint], Awaitable[None]]", _load(setup["entry"]))
        endpoint = await opener(setup["worker"], setup["arguments"], self._failed)
        gc.collect()
        gc.freeze()  # what is imported by now lives as long as the process: full collections need not look at it again
        # Records of a batch die with it, by their counts: to look for cycles every 700 of them costs an eighth of a shuffle.
        gc.set_threshold(_YOUNG, *gc.get_threshold()[1:])
        self._task = asyncio.ensure_future(_await(entry, endpoint))
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._watch, args=(loop,), name="sage-owner-watch", daemon=True).start()
        self._tell("ready")
        try:
            await self._task
        except asyncio.CancelledError:
            if self.failure is not None:
                raise self.failure from None
            if not self._asked_to_end:
                raise
        finally:
            try:
                async with asyncio.timeout(_FAREWELL):
                    await endpoint.aclose()
            except TimeoutError:
                pass  # a peer that does not read must not keep us
        if self.failure is not None:
            raise self.failure
        self._tell("bye")

    def _failed(self, error: BackendError) -> None:
        """Called on the loop when the links broke: the owner hears of it by name, and the entry has nothing left to do."""
        if self.failure is None:
            self.failure = error
            self._tell("failed " + json.dumps([type(error).__name__, *(str(part)[:4096] for part in error.args)]))
            if self._task is not None:
                self._task.cancel()

    def _tell(self, line: str) -> None:
        with contextlib.suppress(OSError):  # the owner is gone: the watch sees it too, and ends us
            self._control.sendall(line.encode() + b"\n")

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """In a thread of its own, so that it also works while user code blocks the loop."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        if sys.platform == "linux":
            # The socket alone would not do: a child that the owner has forked may hold its other end open.
            try:
                poll.register(os.pidfd_open(self._setup["owner"]), select.POLLIN)
            except ProcessLookupError:
                _end_at_once()
            except OSError:
                pass  # forbidden here (a sandbox, no descriptor left): the socket has to do
        asked = self._control.fileno()
        while True:
            for descriptor, _ in poll.poll():
                if descriptor != asked or not _received(self._control):
                    _end_at_once()
                self._asked_to_end = True
                task = self._task
                if task is not None:
                    try:
                        loop.call_soon_threadsafe(task.cancel)
                    except RuntimeError:
                        return  # the loop is closed: we are ending already


async def _await(entry: Callable[[Endpoint], Awaitable[None]], endpoint: Endpoint) -> None:
    await entry(endpoint)


def _received(control: socket.socket) -> bytes:
    try:
        return control.recv(64)
    except OSError:
        return b""


def _end_at_once() -> NoReturn:
    """The owner is gone, so nobody wants our work: end, and take along what user code has started."""
    own = os.getpid()
    if os.getpgid(0) == own:
        os.killpg(own, signal.SIGTERM)
    os.kill(own, signal.SIGKILL)
    os._exit(1)


def _load(target: str) -> object:
    module, _, name = target.partition(":")
    found: object = getattr(importlib.import_module(module), name)
    return found


def _streams() -> list[TextIO]:
    return [stream for stream in (sys.stdout, sys.stderr) if stream is not None]


def run(control: socket.socket, setup: Setup) -> None:
    """Live as a worker, and end the process if it did not end well. Called once, in a fresh process.

    Exit status 0 after the entry returned or was asked to end, 1 after it raised (its traceback is on stderr), or what it
    passed to `sys.exit`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the owner's business
    faulthandler.enable()
    if "cores" in setup:
        bind_to_cores(setup["cores"])
    if "memory" in setup:
        watch_memory(setup["worker"], setup["memory"])
    sys.setswitchinterval(0.0005)  # a thread that computes must not hold the loop for 5 ms
    for stream in _streams():
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)  # lines of several workers do not mix, and none is lost by a kill
    loop_factory: Callable[[], asyncio.AbstractEventLoop]
    try:
        from uvloop import new_event_loop

        loop_factory = new_event_loop
    except ImportError:
        loop_factory = asyncio.new_event_loop
    worker = _Worker(control, setup)
    status: int
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(worker.main())
        return
    except SystemExit as error:
        if error.code is not None and not isinstance(error.code, int):
            sys.stderr.write(f"{error.code}\n")
        status = 0 if error.code is None else error.code if isinstance(error.code, int) else 1
    except BaseException as error:  # noqa: BLE001  the entry is user code, and this is the end of the process
        if error is worker.failure:
            sys.stderr.write(f"worker {setup['worker']} ends: {error}\n")
        else:
            traceback.print_exc()
        status = 1
    # Not through the interpreter's own shutdown: it would wait for threads of user code, and the owner for the news.
    for stream in _streams():
        stream.flush()
    os._exit(status)
