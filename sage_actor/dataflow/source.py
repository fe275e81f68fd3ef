"""The Source protocol: where records come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Generic, TypeVar

from sage_actor.dataflow.context import FunctionContext

__all__ = ["NOT_READY", "NotReady", "Source"]

T_co = TypeVar("T_co", covariant=True)


class NotReady:
    """Type of `NOT_READY`."""

    __slots__ = ()


NOT_READY: Final = NotReady()
"""What `Source.read_nowait` answers when nothing is at hand but more may come."""


class Source(Generic[T_co]):
    """Base class of sources. Implement `read`; the rest has defaults.

    One instance serves one task. Calls never overlap: open, (seek), read..., close. At parallelism n every task has
    its own instance and takes its share by ``context.subtask_index`` of ``context.parallelism``.
    """

    bounded: bool = True
    """Whether the source ends by itself. Leaving an environment waits for bounded jobs and drains the others."""

    async def open(self, context: FunctionContext) -> None:
        """Acquire what reading needs. Raise `ConnectorError` if it is not there."""

    async def read(self, limit: int) -> Sequence[T_co] | None:
        """Return 1..limit records in order, waiting until at least one is there; None at the end of input.

        Cancelling a read must lose no record: the next read returns it.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement read(limit)")

    def read_nowait(self, limit: int) -> Sequence[T_co] | NotReady | None:
        """Like `read`, but answers `NOT_READY` instead of waiting. Saves an event-loop turn per batch; optional."""
        return NOT_READY

    def drain(self) -> bool:
        """The job is asked to stop: fetch nothing more from outside.

        Returns:
            True if records already taken from outside are still to be read (the runtime then reads on until None);
            False if the source can simply be left where it is.
        """
        return False

    def position(self) -> object:
        """Where to go on: the place after the last record that `read` returned (never after a prefetched one)."""
        return None

    async def seek(self, position: object) -> None:
        """Continue at a place that `position` returned earlier. Called after open, before the first read."""
        raise NotImplementedError(f"{type(self).__name__} cannot be resumed: it has no seek(position)")

    def address(self, index: int) -> str:
        """A human-readable address of the record number `index` of this task (file and line), or ""."""
        return ""

    async def close(self) -> None:
        """Release everything; also called after a failure, and then without a preceding successful open."""
