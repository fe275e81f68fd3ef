"""A real supervisor process on a port of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from sage_actor.server.client import SupervisorClient


@dataclass
class Running:
    """A started supervisor."""

    process: subprocess.Popen[str]
    home: Path
    address: str
    token: str
    link: str

    @property
    def client(self) -> SupervisorClient:
        return SupervisorClient(self.address, self.token)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(15)


@contextmanager
def start_supervisor(home: Path, *options: str) -> Generator[Running, None, None]:
    """Start one; it is stopped on the way out, and must then end with 0."""
    environment = os.environ | {"SAGE_ACTOR_HOME": str(home)}
    errors = home.with_suffix(".errors")
    with errors.open("ab") as stderr:
        command = [sys.executable, "-m", "sage_actor", "--port", "0", *options]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment)
    assert process.stdout is not None
    try:
        told = process.stdout.readline() + process.stdout.readline()
        link = re.search(r"(http://(\S+)/#token=(\S+))", told)
        assert link, told + errors.read_text()
        running = Running(process, home, link[2], link[3], link[1])
        yield running
        if process.poll() is None:
            assert running.stop() == 0, errors.read_text()
    finally:
        process.stdout.close()
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One supervisor for a whole module."""
    with start_supervisor(tmp_path_factory.mktemp("supervisor") / "home") as started:
        yield started


@pytest.fixture
def start() -> Callable[..., AbstractContextManager[Running]]:
    """For tests that end their supervisor themselves."""
    return start_supervisor
