"""Looking into the running actor systems of this account, from another process: blocking calls for tools."""

from __future__ import annotations

import socket
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import msgspec

from sage_actor.actor.inspection import ActorReport, DeadLettersReport
from sage_actor.actor.inspector_place import inspector_directory, name_of, private_directory
from sage_actor.actor.statistics import ActorStatistics, SystemStatistics
from sage_actor.errors import ActorError
from sage_actor.ports import system_clock

__all__ = ["RunningSystem", "ask_inspector", "list_systems"]

T = TypeVar("T")

TIMEOUT = 5.0
_KNOCK_SECONDS = 1.0
_STALE_AFTER_MS = 5_000  # a socket that refuses and is younger may be about to listen


@dataclass(frozen=True, slots=True, order=True)
class RunningSystem:
    """An actor system that runs in some process of this account. The calls block, for at most some seconds.

    Attributes:
        name: its name.
        pid: its process.
        address: its socket.

    Every method raises `ActorError` if the system has ended, does not answer in time, or is of a version too different.
    """

    name: str
    pid: int
    address: Path

    def statistics(self, *, timeout: float = TIMEOUT) -> SystemStatistics:
        """What `ActorSystem.statistics` says there. In big systems actors far apart may be counted some turns apart."""
        answer = ask_inspector(self, "statistics", _Statistics, timeout=timeout)
        return replace(answer.system, actors=_as_tree(answer.actors))

    def actor(self, path: str, *, timeout: float = TIMEOUT) -> ActorReport:
        """One actor from close by.

        Raises:
            ActorError: no actor lives at that path.
        """
        return ask_inspector(self, "actor", ActorReport, path=path, timeout=timeout)

    def dead_letters(self, *, timeout: float = TIMEOUT) -> DeadLettersReport:
        """The last dead letters."""
        return ask_inspector(self, "dead_letters", DeadLettersReport, timeout=timeout)


class _Statistics(msgspec.Struct):
    pid: int
    system: SystemStatistics
    actors: list[ActorStatistics]


class _Envelope(msgspec.Struct):
    answer: msgspec.Raw = msgspec.Raw(b"")
    error: str = ""


def list_systems(directory: Path | None = None) -> tuple[RunningSystem, ...]:
    """The running actor systems of this account, by name and process. Removes the sockets of those that died.

    A system shows a quarter of a second after its start. One that does not answer (its event loop is blocked, its process was
    stopped) is listed all the same. Systems whose process has another directory for temporary files (``TMPDIR``) are not seen.

    Args:
        directory: where their sockets stand; default: this account's place.

    Raises:
        ActorError: the directory is not this account's own.
    """
    try:
        place = inspector_directory() if directory is None else directory
        private_directory(place, create=False)
        addresses = list(place.iterdir())
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise ActorError(f"the running actor systems cannot be listed: {error}") from error
    found: list[RunningSystem] = []
    for address in addresses:
        told = name_of(address)
        if told is not None and _listens(address):
            found.append(RunningSystem(told[1], told[0], address))
    return tuple(sorted(found))


def ask_inspector(system: RunningSystem, command: str, answer: type[T], *, path: str = "", timeout: float = TIMEOUT) -> T:
    """Send one request to a system's inspector and wait for the answer; see `Inspector` for the commands.

    Args:
        system: whom to ask.
        command: what for.
        answer: the type that the answer is read as, for example ``dict[str, object]``.
        path: of an actor, where the command needs one.
        timeout: seconds for each step of the conversation.

    Raises:
        ActorError: the system has ended, did not answer in time, refused, or answered something else.
    """
    who = f"actor system {system.name!r} (process {system.pid})"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            connection.connect(str(system.address))
            connection.sendall(msgspec.json.encode({"command": command, "path": path}) + b"\n")
            received = _read_line(connection)
    except (TimeoutError, BlockingIOError) as error:
        raise ActorError(f"{who} did not answer within {timeout:g} s: its event loop is blocked, or the process was stopped") from error
    except OSError as error:
        raise ActorError(f"{who} has ended ({error})") from error
    if not received:
        raise ActorError(f"{who} hung up without an answer: it ends, or is too busy to answer in time")
    try:
        envelope = msgspec.json.decode(received, type=_Envelope)
        if envelope.error:
            raise ActorError(f"{who}: {envelope.error}")
        return msgspec.json.decode(envelope.answer, type=answer)
    except msgspec.DecodeError as error:
        raise ActorError(f"{who} answered something else ({error}); look with the version of sage_actor that it runs with") from error


def _read_line(connection: socket.socket) -> bytes:
    received = bytearray()
    while part := connection.recv(1 << 20):
        received += part
    return bytes(received) if received.endswith(b"\n") else b""


def _listens(address: Path) -> bool:
    """Whether a process holds the socket; one that nobody holds any more is removed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_KNOCK_SECONDS)
        try:
            connection.connect(str(address))
        except ConnectionRefusedError:
            _remove_stale(address)
            return False
        except FileNotFoundError:
            return False
        except OSError:  # too many wait already, or no time: somebody is there, and does not attend
            return True
    return True


def _remove_stale(address: Path) -> None:
    try:
        if system_clock.now_ms() - address.lstat().st_mtime_ns // 1_000_000 > _STALE_AFTER_MS:
            address.unlink()
    except OSError:  # somebody else removed it
        pass


def _as_tree(actors: list[ActorStatistics]) -> tuple[ActorStatistics, ...]:
    """Put children, which follow their parents, inside of them."""
    children: dict[str, list[ActorStatistics]] = {}
    for actor in reversed(actors):
        own = children.pop(actor.path, [])
        parent = actor.path.rpartition("/")[0]
        children.setdefault(parent, []).append(replace(actor, children=tuple(reversed(own))) if own else actor)
    return tuple(reversed(children.get("", [])))
