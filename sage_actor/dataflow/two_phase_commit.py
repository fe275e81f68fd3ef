"""TwoPhaseCommitSink: each record in the target once, whatever crashes, where the target has transactions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Generic, TypeVar, cast

from sage_actor.dataflow.context import FunctionContext
from sage_actor.dataflow.sink import Sink, SinkRecovery
from sage_actor.durations import parse_duration
from sage_actor.errors import CommitFailed, ConfigError, SageError

__all__ = ["TwoPhaseCommitSink"]

T_contra = TypeVar("T_contra", contravariant=True)
X = TypeVar("X")

_USUAL_INTERVAL: Final = 30.0  # seconds, of jobs that ask for checkpoints and say nothing else


class TwoPhaseCommitSink(Sink[T_contra], Generic[T_contra, X]):
    """Base class of sinks that write into transactions of ``X`` and commit them once their checkpoint is complete.

    Records between two barriers go into one transaction. At barrier n it is pre-committed and stored with checkpoint n; the next
    one begins with the next record. When n is complete, what was stored up to n is committed, in order. A job that goes on from
    checkpoint n commits what is stored in it, once more perhaps, and aborts everything else that earlier attempts have left
    behind, those of tasks that are gone included. So records become visible a checkpoint at a time, each exactly once.

    Without checkpoints there is one transaction, committed when the input ends; a failure leaves nothing visible.

    Implement `begin`, `write_to`, `pre_commit`, `commit_transaction`, `abort` and `abort_orphans`. A transaction is whatever
    names it in the target, and pickles. Names must be unique over tasks and attempts (`attempt`, ``context.subtask_index``), so
    that a process that was taken for dead and still writes meets nobody. A subclass that overrides `open`, `recover` or
    `close` calls ours.

    Attributes:
        transaction_timeout: after what time the target aborts a transaction by itself ("15m", seconds), or None if it never
            does. What is prepared must live until it can be committed: `open` refuses a time that is not above the interval
            of checkpoints and `longest_outage` together, for records would be lost.
        longest_outage: how long the job may be down before it is restarted.
        context: as handed to `open`.
    """

    transaction_timeout: str | float | None = None
    longest_outage: str | float = "10m"
    context: FunctionContext = FunctionContext(job="", operator_name="")
    _recovery: SinkRecovery | None = None
    _current: X | None = None

    # -- what a subclass provides

    async def begin(self) -> X:
        """Begin a transaction. Called when there is a record to write into it."""
        raise NotImplementedError(f"{type(self).__name__} must implement begin()")

    async def write_to(self, transaction: X, batch: Sequence[T_contra]) -> None:
        """Write records, in order, visible to nobody yet."""
        raise NotImplementedError(f"{type(self).__name__} must implement write_to(transaction, batch)")

    async def pre_commit(self, transaction: X) -> None:
        """Return when the transaction is sure to be committable after a crash of this process or of the target."""
        raise NotImplementedError(f"{type(self).__name__} must implement pre_commit(transaction)")

    async def commit_transaction(self, transaction: X) -> None:
        """Make it visible, as a whole. One that is committed already is none of its business: then this does nothing.

        Another instance than the one that began it may be asked, in another process. What it raises becomes `CommitFailed`,
        except errors of ours, and ends the attempt; the next attempt tries again.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement commit_transaction(transaction)")

    async def abort(self, transaction: X) -> None:
        """Give up a transaction of this instance that was not pre-committed."""
        raise NotImplementedError(f"{type(self).__name__} must implement abort(transaction)")

    async def abort_orphans(self, keep: Sequence[X]) -> None:
        """Abort all transactions of earlier attempts of this sink, of every former task, except those in ``keep``.

        Every task is asked, at about the same time, and others may have begun transactions of this attempt by then.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement abort_orphans(keep)")

    # -- what the runtime calls

    @property
    def attempt(self) -> int:
        """Number of this start of the job, from 1; 0 as long as `recover` was not called, as without checkpoints."""
        return self._recovery.attempt if self._recovery is not None else 0

    async def open(self, context: FunctionContext) -> None:
        """Remember the context. Raises `ConfigError` if transactions would time out before they can be committed."""
        self.context = context
        self._check_timeout(context.settings)

    def _check_timeout(self, settings: Mapping[str, Any]) -> None:
        interval = settings.get("checkpoint.interval")
        if interval is None and settings.get("checkpointing"):
            interval = _USUAL_INTERVAL
        if self.transaction_timeout is None or interval is None:
            return
        owner = type(self).__name__
        timeout = parse_duration(self.transaction_timeout, key=f"{owner}.transaction_timeout")
        outage = parse_duration(self.longest_outage, key=f"{owner}.longest_outage")
        least = parse_duration(interval, key="checkpoint.interval") + outage
        if timeout <= least:
            reason = (
                f"{timeout:g} s are too short: a transaction must outlast checkpoint.interval and longest_outage, {least:g} s together, "
                "or what it holds is lost; raise it (here and in the target), or lower one of these"
            )
            raise ConfigError(f"{owner}.transaction_timeout", reason)

    async def recover(self, prepared: Sequence[tuple[int, object]], recovery: SinkRecovery) -> None:
        """Commit what is stored, in order; then abort what was left behind. Raises `CommitFailed`."""
        self._recovery = recovery
        for checkpoint, transaction in sorted(prepared, key=lambda pair: pair[0]):
            await self.commit(checkpoint, transaction)
        await self.abort_orphans([cast("X", transaction) for _, transaction in (*prepared, *recovery.elsewhere)])

    async def write(self, batch: Sequence[T_contra]) -> None:
        """Write into the open transaction; begins one if there is none."""
        if not batch:
            return
        if self._current is None:
            self._current = await self.begin()
        await self.write_to(self._current, batch)

    async def prepare(self, checkpoint: int) -> object:
        """Pre-commit the open transaction. Returns it, or None if nothing was written since the last one."""
        transaction = self._current
        if transaction is not None:
            await self.pre_commit(transaction)
            self._current = None
        return transaction

    async def commit(self, checkpoint: int, prepared: object) -> None:
        """Commit a transaction that was prepared. Raises `CommitFailed`, or an error of ours that says more."""
        try:
            await self.commit_transaction(cast("X", prepared))
        except SageError:
            raise
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
            raise CommitFailed(self.context.operator_name, f"{prepared!r} of checkpoint {checkpoint}", problem) from error

    async def flush(self) -> None:
        """Without checkpoints: commit what was written. With them: nothing, for that is up to the next checkpoint."""
        transaction = self._current
        if self._recovery is None and transaction is not None:
            await self.pre_commit(transaction)
            self._current = None
            await self.commit(0, transaction)

    async def close(self) -> None:
        """Abort the open transaction, if any; what was prepared stays as it is."""
        transaction, self._current = self._current, None
        if transaction is not None:
            await self.abort(transaction)
