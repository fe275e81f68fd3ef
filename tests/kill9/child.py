"""One run of the progressions as a process of its own, with everything it starts."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from progression import Settings

__all__ = ["Run", "has_ended", "lives_until"]

HERE = Path(__file__).resolve().parent
PATIENCE = 120.0
LOOK = 0.005
"""Seconds between two looks at what a process has written down."""
MARK = "SAGE_KILL9_RUN"
RAYS_OWN = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""Of a killed cluster these look for their raylet once a minute; no work is done in them."""


def lives_until(process: subprocess.Popen[Any], condition: Callable[[], object], what: str) -> bool:
    """Look again and again until it holds, or the process has ended; answers whether it holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE:g} s: {what}"
        if process.poll() is not None:
            return bool(condition())
        with suppress(subprocess.TimeoutExpired):
            process.wait(LOOK)
    return True


def has_ended(pid: int, seconds: float) -> bool:
    """Wait for the end of any process, a child of ours or not."""
    try:
        ended = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([ended], [], [], seconds)[0])
    finally:
        os.close(ended)


def is_worker(command: bytes) -> bool:
    """Whether a command line is that of a worker: one of our own processes, or a Ray actor."""
    return b"worker_boot.py" in command or (command.startswith(b"ray::") and b"IDLE" not in command)


@dataclass(slots=True)
class Process:
    """One process of a run."""

    pid: int
    worker: bool
    asleep: bool
    command: str

    def __str__(self) -> str:
        return f"{self.pid} ({self.command})"


class Run:
    """Started at once. `order` is what ``SAGE_KILL9`` says, without the marker."""

    def __init__(self, settings: Settings, order: Mapping[str, object] | None = None) -> None:
        self.settings = settings
        self.folder = Path(settings.folder)
        (self.folder / "tmp").mkdir(parents=True, exist_ok=True)
        self.mark = f"{self.folder}#{settings.run}"
        self.marker = self.folder / f"killed-{settings.run}"
        path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(HERE))))
        environment = os.environ | {MARK: self.mark, "PYTHONPATH": path, "TMPDIR": str(self.folder / "tmp")}
        environment["SAGE_KILL9"] = json.dumps({**(order or {}), "marker": str(self.marker)})
        self.errors = self.folder / f"stderr-{settings.run}"
        self.begun = time.monotonic()
        with self.errors.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "progression.py"), json.dumps(asdict(settings))],
                env=environment,
                stdout=stderr,
                stderr=stderr,
                stdin=subprocess.DEVNULL,
            )

    # -- looking -----------------------------------------------------------------------------------------------------

    def events(self) -> list[dict[str, Any]]:
        """What the run has written down so far."""
        try:
            text = (self.folder / f"events-{self.settings.run}").read_text()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in text.splitlines()]

    def named(self, name: str) -> list[dict[str, Any]]:
        """Events of one name."""
        return [event for event in self.events() if event["event"] == name]

    @property
    def said(self) -> str:
        """Its stderr."""
        return self.errors.read_text(errors="replace")

    @property
    def read(self) -> int:
        """Records that its sources have read, every attempt together."""
        try:
            return sum(map(int, (self.folder / f"ledger-{self.settings.run}").read_text().split()))
        except FileNotFoundError:
            return 0

    @property
    def restored(self) -> list[int | None]:
        """The checkpoint that each attempt has gone on from."""
        return [event["restored"] for event in self.named("attempt")]

    @property
    def recovery(self) -> float | None:
        """Seconds from the start of the process to its first output."""
        output = self.named("output")
        return output[0]["at"] - self.begun if output else None

    def processes(self) -> list[Process]:
        """All that live, the owner first, zombies left out."""
        found: list[Process] = []
        wanted = f"{MARK}={self.mark}\0".encode()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                if wanted not in (entry / "environ").read_bytes() + b"\0":
                    continue
                command = (entry / "cmdline").read_bytes()
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except (OSError, IndexError):
                continue
            if state not in "ZX":
                words = command.replace(b"\0", b" ").decode(errors="replace")
                found.append(Process(int(entry.name), is_worker(command), state == "T", words[:100].strip()))
        return sorted(found, key=lambda process: (process.pid != self.process.pid, process.pid))

    def until(self, condition: Callable[[], object], what: str) -> bool:
        """Wait until it holds or the owner has ended; answers whether the owner lives."""
        lives_until(self.process, condition, what)
        return self.process.poll() is None

    def process_wait(self, seconds: float) -> None:
        """So long, or until the owner has ended."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)

    def has_fallen_asleep(self) -> bool:
        """Whether a process has stopped itself where it was told to."""
        return self.marker.exists() and any(process.asleep for process in self.processes())

    # -- ending ------------------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """The owner, with -9; its workers are on their own."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def kill_worker(self, index: int) -> bool:
        """One worker, with -9. False if there is none."""
        workers = [process for process in self.processes() if process.worker]
        if not workers:
            return False
        try:
            os.kill(workers[index % len(workers)].pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def signal_all(self, number: signal.Signals) -> None:
        """All processes of the run, workers first."""
        for process in reversed(self.processes()):
            try:
                os.kill(process.pid, number)
            except ProcessLookupError:
                continue

    def wait(self, seconds: float = PATIENCE) -> int:
        """The owner's exit status; negative is a signal. Whoever takes too long is killed, and that is an error."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            raise AssertionError(
                f"run {self.settings.run} of {self.folder.name} hangs: {self.events()[-1:]}\n{self.said[-2000:]}"
            ) from None

    def wait_alone(self) -> list[str]:
        """Wait until nothing of the run lives; answers who would not go, and kills them."""
        deadline = time.monotonic() + 15.0
        while living := [process for process in self.processes() if not process.command.startswith(RAYS_OWN)]:
            if not has_ended(living[0].pid, max(0.0, deadline - time.monotonic())):
                self.signal_all(signal.SIGKILL)
                return list(map(str, living))
        return []
