"""The Sink protocol: where records go, a batch at a time, and when they count as written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from sage_actor.dataflow.context import FunctionContext

__all__ = ["Sink", "SinkRecovery"]

T_contra = TypeVar("T_contra", contravariant=True)


@dataclass(frozen=True, slots=True)
class SinkRecovery:
    """What `Sink.recover` learns about the start it belongs to.

    Attributes:
        context: as handed to ``open``.
        attempt: number of this start of the job, above that of every earlier one that used the same checkpoints. Whoever
            sees a higher one has been replaced.
        checkpoint: the complete checkpoint that the job goes on from; None if it begins anew.
        elsewhere: what the other tasks of this sink are to commit, as pairs like those handed to `recover`. They must not
            be aborted here.
    """

    context: FunctionContext
    attempt: int = 1
    checkpoint: int | None = None
    elsewhere: Sequence[tuple[int, object]] = ()


class Sink(Generic[T_contra]):
    """Base class of sinks. Implement `write`; the rest has defaults.

    One instance serves one task; calls never overlap. A `write` that waits slows the whole dataflow down to its
    speed: that is the backpressure. For one call per record use a function or a `SinkFunction` instead.

    Without checkpoints: open, write..., flush, close. With checkpoints: open, recover, then write, prepare and commit, then a
    last prepare and commit instead of flush, and close. With the defaults a sink is at least once: what was written after the
    checkpoint that a job goes on from is written again. `TwoPhaseCommitSink` and `IdempotentSink` give more.
    """

    async def open(self, context: FunctionContext) -> None:
        """Acquire what writing needs. Raise `ConnectorError` if it is not there."""

    async def recover(self, prepared: Sequence[tuple[int, object]], recovery: SinkRecovery) -> None:
        """Commit what belongs to the checkpoint that the job goes on from, and abort whatever else was left behind.

        Called once after open, before the first write, at every start of a job that takes checkpoints; ``prepared`` is empty
        where nothing is to be committed, as in a job that begins anew. It holds, in order of the checkpoints, what `prepare`
        returned to this task or to one that it replaces (the parallelism may differ) and what is not known to be committed: so
        it may have been. Everything else of this sink is of no checkpoint, and must never become visible, except what
        ``recovery.elsewhere`` names and what tasks of this very attempt have begun since.

        Raises:
            CommitFailed: something prepared could not be committed. The attempt ends and the next one tries again.
        """

    async def write(self, batch: Sequence[T_contra]) -> None:
        """Take over the records, in order. The sequence belongs to the sink from now on."""
        raise NotImplementedError(f"{type(self).__name__} must implement write(batch)")

    async def prepare(self, checkpoint: int) -> object:
        """Barrier ``checkpoint`` has come: return when everything written so far is safe from a crash of this process.

        Returns:
            What `commit` or `recover` will need to make it visible, picklable; None if there is nothing to do then. It is saved
            with the checkpoint. Default: `flush`, and None.
        """
        await self.flush()
        return None

    async def commit(self, checkpoint: int, prepared: object) -> None:
        """The checkpoint is complete: make visible what `prepare` returned for it (never None). Must be idempotent.

        Called in order of the checkpoints, for every one whose `prepare` returned something, also for those that were aborted,
        with the first complete one after them. May come late, after further writes and prepares, or never: then `recover` gets it.

        Raises:
            CommitFailed: it could not be done. The attempt ends, and the next one gets it in `recover`.
        """

    async def flush(self) -> None:
        """Return when everything written is where it belongs. Called at end of input and before close, without checkpoints."""

    async def close(self) -> None:
        """Release everything; also called after a failure, and then without a preceding successful open.

        What was prepared and not committed must survive it.
        """
