"""How streams end: in a sink, in a list, in an ``async for``, in answers to requests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from sage_actor.dataflow.functions import BaseFunction, FunctionSpec, SinkFunction
from sage_actor.dataflow.policies import OnError, parse_policy
from sage_actor.dataflow.resources import Resources
from sage_actor.dataflow.sink import Sink
from sage_actor.errors import GraphError
from sage_actor.stream.described import DataStreamSink, Described

if TYPE_CHECKING:
    from sage_actor.stream.datastream import DataStream
    from sage_actor.stream.results import Collected
    from sage_actor.stream.serve import Service, StreamingService

__all__ = ["StreamEnds"]

T = TypeVar("T")

Config = Mapping[str, Any]


class StreamEnds(Described, Generic[T]):
    """Part of `DataStream`."""

    def sink(
        self,
        sink: Sink[T] | type[Sink[T]] | SinkFunction[T] | Callable[[T], object] | type[BaseFunction] | BaseFunction,
        config: Config | None = None,
        /,
        *,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
        **keywords: Any,
    ) -> DataStreamSink:
        """End the stream in a `Sink` (batches), a `SinkFunction` or a function (one call per record)."""
        cls = sink if isinstance(sink, type) else type(sink)
        if issubclass(cls, Sink):
            if not isinstance(sink, type) and (config is not None or keywords):
                raise GraphError(f"sink: a configuration goes with a class, but {cls.__name__} was given as an instance")
            display = cls.__name__
            policy = None if on_error is None else parse_policy(on_error, f"sink {name or display!r}")
            if policy not in (None, "fail") and getattr(policy, "then", None) != "fail":
                raise GraphError(
                    f"sink {name or display!r} takes whole batches, so it cannot set single records aside: on_error must be 'fail' or "
                    f"Retry(...) with then='fail', not {policy!r}; use a function or a SinkFunction for one call per record"
                )
            options: dict[str, Any] = {"sink": sink, "config": config, "keywords": keywords, "form": "batches"}
            return self._end(name, display, None, parallelism, on_error, resources=resources, **options)
        spec = FunctionSpec("sink", sink, config, keywords)
        in_owner = sink is print
        return self._end(
            name, spec.display, spec, parallelism, on_error, resources=resources, form="print" if in_owner else "records", in_owner=in_owner
        )

    def print(self, prefix: str = "", *, name: str | None = None) -> DataStreamSink:
        """Write each record as a line to the standard output of the process that runs the job, in order per task."""
        return self._end(name, "print", None, None, None, form="print", prefix=prefix, in_owner=True)

    def collect(self, *, name: str | None = None) -> Collected[T]:
        """Gather all records in the process that submits the job.

        Returns:
            A sequence that raises `NotFinished` until the job has finished. Order is kept per sending task.
        """
        from sage_actor.stream.results import Collected

        results: Collected[T] = Collected()
        end = self._end(name, "collect", None, None, None, form="collect", results=results, in_owner=True)
        results.bind(self._env, end.operator)
        return results

    def __aiter__(self) -> AsyncIterator[T]:
        """Start a job for this stream and iterate over its records, with backpressure; leaving the loop cancels the job."""
        return self._env.iterate_stream(self._whole())

    @overload
    async def serve(self, *, stream: Literal[False] = False, name: str | None = None) -> Service[Any, T]: ...
    @overload
    async def serve(self, *, stream: Literal[True], name: str | None = None) -> StreamingService[Any, T]: ...
    async def serve(self, *, stream: bool = False, name: str | None = None) -> Service[Any, T] | StreamingService[Any, T]:
        """Start the flow and return a function that sends a request through it.

        ``await service(value, timeout=None)`` gives exactly that request's answer or raises its error. With
        ``stream=True``, ``service(value)`` is an async iterator over the parts of the answer.

        Raises:
            GraphError: the flow does not begin with `from_requests`, or has a step that is not one-to-one.
        """
        service: Service[Any, T] | StreamingService[Any, T] = await self._env.serve_stream(self._whole(), parts=stream, name=name)
        return service

    def _whole(self) -> DataStream[T]:
        from sage_actor.stream.datastream import DataStream

        assert isinstance(self, DataStream)
        return self
