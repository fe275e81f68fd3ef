"""Death watch: how the end of an actor reaches those who asked to be told."""

from __future__ import annotations

from dataclasses import dataclass

from sage_actor._core.actor_ref import ActorRef

__all__ = ["Terminated"]


@dataclass(frozen=True, slots=True)
class Terminated:
    """An actor has ended; its name is free again.

    Attributes:
        ref: which.
        reason: the error that ended it, None for an orderly stop.
    """

    ref: ActorRef[object]
    reason: BaseException | None
