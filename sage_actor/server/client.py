"""Talking to a supervisor process: a small blocking client on the standard library."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import cast
from urllib.parse import quote, urlencode

from sage_actor.config.address import Address, find_address, parse_address
from sage_actor.config.environment import environment
from sage_actor.config.tokens import read_token
from sage_actor.errors import JobNotFound, ServerError, ServerUnreachable, Unauthorized

__all__ = ["DataflowInfo", "JobInfo", "OperatorInfo", "SupervisorClient"]

LONGEST_WAIT = 20.0


@dataclass(frozen=True, slots=True)
class OperatorInfo:
    """Counters of one operator."""

    dataflow: str
    name: str
    records_in: int = 0
    records_out: int = 0
    errors: int = 0
    late: int = 0
    records_in_rate: float = 0.0
    busy: float = 0.0
    idle: float = 0.0
    backpressured: float = 0.0


@dataclass(frozen=True, slots=True)
class DataflowInfo:
    """One dataflow of a job.

    Attributes:
        attempts: how often it was started in its present process.
        restored_from: the checkpoint that the present attempt went on from.
        latest_error: what the attempt before it failed with.
        restoring: while an attempt opens its tasks: ``opened`` of ``tasks``, and the ``bytes`` of state read.
        checkpoints: see `CheckpointSnapshot`.
        pause_p99: seconds that records stood still while state was frozen; 99 of 100 times it was less.
    """

    name: str
    status: str
    error: str = ""
    attempts: int = 0
    restored_from: int | None = None
    latest_error: str = ""
    restoring: Mapping[str, int | None] | None = None
    checkpoints: Mapping[str, float] = field(default_factory=lambda: dict[str, float]())
    pause_p99: float = 0.0


@dataclass(frozen=True, slots=True)
class JobInfo:
    """One job of a supervisor as it stood when asked. Times are milliseconds since the epoch.

    `attempts` counts processes started for it, `restarts` what its dataflows did within the present one.
    """

    id: str
    name: str
    kind: str
    status: str
    attempts: int = 0
    pid: int | None = None
    created: int = 0
    started: int | None = None
    ended: int | None = None
    restart_at: int | None = None
    error: str = ""
    exit_code: int | None = None
    records_in: int = 0
    records_out: int = 0
    errors: int = 0
    late: int = 0
    restarts: int = 0
    dataflows: Sequence[DataflowInfo] = ()
    operators: Sequence[OperatorInfo] = ()

    @property
    def ended_for_good(self) -> bool:
        """Whether it has finished, failed or been cancelled."""
        return self.status in ("finished", "failed", "cancelled")


class SupervisorClient:
    """One supervisor. Every call blocks for one request, at most `timeout` seconds; thread-safe.

    Every method raises `ServerUnreachable` when nobody listens there, `Unauthorized` when the token is missing or wrong,
    `ServerError` for whatever else the supervisor refuses, in its own words.
    """

    def __init__(self, address: str | Address | None = None, token: str | None = None, timeout: float = 30.0) -> None:
        """Find the supervisor; nothing is sent yet.

        Args:
            address: ``"host:port"``; None means this account's supervisor on this machine.
            token: None means ``SAGE_ACTOR_TOKEN``, or this account's token file if the address is this machine.
            timeout: seconds a request may take.

        Raises:
            ConfigError: not an address, or the token file is unusable.
        """
        self.address = parse_address(address) if isinstance(address, str) else address or find_address()
        self._token = token or environment("SAGE_ACTOR_TOKEN") or (read_token() if self.address.is_loopback else None)
        self._timeout = timeout

    def submit(
        self,
        name: str,
        kind: str,
        payload: bytes,
        *,
        filename: str = "",
        args: Sequence[str] = (),
        directory: str | None = None,
        backend: str | None = None,
        parallelism: int | None = None,
        restart: Mapping[str, str | int | float] | None = None,
        resume: bool = False,
        restore: str | None = None,
    ) -> JobInfo:
        """Hand a job in; returns when it is kept, not when it runs."""
        body = {
            "name": name,
            "kind": kind,
            "payload": base64.b64encode(payload).decode(),
            "filename": filename,
            "args": list(args),
            "directory": directory,
            "backend": backend,
            "parallelism": parallelism,
            "restart": dict(restart or {}),
            "resume": resume,
            "restore": restore,
        }
        return _job(self._ask("POST", "/api/v1/jobs", body=body))

    def jobs(self) -> list[JobInfo]:
        """The newest jobs, oldest of them first."""
        return [_job(each) for each in cast("list[object]", self._ask("GET", "/api/v1/jobs"))]

    def job(self, job: str, wait: float = 0.0) -> JobInfo:
        """One job by id, or the newest of that name; returns when it has ended or after `wait` seconds.

        Raises:
            JobNotFound: there is none.
        """
        query = {"wait": min(wait, LONGEST_WAIT)} if wait > 0 else {}
        return _job(self._ask("GET", f"/api/v1/jobs/{quote(job, safe='')}", query, job=job))

    def logs(self, job: str, tail: int = 100) -> str:
        """The last lines a job wrote.

        Raises:
            JobNotFound: there is none.
        """
        return self._log(job, {"tail": tail})[0]

    def follow(self, job: str, tail: int = 100) -> Iterator[str]:
        """What a job wrote and writes, piece by piece, until it has ended. Blocks between pieces.

        Raises:
            JobNotFound: there is none.
        """
        text, place = self._log(job, {"tail": tail})
        job_id = self.job(job).id
        while True:
            if text:
                yield text
            ended = self.job(job_id, wait=0.5).ended_for_good
            text, place = self._log(job_id, {"since": place})
            while ended and text:
                yield text
                text, place = self._log(job_id, {"since": place})
            if ended:
                return

    def _log(self, job: str, query: Mapping[str, object]) -> tuple[str, int]:
        part = cast("dict[str, object]", self._ask("GET", f"/api/v1/jobs/{quote(job, safe='')}/logs", query, job=job))
        return cast("str", part["text"]), cast("int", part["next"])

    def stop(self, job: str) -> JobInfo:
        """Ask a job to drain and finish.

        Raises:
            JobNotFound: there is none.
        """
        return _job(self._ask("POST", f"/api/v1/jobs/{quote(job, safe='')}/stop", job=job))

    def cancel(self, job: str) -> JobInfo:
        """End a job without draining.

        Raises:
            JobNotFound: there is none.
        """
        return _job(self._ask("POST", f"/api/v1/jobs/{quote(job, safe='')}/cancel", job=job))

    def savepoint(
        self, job: str, target: str | None = None, *, stop: bool = False, dataflow: str | None = None, timeout: float = 900.0
    ) -> str:
        """Take a savepoint of a running job; returns its place once it is complete.

        Args:
            job: id or name.
            target: a folder, seen from the supervisor; the job's own checkpoint folder if not given.
            stop: end the job behind it.
            dataflow: which one, if the job runs several.
            timeout: seconds it may take; then it may still be completed there.

        Raises:
            JobNotFound: there is none.
        """
        body = {"target": target, "stop": stop, "dataflow": dataflow}
        answer = self._ask("POST", f"/api/v1/jobs/{quote(job, safe='')}/savepoint", body=body, job=job, timeout=timeout)
        return cast("dict[str, str]", answer)["place"]

    def query(self, job: str, operator: str, state: str, key: object, default: object = None, *, dataflow: str | None = None) -> object:
        """Read the state of one key in a running job; see `Job.query`.

        Args:
            job: id or name.
            operator: name or uid of the operator.
            state: the name its function gave the state; "fold" for count, sum, reduce and the like.
            key: what JSON knows; a tuple too.
            default: the answer where the key has no state.
            dataflow: which one, if several of the job have that operator.

        Returns:
            The value as JSON has it: tuples are lists, keys of mappings are texts, what JSON knows nothing of is its ``repr``.

        Raises:
            JobNotFound: there is none.
        """
        path = f"/api/v1/jobs/{quote(job, safe='')}/state/{quote(operator, safe='')}/{quote(state, safe='')}"
        query = {"key": json.dumps(key)} | ({} if dataflow is None else {"dataflow": dataflow})
        answer = cast("dict[str, object]", self._ask("GET", path, query, job=job))
        return answer["value"] if answer["found"] else default

    def info(self) -> Mapping[str, object]:
        """Version, pid, start and bounds of the supervisor itself."""
        return cast("dict[str, object]", self._ask("GET", "/api/v1/info"))

    def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, object] | None = None,
        *,
        body: object = None,
        job: str = "",
        timeout: float | None = None,
    ) -> object:
        timeout = self._timeout if timeout is None else timeout
        where = str(self.address)
        target = f"{path}?{urlencode(query)}" if query else path
        headers = {"Accept": "application/json", "Connection": "close"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None if body is None else json.dumps(body).encode()
        if data is not None:
            headers["Content-Type"] = "application/json"
        connection = http.client.HTTPConnection(self.address.host, self.address.port, timeout=timeout)
        try:
            connection.request(method, target, data, headers)
            response = connection.getresponse()
            status, text = response.status, response.read()
        except TimeoutError as error:
            raise ServerUnreachable(where, f"no answer within {timeout:g} s") from error
        except OSError as error:
            raise ServerUnreachable(where, error.strerror or str(error)) from error
        except http.client.HTTPException as error:
            raise ServerError(where, f"what answers there is no supervisor: {error!r}; check the address") from error
        finally:
            connection.close()
        return self._read(status, text, job)

    def _read(self, status: int, text: bytes, job: str) -> object:
        where = str(self.address)
        try:
            said: object = json.loads(text)
        except ValueError as error:
            raise ServerError(where, f"what answers there is no supervisor (status {status}); check the address") from error
        if status < 400:
            return said
        told = cast("dict[str, object]", said) if isinstance(said, dict) else {}
        reason, next_step = str(told.get("error", f"status {status}")), str(told.get("next", ""))
        if status == 401:
            raise Unauthorized(where, reason if self._token else "none was found here")
        if status == 404 and job:
            raise JobNotFound(job, [each.name for each in self.jobs()[-10:]])
        raise ServerError(where, f"{reason}; {next_step}" if next_step else reason)


_DATAFLOW_FIELDS = frozenset(field.name for field in fields(DataflowInfo))
_JOB_FIELDS = frozenset(field.name for field in fields(JobInfo))
_OPERATOR_FIELDS = frozenset(field.name for field in fields(OperatorInfo))


def _job(said: object) -> JobInfo:
    # Fields of a newer supervisor are left out: an older client still works with it.
    told = {key: value for key, value in cast("dict[str, object]", said).items() if key in _JOB_FIELDS}
    operators = cast("list[dict[str, object]]", told.pop("operators", []))
    known = [{key: value for key, value in each.items() if key in _OPERATOR_FIELDS} for each in operators]
    flows = cast("list[dict[str, object]]", told.pop("dataflows", []))
    dataflows = [{key: value for key, value in each.items() if key in _DATAFLOW_FIELDS} for each in flows]
    return JobInfo(**told, dataflows=[DataflowInfo(**each) for each in dataflows], operators=[OperatorInfo(**each) for each in known])  # type: ignore[arg-type]  # our own server's answer
