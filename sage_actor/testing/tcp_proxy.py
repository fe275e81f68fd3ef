"""A TCP proxy in the hands of a test: it delays, stalls, slows down, cuts, refuses, and changes what lies behind it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Final, Literal, Self, TypeVar, cast
from urllib.parse import urlsplit, urlunsplit

from sage_actor.ports import system_clock

__all__ = ["Direction", "TcpProxy"]

Direction = Literal["to_server", "to_client"]
"""One of the two ways through the proxy."""

_DIRECTIONS: Final[tuple[Direction, Direction]] = ("to_server", "to_client")
_PIECE: Final = 64 * 1024
_PIECES: Final = 16  # inside of the proxy, per connection and direction; then it stops reading, as a slow network does
_SLICE: Final = 0.02  # seconds worth of bytes that a limited way lets through at a time

R = TypeVar("R")


class TcpProxy:
    """Stands between a program and a server, and does to their connections what a test says.

        with redis_server() as url, TcpProxy.before(url) as proxy:
            job = start(backend=proxy.instead_of(url))
            proxy.delay(0.05)  # each way
            proxy.cut_after(100, "to_client")  # in the middle of some reply
            proxy.stall()
            ...
            proxy.heal()

    It runs in a thread of its own, so it serves programs that block and other processes as well. Every method may be called from
    any thread and returns when it holds; none of them waits for traffic. Bytes that passed are never changed, and none is lost
    but by `cut`, `cut_after` and `refuse`.
    """

    def __init__(self, host: str, port: int) -> None:
        """Nothing listens before it is entered.

        Args:
            host: of the server behind it.
            port: of the server behind it.
        """
        self.port = 0
        """Where it listens on 127.0.0.1, once entered; free again afterwards."""
        self._target = (host, port)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tcp-proxy", daemon=True)
        self._ways: dict[Direction, _Way] = {direction: _Way() for direction in _DIRECTIONS}
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._refusing = False
        self._server: asyncio.Server | None = None
        self._accepted = 0

    @classmethod
    def before(cls, url: str) -> Self:
        """A proxy before the server that a URL names."""
        parts = urlsplit(url)
        return cls(parts.hostname or "127.0.0.1", parts.port or 6379)

    def instead_of(self, url: str) -> str:
        """The URL with this proxy's host and port in the place of the server's; user and password stay."""
        parts = urlsplit(url)
        user, at, _ = parts.netloc.rpartition("@")
        return urlunsplit((parts.scheme, f"{user}{at}127.0.0.1:{self.port}", parts.path, parts.query, parts.fragment))

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._run(self._listen())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._run(self._close())
        self._end()

    # -- what it does to what passes ------------------------------------------------------------------------------------

    def delay(self, seconds: float, direction: Direction | None = None) -> None:
        """Let every byte that comes in from now on pass so much later, in order. 0 ends it.

        Args:
            direction: one way only; both unless said.
        """
        self._set(direction, lambda way: setattr(way, "delay", seconds))

    def limit(self, bytes_per_second: float | None, direction: Direction | None = None) -> None:
        """Let no more bytes through than this, for each connection. None ends it."""
        self._set(direction, lambda way: setattr(way, "rate", bytes_per_second))

    def stall(self, direction: Direction | None = None) -> None:
        """Let nothing through until `resume`; connections stay, new ones are accepted, and stall as well."""
        self._set(direction, lambda way: way.open.clear())

    def resume(self, direction: Direction | None = None) -> None:
        """End `stall`: what waited passes now."""
        self._set(direction, lambda way: way.open.set())

    def cut(self) -> int:
        """Reset every connection at once, and lose what is inside. Answers how many there were."""
        return self._call(self._cut)

    def cut_after(self, count: int, direction: Direction) -> None:
        """Let so many more bytes through, whosever they are, then reset the connection of the last one. Happens once."""
        self._set(direction, lambda way: setattr(way, "until_cut", count))

    def refuse(self) -> None:
        """Reset every new connection, as a server does that is down. Those that there are stay; `cut` ends them."""
        self._call(lambda: setattr(self, "_refusing", True))

    def accept(self) -> None:
        """End `refuse`."""
        self._call(lambda: setattr(self, "_refusing", False))

    def redirect(self, url: str) -> None:
        """Lead new connections to another server, as after a failover behind one address; those that there are stay."""
        parts = urlsplit(url)
        self._call(lambda: setattr(self, "_target", (parts.hostname or "127.0.0.1", parts.port or 6379)))

    def heal(self) -> None:
        """End everything that was ordered: delays, limits, stalls, refusals, cuts to come."""

        def healed(way: _Way) -> None:
            way.delay, way.rate, way.until_cut = 0.0, None, None
            way.open.set()

        self.accept()
        self._set(None, healed)

    # -- what can be seen -----------------------------------------------------------------------------------------------

    @property
    def connections(self) -> int:
        """How many connections go through it now."""
        return self._call(lambda: len(self._connections))

    @property
    def accepted(self) -> int:
        """How many connections it has accepted, refused ones left out."""
        return self._call(lambda: self._accepted)

    def passed(self, direction: Direction) -> int:
        """How many bytes have gone through, of all connections there ever were."""
        return self._call(lambda: self._ways[direction].passed)

    # -- the thread -----------------------------------------------------------------------------------------------------

    def _set(self, direction: Direction | None, change: Callable[[_Way], None]) -> None:
        chosen = _DIRECTIONS if direction is None else (direction,)

        def apply() -> None:
            for one in chosen:
                change(self._ways[one])
                self._ways[one].changed()

        self._call(apply)

    def _call(self, function: Callable[[], R]) -> R:
        done: concurrent.futures.Future[R] = concurrent.futures.Future()
        self._loop.call_soon_threadsafe(lambda: done.set_result(function()))
        return done.result()

    def _run(self, work: Coroutine[object, object, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        self._cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # for the transports to close their sockets

    def _cut(self) -> int:
        count = len(self._connections)
        for connection in list(self._connections):
            connection.cut()
            connection.task.cancel()  # it may wait for the end of a stall
        return count

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        self._accepted += 1
        task: asyncio.Task[None] = self._loop.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection: _Connection | None = None
        task = cast("asyncio.Task[None]", asyncio.current_task())
        try:
            there, back = await asyncio.open_connection(*self._target)
            connection = _Connection(writer, back, task)
            self._connections.add(connection)
            async with asyncio.TaskGroup() as both:  # what ends one direction with an error ends the other too
                both.create_task(_pump(reader, back, self._ways["to_server"], connection))
                both.create_task(_pump(there, writer, self._ways["to_client"], connection))
        except* OSError:
            pass  # the server behind is down, or one end reset: the other end sees the same
        finally:
            writer.transport.abort()
            if connection is not None:
                connection.cut()
                self._connections.discard(connection)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: _Way, connection: _Connection) -> None:
    """Carry one direction to its end."""
    waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_PIECES)

    async def fill() -> None:
        piece = b"-"
        while piece:
            piece = await reader.read(_PIECE)
            await waiting.put((system_clock.monotonic() + way.delay, piece))

    async def drain() -> None:
        while True:
            due, piece = await waiting.get()
            if due > (now := system_clock.monotonic()):
                await system_clock.sleep(due - now)
            if not piece:
                with contextlib.suppress(OSError, RuntimeError):
                    writer.write_eof()
                return
            await way.carry(piece, writer, connection)

    async with asyncio.TaskGroup() as both:
        both.create_task(fill())
        both.create_task(drain())


class _Connection:
    """Both ends of one connection, and what carries between them."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter, task: asyncio.Task[None]) -> None:
        self._ends = (client, server)
        self.task = task

    def cut(self) -> None:
        for end in self._ends:
            end.transport.abort()


class _Way:
    """What holds for one direction, of all connections."""

    def __init__(self) -> None:
        self.delay = 0.0
        self.rate: float | None = None
        self.open = asyncio.Event()
        self.open.set()
        self.until_cut: int | None = None
        self.passed = 0
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Something was ordered: who waits for the pace of a limit looks again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def carry(self, piece: bytes, writer: asyncio.StreamWriter, connection: _Connection) -> None:
        """Let one piece through, as the orders of the moment say.

        Raises:
            OSError: the connection was cut.
        """
        rest = memoryview(piece)
        while rest:
            await self.open.wait()
            size = len(rest) if self.rate is None else max(1, min(len(rest), int(self.rate * _SLICE)))
            cuts = self.until_cut is not None and self.until_cut <= size
            if cuts and self.until_cut is not None:
                size = self.until_cut
            if self.until_cut is not None:
                self.until_cut -= size
            writer.write(rest[:size])
            self.passed += size
            await writer.drain()
            if cuts:
                self.until_cut = None
                connection.cut()
                raise ConnectionResetError("cut by order of the test")
            if self.rate is not None:
                await self._pace(size / self.rate)
            rest = rest[size:]

    async def _pace(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
