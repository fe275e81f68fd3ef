"""A running dataflow."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import weakref
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from sage_actor.errors import CheckpointError, JobCancelled, JobError, StateError
from sage_actor.ports import system_clock
from sage_actor.telemetry.checkpoint_counters import CheckpointCounters
from sage_actor.telemetry.counters import JobMetrics

if TYPE_CHECKING:
    from sage_actor.runtime.checkpoints import Completed
    from sage_actor.runtime.coordinator import Coordinator

__all__ = ["Job", "JobStatus", "Restoring", "live_jobs"]

JobStatus = Literal["created", "running", "restarting", "rescaling", "stopping", "finished", "failed", "cancelled"]

T = TypeVar("T")


class Restoring(NamedTuple):
    """How far an attempt is with opening its tasks.

    Attributes:
        opened: tasks that have read their state.
        tasks: all of them.
        nbytes: of state read by those.
        checkpoint: where the state comes from; None if the attempt begins with none.
    """

    opened: int
    tasks: int
    nbytes: int
    checkpoint: int | None


LIVE: weakref.WeakSet[Job] = weakref.WeakSet()


class Job:
    """One started dataflow; ``str(job)`` is its id.

    `wait`, `savepoint`, `rescale` and `query` belong to the event loop that started the job; everything else may be called from any thread.

    Attributes:
        attempts: how often it was started, the first time included.
        latest_error: what the last attempt that was followed by another one failed with.
        rescales: how often it was divided into other tasks while it ran.
        restored_from: the checkpoint that the present attempt went on from, or None.
        checkpoint_counters: how its checkpoints went, over all attempts.
    """

    def __init__(self, id: str, name: str, *, bounded: bool, loop: asyncio.AbstractEventLoop, backend: str = "local") -> None:
        self.id = id
        self.name = name
        self.bounded = bounded
        self.backend = backend
        self.error: BaseException | None = None
        self.started_at = system_clock.now_ms() / 1000
        self.ended_at: float | None = None
        self.waited = False
        self.attempts = 0
        self.rescales = 0
        self.latest_error: BaseException | None = None
        self.restored_from: int | None = None
        self.checkpoint_counters = CheckpointCounters()
        self._status: JobStatus = "created"
        self._loop = loop
        self._done = asyncio.Event()
        self._thread_done = threading.Event()
        self._coordinator: Coordinator | None = None
        self._callbacks: list[Callable[[Job], None]] = []
        LIVE.add(self)

    def __str__(self) -> str:
        return self.id

    def __repr__(self) -> str:
        return f"<Job {self.id!r} {self._status}>"

    @property
    def status(self) -> JobStatus:
        """created, running, restarting (between two attempts), rescaling (the same, on purpose), stopping (draining), finished, failed
        or cancelled."""
        return self._status

    @property
    def done(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self._status in ("finished", "failed", "cancelled")

    async def wait(self) -> None:
        """Wait for the end. Cancelling the wait leaves the job running.

        Raises:
            OperatorError, WorkerLost, ...: the job failed; raised as it is, on every call.
            JobCancelled: somebody cancelled it.
        """
        await self._done.wait()
        self.raise_error()

    def raise_error(self) -> None:
        """Raise what made the job end, if it did not finish."""
        self.waited = True
        if self._status == "failed" and self.error is not None:
            raise self.error
        if self._status == "cancelled":
            raise JobCancelled(self.name)

    def stop(self) -> None:
        """Ask the sources to stop; what they have read flows out, then the job is finished. Idempotent, returns at once."""
        self._call(lambda coordinator: coordinator.stop())

    def cancel(self) -> None:
        """End the job now; what is under way is dropped. Idempotent, returns at once."""
        self._call(lambda coordinator: coordinator.cancel())

    async def savepoint(self, target: str | None = None, *, stop: bool = False) -> str:
        """Take a consistent snapshot that can be moved, kept, and restored at another parallelism (F10).

        Args:
            target: folder for it; the job's own checkpoint folder if not given.
            stop: end the job behind it. Event time does not end: what windows hold stays in the savepoint.

        Returns:
            The place to give to ``restore=``.

        Raises:
            CheckpointError: the job takes no checkpoints, or this one could not be completed.
        """
        coordinator = self._coordinator
        if coordinator is None or self.done:
            raise CheckpointError(self.name, "the job does not run, so there is nothing to take a savepoint of")
        return await coordinator.savepoint(target, stop=stop)

    async def rescale(self, parallelism: int | Mapping[str, int] | None = None, *, workers: int | None = None) -> None:
        """Divide the running job into other tasks, or over another number of workers. No record is lost or counted twice.

        Sources stop reading behind a checkpoint, the workers end, others begin, and the job goes on from that checkpoint: state
        follows by key group, what sinks had prepared is committed. It returns when all new tasks are open. If these cannot be started
        the job goes on as it was before. Changes and savepoints follow one another; cancelling the wait may leave this one going on.

        Args:
            parallelism: the job's default, for operators whose description names none (never sources), or the parallelism of
                operators by name or uid.
            workers: worker processes of the job's own backend, at least 1; those of places stay as they are. Without it their number
                follows the parallelism, unless it was set.

        Raises:
            GraphError: there is no such operator, it lives in the submitting process, or it has fewer key groups than that.
            CheckpointError: the job does not run, takes no checkpoints (``checkpointing: on_demand`` is enough), cannot read a source
                again, or failed meanwhile.
            StateMismatch: the state of an operator cannot be dealt so.
            BackendError, OperatorError, ...: the new tasks could not be started.
        """
        coordinator = self._coordinator
        if coordinator is None or self.done:
            raise CheckpointError(self.name, "the job does not run, so there is nothing to divide")
        await coordinator.rescale(parallelism, workers=workers)

    def rescale_in_thread(
        self, parallelism: int | Mapping[str, int] | None = None, *, workers: int | None = None, timeout: float | None = None
    ) -> None:
        """`rescale` for any thread but the job's own; blocks.

        Raises:
            TimeoutError: it was not done within `timeout` seconds; it may still be.
            GraphError, CheckpointError, ...: as for `rescale`.
        """
        self._await_in_thread(lambda: self.rescale(parallelism, workers=workers), timeout, "the change of the parallelism")

    async def query(self, operator: str, state: str, key: Any, default: Any = None) -> Any:
        """Read the state of one key in the running job, wherever the key lives, without disturbing it.

        What is read is the live state between two records of that task: newer than any checkpoint, and it may be taken back by a
        failure. The answer is a copy. It waits until the task is open, and for a function that blocks.

        Args:
            operator: name or uid.
            state: the name the function gave it, or "fold" for count, sum, min, max, reduce, fold and aggregate.
            key: of the record, as the key function gives it.
            default: the answer where the key has no state, or one that has expired.

        Returns:
            The value; of a list state a list, of a map state a dict, of an aggregating state and of ``aggregate`` the result.

        Raises:
            StateError: the job does not run, has no such operator or state, or its attempt ended before it answered.
            UnstableKey: nothing can have such a key.
        """
        coordinator = self._coordinator
        if coordinator is None or self.done:
            raise StateError(operator, state, f"job {self.name!r} does not run, so there is nothing to ask")
        return await coordinator.query(operator, state, key, default)

    def query_in_thread(self, operator: str, state: str, key: Any, default: Any = None, *, timeout: float | None = None) -> Any:
        """`query` for any thread but the job's own; blocks.

        Raises:
            TimeoutError: no answer within `timeout` seconds.
            StateError, UnstableKey: as for `query`.
        """
        return self._await_in_thread(lambda: self.query(operator, state, key, default), timeout, f"state {state!r} of {operator!r}")

    def savepoint_in_thread(self, target: str | None = None, *, stop: bool = False, timeout: float | None = None) -> str:
        """`savepoint` for any thread but the job's own; blocks.

        Raises:
            TimeoutError: it was not complete within `timeout` seconds; it may still be completed.
            CheckpointError: as for `savepoint`.
        """
        return self._await_in_thread(lambda: self.savepoint(target, stop=stop), timeout, "the savepoint")

    def _await_in_thread(self, ask: Callable[[], Coroutine[Any, Any, T]], timeout: float | None, what: str) -> T:
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self._loop:
            raise JobError(f"job {self.name!r}: this would wait for its own event loop; await the method of the same name instead")
        ended = f"job {self.name!r} has ended, so nobody answers any more"
        asking = ask()
        try:
            future = asyncio.run_coroutine_threadsafe(asking, self._loop)
        except RuntimeError:  # its loop is closed
            asking.close()
            raise JobError(ended) from None
        try:
            return future.result(timeout)
        except concurrent.futures.CancelledError:
            raise JobError(ended) from None
        except TimeoutError:
            if future.done():  # an error of the answer, not of the wait
                raise
            future.cancel()
            raise TimeoutError(f"job {self.name!r}: {what} did not come within {timeout:g} s") from None

    @property
    def checkpoints(self) -> Sequence[Completed]:
        """The complete checkpoints of the present attempt, oldest first."""
        coordinator = self._coordinator
        if coordinator is None or coordinator.checkpoints is None:
            return ()
        return tuple(coordinator.checkpoints.completed)

    def _call(self, action: Callable[[Coordinator], None]) -> None:
        coordinator = self._coordinator
        if coordinator is None or self.done:
            return
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self._loop:
            action(coordinator)
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(action, coordinator)

    def operators(self) -> frozenset[str]:
        """Names and uids of its operators: what `query` may be asked for."""
        coordinator = self._coordinator
        chains = () if coordinator is None else coordinator.plan.chains
        names = [(operator.name, operator.uid or operator.name) for chain in chains for operator in chain.operators]
        return frozenset(name for both in names for name in both)

    @property
    def restoring(self) -> Restoring | None:
        """While the present attempt opens its tasks, how far it is; None once all are open, and where none runs."""
        coordinator = self._coordinator
        return None if coordinator is None or self.done else coordinator.restoring()

    def metrics(self) -> JobMetrics:
        """Counters of the job and of every operator and task, as far as they have been reported (remote workers: every 0.5 s).

        Beside what `JobMetrics` lists: ``attempts``, ``rescales``, and ``checkpoints`` (a `CheckpointSnapshot`).
        """
        snapshots = self._coordinator.snapshots() if self._coordinator is not None else []
        metrics = JobMetrics.of(snapshots, seconds=(self.ended_at or system_clock.now_ms() / 1000) - self.started_at)
        return JobMetrics(
            {**metrics, "attempts": self.attempts, "rescales": self.rescales, "checkpoints": self.checkpoint_counters.snapshot()}
        )

    def on_end(self, callback: Callable[[Job], None]) -> None:
        """Call back, on the job's loop, once it has ended; at once if it has."""
        if self.done:
            callback(self)
        else:
            self._callbacks.append(callback)

    def wait_in_thread(self, timeout: float | None = None) -> bool:
        """Block the calling thread (not the job's own) until the job has ended; False if the timeout came first."""
        return self._thread_done.wait(timeout)

    # -- for the coordinator ---------------------------------------------------------------------------------------

    def _begin(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._status = "running"

    def _running(self) -> None:
        self.attempts += 1
        if self._status in ("restarting", "rescaling"):
            self._status = "running"

    def _restarting(self, error: BaseException) -> None:
        self.latest_error = error
        if not self.done and self._status != "stopping":
            self._status = "restarting"

    def _rescaling(self) -> None:
        if not self.done and self._status != "stopping":
            self._status = "rescaling"

    def _rescaled(self) -> None:
        self.rescales += 1

    def _restored(self, checkpoint: int) -> None:
        self.restored_from = checkpoint

    def _set(self, status: JobStatus, error: BaseException | None = None) -> None:
        self._status = status
        self.error = error
        if self.done:
            self.ended_at = system_clock.now_ms() / 1000
            self._done.set()
            self._thread_done.set()
            callbacks, self._callbacks = self._callbacks, []
            for callback in callbacks:
                callback(self)


def live_jobs() -> list[Job]:
    """Jobs of this process that are known and not garbage, oldest first."""
    return sorted(LIVE, key=lambda job: job.started_at)
