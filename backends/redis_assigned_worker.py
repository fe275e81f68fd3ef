"""A worker that this agent was told to run: its process, what is wanted of it, and what its owner is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, cast

from sage_actor.backends.redis_keys import RedisKeys
from sage_actor.backends.redis_registry import lease_name
from sage_actor.backends.redis_rounds import Life
from sage_actor.backends.redis_trust import Note
from sage_actor.backends.worker_process import WorkerProcess
from sage_actor.errors import BackendError

__all__ = ["AssignedWorker", "assignment"]

_ORDER: Final = ("run", "end", "kill")


def assignment(keys: RedisKeys, worker: int, *, group: str, entry: str, resources: Note) -> Note:
    """What an owner tells an agent: plain data, no secret in it."""
    return {
        "prefix": keys.prefix, "count": keys.count, "worker": worker, "group": group, "entry": entry, "resources": resources, "want": "run"
    }  # fmt: skip


class AssignedWorker:
    """One of an agent's workers, from its assignment until nobody asks for it any more."""

    def __init__(self, told: Note, sealed: bytes, changed: Callable[[AssignedWorker], None]) -> None:
        """Nothing is started yet.

        Args:
            changed: called when there is something new to tell.
        """
        self.sealed = sealed
        self.worker = cast("int", told["worker"])
        self.prefix = cast("str", told["prefix"])
        self.group = cast("str", told["group"])
        self.lease = lease_name(self.prefix, self.worker)
        self.held = True
        """Its lease was there when we last looked."""
        self.leased = Life()
        """Of its lease: not there for some seconds, it was given back."""
        self.process: WorkerProcess | None = None
        self.cores: list[int] = []
        """Those that it is bound to; none if to none."""
        self._changed = changed
        self.wanted = "run"
        self._failure: list[str] | None = None
        self._reason = ""
        self._following: asyncio.Task[None] | None = None

    @property
    def runs(self) -> bool:
        """Its process lives."""
        return self.process is not None and not self.process.ended.is_set()

    def run_as(self, process: WorkerProcess) -> None:
        """It is started."""
        self.process = process
        self._following = asyncio.get_running_loop().create_task(self._follow(process), name=f"agent-follows-{self.lease}")

    def failed(self, error: BackendError) -> None:
        """Its links broke."""
        self._failure = [type(error).__name__, *(str(part) for part in error.args)]
        self._changed(self)

    def want(self, what: str) -> None:
        """What its owner wants; only more than before counts."""
        if _ORDER.index(what) > _ORDER.index(self.wanted):
            self.wanted = what
            if self.process is not None and what == "end":
                self.process.ask_to_end()
            elif self.process is not None:
                self.process.kill()

    def turn_away(self, reason: str) -> None:
        """It is not run, or no longer, for a reason of the agent's: its owner is told that it is lost, and why."""
        self._reason = self._reason or reason

    async def aclose(self) -> None:
        """End it at once, if it lives. Idempotent."""
        if self.process is not None:
            self.process.kill()
            await self.process.ended.wait()
            self.process.close()
        if self._following is not None:
            await self._following

    def told(self) -> Note:
        """What its owner should know by now."""
        process = self.process
        if process is None:
            return {"pid": 0, "ready": False, "failure": None, "ended": True, "left": not self._reason, "code": None, "words": self._reason}
        ended = process.ended.is_set()
        words = process.last_words if ended else ""
        return {
            "pid": process.pid, "ready": process.ready.is_set(), "failure": self._failure, "ended": ended,
            "left": process.left and not self._reason, "code": process.exit_code,
            "words": f"{words.rstrip()}\n{self._reason}".strip() if self._reason else words,
        }  # fmt: skip

    async def _follow(self, process: WorkerProcess) -> None:
        await process.ready.wait()
        self._changed(self)
        await process.ended.wait()
        process.close()
        self._changed(self)
