"""An agent: offers a machine's slots to owners elsewhere, runs the workers they assign to it, tells what becomes of them."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import secrets
import socket
import sys
from collections import Counter, OrderedDict
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Final, cast

from sage_actor.actor.backend import PATIENCE
from sage_actor.actor.worker_agents import AgentOffer
from sage_actor.backends.redis_assigned_worker import AssignedWorker
from sage_actor.backends.redis_dispatch import owner_channel
from sage_actor.backends.redis_endpoint import OPENER
from sage_actor.backends.redis_keys import EXPIRY, RedisKeys
from sage_actor.backends.redis_line import Command, RedisLine, shown
from sage_actor.backends.redis_pulse import RedisPulse
from sage_actor.backends.redis_registry import (
    INDEX,
    PRESENCE,
    beat,
    beating,
    offer_place,
    printable,
    record,
    resources_of,
    state,
    state_place,
    work,
    work_place,
)
from sage_actor.backends.redis_rounds import Life, RedisRounds
from sage_actor.backends.redis_trust import Note, Trust
from sage_actor.backends.worker_main import Setup
from sage_actor.backends.worker_process import WorkerProcess
from sage_actor.errors import BackendError, BackendUnavailable

__all__ = ["RedisAgent", "own_version", "python_version"]

_PAST: Final = 1000  # ended assignments that are remembered: nobody, not even with an old note, starts one of them again
_FAREWELL: Final = 2.0  # seconds for owners to hear that we leave


def own_version() -> str:
    """That of sage_actor, here."""
    from importlib.metadata import version

    return version("sage-actor")


def python_version() -> str:
    """That of Python here, as far as pickles and code objects care."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


