"""RemoteEnvironment: describe a dataflow here, run it as a job of a supervisor process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from sage_actor.errors import JobCancelled, JobFailed
from sage_actor.ports import system_clock
from sage_actor.server.client import JobInfo, SupervisorClient
from sage_actor.stream.environment import EnvironmentBase
from sage_actor.stream.shipping import pack

__all__ = ["RemoteEnvironment"]


class RemoteEnvironment(EnvironmentBase):
    """The blocking face on a supervisor process.

    The dataflow is built as in a `LocalEnvironment`; `submit` sends it, functions included, to the supervisor, which runs
    it in a process of its own. Its output is in the job's log, so ``collect()`` and ``async for`` have nothing to read here.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        backend: str | None = None,
        jobmanager_address: str | None = None,
        token: str | None = None,
        parallelism: int | None = None,
        places: Mapping[str, str | Mapping[str, Any]] | None = None,
        restart: Mapping[str, str | int | float] | None = None,
        resume: bool | None = None,
        restore: str | None = None,
    ) -> None:
        """Describe where to send the job; nothing is sent yet.

        Args:
            name: the job's name; "dataflow" if not given.
            config: settings, nested or with dotted keys.
            backend: where the job's workers run, seen from the supervisor.
            jobmanager_address: ``"host:port"``; None means this account's supervisor on this machine.
            token: None means ``SAGE_ACTOR_TOKEN``, or this account's token file when the supervisor is on this machine.
            parallelism: default parallelism of its operators.
            places: further backends for ``.place(name)``, seen from the supervisor.
            restart: settings of a restart strategy (``{"strategy": "exponential-delay", "attempts": 10}``); None means the
                first failure of its process is final.
            resume: go on from the newest checkpoint that an earlier job of that name left at the supervisor.
            restore: go on from this savepoint, seen from the supervisor.
        """
        super().__init__(name, backend=backend, parallelism=parallelism, places=places, config=config, resume=resume, restore=restore)
        self._client = SupervisorClient(jobmanager_address, token)
        self._restart = dict(restart or {})

    def submit(self) -> str:
        """Send the dataflow; returns the job's id as soon as the supervisor keeps it.

        Raises:
            GraphError: the dataflow cannot run.
            SerializationError: a function cannot travel; names operator and attribute.
            ServerUnreachable, Unauthorized, ServerError: the supervisor is not there or refuses.
        """
        return self._client.submit(self.name, "graph", pack(self), restart=self._restart, resume=self.resume, restore=self.restore).id

    def wait_for_completion(self, job_id: object, timeout: float | None = None) -> Literal["finished"]:
        """Block until the job has finished.

        Raises:
            JobFailed: it failed; carries its error as text.
            JobCancelled: somebody cancelled it.
            JobNotFound: the supervisor knows no such job.
            TimeoutError: it was still live after `timeout` seconds; it goes on.
        """
        deadline = None if timeout is None else system_clock.monotonic() + timeout
        while True:
            left = 3600.0 if deadline is None else deadline - system_clock.monotonic()
            job = self._client.job(str(job_id), wait=max(left, 0.001))
            if job.status == "finished":
                return "finished"
            if job.status == "failed":
                raise JobFailed(job.name, job.error)
            if job.status == "cancelled":
                raise JobCancelled(job.name, job.error)
            if deadline is not None and system_clock.monotonic() >= deadline:
                raise TimeoutError(f"job {job.name!r} ({job.id}) is still {job.status} after {timeout:g} s; it goes on")

    def execute(self) -> str:
        """`submit` and `wait_for_completion`; returns the job's id."""
        job_id = self.submit()
        self.wait_for_completion(job_id)
        return job_id

    def status(self, job_id: object) -> JobInfo:
        """How a job stands now."""
        return self._client.job(str(job_id))

    def logs(self, job_id: object, tail: int = 100) -> str:
        """The last lines a job wrote."""
        return self._client.logs(str(job_id), tail)

    def stop(self, job_id: object) -> JobInfo:
        """Ask a job to drain: its sources stop, what is under way flows out, it finishes."""
        return self._client.stop(str(job_id))

    def cancel(self, job_id: object) -> JobInfo:
        """End a job without draining."""
        return self._client.cancel(str(job_id))

    def savepoint(self, job_id: object, target: str | None = None, *, stop: bool = False, timeout: float = 900.0) -> str:
        """Take a savepoint of a running job; returns its place, to be given to ``restore=``.

        Args:
            job_id: from `submit`.
            target: a folder, seen from the supervisor; the job's own checkpoint folder if not given.
            stop: end the job behind it; windows and timers that are open stay so in the savepoint.
            timeout: seconds it may take; then it may still be completed there.

        Raises:
            JobNotFound: the supervisor knows no such job.
            ServerError: the job takes no checkpoints, or this one failed; in its own words.
        """
        return self._client.savepoint(str(job_id), target, stop=stop, timeout=timeout)

    def query(self, job_id: object, operator: str, state: str, key: object, default: object = None) -> object:
        """Read the live state of one key; see `Job.query`. Key and value travel as JSON: `SupervisorClient.query` says how.

        Raises:
            JobNotFound: the supervisor knows no such job.
            ServerError: there is no such operator or state, or nothing runs that could answer; in its own words.
        """
        return self._client.query(str(job_id), operator, state, key, default)
