"""sage_actor: an asyncio actor runtime with pluggable backends, and a stream processor on top of it.

    async with sage_actor.Environment("totals") as env:
        totals = env.from_collection([("a", 1), ("a", 3)]).key_by(lambda r: r[0]).sum(lambda r: r[1]).collect()
        await env.execute()

Names are loaded when first used, so that ``import sage_actor`` stays cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sage_actor.connectors.console import ConsoleSink as ConsoleSink
    from sage_actor.connectors.file_sink import FileSink as FileSink
    from sage_actor.connectors.file_source import FileSource as FileSource
    from sage_actor.errors import (
        BackendError as BackendError,
        BackendUnavailable as BackendUnavailable,
        ConfigError as ConfigError,
        ConnectorError as ConnectorError,
        GraphError as GraphError,
        JobCancelled as JobCancelled,
        JobError as JobError,
        JobFailed as JobFailed,
        JobNotFound as JobNotFound,
        MailboxFull as MailboxFull,
        NeverStarted as NeverStarted,
        NotFinished as NotFinished,
        OperatorError as OperatorError,
        RequestError as RequestError,
        SageError as SageError,
        SerializationError as SerializationError,
        ServerError as ServerError,
        ServerUnreachable as ServerUnreachable,
        Unauthorized as Unauthorized,
        UnknownBackend as UnknownBackend,
        UnstableKey as UnstableKey,
        WorkerLost as WorkerLost,
    )
    from sage_actor.server.remote import RemoteEnvironment as RemoteEnvironment
    from sage_actor.stream.context import FunctionContext as FunctionContext
    from sage_actor.stream.datastream import DataStream as DataStream, DataStreamSink as DataStreamSink
    from sage_actor.stream.environment import Environment as Environment
    from sage_actor.stream.functions import (
        AggregateFunction as AggregateFunction,
        BaseFunction as BaseFunction,
        FilterFunction as FilterFunction,
        FlatMapFunction as FlatMapFunction,
        MapFunction as MapFunction,
        Message as Message,
        ProcessFunction as ProcessFunction,
        SinkFunction as SinkFunction,
    )
    from sage_actor.stream.job import Job as Job
    from sage_actor.stream.keyed import KeyedStream as KeyedStream
    from sage_actor.stream.local_environment import LocalEnvironment as LocalEnvironment
    from sage_actor.stream.policies import DeadLetter as DeadLetter, Retry as Retry
    from sage_actor.stream.results import Collected as Collected
    from sage_actor.stream.sink import Sink as Sink
    from sage_actor.stream.source import Source as Source

__version__ = "0.1.0"

_PLACES = {
    "connectors.console": ("ConsoleSink",),
    "connectors.file_sink": ("FileSink",),
    "connectors.file_source": ("FileSource",),
    "errors": (
        "BackendError",
        "BackendUnavailable",
        "ConfigError",
        "ConnectorError",
        "GraphError",
        "JobCancelled",
        "JobError",
        "JobFailed",
        "JobNotFound",
        "MailboxFull",
        "NeverStarted",
        "NotFinished",
        "OperatorError",
        "RequestError",
        "SageError",
        "SerializationError",
        "ServerError",
        "ServerUnreachable",
        "Unauthorized",
        "UnknownBackend",
        "UnstableKey",
        "WorkerLost",
    ),
    "server.remote": ("RemoteEnvironment",),
    "stream.context": ("FunctionContext",),
    "stream.datastream": ("DataStream", "DataStreamSink"),
    "stream.environment": ("Environment",),
    "stream.functions": (
        "AggregateFunction",
        "BaseFunction",
        "FilterFunction",
        "FlatMapFunction",
        "MapFunction",
        "Message",
        "ProcessFunction",
        "SinkFunction",
    ),
    "stream.job": ("Job",),
    "stream.keyed": ("KeyedStream",),
    "stream.local_environment": ("LocalEnvironment",),
    "stream.policies": ("DeadLetter", "Retry"),
    "stream.results": ("Collected",),
    "stream.sink": ("Sink",),
    "stream.source": ("Source",),
}
_PLACE_OF = {name: place for place, names in _PLACES.items() for name in names}

__all__ = sorted([*_PLACE_OF, "__version__"])


def __getattr__(name: str) -> object:
    place = _PLACE_OF.get(name)
    if place is None:
        raise AttributeError(f"module 'sage_actor' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"sage_actor.{place}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
