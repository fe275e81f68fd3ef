"""sage_actor: an asyncio actor runtime with pluggable backends, and a stream processor on top of it.

    async with sage_actor.Environment("totals") as env:
        totals = env.from_collection([("a", 1), ("a", 3)]).key_by(lambda r: r[0]).sum(lambda r: r[1]).collect()
        await env.execute()

Names are loaded when first used, so that ``import sage_actor`` stays cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sage_actor._core.actor_ref import ActorRef as ActorRef
    from sage_actor._core.reply import Reply as Reply
    from sage_actor.actor.actor import Actor as Actor
    from sage_actor.actor.backend import WorkerResources as WorkerResources
    from sage_actor.actor.context import ActorContext as ActorContext
    from sage_actor.actor.dead_letters import UndeliveredMessage as UndeliveredMessage
    from sage_actor.actor.exposition import ActorCollector as ActorCollector
    from sage_actor.actor.handlers import blocking as blocking
    from sage_actor.actor.handlers import interruptible as interruptible
    from sage_actor.actor.mailbox import MailboxSettings as MailboxSettings
    from sage_actor.actor.registry import ServiceKey as ServiceKey
    from sage_actor.actor.remoting import SystemWorker as SystemWorker
    from sage_actor.actor.streaming import AnswerStream as AnswerStream
    from sage_actor.actor.supervision import ExponentialDelay as ExponentialDelay
    from sage_actor.actor.supervision import FailureRate as FailureRate
    from sage_actor.actor.supervision import FixedDelay as FixedDelay
    from sage_actor.actor.supervision import NoRestart as NoRestart
    from sage_actor.actor.supervisor_scope import Supervision as Supervision
    from sage_actor.actor.sync import SyncSystem as SyncSystem
    from sage_actor.actor.system import ActorSystem as ActorSystem
    from sage_actor.actor.threaded import SyncActorSystem as SyncActorSystem
    from sage_actor.actor.tracing import MemoryTracer as MemoryTracer
    from sage_actor.actor.tracing import Span as Span
    from sage_actor.actor.tracing import Tracer as Tracer
    from sage_actor.actor.watching import Terminated as Terminated
    from sage_actor.connectors.console import ConsoleSink as ConsoleSink
    from sage_actor.connectors.file_sink import FileSink as FileSink
    from sage_actor.connectors.file_source import FileSource as FileSource
    from sage_actor.connectors.sqlite_sink import SqliteSink as SqliteSink
    from sage_actor.connectors.transactional_file_sink import TransactionalFileSink as TransactionalFileSink
    from sage_actor.dataflow.co_functions import BroadcastContext as BroadcastContext
    from sage_actor.dataflow.co_functions import BroadcastProcessFunction as BroadcastProcessFunction
    from sage_actor.dataflow.co_functions import CoFlatMapFunction as CoFlatMapFunction
    from sage_actor.dataflow.co_functions import CoMapFunction as CoMapFunction
    from sage_actor.dataflow.co_functions import CoProcessFunction as CoProcessFunction
    from sage_actor.dataflow.co_functions import KeyedCoProcessFunction as KeyedCoProcessFunction
    from sage_actor.dataflow.co_functions import ReadOnlyBroadcastContext as ReadOnlyBroadcastContext
    from sage_actor.dataflow.context import FunctionContext as FunctionContext
    from sage_actor.dataflow.functions import AggregateFunction as AggregateFunction
    from sage_actor.dataflow.functions import BaseFunction as BaseFunction
    from sage_actor.dataflow.functions import FilterFunction as FilterFunction
    from sage_actor.dataflow.functions import FlatMapFunction as FlatMapFunction
    from sage_actor.dataflow.functions import MapFunction as MapFunction
    from sage_actor.dataflow.functions import Message as Message
    from sage_actor.dataflow.functions import ProcessFunction as ProcessFunction
    from sage_actor.dataflow.functions import SinkFunction as SinkFunction
    from sage_actor.dataflow.idempotent import IdempotentSink as IdempotentSink
    from sage_actor.dataflow.load_balancer import LoadBalancer as LoadBalancer
    from sage_actor.dataflow.output_tag import OutputTag as OutputTag
    from sage_actor.dataflow.parallelism import ParallelismController as ParallelismController
    from sage_actor.dataflow.pattern import Pattern as Pattern
    from sage_actor.dataflow.policies import DeadLetter as DeadLetter
    from sage_actor.dataflow.policies import Retry as Retry
    from sage_actor.dataflow.process_functions import KeyedContext as KeyedContext
    from sage_actor.dataflow.process_functions import KeyedProcessFunction as KeyedProcessFunction
    from sage_actor.dataflow.process_functions import ProcessContext as ProcessContext
    from sage_actor.dataflow.sink import Sink as Sink
    from sage_actor.dataflow.sink import SinkRecovery as SinkRecovery
    from sage_actor.dataflow.source import Source as Source
    from sage_actor.dataflow.triggers import Continuous as Continuous
    from sage_actor.dataflow.triggers import CountTrigger as CountTrigger
    from sage_actor.dataflow.triggers import EventTime as EventTime
    from sage_actor.dataflow.triggers import ProcessingTime as ProcessingTime
    from sage_actor.dataflow.triggers import Purging as Purging
    from sage_actor.dataflow.triggers import Trigger as Trigger
    from sage_actor.dataflow.triggers import TriggerAction as TriggerAction
    from sage_actor.dataflow.triggers import TriggerBase as TriggerBase
    from sage_actor.dataflow.triggers import TriggerContext as TriggerContext
    from sage_actor.dataflow.two_phase_commit import TwoPhaseCommitSink as TwoPhaseCommitSink
    from sage_actor.dataflow.watermarks import BoundedDisorder as BoundedDisorder
    from sage_actor.dataflow.watermarks import Monotonic as Monotonic
    from sage_actor.dataflow.watermarks import Punctuated as Punctuated
    from sage_actor.dataflow.watermarks import WatermarkStrategy as WatermarkStrategy
    from sage_actor.dataflow.windows import Count as Count
    from sage_actor.dataflow.windows import Global as Global
    from sage_actor.dataflow.windows import Session as Session
    from sage_actor.dataflow.windows import Sliding as Sliding
    from sage_actor.dataflow.windows import TimeSpan as TimeSpan
    from sage_actor.dataflow.windows import Tumbling as Tumbling
    from sage_actor.dataflow.windows import WindowResult as WindowResult
    from sage_actor.durable.delivery import Delivery as Delivery
    from sage_actor.durable.durable_actor import DurableActor as DurableActor
    from sage_actor.durable.journal import Journal as Journal
    from sage_actor.durable.journal import JournalEntry as JournalEntry
    from sage_actor.durable.journal import Snapshot as Snapshot
    from sage_actor.durable.memory_journal import MemoryJournal as MemoryJournal
    from sage_actor.durable.sqlite_journal import SqliteJournal as SqliteJournal
    from sage_actor.errors import ActorEnded as ActorEnded
    from sage_actor.errors import ActorError as ActorError
    from sage_actor.errors import ActorFailed as ActorFailed
    from sage_actor.errors import ActorLost as ActorLost
    from sage_actor.errors import ActorStopped as ActorStopped
    from sage_actor.errors import AskAbandoned as AskAbandoned
    from sage_actor.errors import AskCycle as AskCycle
    from sage_actor.errors import AskTimeout as AskTimeout
    from sage_actor.errors import BackendError as BackendError
    from sage_actor.errors import BackendUnavailable as BackendUnavailable
    from sage_actor.errors import BadCall as BadCall
    from sage_actor.errors import CheckpointDamaged as CheckpointDamaged
    from sage_actor.errors import CheckpointError as CheckpointError
    from sage_actor.errors import CommitFailed as CommitFailed
    from sage_actor.errors import ConfigError as ConfigError
    from sage_actor.errors import ConnectorError as ConnectorError
    from sage_actor.errors import Fenced as Fenced
    from sage_actor.errors import GraphError as GraphError
    from sage_actor.errors import JobCancelled as JobCancelled
    from sage_actor.errors import JobError as JobError
    from sage_actor.errors import JobFailed as JobFailed
    from sage_actor.errors import JobNotFound as JobNotFound
    from sage_actor.errors import JournalConflict as JournalConflict
    from sage_actor.errors import JournalCorrupt as JournalCorrupt
    from sage_actor.errors import JournalError as JournalError
    from sage_actor.errors import JournalUnavailable as JournalUnavailable
    from sage_actor.errors import MailboxFull as MailboxFull
    from sage_actor.errors import NameTaken as NameTaken
    from sage_actor.errors import NeverStarted as NeverStarted
    from sage_actor.errors import NotFinished as NotFinished
    from sage_actor.errors import OperatorError as OperatorError
    from sage_actor.errors import PoolError as PoolError
    from sage_actor.errors import PoolFull as PoolFull
    from sage_actor.errors import RequestError as RequestError
    from sage_actor.errors import SageError as SageError
    from sage_actor.errors import SavepointNotFound as SavepointNotFound
    from sage_actor.errors import SerializationError as SerializationError
    from sage_actor.errors import ServerError as ServerError
    from sage_actor.errors import ServerUnreachable as ServerUnreachable
    from sage_actor.errors import StateError as StateError
    from sage_actor.errors import StateMismatch as StateMismatch
    from sage_actor.errors import Unauthorized as Unauthorized
    from sage_actor.errors import UnknownBackend as UnknownBackend
    from sage_actor.errors import UnstableKey as UnstableKey
    from sage_actor.errors import WorkerLost as WorkerLost
    from sage_actor.parallel.backpressure import BackpressureController as BackpressureController
    from sage_actor.parallel.engine import EngineStatistics as EngineStatistics
    from sage_actor.parallel.engine import ParallelExecutionEngine as ParallelExecutionEngine
    from sage_actor.parallel.mapped_allocator import AllocatorStatistics as AllocatorStatistics
    from sage_actor.parallel.mapped_allocator import MappedBlock as MappedBlock
    from sage_actor.parallel.mapped_allocator import MemoryMappedAllocator as MemoryMappedAllocator
    from sage_actor.parallel.memory_optimizer import MemoryOptimizer as MemoryOptimizer
    from sage_actor.parallel.thread_pool import ThreadPool as ThreadPool
    from sage_actor.parallel.thread_pool import ThreadPoolStatistics as ThreadPoolStatistics
    from sage_actor.parallel.work_stealing_queue import WorkStealingQueue as WorkStealingQueue
    from sage_actor.parallel.workload import WorkloadAdvice as WorkloadAdvice
    from sage_actor.parallel.workload import WorkloadProfile as WorkloadProfile
    from sage_actor.parallel.workload import optimize_for_workload as optimize_for_workload
    from sage_actor.routing.broadcast import BroadcastRouter as BroadcastRouter
    from sage_actor.routing.hash_ring import HashRing as HashRing
    from sage_actor.routing.hash_ring_router import HashRingRouter as HashRingRouter
    from sage_actor.routing.pool import Pool as Pool
    from sage_actor.routing.pool import PoolStatistics as PoolStatistics
    from sage_actor.routing.pool import spawn_pool as spawn_pool
    from sage_actor.routing.router import LeastLoadedRouter as LeastLoadedRouter
    from sage_actor.routing.router import RandomRouter as RandomRouter
    from sage_actor.routing.router import RoundRobinRouter as RoundRobinRouter
    from sage_actor.routing.work_pulling import WorkPullingPool as WorkPullingPool
    from sage_actor.routing.work_pulling import WorkPullingStatistics as WorkPullingStatistics
    from sage_actor.routing.work_pulling import spawn_work_pulling_pool as spawn_work_pulling_pool
    from sage_actor.runtime.job import Job as Job
    from sage_actor.server.remote import RemoteEnvironment as RemoteEnvironment
    from sage_actor.state.handles import AggregatingState as AggregatingState
    from sage_actor.state.handles import ListState as ListState
    from sage_actor.state.handles import MapState as MapState
    from sage_actor.state.handles import ReducingState as ReducingState
    from sage_actor.state.handles import StateAccess as StateAccess
    from sage_actor.state.handles import ValueState as ValueState
    from sage_actor.stream.connected import ConnectedStreams as ConnectedStreams
    from sage_actor.stream.datastream import DataStream as DataStream
    from sage_actor.stream.described import DataStreamSink as DataStreamSink
    from sage_actor.stream.environment import Environment as Environment
    from sage_actor.stream.hybrid_environment import HybridEnvironment as HybridEnvironment
    from sage_actor.stream.joined import JoinedStream as JoinedStream
    from sage_actor.stream.keyed import KeyedStream as KeyedStream
    from sage_actor.stream.local_environment import LocalEnvironment as LocalEnvironment
    from sage_actor.stream.patterns import PatternStream as PatternStream
    from sage_actor.stream.results import Collected as Collected
    from sage_actor.stream.windowed import WindowedStream as WindowedStream

__version__ = "0.1.0"

_PLACES = {
    "_core.actor_ref": ("ActorRef",),
    "_core.reply": ("Reply",),
    "actor.actor": ("Actor",),
    "actor.backend": ("WorkerResources",),
    "actor.context": ("ActorContext",),
    "actor.dead_letters": ("UndeliveredMessage",),
    "actor.exposition": ("ActorCollector",),
    "actor.handlers": ("blocking", "interruptible"),
    "actor.mailbox": ("MailboxSettings",),
    "actor.registry": ("ServiceKey",),
    "actor.remoting": ("SystemWorker",),
    "actor.streaming": ("AnswerStream",),
    "actor.supervision": ("ExponentialDelay", "FailureRate", "FixedDelay", "NoRestart"),
    "actor.supervisor_scope": ("Supervision",),
    "actor.sync": ("SyncSystem",),
    "actor.system": ("ActorSystem",),
    "actor.threaded": ("SyncActorSystem",),
    "actor.tracing": ("MemoryTracer", "Span", "Tracer"),
    "actor.watching": ("Terminated",),
    "connectors.console": ("ConsoleSink",),
    "connectors.file_sink": ("FileSink",),
    "connectors.file_source": ("FileSource",),
    "connectors.sqlite_sink": ("SqliteSink",),
    "connectors.transactional_file_sink": ("TransactionalFileSink",),
    "dataflow.co_functions": (
        "BroadcastContext",
        "BroadcastProcessFunction",
        "CoFlatMapFunction",
        "CoMapFunction",
        "CoProcessFunction",
        "KeyedCoProcessFunction",
        "ReadOnlyBroadcastContext",
    ),
    "dataflow.context": ("FunctionContext",),
    "dataflow.functions": (
        "AggregateFunction",
        "BaseFunction",
        "FilterFunction",
        "FlatMapFunction",
        "MapFunction",
        "Message",
        "ProcessFunction",
        "SinkFunction",
    ),
    "dataflow.idempotent": ("IdempotentSink",),
    "dataflow.load_balancer": ("LoadBalancer",),
    "dataflow.output_tag": ("OutputTag",),
    "dataflow.parallelism": ("ParallelismController",),
    "dataflow.pattern": ("Pattern",),
    "dataflow.policies": ("DeadLetter", "Retry"),
    "dataflow.process_functions": ("KeyedContext", "KeyedProcessFunction", "ProcessContext"),
    "dataflow.sink": ("Sink", "SinkRecovery"),
    "dataflow.source": ("Source",),
    "dataflow.triggers": (
        "Continuous",
        "CountTrigger",
        "EventTime",
        "ProcessingTime",
        "Purging",
        "Trigger",
        "TriggerAction",
        "TriggerBase",
        "TriggerContext",
    ),
    "dataflow.two_phase_commit": ("TwoPhaseCommitSink",),
    "dataflow.watermarks": ("BoundedDisorder", "Monotonic", "Punctuated", "WatermarkStrategy"),
    "dataflow.windows": ("Count", "Global", "Session", "Sliding", "TimeSpan", "Tumbling", "WindowResult"),
    "durable.delivery": ("Delivery",),
    "durable.durable_actor": ("DurableActor",),
    "durable.journal": ("Journal", "JournalEntry", "Snapshot"),
    "durable.memory_journal": ("MemoryJournal",),
    "durable.sqlite_journal": ("SqliteJournal",),
    "errors": (
        "ActorEnded",
        "ActorError",
        "ActorFailed",
        "ActorLost",
        "ActorStopped",
        "AskAbandoned",
        "AskCycle",
        "AskTimeout",
        "BackendError",
        "BackendUnavailable",
        "BadCall",
        "CheckpointDamaged",
        "CheckpointError",
        "CommitFailed",
        "ConfigError",
        "ConnectorError",
        "Fenced",
        "GraphError",
        "JobCancelled",
        "JobError",
        "JobFailed",
        "JobNotFound",
        "JournalConflict",
        "JournalCorrupt",
        "JournalError",
        "JournalUnavailable",
        "MailboxFull",
        "NameTaken",
        "NeverStarted",
        "NotFinished",
        "OperatorError",
        "PoolError",
        "PoolFull",
        "RequestError",
        "SageError",
        "SavepointNotFound",
        "SerializationError",
        "ServerError",
        "ServerUnreachable",
        "StateError",
        "StateMismatch",
        "Unauthorized",
        "UnknownBackend",
        "UnstableKey",
        "WorkerLost",
    ),
    "parallel.backpressure": ("BackpressureController",),
    "parallel.engine": ("EngineStatistics", "ParallelExecutionEngine"),
    "parallel.mapped_allocator": ("AllocatorStatistics", "MappedBlock", "MemoryMappedAllocator"),
    "parallel.memory_optimizer": ("MemoryOptimizer",),
    "parallel.thread_pool": ("ThreadPool", "ThreadPoolStatistics"),
    "parallel.work_stealing_queue": ("WorkStealingQueue",),
    "parallel.workload": ("WorkloadAdvice", "WorkloadProfile", "optimize_for_workload"),
    "routing.broadcast": ("BroadcastRouter",),
    "routing.hash_ring": ("HashRing",),
    "routing.hash_ring_router": ("HashRingRouter",),
    "routing.pool": ("Pool", "PoolStatistics", "spawn_pool"),
    "routing.router": ("LeastLoadedRouter", "RandomRouter", "RoundRobinRouter"),
    "routing.work_pulling": ("WorkPullingPool", "WorkPullingStatistics", "spawn_work_pulling_pool"),
    "runtime.job": ("Job",),
    "server.remote": ("RemoteEnvironment",),
    "state.handles": ("AggregatingState", "ListState", "MapState", "ReducingState", "StateAccess", "ValueState"),
    "stream.connected": ("ConnectedStreams",),
    "stream.datastream": ("DataStream",),
    "stream.described": ("DataStreamSink",),
    "stream.environment": ("Environment",),
    "stream.hybrid_environment": ("HybridEnvironment",),
    "stream.joined": ("JoinedStream",),
    "stream.keyed": ("KeyedStream",),
    "stream.local_environment": ("LocalEnvironment",),
    "stream.patterns": ("PatternStream",),
    "stream.results": ("Collected",),
    "stream.windowed": ("WindowedStream",),
}
_PLACE_OF = {name: place for place, names in _PLACES.items() for name in names}

__all__ = [
    "Actor",
    "ActorCollector",
    "ActorContext",
    "ActorEnded",
    "ActorError",
    "ActorFailed",
    "ActorLost",
    "ActorRef",
    "ActorStopped",
    "ActorSystem",
    "AggregateFunction",
    "AggregatingState",
    "AllocatorStatistics",
    "AnswerStream",
    "AskAbandoned",
    "AskCycle",
    "AskTimeout",
    "BackendError",
    "BackendUnavailable",
    "BackpressureController",
    "BadCall",
    "BaseFunction",
    "BoundedDisorder",
    "BroadcastContext",
    "BroadcastProcessFunction",
    "BroadcastRouter",
    "CheckpointDamaged",
    "CheckpointError",
    "CoFlatMapFunction",
    "CoMapFunction",
    "CoProcessFunction",
    "Collected",
    "CommitFailed",
    "ConfigError",
    "ConnectedStreams",
    "ConnectorError",
    "ConsoleSink",
    "Continuous",
    "Count",
    "CountTrigger",
    "DataStream",
    "DataStreamSink",
    "DeadLetter",
    "Delivery",
    "DurableActor",
    "EngineStatistics",
    "Environment",
    "EventTime",
    "ExponentialDelay",
    "FailureRate",
    "Fenced",
    "FileSink",
    "FileSource",
    "FilterFunction",
    "FixedDelay",
    "FlatMapFunction",
    "FunctionContext",
    "Global",
    "GraphError",
    "HashRing",
    "HashRingRouter",
    "HybridEnvironment",
    "IdempotentSink",
    "Job",
    "JobCancelled",
    "JobError",
    "JobFailed",
    "JobNotFound",
    "JoinedStream",
    "Journal",
    "JournalConflict",
    "JournalCorrupt",
    "JournalEntry",
    "JournalError",
    "JournalUnavailable",
    "KeyedCoProcessFunction",
    "KeyedContext",
    "KeyedProcessFunction",
    "KeyedStream",
    "LeastLoadedRouter",
    "ListState",
    "LoadBalancer",
    "LocalEnvironment",
    "MailboxFull",
    "MailboxSettings",
    "MapFunction",
    "MapState",
    "MappedBlock",
    "MemoryJournal",
    "MemoryMappedAllocator",
    "MemoryOptimizer",
    "MemoryTracer",
    "Message",
    "Monotonic",
    "NameTaken",
    "NeverStarted",
    "NoRestart",
    "NotFinished",
    "OperatorError",
    "OutputTag",
    "ParallelExecutionEngine",
    "ParallelismController",
    "Pattern",
    "PatternStream",
    "Pool",
    "PoolError",
    "PoolFull",
    "PoolStatistics",
    "ProcessContext",
    "ProcessFunction",
    "ProcessingTime",
    "Punctuated",
    "Purging",
    "RandomRouter",
    "ReadOnlyBroadcastContext",
    "ReducingState",
    "RemoteEnvironment",
    "Reply",
    "RequestError",
    "Retry",
    "RoundRobinRouter",
    "SageError",
    "SavepointNotFound",
    "SerializationError",
    "ServerError",
    "ServerUnreachable",
    "ServiceKey",
    "Session",
    "Sink",
    "SinkFunction",
    "SinkRecovery",
    "Sliding",
    "Snapshot",
    "Source",
    "Span",
    "SqliteJournal",
    "SqliteSink",
    "StateAccess",
    "StateError",
    "StateMismatch",
    "Supervision",
    "SyncActorSystem",
    "SyncSystem",
    "SystemWorker",
    "Terminated",
    "ThreadPool",
    "ThreadPoolStatistics",
    "TimeSpan",
    "Tracer",
    "TransactionalFileSink",
    "Trigger",
    "TriggerAction",
    "TriggerBase",
    "TriggerContext",
    "Tumbling",
    "TwoPhaseCommitSink",
    "Unauthorized",
    "UndeliveredMessage",
    "UnknownBackend",
    "UnstableKey",
    "ValueState",
    "WatermarkStrategy",
    "WindowResult",
    "WindowedStream",
    "WorkPullingPool",
    "WorkPullingStatistics",
    "WorkStealingQueue",
    "WorkerLost",
    "WorkerResources",
    "WorkloadAdvice",
    "WorkloadProfile",
    "__version__",
    "blocking",
    "interruptible",
    "optimize_for_workload",
    "spawn_pool",
    "spawn_work_pulling_pool",
]


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
