"""The HTTP face of one supervisor."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, cast

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from pydantic import JsonValue
from starlette.exceptions import HTTPException

from sage_actor.errors import ConfigError, ConnectorError, JobError, JobNotFound, SageError
from sage_actor.jobs.asking import AskRefused
from sage_actor.jobs.lifecycle import is_final
from sage_actor.jobs.supervisor import Supervisor, TooManyJobs
from sage_actor.ports import Clock, system_clock
from sage_actor.server.access import AccessGuard
from sage_actor.server.exposition import exposition
from sage_actor.server.messages import Failure, Info, JobView, LogView, SavepointView, StateView, SubmitJob, TakeSavepoint, view
from sage_actor.telemetry.prometheus import CONTENT_TYPE

__all__ = ["MAX_BODY", "build_app"]

MAX_BODY = 256 << 20
MAX_WAIT = 30.0
_PAGE = Path(__file__).with_name("static") / "index.html"
_STATUS = (
    (JobNotFound, 404),
    (TooManyJobs, 429),
    (ConfigError, 422),
    (JobError, 409),  # AskRefused too: the job stands otherwise than the request supposes
    (ConnectorError, 503),
    (SageError, 500),
)
_NEXT = {
    404: "list the jobs with GET /api/v1/jobs",
    409: "name one job by its id",
    422: "correct the setting and ask again",
    429: "stop a job, or wait for one to end",
    503: "see the supervisor's own output",
}


def build_app(
    supervisor: Supervisor,
    *,
    token: str,
    host: str = "127.0.0.1",
    max_jobs: int = 1000,
    max_body: int = MAX_BODY,
    closing: asyncio.Event | None = None,
    clock: Clock = system_clock,
) -> AccessGuard:
    """The application around a started supervisor, whose life belongs to the caller.

    Args:
        supervisor: owns the jobs.
        token: what every request but the page's shell and health must carry.
        host: the address it is bound to; requests for other names are refused.
        max_jobs: told to who asks.
        max_body: bytes a request may bring.
        closing: set when the process is about to end, so that waiting requests answer at once.
        clock: says when it started.
    """
    app = FastAPI(title="sage_actor supervisor", docs_url=None, redoc_url=None, openapi_url="/api/v1/openapi.json")
    leaving = closing or asyncio.Event()
    started = clock.now_ms()
    page = _PAGE.read_text(encoding="utf-8")
    policy = _page_policy(page)
    _handle_errors(app)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def shell() -> HTMLResponse:
        return HTMLResponse(page, headers={"content-security-policy": policy})

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "stopping" if leaving.is_set() else "ok"}

    @app.get("/api/v1/info")
    async def info() -> Info:
        live = sum(1 for record in supervisor.records() if not is_final(record.status))
        return Info(
            version=version("sage-actor"),
            pid=os.getpid(),
            started=started,
            max_jobs=max_jobs,
            live_jobs=live,
            store_error=supervisor.store_error,
        )

    @app.get("/api/v1/jobs")
    async def jobs(limit: Annotated[int, Query(ge=1, le=10_000)] = 200) -> list[JobView]:
        return [view(record) for record in supervisor.records()[-limit:]]

    @app.post("/api/v1/jobs", status_code=201)
    async def submit(job: SubmitJob) -> JobView:
        return view(await supervisor.submit(job.spec()))

    @app.get("/api/v1/jobs/{job}")
    async def job_state(job: str, wait: Annotated[float, Query(ge=0, le=MAX_WAIT)] = 0.0) -> JobView:
        if wait:
            ended = asyncio.ensure_future(supervisor.wait(job, wait))
            left = asyncio.ensure_future(leaving.wait())
            await asyncio.wait((ended, left), return_when=asyncio.FIRST_COMPLETED)
            left.cancel()
            ended.cancel()
        return view(supervisor.find(job))

    @app.get("/api/v1/jobs/{job}/logs")
    async def logs(
        job: str, tail: Annotated[int, Query(ge=0, le=100_000)] = 100, since: Annotated[int | None, Query(ge=0)] = None
    ) -> LogView:
        part = await supervisor.read_log(job, tail=tail, since=since)
        return LogView(text=part.text, next=part.next)

    @app.post("/api/v1/jobs/{job}/stop")
    async def stop(job: str) -> JobView:
        return view(supervisor.stop(job))

    @app.post("/api/v1/jobs/{job}/cancel")
    async def cancel(job: str) -> JobView:
        return view(supervisor.cancel(job))

    @app.post("/api/v1/jobs/{job}/savepoint")
    async def savepoint(job: str, wanted: TakeSavepoint) -> SavepointView:
        place = await supervisor.savepoint(job, target=wanted.target, stop=wanted.stop, dataflow=wanted.dataflow)
        return SavepointView(place=place)

    @app.get("/api/v1/jobs/{job}/state/{operator}/{state}")
    async def read_state(job: str, operator: str, state: str, key: str, dataflow: str | None = None) -> StateView:
        found, value = await supervisor.query(job, operator, state, _read_key(key), dataflow=dataflow)
        return StateView(found=found, value=cast("JsonValue", value))

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(exposition(supervisor.records()), media_type=CONTENT_TYPE)

    return AccessGuard(app, token=token, host=host, max_body=max_body)


def _read_key(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        reason = f"{text!r} is not JSON, which tells numbers and texts apart: a text stands in double quotes, a tuple is an array"
        raise ConfigError("key", reason, "query") from None


def _page_policy(page: str) -> str:
    """Only the page's own script runs, and it may talk to nobody but us."""
    script = page[page.index("<script>") + len("<script>") : page.index("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _handle_errors(app: FastAPI) -> None:
    def refuse(status: int, error: str, next_step: str) -> Response:
        return JSONResponse(Failure(error=error, next=next_step).model_dump(), status)

    @app.exception_handler(SageError)
    async def ours(request: Request, error: Exception) -> Response:
        status = next(code for kind, code in _STATUS if isinstance(error, kind))
        next_step = "" if isinstance(error, AskRefused) else _NEXT.get(status, "see the supervisor's own output")
        return refuse(status, str(error), next_step)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        places = [f"{'.'.join(str(part) for part in found['loc'])}: {found['msg']}" for found in error.errors()]
        return refuse(422, "; ".join(places), "correct the request; GET /api/v1/openapi.json describes it")

    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return refuse(
            error.status_code, f"{request.method} {request.url.path}: {error.detail}", "GET /api/v1/openapi.json lists what there is"
        )

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> Response:
        # The HTTP edge: a bug of ours is told to the caller too; the framework raises it again for the log.
        return refuse(500, f"internal error: {type(error).__name__}: {error}", "see the supervisor's own output, and report it")
