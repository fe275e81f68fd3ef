"""One connection to a Redis server that belongs to one task: commands in, replies out, in order, nothing retried."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol, cast

from sage_actor.backends.redis_address import RedisAddress, shown
from sage_actor.backends.redis_refusals import refusal
from sage_actor.errors import BackendUnavailable

__all__ = ["Command", "RedisLine", "shown"]

Command = Sequence[bytes | str | int]

_CONNECT: Final = 3.0  # seconds, handshake included


class _Connection(Protocol):
    """What is used of redis-py's connection."""

    @property
    def is_connected(self) -> bool: ...
    async def connect(self) -> None: ...
    async def disconnect(self, nowait: bool = ...) -> None: ...
    def pack_commands(self, commands: Iterable[Command]) -> list[bytes]: ...
    async def send_packed_command(self, command: Iterable[bytes], check_health: bool = ...) -> None: ...
    async def read_response(self, disable_decoding: bool = ..., timeout: float | None = ...) -> object: ...


class RedisLine:
    """A connection of its own, so that a call that was cancelled halfway takes its connection with it.

    redis-py hands connections on; one on which a reply was left unread gives the next caller somebody else's answer. Here a call
    that failed halfway, was cancelled or got no answer in time closes the line, and a closed line stays closed: who wants to go
    on makes a new one.
    """

    __slots__ = ("_address", "_connection", "_open", "_transport")

    def __init__(self, address: str) -> None:
        """Nothing is connected yet.

        Raises:
            BackendUnavailable: the address is none.
        """
        self._address = RedisAddress.of(address)
        self._connection: _Connection | None = None
        self._transport: asyncio.WriteTransport | None = None
        self._open = False

    async def connect(self) -> None:
        """Open it.

        Raises:
            BackendUnavailable: nobody answers there within 3 s, or refuses us; with the next step.
        """
        from redis.asyncio import ConnectionPool
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
        from redis.exceptions import RedisError

        options: dict[str, Any] = {
            "protocol": 2,
            "socket_timeout": None,
            "socket_connect_timeout": _CONNECT,
            "retry": Retry(NoBackoff(), 0),
        }
        connection: _Connection | None = None
        try:
            pool = cast("Any", ConnectionPool).from_url(self._address.url, **options)
            connection = cast("_Connection", pool.make_connection())
            async with asyncio.timeout(_CONNECT):  # redis-py bounds the connecting, not the handshake
                await connection.connect()
        except BaseException as error:
            if connection is not None:
                await _closed(connection)
            if isinstance(error, TimeoutError) and not str(error):
                raise refusal(self._address, TimeoutError(f"no answer to the handshake within {_CONNECT:.0f} s")) from error
            if isinstance(error, RedisError | OSError | ValueError | TypeError):
                raise refusal(self._address, error) from error
            raise
        self._connection = connection
        # Held here, since redis-py forgets it when a call fails.
        writer = cast("asyncio.StreamWriter | None", getattr(connection, "_writer", None))
        self._transport = None if writer is None else writer.transport
        self._open = True

    async def call(self, commands: Sequence[Command], limit: float | None = None) -> list[object]:
        """Send commands in one write, return their replies in order. Cancelling it closes the line.

        Args:
            limit: seconds for all of it; half of the address's patience unless said.

        Raises:
            BackendUnavailable: the server is gone or silent: the line is closed, and nobody knows which of the commands were
                carried out. Or it refused one of them: then the others were carried out.
        """
        replies = await self.exchange(commands, limit)
        for command, reply in zip(commands, replies, strict=True):
            if isinstance(reply, Exception):
                raise refusal(self._address, reply, str(command[0])) from reply
        return replies

    async def exchange(self, commands: Sequence[Command], limit: float | None = None) -> list[object]:
        """As `call`, but with the refusal of a command in the place of its reply."""
        from redis.exceptions import RedisError, ResponseError

        connection = self._connection
        if connection is None or not self._open or not connection.is_connected:
            raise refusal(self._address, ConnectionError("the connection is closed"))
        self._open = False  # until every reply is read
        seconds = self._address.answer if limit is None else limit
        replies: list[object] = []
        try:
            async with asyncio.timeout(seconds):
                await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
                for _ in commands:
                    try:
                        replies.append(await connection.read_response(disable_decoding=True))
                    except ResponseError as error:
                        replies.append(error)
        except TimeoutError as error:
            raise refusal(self._address, TimeoutError(f"no answer to {commands[0][0]!s} within {seconds:g} s")) from error
        except (RedisError, OSError) as error:
            raise refusal(self._address, error, str(commands[0][0])) from error
        finally:
            if len(replies) == len(commands):
                self._open = True
            elif self._transport is not None:
                self._transport.abort()  # see `aclose`
        return replies

    async def receive(self) -> object:
        """Wait for what comes unasked, on a line that has subscribed to a channel. Cancelling it closes the line.

        Raises:
            BackendUnavailable: the connection is gone.
        """
        from redis.exceptions import RedisError

        connection = self._connection
        if connection is None or not self._open or not connection.is_connected:
            raise refusal(self._address, ConnectionError("the connection is closed"))
        self._open = False
        try:
            reply = await connection.read_response(disable_decoding=True)
        except (RedisError, OSError) as error:
            raise refusal(self._address, error) from error
        self._open = True
        return reply

    def refused(self, command: str, reply: Exception) -> BackendUnavailable:
        """The error for one reply of `exchange`."""
        return refusal(self._address, reply, command)

    async def aclose(self) -> None:
        """Close it. Idempotent; never raises for a server that is gone, and never waits for one that does not read."""
        self._open = False
        connection, self._connection = self._connection, None
        transport, self._transport = self._transport, None
        if transport is not None:
            # redis-py would first write out what waits: for ever, if nobody reads; and a call that was given up must not be
            # carried out later.
            transport.abort()
        if connection is not None:
            await _closed(connection)


async def _closed(connection: _Connection) -> None:
    from redis.exceptions import RedisError

    with contextlib.suppress(RedisError, OSError):  # closed it is, one way or the other
        await connection.disconnect(nowait=True)
