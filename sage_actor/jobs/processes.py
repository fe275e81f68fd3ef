"""The supervisor's end of a job's process: starting it, talking to it, ending it with all it started."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

from sage_actor.jobs.asking import Asked, AskRefused
from sage_actor.jobs.reports import MAX_LINE, ReportLine, Task, decode_report, encode_task
from sage_actor.ports import offload

__all__ = ["JobProcess", "kill_group", "process_started"]


def process_started(pid: int) -> int | None:
    """When a process started, in clock ticks since boot: with it a pid names one process for ever. None if it is gone.

    Where the system does not tell (no ``/proc``), None too: such a process counts as gone.
    """
    try:
        # The second field is the program's name in parentheses and may hold anything, also spaces and parentheses.
        text = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if text[0] == "Z" else int(text[19])


def kill_group(pid: int) -> None:
    """Kill a job's process and all processes of its session that did not leave its group. Harmless if they are gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


class JobProcess:
    """One running process of a job."""

    def __init__(self, process: asyncio.subprocess.Process, connection: socket.socket, started: int | None) -> None:
        self._process = process
        self._connection = connection
        self._writer: asyncio.StreamWriter | None = None
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[ReportLine]] = {}
        self.pid = process.pid
        self.started = started

    @classmethod
    async def start(cls, log: Path, directory: str | None) -> JobProcess:
        """Start a process whose output is appended to `log`, in a session of its own.

        Raises:
            OSError: the log or the directory cannot be used, or no process can be started.
        """
        ours, theirs = socket.socketpair()
        try:
            output = await offload(partial(open, log, "ab", opener=_private))
            with output:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-P",  # the directory the supervisor was started in is no place to import from
                    "-m",
                    "sage_actor.jobs.runner",
                    str(theirs.fileno()),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=directory,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        return cls(process, ours, process_started(process.pid))

    async def run(self, task: Task, report: Callable[[ReportLine], None]) -> int:
        """Hand the job over, pass its reports on, and return the exit code once the process is gone and its group with it.

        Cancelling it kills the process.
        """
        reader, writer = await asyncio.open_connection(sock=self._connection, limit=MAX_LINE)
        self._writer = writer
        listening = asyncio.ensure_future(self._listen(reader, report))
        try:
            writer.writelines(encode_task(task))
            with contextlib.suppress(ConnectionError):  # it died at once: the exit code says so
                await writer.drain()
            code = await self._process.wait()
            kill_group(self.pid)  # whatever it started and left behind; also what holds the socket open
            # Bounded: a process that left the group may hold the socket open for as long as it likes.
            await asyncio.wait((listening,), timeout=1.0)
            return code
        finally:
            kill_group(self.pid)
            listening.cancel()
            writer.close()
            self._writer = None
            for waiting in self._asked.values():
                if not waiting.done():
                    waiting.set_exception(AskRefused("JobError", "the job's process ended before it answered"))

    async def _listen(self, reader: asyncio.StreamReader, report: Callable[[ReportLine], None]) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                said = decode_report(line)
                if said is None:
                    continue
                if said["event"] != "answer":
                    report(said)
                    continue
                waiting = self._asked.get(cast("int", said.get("id")))
                if waiting is not None and not waiting.done():
                    waiting.set_result(said)

    async def ask(self, asked: Asked) -> ReportLine:
        """Ask for something, and wait for the answer.

        Raises:
            AskRefused: the job refused, or its process ended first.
        """
        writer = self._writer
        if writer is None or writer.is_closing():
            raise AskRefused("JobError", "the job's process is starting or ending just now; ask again")
        number = next(self._numbers)
        waiting: asyncio.Future[ReportLine] = asyncio.get_running_loop().create_future()
        self._asked[number] = waiting
        try:
            writer.write(json.dumps({**asked, "id": number}).encode() + b"\n")
            answer: ReportLine = await waiting
        finally:
            del self._asked[number]
        if "error" in answer:
            raise AskRefused(str(answer.get("kind", "")), str(answer["error"]))
        return answer

    def send(self, command: str) -> None:
        """Ask for ``stop`` or ``cancel``. Never blocks; without effect once the process is gone."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(f"{command}\n".encode())

    def kill(self) -> None:
        """End it now, with its group."""
        kill_group(self.pid)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
