"""What travels over HTTP, as typed values."""

from __future__ import annotations

import base64
import json
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from sage_actor.jobs.record import JobRecord, JobSpec

__all__ = ["Failure", "Info", "JobView", "LogView", "OperatorView", "SubmitJob", "view"]


def _decoded(value: object) -> bytes:
    if not isinstance(value, str):
        raise ValueError("must be text in base64")
    return base64.b64decode(value, validate=True)


def _nameable(name: str) -> str:
    if "/" in name or not name.isprintable():  # names stand in paths and in tables
        raise ValueError(f"a job's name must be printable and hold no '/', not {name!r}")
    return name


class SubmitJob(BaseModel):
    """A job handed in."""

    model_config = ConfigDict(extra="forbid", strict=False)

    name: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_nameable)]
    kind: Literal["graph", "script"]
    payload: Annotated[bytes, BeforeValidator(_decoded)]
    filename: Annotated[str, Field(max_length=4096)] = ""
    args: Annotated[list[str], Field(max_length=1000)] = []
    directory: Annotated[str, Field(max_length=4096)] | None = None
    backend: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    parallelism: Annotated[int, Field(ge=1, le=4096)] | None = None
    restart: dict[str, str | int | float] = {}

    def spec(self) -> JobSpec:
        """As the supervisor takes it."""
        return JobSpec(
            name=self.name,
            kind=self.kind,
            payload=self.payload,
            filename=self.filename,
            args=tuple(self.args),
            directory=self.directory,
            backend=self.backend,
            parallelism=self.parallelism,
            restart=self.restart,
        )


class OperatorView(BaseModel):
    """Counters of one operator of a running or ended dataflow."""

    dataflow: str
    name: str
    records_in: int = 0
    records_out: int = 0
    errors: int = 0
    records_in_rate: float = 0.0
    busy: float = 0.0
    idle: float = 0.0
    backpressured: float = 0.0


class JobView(BaseModel):
    """One job as it stands. Times are milliseconds since the epoch."""

    id: str
    name: str
    kind: str
    status: str
    attempts: int
    pid: int | None
    created: int
    started: int | None
    ended: int | None
    restart_at: int | None
    error: str
    exit_code: int | None
    records_in: int = 0
    records_out: int = 0
    errors: int = 0
    operators: list[OperatorView] = []


class LogView(BaseModel):
    """A piece of a job's log, and where the next one begins."""

    text: str
    next: int


class Info(BaseModel):
    """The supervisor itself."""

    version: str
    pid: int
    started: int
    max_jobs: int
    live_jobs: int
    store_error: str


class Failure(BaseModel):
    """Every answer that is not a success."""

    error: str
    next: str


def _number(source: dict[str, object], key: str) -> float:
    value = source.get(key, 0)
    return value if isinstance(value, int | float) else 0


def view(record: JobRecord) -> JobView:
    """A record with its last metrics taken apart."""
    operators: list[OperatorView] = []
    totals = {"records_in": 0, "records_out": 0, "errors": 0}
    for dataflow in json.loads(record.metrics):
        metrics = dataflow.get("metrics", {})
        for key in totals:
            totals[key] += int(_number(metrics, key))
        for name, counters in metrics.get("operators", {}).items():
            fields = {key: _number(counters, key) for key in OperatorView.model_fields if key not in ("dataflow", "name")}
            operators.append(OperatorView.model_validate({"dataflow": str(dataflow.get("job", "")), "name": name, **fields}))
    return JobView(
        id=record.id,
        name=record.name,
        kind=record.kind,
        status=record.status,
        attempts=record.attempts,
        pid=record.pid,
        created=record.created,
        started=record.started,
        ended=record.ended,
        restart_at=record.restart_at,
        error=record.error,
        exit_code=record.exit_code,
        **totals,
        operators=operators,
    )
