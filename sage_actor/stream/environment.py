"""Environments: where a dataflow is described and started. `Environment` is async, `LocalEnvironment` blocks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, cast, overload

from sage_actor.dataflow.graph import Edge, Graph, Operator
from sage_actor.dataflow.late_binding import LateBindings
from sage_actor.dataflow.resources import Resources, parse_resources
from sage_actor.dataflow.settings import JobSettings, flatten
from sage_actor.dataflow.source import Source
from sage_actor.errors import ConfigError, GraphError, NeverStarted
from sage_actor.runtime.coordinator import Coordinator, new_job_id
from sage_actor.runtime.io import classify_source
from sage_actor.runtime.job import Job
from sage_actor.stream.datastream import DataStream
from sage_actor.stream.described import DataStreamSink, check_parallelism, check_whole
from sage_actor.stream.scaling import ScalingSettings

if TYPE_CHECKING:
    from sage_actor.stream.serve import Service, StreamingService

__all__ = ["Defaults", "Environment", "EnvironmentBase", "Pipeline", "defaults", "find_job", "settled"]

T = TypeVar("T")

Pipeline = DataStream[Any] | DataStreamSink


@dataclass(slots=True)
class Defaults:
    """What an environment takes where its code says nothing; the command line sets these before it runs a script."""

    backend: str = "local"
    parallelism: int | None = None
    resume: bool = False
    restore: str | None = None
    restarted: bool = False
    """Whether this process replaces one that died: dataflows that take checkpoints resume, whatever `resume` says."""
    settings: dict[str, object] = field(default_factory=lambda: dict[str, object]())
    observers: list[Callable[[Job], None]] = field(default_factory=lambda: list[Callable[[Job], None]]())


defaults = Defaults()


class EnvironmentBase(ScalingSettings):
    """Describes a dataflow; subclasses start it.

    Args:
        name: the job's name, in errors, metrics and listings; "dataflow" if not given.
        backend: ``local``, ``process``, ``redis://...``; contradicts ``config["backend"]`` only if different.
        parallelism: tasks per operator behind an exchange that sets none itself; 1 if not given.
        places: further backends by name, for steps with ``.place(name)``: an address each, or a mapping with ``backend``,
            ``workers`` (how many) and ``resources`` (of each worker).
        config: more settings, nested or with dotted keys; see `JobSettings`.
        resume: go on from the newest complete checkpoint that an earlier run of that name left in ``checkpoint.dir``, if there
            is one.
        restore: go on from this savepoint.

    Raises:
        ConfigError: an unknown or ill-typed setting.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        backend: str | None = None,
        parallelism: int | None = None,
        places: Mapping[str, str | Mapping[str, Any]] | None = None,
        config: Mapping[str, Any] | None = None,
        resume: bool | None = None,
        restore: str | None = None,
    ) -> None:
        if name is not None and (not isinstance(name, str) or not name.strip()):
            raise GraphError(f"an environment's name must be a non-empty text, not {name!r}")
        self.name = name or "dataflow"
        settings = JobSettings(backend=defaults.backend, parallelism=defaults.parallelism or 1).merged(defaults.settings, "command line")
        if config is not None and not isinstance(config, Mapping):
            raise ConfigError("config", f"must be a mapping of settings, not {config!r}")
        given = dict(config or {})
        if backend is not None:
            given = {"backend": backend} | given if "backend" not in given else given | same(given, "backend", backend)
        if name is None and "checkpoint.dir" not in dict(flatten(given)):
            # Jobs without a name cannot be told apart: what one leaves would be resumed by another.
            settings = replace(settings, checkpoint_dir=None)
        self.settings = settings.merged(given)
        if places is not None:
            self.settings = with_places(self.settings, given, places)
        if parallelism is not None:
            check_parallelism(parallelism, f"environment {self.name!r}")
            if "parallelism" in given:
                same(given, "parallelism", parallelism)
            self.settings = self.settings.merged(given | {"parallelism": parallelism})
        self.resume = defaults.resume if resume is None else resume
        self.restore = defaults.restore if restore is None else restore
        self.graph = Graph()
        self.late_bindings = LateBindings()
        self.started: dict[int, Job] = {}
        self.jobs: list[Job] = []

    # -- sources ---------------------------------------------------------------------------------------------------

    def from_collection(self, records: Sequence[T] | Iterable[T], *, name: str | None = None) -> DataStream[T]:
        """The records of a collection, in order. The collection is read where the job was submitted, not copied.

        A numpy array gives its rows in array slices, which `map_batch(vectorized=True)` takes as they are.
        """
        if not isinstance(records, Iterable) and not hasattr(records, "__getitem__"):
            if callable(records):
                called = f"{getattr(records, '__name__', type(records).__name__)}()"
                raise GraphError(f"from_collection needs a collection, not the function {records!r}; call it: {called}")
            hint = "; an async iterable goes into from_source" if hasattr(records, "__aiter__") else ""
            raise GraphError(f"from_collection needs a collection, not {records!r}{hint}")
        return self._source(records, None, {}, name, None, "collection")

    from_batch = from_collection

    @overload
    def from_source(
        self,
        source: type[Source[T]],
        config: Mapping[str, Any] | None = None,
        /,
        *,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        bounded: bool | None = None,
        **keywords: Any,
    ) -> DataStream[T]: ...
    @overload
    def from_source(
        self, source: Source[T] | AsyncIterator[T] | Iterable[T], /, *, name: str | None = None, bounded: bool | None = None
    ) -> DataStream[T]: ...
    @overload
    def from_source(
        self,
        source: Any,
        config: Mapping[str, Any] | None = None,
        /,
        *,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        bounded: bool | None = None,
        **keywords: Any,
    ) -> DataStream[Any]: ...
    def from_source(
        self,
        source: Any,
        config: Mapping[str, Any] | None = None,
        /,
        *,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        bounded: bool | None = None,
        **keywords: Any,
    ) -> DataStream[Any]:
        """The records of a `Source` class (with its configuration), a `Source`, or an (async) iterable, in order.

        A class is constructed in every task of the source; instances and iterables are read where the job was submitted.
        An async iterable counts as endless unless ``bounded=True``: leaving the environment stops reading it.
        """
        return self._source(source, config, keywords, name, parallelism, None, bounded, resources)

    source = from_source

    def from_requests(self, *, capacity: int = 1000, name: str | None = None) -> DataStream[Any]:
        """Requests sent through `DataStream.serve`; at most `capacity` wait unprocessed, further ones wait for room."""
        if isinstance(capacity, bool) or not isinstance(capacity, int) or capacity < 1:
            raise GraphError(f"from_requests: capacity must be at least 1, not {capacity!r}")
        from sage_actor.stream.serve import RequestSource

        stream = self._source(RequestSource(capacity), None, {}, name, None, "requests", False)
        operator = self.graph.operators[-1]
        operator.served = True
        return stream

    def _source(
        self,
        source: Any,
        config: Mapping[str, Any] | None,
        keywords: Mapping[str, Any],
        name: str | None,
        parallelism: int | None,
        label: str | None,
        bounded: bool | None = None,
        resources: Resources | None = None,
    ) -> DataStream[Any]:
        display, in_owner, ends = classify_source(source, config, keywords)
        if parallelism is not None:
            check_parallelism(parallelism, f"source {name or display!r}")
            if in_owner and parallelism > 1:
                raise GraphError(
                    f"source {name or display!r} is one object and is read by one task; pass a Source class for parallelism {parallelism}, "
                    "or put rebalance() behind it"
                )
        asked = parse_resources(resources, f"source {name or display!r}")
        options = {"source": source, "config": config, "keywords": dict(keywords), "bounded": ends if bounded is None else bounded}
        operator = self.graph.add("source", name, default_name=label or display, options=options)
        operator.in_owner = in_owner
        operator.parallelism = parallelism
        operator.resources = asked
        return DataStream(self, [Edge(operator.id)])

    # -- settings --------------------------------------------------------------------------------------------------

    def explain(self, *, format: Literal["text", "svg"] = "text") -> str:
        """Graph and plan, as a table or as a picture.

        Raises:
            GraphError: the graph cannot run as described.
        """
        from sage_actor.stream.explain import explain

        return explain(self, format)

    def _repr_svg_(self) -> str:
        return self.explain(format="svg")

    def checkpoint_every(self, records: int) -> Self:
        """Take a checkpoint whenever the sources have read so many records together (S0-11)."""
        check_whole(records, f"environment {self.name!r}", "checkpoint_every")
        self.settings = self.settings.merged({"checkpoint.every": records})
        return self

    # -- what has been started ---------------------------------------------------------------------------------------

    def status_of(self, operator: Operator) -> str:
        """Status of the job that runs an operator, or "not started"."""
        job = self.started.get(operator.id)
        return "not started" if job is None else job.status

    def _wanted(self, pipeline: Pipeline | None) -> list[int]:
        """Ids of the ends to start: those given, or all that have not been started."""
        if pipeline is None:
            # Flows of requests are started by serve(), never by submit().
            ends = [op for op in (*self.graph.sinks(), *self.graph.loose_ends()) if op.id not in self.started and not op.served]
            if not ends:
                if self.jobs:
                    return []
                raise GraphError(f"environment {self.name!r} has nothing to run; describe a source and a sink first")
            return [operator.id for operator in ends]
        owner = pipeline.env if isinstance(pipeline, DataStreamSink) else pipeline._env
        if owner is not self:
            raise GraphError(f"submit: {pipeline!r} belongs to another environment than {self.name!r}")
        ids = [pipeline.operator.id] if isinstance(pipeline, DataStreamSink) else [tap.source for tap in pipeline._taps]
        for number in ids:
            if number in self.started:
                raise GraphError(
                    f"submit: operator {self.graph.operators[number].name!r} was started already, as job {self.started[number].id}"
                )
        return ids

    def _unstarted(self) -> list[str]:
        read = {number for job_ids in (self.started,) for number in job_ids}
        return [op.name for op in (*self.graph.sinks(), *self.graph.loose_ends()) if op.id not in read and not op.served]

    def _launch(self, wanted: list[int]) -> Job:
        """Compile and start on the running loop; returns at once."""
        needed = self.graph.upstream(wanted)
        bounded = all(op.bounded for op in self.graph.operators if op.id in needed and op.kind == "source")
        job = Job(new_job_id(self.name), self.name, bounded=bounded, loop=asyncio.get_running_loop(), backend=self.settings.backend)
        settings = self.scaled(self.settings)
        self.deal_by_partition_key(self.graph.operators[number] for number in needed)
        if any(self.graph.operators[number].served for number in needed):
            # Requests are never replayed: a served flow takes no checkpoints, and its failure answers those in flight.
            settings = replace(settings, checkpointing=None, checkpoint_interval=None, checkpoint_every=0, restart_strategy="none")
        resume = self.resume or (defaults.restarted and bool(settings.snapshot_mode))
        coordinator = Coordinator(
            job, self.graph, wanted, settings, resume=resume, restore=self.restore, controller=self.parallelism_controller
        )
        for number in wanted:
            self.started[number] = job
        self.jobs.append(job)
        for observer in defaults.observers:
            observer(job)
        coordinator.launch()
        return job

    def iterate_stream(self, stream: DataStream[T], *, committed: bool = False) -> AsyncIterator[T]:
        """Used by ``async for``; only the async environment can."""
        raise GraphError(
            f"`async for` over a stream needs sage_actor.Environment; {type(self).__name__} {self.name!r} collects with .collect()"
        )

    async def serve_stream(self, stream: DataStream[T], *, parts: bool = False, name: str | None = None) -> Any:
        """Used by ``serve()``; only the async environment can."""
        raise GraphError(f"serve() needs sage_actor.Environment; {type(self).__name__} {self.name!r} blocks")


