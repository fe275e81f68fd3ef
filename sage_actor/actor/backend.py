"""The Backend protocol: where workers run, how frames travel between them, how a lost worker is noticed.

A backend answers three questions and no more:

1. how workers start and end (`Backend.start`, `WorkerGroup.aclose`),
2. how frames travel between two workers: ordered per pair, at most once, never invented (`Endpoint.send`),
3. how a lost worker is noticed: within 3 seconds, with its exit code and last words (the ``lost`` handler).

Everything above (gates, credit, operators) is the same code on each. Frames are opaque bytes here. Workers are
numbered: 0 is the owner (the process that called `Backend.start`), 1..count are the workers it started.
``sage_actor.testing.conformance`` decides whether something is a backend.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol, runtime_checkable

from sage_actor.errors import BackendError

__all__ = [
    "PATIENCE",
    "Backend",
    "Buffer",
    "Endpoint",
    "FrameHandler",
    "LostHandler",
    "PoolingEndpoint",
    "WorkerGroup",
    "WorkerInfo",
    "WorkerResources",
    "outlives_call",
]

Buffer = bytes | bytearray | memoryview

PATIENCE = 5.0
"""Seconds a worker has to end by itself before it is killed."""

FrameHandler = Callable[[int, memoryview], None]
"""Called on the loop with (sending worker, frame). The view is valid only during the call unless copied, or `outlives_call`."""

LostHandler = Callable[[BackendError], None]
"""Called on the loop, at the owner, once for each worker that ended without being asked to (`WorkerLost`).

Called once with `BackendUnavailable` when what carries the frames is gone (a Redis server), and with `FrameError` when a
damaged, forged or missing frame was seen; after either nothing arrives any more. In a worker only these two occur: whether
a lost peer matters is the owner's decision. A worker whose entry *returns* has ended by its own choice and is not lost.
"""


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """One started worker: its number (1..count), process id and host."""

    worker: int
    pid: int
    host: str = "localhost"


@dataclass(frozen=True, slots=True)
class WorkerResources:
    """What one worker needs, and may use at most. None where nothing is said.

    Attributes:
        num_cpus: cores, also in fractions; a backend that starts processes binds a worker to so many cores (rounded up).
        num_gpus: GPUs; only backends that hand them out (Ray) can serve it, the others refuse it.
        memory: bytes that the worker may occupy; one that exceeds it is ended and told as lost, with the limit in the error.
        custom: further resources by the name that a cluster gives them.
    """

    num_cpus: float | None = None
    num_gpus: float | None = None
    memory: int | None = None
    custom: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


def outlives_call(frame: memoryview) -> bool:
    """Whether a frame, or a part of it, stays valid and may be written to as long as something refers to it.

    A backend that hands out frames in memory of their own says so by an attribute of the same name, True, of the object whose
    buffer the view is. Keeping any part keeps the memory of the whole frame.
    """
    return getattr(frame.obj, "outlives_call", False) is True


@runtime_checkable
class Endpoint(Protocol):
    """One worker's end of the links to every other worker of its group. Used from one event loop only."""

    @property
    def worker(self) -> int:
        """This worker's own number."""
        ...

    def start(self, receive: FrameHandler, lost: LostHandler) -> None:
        """Begin delivering. Frames that arrived earlier are kept and delivered now, in order. Call once."""
        ...

    def send(self, to: int, parts: Sequence[Buffer]) -> None:
        """Send one frame, given as parts that are joined in order; never blocks.

        Ordered per (sender, receiver) pair, at most once; a worker may send to itself. The parts (each C-contiguous) may be
        reused or mutated after the call returns. Memory is bounded by the credit of the layer above, not here. Sending to a
        lost or closed worker is dropped.
        """
        ...

    async def flush(self) -> None:
        """Return when everything sent so far has left this process. Cancelling it loses nothing."""
        ...

    async def aclose(self) -> None:
        """Flush, then close all links. Idempotent."""
        ...


@runtime_checkable
class PoolingEndpoint(Protocol):
    """What an endpoint offers besides, if frames travel in memory that it can use again."""

    def keep_for_reuse(self, nbytes: int) -> None:
        """Keep at most so many bytes of memory that no frame lies in for the frames to come; 0 keeps none."""
        ...


@runtime_checkable
class WorkerGroup(Protocol):
    """The workers of one job, seen from their owner."""

    @property
    def endpoint(self) -> Endpoint:
        """The owner's own end (worker 0)."""
        ...

    @property
    def workers(self) -> Sequence[WorkerInfo]:
        """The workers as they were started, in the order of their numbers; lost ones stay listed."""
        ...

    async def aclose(self, patience: float = PATIENCE) -> None:
        """Ask every worker to end (its entry is cancelled), kill those that have not after `patience` seconds, and reap them all.

        Idempotent; also safe after workers were lost. When it returns no process, thread, file, socket or key of
        the group is left.
        """
        ...


@runtime_checkable
class Backend(Protocol):
    """Starts groups of workers."""

    @property
    def name(self) -> str:
        """What it is called in messages."""
        ...

    @property
    def hosts_in_owner(self) -> bool:
        """True when groups have no workers of their own: whatever `count` says, everything lives in the owner."""
        ...

    async def start(self, count: int, *, group: str, entry: str, resources: Sequence[WorkerResources] = ()) -> WorkerGroup:
        """Start `count` workers and link each with each and with the owner; returns when all answer. Cancelling it leaves nothing behind.

        Args:
            count: number of workers; 0 is allowed (the group then has only its owner). Ignored, and taken as 0, where
                `hosts_in_owner` is true.
            group: unique name of the group; part of process titles and keys.
            entry: ``"module:function"``; each worker imports it and awaits ``function(endpoint)`` on a fresh event
                loop, and ends when it returns; it is cancelled when the group closes. The module is imported before `start`
                returns. A worker never imports the user's ``__main__``.
            resources: of each worker, in the order of their numbers; empty where nothing is asked for.

        Raises:
            BackendUnavailable: what it needs is not there (no server, a worker that does not come up; with its stderr), or a
                resource is asked for that this backend cannot give or that nobody has.
        """
        ...
