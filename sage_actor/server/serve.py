"""The supervisor process: lock, store, supervisor, HTTP, signals, in this order; and back."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import signal
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import uvicorn

from sage_actor.config.address import Address
from sage_actor.config.paths import checkpoint_directory, data_directory, job_store_file, log_directory, supervisor_file
from sage_actor.config.tokens import obtain_token
from sage_actor.errors import ServerError
from sage_actor.jobs.store import JobStore
from sage_actor.jobs.supervisor import Supervisor
from sage_actor.ports import offload
from sage_actor.server.app import build_app

__all__ = ["Started", "serve"]


@dataclass(frozen=True, slots=True)
class Started:
    """What a supervisor that answers tells its starter."""

    address: Address
    token: str
    home: Path

    @property
    def link(self) -> str:
        """The status page, with the token in the fragment: browsers never send that part."""
        host = "127.0.0.1" if self.address.host in ("0.0.0.0", "::") else self.address.host
        return f"http://{Address(host, self.address.port)}/#token={self.token}"


class _Server(uvicorn.Server):
    """uvicorn without its signal handling, which would end the process with the signal instead of 0."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


async def serve(host: str, port: int, *, max_jobs: int, ready: Callable[[Started], None], note: Callable[[str], None]) -> None:
    """Run a supervisor in this process until SIGTERM or SIGINT; all jobs are stopped when it returns.

    A second signal cuts the grace of the jobs short: they are cancelled.

    Args:
        host: address to listen on.
        port: port to listen on; 0 chooses a free one.
        max_jobs: live jobs it takes.
        ready: called once it answers.
        note: told in words what is worth telling a person.

    Raises:
        ServerError: the port is taken, or another supervisor uses this data directory.
        ConfigError: the token or the data directory cannot be used.
        ConnectorError: the job store cannot be used.
    """
    home = data_directory()
    token = await offload(obtain_token)
    listener = _listen(host, port)
    with listener, _only_one(supervisor_file()) as noted:
        address = Address(host, listener.getsockname()[1])
        noted(json.dumps({"host": "127.0.0.1" if host == "0.0.0.0" else host, "port": address.port, "pid": os.getpid()}))
        store = await offload(partial(JobStore, job_store_file()))
        supervisor = Supervisor(store, log_directory(), checkpoints=checkpoint_directory(), max_jobs=max_jobs)
        await supervisor.start()
        await _answer(supervisor, listener, Started(address, token, home), max_jobs, ready, note)


async def _answer(
    supervisor: Supervisor,
    listener: socket.socket,
    started: Started,
    max_jobs: int,
    ready: Callable[[Started], None],
    note: Callable[[str], None],
) -> None:
    closing = asyncio.Event()
    app = build_app(supervisor, token=started.token, host=started.address.host, max_jobs=max_jobs, closing=closing)
    # A framework that is slow to close idle connections must not hold the process: its grace is one second.
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1, server_header=False)
    server = _Server(config)
    loop = asyncio.get_running_loop()
    hurried = asyncio.Event()

    def asked() -> None:
        (hurried if closing.is_set() else closing).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked)
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="http")
    try:
        closed = asyncio.create_task(closing.wait(), name="signals")
        ready(started)
        await asyncio.wait((serving, closed), return_when=asyncio.FIRST_COMPLETED)
        closing.set()
        closed.cancel()
        note("stopping: jobs drain")
    finally:
        ending = asyncio.create_task(supervisor.aclose(), name="close")
        hurry = asyncio.create_task(hurried.wait(), name="hurry")
        await asyncio.wait((ending, hurry), return_when=asyncio.FIRST_COMPLETED)
        if not ending.done():
            note("stopping at once: jobs are cancelled")
            supervisor.cancel_all()
        await ending
        hurry.cancel()
        # Only now: while jobs drain, the page and the clients still see how they stand.
        server.should_exit = True
        await serving
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reason = "the port is taken (by another supervisor?); stop that one, or choose another with --port"
        else:
            reason = f"cannot listen there: {error.strerror or error}; choose another --host or --port"
        raise ServerError(str(Address(host, port)), reason) from error


@contextmanager
def _only_one(path: Path) -> Generator[Callable[[str], None], None, None]:
    """Hold the lock of the data directory: two supervisors on one job store would each call the other's jobs dead."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 4096).decode("utf-8", "replace")
            reason = f"another supervisor ({holder}) uses the data directory {path.parent}; stop it, or set SAGE_ACTOR_HOME"
            raise ServerError("this machine", reason) from error
        yield lambda text: _write(descriptor, text)
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _write(descriptor: int, text: str) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, text.encode(), 0)
