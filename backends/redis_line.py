"""One connection to a Redis server that belongs to one task: commands in, replies out, in order, nothing retried."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, cast
from urllib.parse import urlsplit, urlunsplit

from sage_actor.errors import BackendUnavailable

__all__ = ["Command", "RedisLine", "shown"]

Command = Sequence[bytes | str | int]


class _Connection(Protocol):
    """What is used of redis-py's connection."""

    @property
    def is_connected(self) -> bool: ...
    async def connect(self) -> None: ...
    async def disconnect(self, nowait: bool = ...) -> None: ...
    def pack_commands(self, commands: Iterable[Command]) -> list[bytes]: ...
    async def send_packed_command(self, command: Iterable[bytes], check_health: bool = ...) -> None: ...
    async def read_response(self, disable_decoding: bool = ..., timeout: float | None = ...) -> object: ...


def shown(address: str) -> str:
    """The address as it may appear in messages: without its password."""
    parts = urlsplit(address)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, f"***@{host}" if "@" in parts.netloc else host, parts.path, "", ""))


class RedisLine:
    """A connection of its own, so that a call that was cancelled halfway takes its connection with it.

    redis-py hands connections on; one on which a reply was left unread gives the next caller somebody else's answer. Here a
    failed or cancelled call closes the line, and a closed line stays closed.
    """

    __slots__ = ("_address", "_connection", "_open")

    def __init__(self, address: str) -> None:
        self._address = address
        self._connection: _Connection | None = None
        self._open = False

    async def connect(self) -> None:
        """Open it.

        Raises:
            BackendUnavailable: nobody answers there, or refuses us; with a hint how to start a server.
        """
        from redis.asyncio import ConnectionPool
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
        from redis.exceptions import RedisError

        options: dict[str, Any] = {"protocol": 2, "socket_timeout": None, "socket_connect_timeout": 3.0, "retry": Retry(NoBackoff(), 0)}
        try:
            pool = cast("Any", ConnectionPool).from_url(self._address, **options)
            connection = cast("_Connection", pool.make_connection())
            await connection.connect()
        except (RedisError, OSError, ValueError) as error:
            port = urlsplit(self._address).port or 6379 if not isinstance(error, ValueError) else 6379
            raise BackendUnavailable(
                shown(self._address), str(error), f"start a server with `redis-server --port {port}`, or run with backend='process'"
            ) from error
        self._connection = connection
        self._open = True

    async def call(self, commands: Sequence[Command]) -> list[object]:
        """Send commands in one write, return their replies in order. Cancelling it closes the line.

        Raises:
            BackendUnavailable: the server is gone, or refused one of them; the line is closed, and nobody knows which of the
                commands were carried out.
        """
        from redis.exceptions import RedisError

        connection = self._connection
        if connection is None or not self._open or not connection.is_connected:
            raise BackendUnavailable(shown(self._address), "the connection is closed")
        self._open = False  # until every reply is read
        try:
            await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            replies = [await connection.read_response(disable_decoding=True) for _ in commands]
        except (RedisError, OSError) as error:
            raise BackendUnavailable(shown(self._address), str(error) or type(error).__name__, "is the server still up?") from error
        self._open = True
        return replies

    async def aclose(self) -> None:
        """Close it. Idempotent; never raises for a server that is gone."""
        from redis.exceptions import RedisError

        self._open = False
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(RedisError, OSError):  # closed it is, one way or the other
                await connection.disconnect()
