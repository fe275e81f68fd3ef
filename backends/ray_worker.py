"""What runs in a Ray actor: one worker, whose entry lives on the actor's own event loop."""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import sys
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final, TypedDict, cast

from sage_actor.actor.backend import Buffer, Endpoint
from sage_actor.backends.ray_api import WorkerHandle
from sage_actor.backends.ray_endpoint import RayEndpoint, calling_link
from sage_actor.backends.ray_link import RayLink
from sage_actor.backends.ray_parcel import Parcel
from sage_actor.backends.worker_limits import watch_memory
from sage_actor.errors import BackendError

__all__ = ["LAST_WORDS", "RaySetup", "RayWorker", "code_version", "last_words", "machine"]

LAST_WORDS: Final = 4096
_FAREWELL: Final = 2.0  # seconds for what was sent to arrive, once the entry has ended
_MARKS: Final = (":job_id:", ":actor_name:", ":task_name:")  # lines that Ray itself writes into a worker's stderr


class RaySetup(TypedDict):
    """What the owner tells a worker before anything else. Plain data: the worker may have another version of this code."""

    worker: int
    version: str
    path: list[str]
    entry: str
    memory: int | None


class RayWorker:
    """One worker. Its methods are called by Ray, on the actor's event loop; in any order.

    The owner is no actor and cannot be called: it keeps a few calls of `collect` open, and gets its frames as their results.
    """

    def __init__(self, group: str, worker: int) -> None:
        self._name = f"worker {worker} of {group}"
        self._task: asyncio.Task[None] | None = None
        self._polls: deque[asyncio.Future[object]] = deque()
        self._failure: BackendError | None = None
        self._asked_to_end = False

    def __repr__(self) -> str:
        return self._name  # Ray puts it before each line that the worker prints

    async def introduce(self, setup: RaySetup) -> tuple[object, ...]:
        """Import the entry. Answers ``("ready", pid, node's pid, host, machine, place of stderr)``, or ``("refused", why)``."""
        own = code_version()
        if setup["version"] != own:
            return ("refused", f"it has {own}, the owner has {setup['version']}; the same version must be installed on every node")
        # Behind what this node has itself: a package that is in both places is taken from here.
        sys.path.extend(folder for folder in setup["path"] if folder not in sys.path)
        try:
            self._entry = cast("Callable[[Endpoint], Awaitable[None]]", _load(setup["entry"]))
        except Exception:  # noqa: BLE001 - the entry's module is user code, and the owner is told
            return ("refused", traceback.format_exc())
        worker = setup["worker"]
        self._endpoint = RayEndpoint(worker, failed=self._failed)
        self._to_owner = RayLink(worker, self._hand_out, slots=0)
        self._endpoint.open_link(0, self._to_owner)
        if setup["memory"] and sys.platform == "linux":
            watch_memory(worker, setup["memory"])  # for Ray it only says where there is room for a worker
        sys.setswitchinterval(0.0005)  # a thread that computes must not hold the loop for 5 ms
        gc.collect()
        gc.freeze()  # what is imported by now lives as long as the process: full collections need not look at it again
        return ("ready", os.getpid(), os.getppid(), os.uname().nodename, machine(), _place_of_stderr())

    async def begin(self, peers: Mapping[int, WorkerHandle]) -> None:
        """Start the entry, linked with the other workers."""
        for peer, handle in peers.items():
            self._endpoint.open_link(peer, calling_link(self._endpoint, peer, handle))
        self._task = asyncio.ensure_future(self._live())

    async def deliver(self, content: bytes, bulk: Buffer = b"") -> None:
        """Take in a parcel of another worker or of the owner."""
        self._endpoint.take(content, memoryview(bulk))

    async def collect(self, taken: int) -> object:
        """The next parcel for the owner, as soon as there is one. The owner has all those before number `taken`."""
        poll: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._polls.append(poll)
        self._to_owner.arrived_before(taken)
        self._to_owner.add_slot()
        return await poll

    async def stop(self) -> None:
        """Cancel the entry."""
        self._asked_to_end = True
        if self._task is not None:
            self._task.cancel()

    async def ping(self) -> None:
        """Answer; an error says that the process has ended."""

    def _hand_out(self, number: int, parcel: Parcel) -> None:
        self._polls.popleft().set_result(parcel[0] if len(parcel) == 1 else parcel)

    def _failed(self, error: BackendError) -> None:
        self._failure = self._failure or error
        if self._task is not None:
            self._task.cancel()

    async def _live(self) -> None:
        """Run the entry to its end, and tell the owner how that was, after the last frame."""
        status, left = 0, False
        try:
            await self._entry(self._endpoint)
            left = True
        except asyncio.CancelledError:
            left = self._asked_to_end and self._failure is None
            if not left:
                traceback.print_exc()
                status = 1
        except SystemExit as error:
            if error.code is not None and not isinstance(error.code, int):
                sys.stderr.write(f"{error.code}\n")
            status = 0 if error.code is None else error.code if isinstance(error.code, int) else 1
        except BaseException:  # noqa: BLE001 - the entry is user code, and this is the end of the worker
            traceback.print_exc()
            status = 1
        try:
            async with asyncio.timeout(_FAREWELL):
                await self._endpoint.flush()
        except TimeoutError:
            pass  # a peer that does not take must not keep us
        sys.stderr.flush()
        news: dict[str, object] = {"status": status, "left": left}
        if self._failure is not None:
            news["failed"] = [type(self._failure).__name__, *(str(part)[:LAST_WORDS] for part in self._failure.args)]
        elif not left:
            news["words"] = last_words(_place_of_stderr())
        self._to_owner.finish(json.dumps(news).encode())


def code_version() -> str:
    """What must be equal in all processes of a group: functions and records travel between them as pickles."""
    found: str = sys.modules["sage_actor"].__version__  # not imported from there: the front stands above the backends
    return f"sage_actor {found} on Python {sys.version_info.major}.{sys.version_info.minor}"


def machine() -> str:
    """Names the space in which a process id has a meaning: a boot of a machine, and a container in it; "" where it is unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip() + os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def last_words(place: str) -> str:
    """The end of a file that holds some worker's stderr; "" where there is none."""
    try:
        with open(place, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LAST_WORDS))
            lines = file.read().decode("utf-8", "replace").splitlines(keepends=True)
    except OSError:
        return ""
    return "".join(line for line in lines if not line.startswith(_MARKS))


def _place_of_stderr() -> str:
    try:
        return os.readlink("/proc/self/fd/2")
    except OSError:
        return ""


def _load(target: str) -> object:
    module, _, name = target.partition(":")
    found: object = getattr(importlib.import_module(module), name)
    return found
