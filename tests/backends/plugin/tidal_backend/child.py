"""One worker process as its owner sees it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

__all__ = ["Child"]

_LAST_WORDS = 4096
_PROGRAM = str(Path(__file__).with_name("worker.py"))


class Child:
    """A process whose stdin is ours: a word there asks it to end, its end tells it that we are gone. Its stderr is its last words."""

    def __init__(self, worker: int, group: str, setup: dict[str, object], ended: Callable[[Child], None]) -> None:
        self.worker = worker
        self.ended = asyncio.Event()
        self.exit_code: int | None = None
        self._on_ended = ended
        self._loop = asyncio.get_running_loop()
        self._words = bytearray()
        self._stderr, theirs = os.pipe()
        self._pidfd = -1
        command = [sys.executable, "-P", _PROGRAM, group, str(worker)]
        try:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=theirs, start_new_session=True)
        except BaseException:
            os.close(self._stderr)
            raise
        finally:
            os.close(theirs)
        self.pid = self._process.pid
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except BaseException:
            self._process.kill()
            self._process.communicate()
            os.close(self._stderr)
            raise
        os.set_blocking(self._stderr, False)
        self._loop.add_reader(self._stderr, self._listen)
        self._loop.add_reader(self._pidfd, self._has_ended)
        self._say(json.dumps({**setup, "path": sys.path}))

    @property
    def last_words(self) -> str:
        """The end of its stderr."""
        return self._words.decode("utf-8", "replace")

    def ask_to_end(self) -> None:
        """Have its entry cancelled."""
        self._say("end")

    def kill(self) -> None:
        """At once."""
        if not self.ended.is_set():
            self._process.kill()

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # it has ended
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()

    def _listen(self) -> bool:
        """Read one piece; False where there is none."""
        try:
            piece = os.read(self._stderr, 65536)
        except BlockingIOError:
            return False
        if not piece:
            self._loop.remove_reader(self._stderr)
        self._words += piece
        del self._words[:-_LAST_WORDS]
        return bool(piece)

    def _has_ended(self) -> None:
        self.exit_code = self._process.wait()
        while self._listen():
            pass
        for descriptor in (self._pidfd, self._stderr):
            self._loop.remove_reader(descriptor)
            os.close(descriptor)
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self.ended.set()
        self._on_ended(self)