def same(given: Mapping[str, Any], key: str, value: object) -> dict[str, Any]:
    """Refuse a keyword that contradicts the configuration."""
    if given[key] != value:
        raise ConfigError(key, f"contradicts the keyword: {given[key]!r} against {value!r}")
    return {}


def with_places(settings: JobSettings, given: Mapping[str, Any], places: object) -> JobSettings:
    """Settings with the places of the keyword, which must not contradict those of the configuration."""
    if not isinstance(places, Mapping):
        raise ConfigError("places", f"is a mapping such as {{'heavy': 'process'}}, not {places!r}")
    merged = settings.merged({"places": cast("Mapping[str, Any]", places)})
    for name in JobSettings().merged(given).places:
        if merged.places[name] != settings.places[name]:
            raise ConfigError(f"places.{name}", "contradicts the keyword places=, which says something else")
    return merged


class Environment(EnvironmentBase):
    """The async environment. Use as ``async with Environment("name") as env``.

    Leaving the block waits for bounded jobs, drains endless and served ones for up to ``stop_timeout`` (10 s), then cancels
    them; on an exception all jobs are cancelled. A dataflow that was described and never started raises `NeverStarted`;
    a job that failed without being awaited raises its error there. Jobs are no children of the caller's task: their
    failure never cancels the body.
    """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if error is not None:
            await self._end_all()
            return
        try:
            for job in list(self.jobs):
                if not job.done and not job.bounded:
                    job.stop()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self.settings.stop_timeout):
                            await settled(job)
                    if not job.done:
                        job.cancel()
                await settled(job)
        except BaseException:
            await self._end_all()
            raise
        for job in self.jobs:
            if job.status == "failed" and not job.waited:
                job.raise_error()
        unstarted = self._unstarted()
        if unstarted:
            raise NeverStarted(self.name, unstarted)

    async def _end_all(self) -> None:
        for job in self.jobs:
            job.cancel()
        for job in self.jobs:
            await asyncio.shield(settled(job))

    async def submit(self, pipeline: Pipeline | None = None) -> Job:
        """Start the ends that have not been started (or just the given one); returns at once, never waits for the job.

        Raises:
            GraphError: there is nothing to start, or it cannot run as described.
            BackendUnavailable, UnknownBackend: raised here where it can be told at once, else by ``job.wait()``.
        """
        wanted = self._wanted(pipeline)
        if not wanted:
            return self.jobs[-1]
        return self._launch(wanted)

    async def execute(self, pipeline: Pipeline | None = None) -> Job:
        """`submit`, then wait for the end and raise the job's error, if any. Cancelling the wait cancels the job."""
        job = await self.submit(pipeline)
        try:
            await job.wait()
        except asyncio.CancelledError:
            job.cancel()
            await asyncio.shield(settled(job))
            raise
        return job

    async def run_streaming(self) -> Job:
        """Start what has not been started and wait: for the end of bounded input, or for `stop`."""
        job = await self.submit()
        await job.wait()
        return job

    def stop(self) -> None:
        """Drain all jobs of this environment."""
        for job in self.jobs:
            job.stop()

    async def wait_for_completion(self, job: Job | str) -> str:
        """Wait for a job, given as object or id; answers "finished" or raises its error.

        Raises:
            JobNotFound: no job of this environment has that id.
        """
        found = find_job(self.jobs, job)
        await found.wait()
        return found.status

    def iterate_stream(self, stream: DataStream[T], *, committed: bool = False) -> AsyncIterator[T]:
        """Start a job for the stream and give its records as they come."""
        from sage_actor.stream.iteration import StreamIterator

        return StreamIterator(self, stream, committed=committed)

    async def serve_stream(
        self, stream: DataStream[T], *, parts: bool = False, name: str | None = None
    ) -> Service[Any, T] | StreamingService[Any, T]:
        """Start a served flow."""
        from sage_actor.stream.serve import start_service

        return await start_service(self, stream, parts=parts, name=name)


async def settled(job: Job) -> None:
    """Wait for the end of a job without raising its error."""
    ended = asyncio.Event()
    job.on_end(lambda _: ended.set())
    await ended.wait()


def find_job(jobs: list[Job], wanted: Job | str) -> Job:
    """A job by itself, its id or its name."""
    from sage_actor.errors import JobNotFound

    for job in reversed(jobs):
        if wanted in (job, job.id, job.name):
            return job
    raise JobNotFound(str(wanted), [job.id for job in jobs])


def __getattr__(name: str) -> Any:
    """`LocalEnvironment` lives beside; kept importable from here."""
    if name == "LocalEnvironment":
        from sage_actor.stream.local_environment import LocalEnvironment

        return LocalEnvironment
    raise AttributeError(name)
