"""Redis servers of a case's own, and ways to take one away for a while: kill -9, a proxy that stalls, a network that is cut."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
import time
from contextlib import ExitStack
from types import TracebackType
from typing import Protocol, Self

from redis import Redis
from redis.exceptions import RedisError

from sage_actor.testing import RedisServer
from sage_actor.testing.redis_server import _executable
from sage_actor.testing.tcp_proxy import TcpProxy

__all__ = ["CutRedis", "KilledRedis", "StalledRedis", "TakenAway", "can_make_networks", "keys_for_ever"]

DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


class TakenAway(Protocol):
    """A server that a case can do without for a while."""

    address: str

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> bool | None: ...

    def take_away(self) -> None:
        """Nobody reaches it any more."""
        ...

    def give_back(self) -> None:
        """Where it was."""
        ...


def keys_for_ever(address: str) -> list[str]:
    """Keys of ours that would stay: those of killed groups expire by themselves."""
    with Redis.from_url(address) as client:
        keys = [key.decode() for key in client.scan_iter("sage:*")]
        return [key for key in keys if client.ttl(key) == -1]


class _Server:
    """What the kinds have in common: one thing after the other is entered, and left in turn."""

    address = ""

    def __init__(self) -> None:
        self.entered = ExitStack()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> bool | None:
        return self.entered.__exit__(kind, error, trace)


class KilledRedis(_Server):
    """Taken away by kill -9; given back by a start on the same port, with what it had saved, or empty."""

    def __init__(self, *, saves: bool) -> None:
        super().__init__()
        self.server = RedisServer(arguments=DURABLE if saves else ())

    def __enter__(self) -> Self:
        self.entered.enter_context(self.server)
        self.address = self.server.address
        return self

    def take_away(self) -> None:
        """It dies."""
        self.server.kill()

    def give_back(self) -> None:
        """It starts again."""
        self.server.restart()


class StalledRedis(_Server):
    """Taken away by a proxy that lets nothing through: connections stay, and are silent."""

    def __enter__(self) -> Self:
        server = self.entered.enter_context(RedisServer())
        self.proxy = self.entered.enter_context(TcpProxy.before(server.address))
        self.address = self.proxy.instead_of(server.address)
        return self

    def take_away(self) -> None:
        """Nothing passes."""
        self.proxy.stall()

    def give_back(self) -> None:
        """What waited passes."""
        self.proxy.heal()


class CutRedis(_Server):
    """In a network namespace of its own; taken away by cutting the link between the two: packets vanish."""

    def __enter__(self) -> Self:
        self.name = f"sage-kill9-{os.getpid()}"
        self.ours, theirs = f"sk{os.getpid() % 10**8}a", f"sk{os.getpid() % 10**8}b"
        third, fourth = 64 + os.getpid() // 64 % 64, os.getpid() % 64 * 4
        here, there = f"198.18.{third}.{fourth + 1}", f"198.18.{third}.{fourth + 2}"
        self._run("ip", "netns", "add", self.name)
        self.entered.callback(self._run, "ip", "netns", "del", self.name)
        try:
            self._run("ip", "link", "add", self.ours, "type", "veth", "peer", "name", theirs, "netns", self.name)
            self.entered.callback(self._run, "ip", "link", "del", self.ours)
            self._run("ip", "addr", "add", f"{here}/30", "dev", self.ours)
            self._run("ip", "link", "set", self.ours, "up")
            for words in (("addr", "add", f"{there}/30", "dev", theirs), ("link", "set", theirs, "up"), ("link", "set", "lo", "up")):
                self._run("ip", "-n", self.name, *words)
            folder = self.entered.enter_context(tempfile.TemporaryDirectory(prefix="sage-redis-"))
            options = ["--port", "6379", "--bind", there, "--protected-mode", "no", "--dir", folder, "--save", ""]
            server = subprocess.Popen(
                ["ip", "netns", "exec", self.name, _executable(), *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            self.entered.callback(server.wait)
            self.entered.callback(server.kill)
            self.address = f"redis://{there}:6379/0"
            self._until_it_answers()
        except BaseException:
            self.entered.close()
            raise
        return self

    def take_away(self) -> None:
        """Cut the link."""
        self._run("ip", "link", "set", self.ours, "down")

    def give_back(self) -> None:
        """Join it again."""
        self._run("ip", "link", "set", self.ours, "up")

    def _until_it_answers(self) -> None:
        deadline = time.monotonic() + 10.0
        while True:
            try:
                with Redis.from_url(self.address, socket_connect_timeout=1.0) as client:
                    client.ping()
                return
            except RedisError:
                assert time.monotonic() < deadline, f"the server in the namespace {self.name} does not answer"
                threading.Event().wait(0.02)

    @staticmethod
    def _run(*command: str) -> None:
        subprocess.run(command, check=True, capture_output=True)


def can_make_networks() -> str:
    """Nothing, or why no network can be made and cut here."""
    if shutil.which("ip") is None:
        return "no `ip` here (package iproute2)"
    name = f"sage-kill9-try-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return made.stderr.strip() or "network namespaces are forbidden"
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return ""
