"""The Source protocol: where records come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Generic, TypeVar

from sage_actor.dataflow.context import FunctionContext
from sage_actor.errors import ConnectorError

__all__ = ["NOT_READY", "NotReady", "Source"]

T_co = TypeVar("T_co", covariant=True)


class NotReady:
    """Type of `NOT_READY`."""

    __slots__ = ()


NOT_READY: Final = NotReady()
"""What `Source.read_nowait` answers when nothing is at hand but more may come."""


class Source(Generic[T_co]):
    """Base class of sources. Implement `read`; the rest has defaults.

    One instance serves one task. Calls never overlap, except that `position` and `splits` may be asked while a `read` waits:
    open, (assign), read..., close. At parallelism n every task has its own instance and takes its share by
    ``context.subtask_index`` of ``context.parallelism``.

    What a checkpoint saves is what `splits` answers at the barrier, between two reads or while one waits. A read counts from
    the moment it returns: whoever runs it as a task of its own takes its records before asking where it stands. A source that
    resumes at the parallelism it was saved with needs `position` and `seek` only; one that can be rescaled has `splits` and
    `assign` instead.
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
        """Where to go on, picklable: the place after the last record that `read` returned (never after a prefetched one).

        None, the default, says that there are no positions.
        """
        return None

    async def seek(self, position: object) -> None:
        """Continue at a place that `position` returned earlier. Called after open, before the first read."""
        raise NotImplementedError(f"{type(self).__name__} cannot be resumed: it has no seek(position)")

    def splits(self) -> Sequence[object]:
        """What this instance has still to read, divided as finely as may be useful: each picklable, with where to go on.

        Together the splits of all instances are all that is left of the input, each record in exactly one of them, as of the
        last record that `read` returned. Empty when nothing is left. Default: the `position`, as the one split.
        """
        return [self.position()]

    async def assign(self, splits: Sequence[object]) -> None:
        """Read exactly these instead of the share that `open` found, one after the other, then end; possibly none.

        Called after open, before the first read, when the job is restored. The splits come from one or more instances, of a
        run at whatever parallelism. Default: `seek` to the one.

        Raises:
            ConnectorError: what is to be read is no longer there or has changed, or the source cannot be divided so.
        """
        if len(splits) != 1:
            name = type(self).__name__
            reason = f"{len(splits)} positions fell to one task, and this source goes on at exactly one"
            raise ConnectorError(name, reason, "restore it at the parallelism that it was saved with, or give it splits() and assign()")
        await self.seek(splits[0])

    def address(self, index: int) -> str:
        """A human-readable address of the record number `index` of this task (file and line), or ""."""
        return ""

    async def close(self) -> None:
        """Release everything; also called after a failure, and then without a preceding successful open."""