class RedisAgent:
    """One agent. It runs nobody's code itself; each worker is a process of its own, which ends with the agent."""

    def __init__(self, address: str, offer: AgentOffer, trust: Trust, note: Callable[[str], None]) -> None:
        """Nothing is connected before `run`."""
        self.id = secrets.token_hex(6)
        self._address = address
        self._offer = offer
        self._trust = trust
        self._note = note
        self._sealed_offer = trust.seal(offer_place(self.id), self._told_offer())
        self._round = 0
        self._leaving = False
        self._assigned: dict[str, AssignedWorker] = {}
        self._past: OrderedDict[str, None] = OrderedDict()
        self._distrusted: dict[str, bytes] = {}
        self._returned: set[str] = set()
        self._returning: tuple[str, ...] = ()
        self._owners: dict[str, Life] = {}
        self._asked: list[str] = []
        self._ringing: set[str] = set()
        self._over = asyncio.Event()
        self._error: BackendError | None = None
        self._pulse = self._new_pulse()
        self._rounds = RedisRounds(
            address,
            record(self.id),
            ask=self._ask,
            answer=self._answer,
            broken=self._broken,
            away=self._away,
            patience=math.inf,  # the workers give up by themselves; we are there when the server is back
        )

    async def run(self, stopping: asyncio.Event) -> None:
        """See `AgentBackend.run_agent`."""
        await self._rounds.open()
        self._pulse.start()  # after it: redis-py cannot be imported by two threads at once
        offer = self._offer
        label = f" of group {offer.label!r}" if offer.label else ""
        self._note(
            f"agent {offer.name!r} ({self.id}){label} at {shown(self._address)}: {offer.slots} {'slot' if offer.slots == 1 else 'slots'}, "
            f"process {os.getpid()}; Ctrl-C ends it"
        )
        ends = [asyncio.ensure_future(stopping.wait()), asyncio.ensure_future(self._over.wait())]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if self._error is not None:
                raise self._error
            await self._leave()
        finally:
            for end in ends:
                end.cancel()
            await _to_the_end(self._sign_off())

    # -- rounds ------------------------------------------------------------------------------------------------------

    def _ask(self) -> Sequence[Command]:
        self._round += 1
        self._asked = list(self._owners)
        own, leases, told = record(self.id), work(self.id), state(self.id)
        states = [part for worker in self._assigned.values() for part in (worker.lease, self._sealed_state(worker))]
        returned = self._returning = tuple(self._returned)
        ringing, self._ringing = self._ringing, set()
        return [
            ("HGETALL", leases),
            ("PUBSUB", "NUMSUB", *map(owner_channel, self._asked)),
            *(("GET", self._keys(prefix).beat(0)) for prefix in self._asked),
            ("HSET", own, "offer", self._sealed_offer, "leaving", int(self._leaving)),
            ("EXPIRE", own, PRESENCE),
            ("SADD", INDEX, self.id),
            ("EXPIRE", INDEX, EXPIRY),
            ("EXPIRE", leases, EXPIRY),
            *([("HSET", told, *states), ("EXPIRE", told, EXPIRY)] if states else []),
            *([("HDEL", leases, *returned), ("HDEL", told, *returned)] if returned else []),
            *(("PUBLISH", owner_channel(prefix), "") for prefix in ringing),
        ]

    def _answer(self, replies: list[object]) -> None:
        flat = cast("list[bytes]", replies[0])
        leases = {name.decode("utf-8", "replace"): sealed for name, sealed in zip(flat[::2], flat[1::2], strict=True)}
        listeners = cast("list[bytes | int]", replies[1])
        self._returned.difference_update(self._returning)  # not before: a round that fails has given nothing back
        for at, prefix in enumerate(self._asked):
            if not self._owners[prefix].look(replies[2 + at], connected=bool(listeners[2 * at + 1])):
                self._owner_is_gone(prefix)
        for lease, sealed in leases.items():
            self._hear(lease, sealed)
        self._distrusted = {lease: sealed for lease, sealed in self._distrusted.items() if lease in leases}
        for worker in list(self._assigned.values()):
            worker.held = worker.lease in leases
            # A server that has lost its memory hears of the lease again from its owner, within these seconds.
            if not worker.leased.look(self._round if worker.held else None, connected=True):
                self._forget(worker)
        held = {worker.prefix for worker in self._assigned.values()}
        self._owners = {prefix: self._owners.get(prefix) or Life() for prefix in held}

    def _broken(self, error: BackendError) -> None:
        self._error = error
        self._over.set()

    def _new_pulse(self) -> RedisPulse:
        return RedisPulse(beating(self._address, self.id), 0, (), silent=lambda _: None, gone=self._pulse_ended)

    def _pulse_ended(self, error: BackendError) -> None:
        """The server was away for longer than a group would wait: we wait on. Or it refuses us, which is the end."""
        if self._over.is_set():
            pass  # it was on its way here when we signed off
        elif isinstance(error.__cause__, BackendUnavailable):
            self._pulse = self._new_pulse()
            self._pulse.start()
        else:
            self._broken(error)

    def _away(self, error: BackendUnavailable | None) -> None:
        self._note("the server is back" if error is None else f"lost the server: {error.reason}; trying again")

    # -- assignments -------------------------------------------------------------------------------------------------

    def _hear(self, lease: str, sealed: bytes) -> None:
        worker = self._assigned.get(lease)
        if worker is not None and worker.sealed == sealed:
            return
        if self._distrusted.get(lease) == sealed:
            self._returned.add(lease)  # it has been written again since
            return
        told = self._trust.unseal(work_place(self.id, lease), sealed)
        if told is None:
            self._distrusted[lease] = sealed
            self._returned.add(lease)
            self._note(f"refused an assignment ({printable(lease)}): it is signed with another secret")
        elif worker is not None:
            worker.sealed = sealed
            worker.want(cast("str", told["want"]))
        else:
            self._accept(told, sealed)

    def _accept(self, told: Note, sealed: bytes) -> None:
        worker = AssignedWorker(told, sealed, self._changed)
        self._assigned[worker.lease] = worker
        self._owners.setdefault(worker.prefix, Life())
        name = self._offer.name
        if told["want"] != "run":
            pass  # called off before we heard of it
        elif worker.lease in self._past:
            worker.turn_away(f"agent {name!r} has ended it before: its lease was gone for some seconds")
        elif self._leaving:
            worker.turn_away(f"agent {name!r} is leaving")
        elif sum(other.runs for other in self._assigned.values()) >= self._offer.slots:
            worker.turn_away(f"agent {name!r} has no slot left")
        else:
            self._start(worker, told)
        self._changed(worker)

    def _start(self, worker: AssignedWorker, told: Note) -> None:
        keys = self._keys(worker.prefix, cast("int", told["count"]))
        setup = Setup(
            worker=worker.worker, owner=os.getpid(), path=list(_import_path()), entry=cast("str", told["entry"]), opener=OPENER,
            arguments=keys.arguments(),
        )  # fmt: skip
        need = resources_of(cast("Note", told["resources"]))
        if need.num_cpus and hasattr(os, "sched_setaffinity"):
            worker.cores = self._idlest_cores(math.ceil(need.num_cpus))
            setup["cores"] = worker.cores
        if need.memory is not None:
            setup["memory"] = need.memory
        try:
            process = WorkerProcess(setup, group=worker.group, descriptors=(), failed=worker.failed, ended=self._ended(worker))
        except (OSError, ValueError) as error:  # such as a group's name that cannot be an argument of a process
            worker.turn_away(f"agent {self._offer.name!r} cannot start it: {error}")
            return
        worker.run_as(process)
        self._note(f"{worker.group}: worker {worker.worker} started, process {process.pid}")

    def _idlest_cores(self, number: int) -> list[int]:
        """So many cores of ours, those first to which the fewest workers are bound."""
        bound = Counter(core for worker in self._assigned.values() if worker.runs for core in worker.cores)
        return sorted(os.sched_getaffinity(0), key=lambda core: (bound[core], core))[:number]

    def _ended(self, worker: AssignedWorker) -> Callable[[WorkerProcess], None]:
        def ended(process: WorkerProcess) -> None:
            how = "has ended" if process.left else f"ended with {process.exit_code}"
            self._note(f"{worker.group}: worker {worker.worker} {how}, process {process.pid}")

        return ended

    def _changed(self, worker: AssignedWorker) -> None:
        self._ringing.add(worker.prefix)
        self._rounds.ring()

    def _owner_is_gone(self, prefix: str) -> None:
        """Nobody wants its workers' work: they end, and their slots are free."""
        for worker in self._assigned.values():
            if worker.prefix == prefix:
                if worker.runs and worker.wanted != "kill":
                    self._note(f"{worker.group}: its owner is gone, so worker {worker.worker} is ended")
                    worker.turn_away(f"its agent {self._offer.name!r} has not heard of its owner for some seconds")
                    worker.want("kill")
                elif not worker.runs:
                    self._returned.add(worker.lease)

    def _forget(self, worker: AssignedWorker) -> None:
        """Its lease was given back, so whatever it still does, nobody listens."""
        if worker.runs:
            worker.want("kill")
            return  # once it has ended, in a later round
        del self._assigned[worker.lease]
        self._returned.add(worker.lease)
        self._past[worker.lease] = None
        if len(self._past) > _PAST:
            self._past.popitem(last=False)

    # -- the end -----------------------------------------------------------------------------------------------------

    async def _leave(self) -> None:
        """Take nothing more, end what runs, and let owners hear of it."""
        running = [worker for worker in self._assigned.values() if worker.runs]
        self._note("stopping: " + (f"ends {len(running)} {'worker' if len(running) == 1 else 'workers'}" if running else "nothing runs"))
        self._leaving = True
        for worker in running:
            worker.turn_away(f"its agent {self._offer.name!r} on {socket.gethostname()} was told to stop")
            worker.want("end")
        self._rounds.ring()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                for worker in running:
                    if worker.process is not None:
                        await worker.process.ended.wait()

    async def _sign_off(self) -> None:
        """Leave nothing behind, whatever happened."""
        self._leaving = True
        self._over.set()
        for worker in list(self._assigned.values()):
            if worker.runs:
                worker.turn_away(f"its agent {self._offer.name!r} on {socket.gethostname()} has ended")
            await worker.aclose()
        await self._rounds.aclose()
        await self._pulse.aclose()
        line = RedisLine(self._address)
        try:
            async with asyncio.timeout(_FAREWELL):
                await line.connect()
                await line.call(self._farewell())
        except (BackendUnavailable, TimeoutError):
            pass  # the keys expire
        finally:
            await line.aclose()
        self._note("signed off")

    def _farewell(self) -> list[Command]:
        # What became of the last ones stays readable until their owners have seen it, or for a moment; the rest goes.
        held = [worker for worker in self._assigned.values() if worker.held]
        told = [part for worker in held for part in (worker.lease, self._sealed_state(worker))]
        states: list[Command] = [("UNLINK", state(self.id))]
        if told:
            states = [("HSET", state(self.id), *told), ("EXPIRE", state(self.id), PRESENCE)]
        rings: list[Command] = [("PUBLISH", owner_channel(prefix), "") for prefix in self._owners]
        return [*states, ("SREM", INDEX, self.id), ("UNLINK", record(self.id), beat(self.id), work(self.id)), *rings]

    # -- what is told ------------------------------------------------------------------------------------------------

    def _keys(self, prefix: str, count: int = 0) -> RedisKeys:
        return RedisKeys(self._address, prefix, count, self._trust.key_of(prefix))

    def _sealed_state(self, worker: AssignedWorker) -> bytes:
        return self._trust.seal(state_place(self.id, worker.lease), worker.told())

    def _told_offer(self) -> Note:
        offer = self._offer
        return {
            "name": offer.name, "slots": offer.slots, "label": offer.label, "custom": dict(offer.custom),
            "host": socket.gethostname(), "pid": os.getpid(), "cpus": float(_cores()), "memory": _memory(),
            "version": own_version(), "python": python_version(),
        }  # fmt: skip


async def _to_the_end(work: Coroutine[object, object, None]) -> None:
    """Await it; being cancelled waits for it, too."""
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            cancelled = True
    task.result()
    if cancelled:
        raise asyncio.CancelledError


def _import_path() -> Iterator[str]:
    """Where a worker imports from: as we do, and from the folder that we were started in."""
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        yield here
    yield from (entry or here for entry in sys.path)


def _cores() -> int:
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None
