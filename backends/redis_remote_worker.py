"""A worker that an agent runs, seen from its owner: what is wanted of it, and what the agent has told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from sage_actor.actor.backend import PATIENCE
from sage_actor.actor.worker_agents import AgentInfo
from sage_actor.backends.redis_registry import lease_name, work_place
from sage_actor.backends.redis_trust import Note, Trust
from sage_actor.errors import BackendError, BackendUnavailable, FrameError, WorkerLost

__all__ = ["RemoteWorker"]


class RemoteWorker:
    """Has the face of `WorkerProcess`, so that a group need not know where its workers are. Belongs to one loop.

    What is wanted only ever grows (run, end, kill), and so does what is told (started, ready, failed, ended): either may be said
    any number of times.
    """

    def __init__(
        self,
        assignment: Note,
        agent: AgentInfo,
        *,
        trust: Trust,
        failed: Callable[[BackendError], None],
        ended: Callable[[RemoteWorker], None],
        wanted: Callable[[], None],
    ) -> None:
        """It is leased already.

        Args:
            failed: called when it reports that its links broke.
            ended: called once when it has ended, or is out of reach for good.
            wanted: called when something else is wanted of it than before.
        """
        self.worker = cast("int", assignment["worker"])
        self.agent = agent
        self.host = agent.host
        self.pid = 0
        self.ready = asyncio.Event()
        self.ended = asyncio.Event()
        self.exit_code: int | None = None
        self.left = False
        self.failed = False
        self.last_words = ""
        self.lease = lease_name(cast("str", assignment["prefix"]), self.worker)
        self._assignment = assignment
        self._trust = trust
        self._on_failed = failed
        self._on_ended = ended
        self._on_wanted = wanted
        self._deadline: asyncio.TimerHandle | None = None
        self._sealed = self._seal("run")

    @property
    def assignment(self) -> bytes:
        """What is wanted, as it lies with the agent."""
        return self._sealed

    @property
    def place(self) -> str:
        """Where it runs, for messages."""
        return f"process {self.pid} on {self.agent.host}, agent {self.agent.name!r}"

    def lost(self) -> WorkerLost:
        """The error that says how it ended."""
        return WorkerLost(self.worker, self.pid or None, self.exit_code, self.last_words)

    def ask_to_end(self) -> None:
        """Have its entry cancelled, in a moment."""
        self._want("end")

    def kill(self) -> None:
        """Have it killed, in a moment; an agent that does not say so within 5 s is not waited for."""
        self._want("kill")
        if self._deadline is None and not self.ended.is_set():
            reason = f"its agent {self.agent.name!r} on {self.agent.host} does not say that it was killed"
            self._deadline = asyncio.get_running_loop().call_later(PATIENCE, self.out_of_reach, reason)

    def close(self) -> None:
        """Nothing of it is here."""

    def take(self, told: Note) -> None:
        """What the agent says of it."""
        if self.ended.is_set():
            return
        self.pid = cast("int", told["pid"])
        if told["ready"]:
            self.ready.set()
        failure = told["failure"]
        if failure is not None and not self.failed:
            self.failed = True
            kind, *parts = cast("list[str]", failure)
            self._on_failed(BackendUnavailable(*parts) if kind == BackendUnavailable.__name__ else FrameError(" ".join(parts)))
        if told["ended"]:
            self.left = bool(told["left"])
            self._end(cast("int | None", told["code"]), cast("str", told["words"]))

    def out_of_reach(self, reason: str) -> None:
        """Nobody can tell any more what becomes of it."""
        if not self.ended.is_set():
            self._end(None, reason)

    def _end(self, code: int | None, words: str) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self.exit_code = code
        self.last_words = words
        self.ready.set()
        self.ended.set()
        self._on_ended(self)

    def _want(self, what: str) -> None:
        if not self.ended.is_set() and self._assignment["want"] != what:
            self._sealed = self._seal(what)
            self._on_wanted()

    def _seal(self, what: str) -> bytes:
        self._assignment = {**self._assignment, "want": what}
        return self._trust.seal(work_place(self.agent.id, self.lease), self._assignment)
