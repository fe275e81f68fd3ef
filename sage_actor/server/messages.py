"""What travels over HTTP, as typed values."""

from __future__ import annotations

import base64
import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from sage_actor.jobs.record import JobRecord, JobSpec
from sage_actor.telemetry.histogram import LogHistogram

__all__ = [
    "CheckpointsView",
    "DataflowView",
    "Failure",
    "Info",
    "JobView",
    "LogView",
    "OperatorView",
    "RestoringView",
    "SavepointView",
    "StateView",
    "SubmitJob",
    "TakeSavepoint",
    "view",
]


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
    resume: bool = False
    restore: Annotated[str, Field(min_length=1, max_length=4096)] | None = None

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
            resume=self.resume,
            restore=self.restore,
        )


class TakeSavepoint(BaseModel):
    """What is wanted of a savepoint. `target`: a folder; the job's own checkpoint folder if not given."""

    model_config = ConfigDict(extra="forbid", strict=False)

    target: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    stop: bool = False
    dataflow: str | None = None


class SavepointView(BaseModel):
    """Where a savepoint is: what ``restore`` takes."""

    place: str


class StateView(BaseModel):
    """The state of one key: whether there is something, and what, as JSON has it."""

    found: bool
    value: JsonValue = None


class OperatorView(BaseModel):
    """Counters of one operator of a running or ended dataflow."""

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


class CheckpointsView(BaseModel):
    """The checkpoints of one dataflow; see `CheckpointSnapshot`."""

    completed: int = 0
    failed: int = 0
    seconds: float = 0.0
    newest: int = 0
    newest_seconds: float = 0.0
    newest_bytes: int = 0
    newest_at: int = 0


class RestoringView(BaseModel):
    """How far an attempt is with opening its tasks; `checkpoint`: where the state comes from, if there is any."""

    opened: int
    tasks: int
    bytes: int
    checkpoint: int | None


class DataflowView(BaseModel):
    """One dataflow of a job. `latest_error`: what the attempt before the present one failed with."""

    name: str
    status: str
    error: str = ""
    attempts: int = 0
    restored_from: int | None = None
    latest_error: str = ""
    restoring: RestoringView | None = None
    checkpoints: CheckpointsView = CheckpointsView()
    pause_p99: float = 0.0
    """Seconds that records stood still while state was frozen: 99 of 100 times at most this."""


class JobView(BaseModel):
    """One job as it stands. Times are milliseconds since the epoch.

    `attempts` counts processes started for it, `restarts` what its dataflows did within the present one.
    """

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
    late: int = 0
    restarts: int = 0
    dataflows: list[DataflowView] = []
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
    dataflows: list[DataflowView] = []
    totals = {"records_in": 0, "records_out": 0, "errors": 0, "late": 0}
    for dataflow in json.loads(record.metrics):
        dataflows.append(_dataflow(dataflow))
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
        status="restarting" if record.status == "running" and any(each.status == "restarting" for each in dataflows) else record.status,
        attempts=record.attempts,
        pid=record.pid,
        created=record.created,
        started=record.started,
        ended=record.ended,
        restart_at=record.restart_at,
        error=record.error,
        exit_code=record.exit_code,
        **totals,
        restarts=sum(max(0, each.attempts - 1) for each in dataflows),
        dataflows=dataflows,
        operators=operators,
    )


def _dataflow(said: dict[str, Any]) -> DataflowView:
    metrics = said.get("metrics", {})
    pause = LogHistogram()
    for task in metrics.get("tasks", []):
        if "snapshot_pause" in task:
            pause.merge(LogHistogram.from_dict(task["snapshot_pause"]))
    return DataflowView(
        name=str(said.get("job", "")),
        status=str(said.get("status", "")),
        error=str(said.get("error", "")),
        attempts=int(said.get("attempts", 0)),
        restored_from=said.get("restored_from"),
        latest_error=str(said.get("latest_error", "")),
        restoring=said.get("restoring"),
        checkpoints=metrics.get("checkpoints", CheckpointsView()),
        pause_p99=pause.percentile(0.99) / 1e9,
    )
