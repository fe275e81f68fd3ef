"""Agents (``sage worker``) as processes of their own, for tests of jobs whose workers run elsewhere."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Final

from sage_actor.errors import BackendUnavailable
from sage_actor.ports import system_clock

__all__ = ["AgentProcess", "agent_processes"]

_PATIENCE: Final = 30.0


class AgentProcess:
    """One agent, started as a user would in a terminal. Its secret is that of this process: same account, or ``SAGE_ACTOR_SECRET``.

    Args:
        address: where jobs find it.
        options: further options of ``sage worker``.
    """

    def __init__(self, address: str, *, name: str, slots: int = 2, options: Sequence[str] = ()) -> None:
        self.name = name
        self._address = address
        self._asked = False
        self._output = tempfile.TemporaryFile(prefix="sage-agent-")  # noqa: SIM115  open as long as the process
        try:
            self._process = subprocess.Popen(
                [
                    sys.executable, "-m", "sage_actor", "worker", "--backend", address, "--name", name, "--slots", str(slots), *options
                ],
                stdin=subprocess.DEVNULL, stdout=self._output, stderr=subprocess.STDOUT, cwd=Path.cwd(), start_new_session=True,
            )  # fmt: skip
        except BaseException:
            self._output.close()
            raise

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def output(self) -> str:
        """What it, and its workers, have written so far."""
        end = self._output.seek(0, 2)
        self._output.seek(0)
        return self._output.read(end).decode("utf-8", "replace")

    def wait_ready(self) -> None:
        """Block until jobs can use it.

        Raises:
            BackendUnavailable: it has ended, or does not come up within 30 s; with what it wrote.
        """
        pause = threading.Event()
        deadline = system_clock.monotonic() + _PATIENCE
        while self._process.poll() is None and system_clock.monotonic() < deadline:
            if f"agent {self.name!r}" in self.output:
                return
            pause.wait(0.02)
        raise BackendUnavailable(self._address, f"agent {self.name!r} does not come up; it said:\n{self.output}")

    def kill(self) -> None:
        """End it as a crash would, and wait until it is gone."""
        self._process.kill()
        self._process.wait()

    def ask_to_end(self) -> None:
        """Ask it to end, as Ctrl-C would, once; does not wait."""
        if not self._asked:
            self._asked = True
            self._process.terminate()

    def stop(self) -> int:
        """Have it end; returns its exit status. Blocks until it has ended, some seconds if its workers are slow."""
        self.ask_to_end()
        try:
            return self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def close(self) -> None:
        """End it, if it lives, and forget what it wrote."""
        if self._process.poll() is None:
            self.stop()
        self._output.close()


@contextlib.contextmanager
def agent_processes(
    address: str, names: Sequence[str] = ("left", "right"), *, slots: int = 2, options: Sequence[str] = ()
) -> Generator[list[AgentProcess], None, None]:
    """Several agents that are ready; ended on the way out. Blocks for about a second.

    Raises:
        BackendUnavailable: one of them does not come up.
    """
    with contextlib.ExitStack() as stack:
        agents: list[AgentProcess] = []
        for name in names:
            agents.append(AgentProcess(address, name=name, slots=slots, options=options))
            stack.callback(agents[-1].close)
        for agent in agents:
            agent.wait_ready()
        try:
            yield agents
        finally:
            for agent in agents:
                agent.ask_to_end()
