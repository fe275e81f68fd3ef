"""Where the supervisor listens, and where its clients look for it."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass

from sage_actor.config.environment import environment
from sage_actor.config.paths import supervisor_file
from sage_actor.errors import ConfigError

__all__ = [
    "DEFAULT_HOST",
    "DEFAULT_MAX_JOBS",
    "DEFAULT_PORT",
    "Address",
    "default_host",
    "default_max_jobs",
    "default_port",
    "find_address",
    "parse_address",
]

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 19001
DEFAULT_MAX_JOBS = 1000


@dataclass(frozen=True, slots=True)
class Address:
    """Host and port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether it can only mean this machine."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_address(text: str, where: str = "code") -> Address:
    """Read ``host:port``, ``host``, ``:port``, ``[::1]:port`` or ``http://host:port``.

    Raises:
        ConfigError: not an address, or the port is not 1..65535.
    """
    rest = text.strip().removeprefix("http://").rstrip("/")
    if rest.startswith("["):
        host, _, tail = rest[1:].partition("]")
        port = tail.removeprefix(":")
    elif rest.count(":") > 1:
        host, port = rest, ""
    else:
        host, _, port = rest.partition(":")
    if not (host or port) or any(c in host for c in "/ @?#") or "://" in rest:
        raise ConfigError("jobmanager_address", f"{text!r} is not an address; write 'host:port', such as 'localhost:19001'", where)
    return Address(host or DEFAULT_HOST, _port(port, where) if port else DEFAULT_PORT)


def _port(text: str, where: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65536:
        raise ConfigError("jobmanager.port", f"{text!r} is not a port; write a number from 1 to 65535", where)
    return int(text)


def default_host() -> str:
    """``SAGE_ACTOR_JOBMANAGER__HOST``, else 127.0.0.1."""
    return environment("SAGE_ACTOR_JOBMANAGER__HOST", DEFAULT_HOST)


def default_port() -> int:
    """``SAGE_ACTOR_JOBMANAGER__PORT``, else 19001."""
    name = "SAGE_ACTOR_JOBMANAGER__PORT"
    return _port(environment(name, str(DEFAULT_PORT)), name)


def default_max_jobs() -> int:
    """``SAGE_ACTOR_JOBMANAGER__MAX_JOBS``, else 1000."""
    name = "SAGE_ACTOR_JOBMANAGER__MAX_JOBS"
    text = environment(name, str(DEFAULT_MAX_JOBS))
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ConfigError("jobmanager.max_jobs", f"{text!r} is not a count; write a whole number, 1 or more", name)
    return int(text)


def find_address() -> Address:
    """Where this account's supervisor is, or would be: what the running one wrote down, else the defaults."""
    try:
        noted = json.loads(supervisor_file().read_text(encoding="utf-8"))
        return Address(str(noted["host"]), int(noted["port"]))
    except (OSError, ValueError, KeyError, TypeError):
        host = default_host()
        return Address(DEFAULT_HOST if host == "0.0.0.0" else host, default_port())
