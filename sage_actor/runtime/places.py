"""A backend made of several: the workers of each place are a group of that place's backend, and the owner is in all of them.

Frames between two places go through the owner, who relays each as it comes: the links on both sides are in order, so the
pair is. He keeps no queue of his own. What he has taken in and not passed on lies in the links of the receiving place, and is
bounded from above: credit is given end to end, by the receiving task to the sending one, and what is under way for a channel
never exceeds it, wherever it lies. So the owner holds at most the credit of the channels that cross him (``buffer.records``,
``buffer.bytes``, each), and a receiver that stops halts its senders, not him.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sage_actor.actor.backend import (
    PATIENCE,
    Backend,
    Buffer,
    FrameHandler,
    LostHandler,
    PoolingEndpoint,
    WorkerGroup,
    WorkerInfo,
    WorkerResources,
)
from sage_actor.dataflow.placement import PlacedWorkers
from sage_actor.errors import BackendError, BackendUnavailable, FrameError, WorkerLost
from sage_actor.runtime.placed_worker import NUMBER, encode_number, entry_at, frame_number, frame_parts
from sage_actor.runtime.worker import to_its_end

__all__ = ["PlacedBackend", "PlacedEndpoint", "PlacedGroup", "at_place"]

OWNER = encode_number(0)


@dataclass(frozen=True, slots=True)
class Member:
    """One place's part of a group."""

    workers: PlacedWorkers
    group: WorkerGroup


class PlacedBackend:
    """Starts groups whose workers belong to several backends; see `Backend`. Implements it for one job and its places.

    Args:
        backends: of each place, by name; None names the job's own.
        groups: which workers belong to which place; without them, workers are dealt to the places evenly.
    """

    def __init__(self, backends: Mapping[str | None, Backend], groups: Sequence[PlacedWorkers] | None = None) -> None:
        self._backends = backends
        self._groups = groups
        self.name = " + ".join(backend.name if place is None else f"{place}: {backend.name}" for place, backend in backends.items())
        self.hosts_in_owner = False

    async def start(self, count: int, *, group: str, entry: str, resources: Sequence[WorkerResources] = ()) -> PlacedGroup:
        """Start the groups of all places at once; see `Backend.start`. If one fails, or on cancellation, none is left.

        Raises:
            BackendUnavailable: one of the backends cannot start its workers; names the place.
        """
        members = self._dealt(count)
        starting = [asyncio.ensure_future(self._start(workers, group, entry, resources)) for workers in members]
        try:
            await asyncio.gather(*starting)
        except BaseException:
            await to_its_end(end_started(starting))
            raise
        return PlacedGroup([started.result() for started in starting])

    def _dealt(self, count: int) -> list[PlacedWorkers]:
        """Who starts how many: at least one group, since it is the owner's link to itself."""
        if self._groups is not None:
            assert sum(workers.count for workers in self._groups) == count
            return list(self._groups)
        share, more = divmod(count, len(self._backends))
        dealt: list[PlacedWorkers] = []
        for number, place in enumerate(self._backends):
            own = share + (number < more)
            if own or not dealt:
                dealt.append(PlacedWorkers(place, sum(workers.count for workers in dealt) + 1, own))
        return dealt

    async def _start(self, workers: PlacedWorkers, group: str, entry: str, resources: Sequence[WorkerResources]) -> Member:
        place, first, count = workers.place, workers.first, workers.count
        own = group if place is None else f"{group}-{place}"
        asked = resources[first - 1 : first - 1 + count]
        try:
            return Member(
                workers, await self._backends[place].start(count, group=own, entry=entry_at(entry, first, count), resources=asked)
            )
        except BackendUnavailable as error:
            if place is None:
                raise
            raise BackendUnavailable(self.name, f"place {place!r}: {error.reason}", error.hint) from error
        except BackendError as error:
            raise at_place(place, error) from error


async def end_started(starting: Sequence[asyncio.Future[Member]]) -> None:
    """End what has been started beside a start that failed."""
    for start in starting:
        start.cancel()
    await asyncio.wait(starting)
    started = [start.result() for start in starting if not start.cancelled() and start.exception() is None]
    await asyncio.gather(*(member.group.aclose(0.0) for member in started), return_exceptions=True)


