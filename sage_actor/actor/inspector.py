"""The inspector: lets other processes of the same account look into a running system, over a unix socket."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import struct
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sage_actor.ports import system_clock

if TYPE_CHECKING:
    from sage_actor.actor.statistics import ActorStatistics
    from sage_actor.actor.system import ActorSystem

__all__ = ["Inspector"]

OPENS_AFTER = 0.25
"""Seconds of a system's life; what is over sooner, as most tests are, pays a timer for it."""

REQUEST_BYTES = 65_536
SECONDS = 5.0
"""In which a client must have asked and taken its answer."""

CLIENTS = 4
"""That are served at a time; others wait."""

_BACKLOG = 16
_SAME_NAME = 100
_ACTORS_A_TURN = 100  # looked at before the event loop has another turn
_PAUSE = 1.0  # after an accept that failed, as it does while the process has no file descriptors left

_log = logging.getLogger(__name__)


class Inspector:
    """Answers, on the system's own loop, to whoever may open its socket. The runtime's own.

    A client sends one line of JSON and gets one line back, ``{"answer": ...}`` or ``{"error": "why"}``:

    * ``{"command": "statistics"}``: ``pid``, ``system`` (`SystemStatistics` without its actors) and ``actors`` (their
      `ActorStatistics`, parents before children);
    * ``{"command": "actor", "path": "orders/worker"}``: an `ActorReport`;
    * ``{"command": "dead_letters"}``: a `DeadLettersReport`.

    The socket is this account's alone: mode 0600, in a directory of mode 0700, and the kernel is asked who connects. Looking
    calls ``__repr__`` of messages and nothing else of the program's. A socket that cannot be opened is told at level debug only.
    """

    def __init__(self, system: ActorSystem) -> None:
        self._system = system
        self._serving: asyncio.Task[None] | None = None
        self._alarm = system.clock.call_later(OPENS_AFTER, self._begin)

    @staticmethod
    def fits(system: ActorSystem) -> bool:
        """Whether a system lives in real time, so that somebody could look at it."""
        return system.clock is system_clock and not hasattr(system.loop, "sage_clock")

    async def aclose(self) -> None:
        """Close and remove the socket; clients that are being served are cut off. Idempotent."""
        self._alarm.cancel()
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.wait([self._serving])

    def _begin(self) -> None:
        self._serving = self._system.start_task(self._serve(), "inspector")

    async def _serve(self) -> None:
        try:
            listener, address = _listen(self._system.name)
        except OSError as error:
            _log.debug("actor system %r has no inspector: %s", self._system.name, error)
            return
        try:
            await self._accept(listener)
        finally:
            listener.close()
            address.unlink(missing_ok=True)

    async def _accept(self, listener: socket.socket) -> None:
        free = asyncio.Semaphore(CLIENTS)
        async with asyncio.TaskGroup() as clients:
            while True:
                await free.acquire()
                try:
                    connection, _ = await self._system.loop.sock_accept(listener)
                except OSError as error:
                    _log.debug("the inspector of actor system %r cannot accept: %s", self._system.name, error)
                    free.release()
                    await self._system.clock.sleep(_PAUSE)
                    continue
                clients.create_task(self._attend(connection)).add_done_callback(lambda _: free.release())

    async def _attend(self, connection: socket.socket) -> None:
        loop = self._system.loop
        with connection:
            try:
                if not _is_this_account(connection):
                    return
                async with asyncio.timeout(SECONDS):
                    request = b""
                    while b"\n" not in request:
                        part = await loop.sock_recv(connection, REQUEST_BYTES)
                        if not part or len(request) + len(part) > REQUEST_BYTES:
                            return
                        request += part
                    await loop.sock_sendall(connection, await self._answer(request.partition(b"\n")[0]) + b"\n")
            except OSError:  # it has gone, or was too slow (TimeoutError is one)
                pass

    async def _answer(self, line: bytes) -> bytes:
        import msgspec

        try:
            request = msgspec.json.decode(line, type=dict[str, str])
            return b'{"answer":' + await self._answer_to(request.get("command", ""), request.get("path", "")) + b"}"
        except msgspec.DecodeError as error:
            return msgspec.json.encode({"error": f"not a request: {error}"})
        except LookupError as error:
            return msgspec.json.encode({"error": str(error.args[0])})
        except Exception as error:  # noqa: BLE001 - the program's own objects are looked at; whatever that raises is the answer
            _log.debug("the inspector of actor system %r failed", self._system.name, exc_info=error)
            return msgspec.json.encode({"error": f"looking at the system raised {type(error).__name__}"})

    async def _answer_to(self, command: str, path: str) -> bytes:
        import msgspec

        from sage_actor.actor.inspection import dead_letters_report, report_of

        if command == "statistics":
            return await self._statistics()
        if command == "actor":
            ref = self._system.lookup(path)
            if ref is None:
                raise LookupError(f"no actor lives at {path!r}")
            return msgspec.json.encode(report_of(ref.cell.lifecycle))
        if command == "dead_letters":
            return msgspec.json.encode(dead_letters_report(self._system))
        raise LookupError(f"no command {command!r}; there are statistics, actor (with a path) and dead_letters")

    async def _statistics(self) -> bytes:
        """All actors, in pieces: the system goes on between them, so the counts of two actors may be some turns apart."""
        import msgspec

        from sage_actor.actor.inspection import encodable, in_tree_order
        from sage_actor.actor.statistics import counts_of, counts_of_system

        actors: list[bytes] = []
        for number, lifecycle in enumerate(in_tree_order(self._system), 1):
            if lifecycle.cell.state_name != "stopped":
                actors.append(_encoded(counts_of(lifecycle)))
            if number % _ACTORS_A_TURN == 0:
                await asyncio.sleep(0)
        counts = counts_of_system(self._system)
        system = replace(counts, name=encodable(counts.name))
        head = msgspec.json.encode({"pid": os.getpid(), "system": system})
        return head[:-1] + b',"actors":[' + b",".join(actors) + b"]}"


def _encoded(statistics: ActorStatistics) -> bytes:
    import msgspec

    from sage_actor.actor.inspection import encodable

    try:
        return msgspec.json.encode(statistics)
    except UnicodeEncodeError:
        return msgspec.json.encode(replace(statistics, path=encodable(statistics.path)))


def _listen(name: str) -> tuple[socket.socket, Path]:
    """A socket that listens already, and where it stands.

    Raises:
        OSError: there are no unix sockets here, no place for one, or the path would be too long.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise OSError("this platform has no unix sockets")
    from sage_actor.actor.inspector_place import inspector_directory, private_directory

    directory = inspector_directory()
    private_directory(directory, create=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        address = _bind(listener, directory, name)
        address.chmod(0o600)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener, address


def _bind(listener: socket.socket, directory: Path, name: str) -> Path:
    from sage_actor.actor.inspector_place import address_of

    for number in range(1, _SAME_NAME):
        address = address_of(directory, name, os.getpid(), number)
        try:
            listener.bind(str(address))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return address
    raise OSError(f"{_SAME_NAME - 1} systems of this process have the name {name!r}")


def _is_this_account(connection: socket.socket) -> bool:
    """Whether the process at the other end runs under this account, as far as the kernel can say."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    user: int = struct.unpack("3i", told)[1]  # between process id and group
    return user == os.geteuid()
