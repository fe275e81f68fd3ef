"""What a job's process and its supervisor say to each other over one socket pair.

Downwards: one JSON line that describes the job, the payload's bytes, then commands as lines: ``stop``, ``cancel``, or a JSON
object with a number as ``id`` that asks for something (`asking`). End of input downwards means that the supervisor is gone.
Upwards: one JSON object a line, each with an ``event``: ``running``, ``metrics`` (with ``jobs``; the first as soon as a dataflow
starts), ``answer`` (with ``id``), and at the end ``finished``, ``failed`` or ``cancelled`` (with ``error``).
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

from sage_actor.jobs.record import JobSpec

__all__ = ["MAX_LINE", "ReportLine", "Reporter", "Task", "decode_report", "encode_task", "read_task"]

MAX_LINE = 64 << 20
"""A report of a job with 1,000 operators takes about 300 kB; the bound only stops a runaway."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a job's process is to run.

    Attributes:
        checkpoints: where dataflows that set no ``checkpoint.dir`` keep their checkpoints; "": each in a place of its own.
        restarted: an earlier process had begun with its dataflows: those that take checkpoints go on from the newest.
    """

    id: str
    spec: JobSpec
    checkpoints: str = ""
    restarted: bool = False


def encode_task(task: Task) -> list[bytes]:
    """The first message downwards, as parts."""
    spec = task.spec
    head = {
        "id": task.id,
        "restarted": task.restarted,
        "checkpoints": task.checkpoints,
        "name": spec.name,
        "kind": spec.kind,
        "length": len(spec.payload),
        "filename": spec.filename,
        "args": spec.args,
        "backend": spec.backend,
        "parallelism": spec.parallelism,
        "resume": spec.resume,
        "restore": spec.restore,
    }
    return [json.dumps(head).encode() + b"\n", spec.payload]


def read_task(connection: socket.socket) -> Task:
    """Read the first message; blocks until all of it is there.

    Raises:
        EOFError: the supervisor went away first.
    """
    head = bytearray()
    while not head.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            raise EOFError
        head += byte
    said = cast("dict[str, object]", json.loads(head))
    payload = bytearray(cast("int", said.pop("length")))
    view, got = memoryview(payload), 0
    while got < len(payload):
        count = connection.recv_into(view[got:])
        if not count:
            raise EOFError
        got += count
    job_id = str(said.pop("id"))
    restarted, checkpoints = bool(said.pop("restarted")), str(said.pop("checkpoints"))
    said["args"] = tuple(cast("list[str]", said["args"]))
    return Task(job_id, JobSpec(payload=bytes(payload), **said), checkpoints, restarted)  # type: ignore[arg-type]  # as encode_task wrote it


ReportLine = Mapping[str, object]


def decode_report(line: bytes) -> ReportLine | None:
    """One line upwards; None if it is not a report (a script may write to any descriptor)."""
    try:
        said = json.loads(line)
    except ValueError:
        return None
    return cast("dict[str, object]", said) if isinstance(said, dict) and "event" in said else None


class Reporter:
    """The job process's end of the socket. Thread-safe; silent once the supervisor is gone."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def say(self, event: str, **fields: object) -> None:
        """Send one report. Blocks while the supervisor does not read."""
        line = json.dumps({"event": event, **fields}, default=_plain, skipkeys=True).encode() + b"\n"
        with self._lock:
            try:
                self._connection.sendall(line)
            except OSError:
                pass  # The supervisor is gone; `listen` sees that too and ends the job.

    def listen(self, heard: Callable[[str], None], gone: Callable[[], None]) -> None:
        """Call `heard` with each command, then `gone` once. Blocks; run it in a thread of its own."""
        pending = b""
        while True:
            try:
                data = self._connection.recv(4096)
            except OSError:
                data = b""
            if not data:
                gone()
                return
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                heard(line.decode("utf-8", "replace").strip())


def _plain(value: object) -> object:
    """Values a metric may hold beside JSON's own: mappings, sequences, numbers of numpy."""
    if isinstance(value, Mapping):
        return dict(cast("Mapping[object, object]", value))
    if isinstance(value, tuple | set | frozenset):
        return list(cast("tuple[object, ...]", value))
    return str(value)