class PlacedGroup:
    """The workers of all places of one job; see `WorkerGroup`."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        self._closing: asyncio.Future[None] | None = None
        self.endpoint = PlacedEndpoint(members)

    @property
    def workers(self) -> Sequence[WorkerInfo]:
        """The workers as they were started, in the order of their numbers; lost ones stay listed."""
        return [replace(info, worker=member.workers.first - 1 + info.worker) for member in self._members for info in member.group.workers]

    async def aclose(self, patience: float = PATIENCE) -> None:
        """End the groups of all places side by side; see `WorkerGroup.aclose`.

        Cancelling it cancels only the wait: the groups end all the same, and another call waits for that.

        Raises:
            BackendError: a worker ended badly although it was asked to; every group has ended nevertheless.
        """
        if self._closing is None:
            self.endpoint.silence()
            self._closing = asyncio.ensure_future(self._close(patience))
        await asyncio.shield(self._closing)

    async def _close(self, patience: float) -> None:
        ends = await asyncio.gather(*(member.group.aclose(patience) for member in self._members), return_exceptions=True)
        for member, end in zip(self._members, ends, strict=True):
            if isinstance(end, BackendError):
                raise at_place(member.workers.place, end) from end
            if end is not None:
                raise end


class PlacedEndpoint:
    """The owner's end of the links to the workers of all places; see `Endpoint`. Relays frames between places."""

    __slots__ = ("_lost", "_members", "_over", "_receive", "worker")

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        self._receive: FrameHandler | None = None
        self._lost: LostHandler | None = None
        self._over = False
        self.worker = 0

    def start(self, receive: FrameHandler, lost: LostHandler) -> None:
        """Begin delivering, and relaying; see `Endpoint.start`."""
        self._receive, self._lost = receive, lost
        for member in self._members:
            member.group.endpoint.start(functools.partial(self._arrived, member), functools.partial(self._failed, member))

    def silence(self) -> None:
        """Nothing is delivered or told any more."""
        self._over = True

    def _arrived(self, member: Member, sender: int, frame: memoryview) -> None:
        if self._over or self._receive is None:
            return
        if not sender:
            self._receive(0, frame)  # from the owner to itself
            return
        origin = member.workers.first - 1 + sender
        to = frame_number(frame)
        if to:
            self._pass(to, [encode_number(origin), *frame_parts(frame)])
        else:
            self._receive(origin, frame[NUMBER:])

    def _failed(self, member: Member, error: BackendError) -> None:
        if self._over or self._lost is None:
            return
        if isinstance(error, WorkerLost):
            number = member.workers.first - 1 + error.worker
            self._lost(WorkerLost(number, error.pid, error.exit_code, error.last_words, member.workers.place or ""))
        else:
            self._over = True  # links are gone: nothing arrives any more, from no place
            self._lost(at_place(member.workers.place, error))

    def send(self, to: int, parts: Sequence[Buffer]) -> None:
        """Send one frame; see `Endpoint.send`."""
        if to:
            self._pass(to, [OWNER, *parts])
        else:
            self._members[0].group.endpoint.send(0, parts)

    def _pass(self, to: int, parts: Sequence[Buffer]) -> None:
        for member in self._members:
            if to in member.workers:
                member.group.endpoint.send(to - member.workers.first + 1, parts)

    def keep_for_reuse(self, nbytes: int) -> None:
        """Keep at most so many bytes, of all places together, for the frames to come; see `PoolingEndpoint`."""
        pooling = [member.group.endpoint for member in self._members if isinstance(member.group.endpoint, PoolingEndpoint)]
        for endpoint in pooling:
            endpoint.keep_for_reuse(nbytes // len(pooling))

    async def flush(self) -> None:
        """Return when everything sent so far has left this process, towards every place."""
        await asyncio.gather(*(member.group.endpoint.flush() for member in self._members))

    async def aclose(self) -> None:
        """Flush, then close all links. Idempotent."""
        await asyncio.gather(*(member.group.endpoint.aclose() for member in self._members))


def at_place(place: str | None, error: BackendError) -> BackendError:
    """The error of a backend, naming the place that it serves."""
    if place is None:
        return error
    if isinstance(error, BackendUnavailable):
        return BackendUnavailable(error.backend, f"place {place!r}: {error.reason}", error.hint)
    kind = FrameError if isinstance(error, FrameError) else BackendError
    return kind(f"place {place!r}: {error}")
