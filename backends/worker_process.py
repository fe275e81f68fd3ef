"""One worker as a child process, seen from its owner: start, control, stderr, end."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from sage_actor.backends.worker_main import Setup
from sage_actor.errors import BackendError, BackendUnavailable, FrameError, WorkerLost

__all__ = ["WorkerProcess"]

_LAST_WORDS: Final = 4096
_PIECES: Final = 64  # of stderr, read once it has ended
_POLL: Final = 0.1
_SCRIPT: Final = str(Path(__file__).with_name("worker_boot.py"))


class WorkerProcess:
    """A child in a session of its own, so that neither Ctrl-C nor a closed terminal reaches it.

    Its stdout is ours. Its stderr passes through us to ours, and its end is kept as the last words. Everything here runs on
    the loop that created it.
    """

    def __init__(
        self,
        setup: Setup,
        *,
        group: str,
        descriptors: Sequence[int],
        failed: Callable[[BackendError], None],
        ended: Callable[[WorkerProcess], None],
    ) -> None:
        """Start it. Blocks for a fork and exec, about a millisecond; not offloaded, since the child belongs to a thread.

        Args:
            descriptors: open files that it inherits, under the same numbers.
            failed: called when it reports that its links broke.
            ended: called once when the process has ended and its stderr is read.

        Raises:
            OSError: no process or no file descriptor is to be had.
        """
        self.worker = setup["worker"]
        self.ready = asyncio.Event()
        """Set when its entry runs, and also when it ended before that."""
        self.ended = asyncio.Event()
        self.exit_code: int | None = None
        self.left = False
        """Its entry returned: it ended because it wanted to, or because it was asked to."""
        self.failed = False
        """It reported what broke before it ended, so its end is no news."""
        self._on_failed = failed
        self._on_ended = ended
        self._loop = asyncio.get_running_loop()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._words = bytearray()
        self._lines = bytearray()

        self._control, theirs = socket.socketpair()
        try:
            self._stderr, writing = os.pipe()
        except OSError:
            self._control.close()
            theirs.close()
            raise
        try:
            self._process = subprocess.Popen(
                [
                    sys.executable, "-P", *(f"-W{option}" for option in sys.warnoptions), _SCRIPT,
                    "--group", group, "--worker", str(self.worker), "--control", str(theirs.fileno()),
                ],
                stdin=subprocess.DEVNULL, stderr=writing, start_new_session=True, pass_fds=(theirs.fileno(), *descriptors),
            )  # fmt: skip
        except BaseException:
            self._control.close()
            os.close(self._stderr)
            raise
        finally:
            theirs.close()
            os.close(writing)
        self.pid = self._process.pid
        self.host = "localhost"
        self._pidfd = -1
        if sys.platform == "linux":
            try:
                self._pidfd = os.pidfd_open(self.pid)
            except OSError:
                self._process.kill()
                self._process.wait()
                self._control.close()
                os.close(self._stderr)
                raise
            self._loop.add_reader(self._pidfd, self._check)
        else:
            self._loop.call_later(_POLL, self._check)
        os.set_blocking(self._stderr, False)
        self._loop.add_reader(self._stderr, self._read_stderr)
        self._send(json.dumps(setup).encode() + b"\n")
        self._control.setblocking(False)
        self._loop.add_reader(self._control, self._read_control)

    @property
    def last_words(self) -> str:
        """The end of what it wrote to stderr."""
        return self._words.decode("utf-8", "replace")

    @property
    def place(self) -> str:
        """Where it runs, for messages."""
        return f"process {self.pid}"

    def lost(self) -> WorkerLost:
        """The error that says how it ended."""
        return WorkerLost(self.worker, self.pid, self.exit_code, self.last_words)

    def ask_to_end(self) -> None:
        """Have its entry cancelled. It may take its time, and cannot while user code blocks its loop."""
        if not self.ended.is_set():
            self._send(b"end\n")

    def kill(self) -> None:
        """Kill it. What it has started in its session is told to end when it has ended."""
        if self._process.returncode is None:
            self._process.kill()

    def close(self) -> None:
        """Let go of an ended process. Idempotent."""
        if self._control.fileno() >= 0:
            self._loop.remove_reader(self._control)
            self._control.close()
        self._close_stderr()

    def _send(self, line: bytes) -> None:
        with contextlib.suppress(OSError):  # it has ended: `_check` is told so by the kernel
            self._control.sendall(line)

    def _read_control(self) -> None:
        if self._control.fileno() < 0:
            return
        try:
            received = self._control.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        if not received:
            self._loop.remove_reader(self._control)
            return
        self._lines += received
        *lines, rest = self._lines.split(b"\n")
        self._lines = bytearray(rest)
        for line in lines:
            word, _, content = line.decode().partition(" ")
            if word == "ready":
                self.ready.set()
            elif word == "bye":
                self.left = True
            elif word == "failed":
                self.failed = True
                self._on_failed(self._failure(*json.loads(content)))

    def _failure(self, kind: str, *parts: str) -> BackendError:
        where = f"worker {self.worker} (process {self.pid})"
        if kind == BackendUnavailable.__name__:
            backend, reason, *hint = parts
            return BackendUnavailable(backend, f"{where}: {reason}", *hint)
        return FrameError(f"{where}: {' '.join(parts)}")

    def _read_stderr(self) -> bool:
        """Pass on one piece; False when there is none now."""
        if self._stderr < 0:
            return False
        try:
            piece = os.read(self._stderr, 65536)
        except BlockingIOError:
            return False
        if not piece:
            self._close_stderr()
            return False
        self._words += piece
        if len(self._words) > _LAST_WORDS:
            del self._words[:-_LAST_WORDS]
        if sys.stderr is not None:
            with contextlib.suppress(OSError, ValueError):  # a closed or broken stderr of ours is not the worker's end
                sys.stderr.write(self._decoder.decode(piece))
                sys.stderr.flush()
        return True

    def _close_stderr(self) -> None:
        if self._stderr >= 0:
            self._loop.remove_reader(self._stderr)
            os.close(self._stderr)
            self._stderr = -1

    def _check(self) -> None:
        if self._pidfd >= 0:
            # It has ended but is not reaped yet, so that its number, which is also its session's, cannot be another's. Not
            # SIGKILL: multiprocessing's resource tracker, which ignores this signal, has shared memory to remove.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGTERM)
        code = self._process.poll()
        if code is None:
            if self._pidfd < 0:
                self._loop.call_later(_POLL, self._check)
            return
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        # It is dead, so all that it said lies in the pipes. What it has started may still hold them open, and write on:
        # there is no waiting for their end.
        for _ in range(_PIECES):
            if not self._read_stderr():
                break
        self._read_control()
        self.exit_code = code
        self.ready.set()
        self.ended.set()
        self._on_ended(self)
