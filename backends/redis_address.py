"""The address of a Redis server as a user writes it: what redis-py makes of it, and what is ours in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from sage_actor.durations import parse_duration
from sage_actor.errors import BackendUnavailable, ConfigError

__all__ = ["RedisAddress", "shown"]

_PATIENCE: Final = 10.0
_PORT: Final = 6379


def shown(address: str) -> str:
    """The address as it may appear in messages: without its password, and without its options, which may hold one too."""
    try:
        parts = urlsplit(address)
    except ValueError:  # such as a bracket that is not closed
        return f"{address.partition('://')[0]}://?"
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, f"***@{host}" if "@" in parts.netloc else host, parts.path, "", ""))


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """An address, taken apart.

    Attributes:
        url: for redis-py, whose options (``ssl_ca_certs``, ``ssl_certfile``, …) it still carries.
        shown: for messages.
        port: where the server listens.
        patience: seconds that a server may be away before a group gives it up: ``?patience=20``, 10 unless said.
    """

    url: str
    shown: str
    port: int
    patience: float

    @staticmethod
    def of(address: str) -> RedisAddress:
        """Take an address apart.

        Raises:
            BackendUnavailable: it is none, or its patience is no duration.
        """
        try:
            parts = urlsplit(address)
            port = parts.port or _PORT
            options = dict(parse_qsl(parts.query, keep_blank_values=True))
            patience = parse_duration(options.pop("patience", _PATIENCE), key="patience")
        except (ValueError, ConfigError) as error:
            raise BackendUnavailable(shown(address), str(error), "write redis://user:password@host:6379/0?patience=20") from error
        url = urlunsplit((parts.scheme, parts.netloc, parts.path, urlencode(options), ""))
        return RedisAddress(url, shown(address), port, patience)

    @property
    def answer(self) -> float:
        """Seconds that a server on a sound connection may take for an answer, after which the connection is replaced."""
        return min(max(self.patience / 2, 1.0), 30.0)
