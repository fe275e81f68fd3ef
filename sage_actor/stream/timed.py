"""What streams can do with event time, side outputs, and each other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sage_actor.dataflow.functions import check_plain
from sage_actor.dataflow.graph import Edge
from sage_actor.dataflow.output_tag import OutputTag
from sage_actor.dataflow.policies import OnError
from sage_actor.dataflow.resources import Resources
from sage_actor.dataflow.watermarks import BoundedDisorder, WatermarkStrategy
from sage_actor.errors import GraphError
from sage_actor.stream.ends import StreamEnds

if TYPE_CHECKING:
    from sage_actor.dataflow.co_functions import BroadcastProcessFunction
    from sage_actor.dataflow.windows import WindowAssigner
    from sage_actor.stream.connected import ConnectedStreams
    from sage_actor.stream.datastream import DataStream
    from sage_actor.stream.windowed import WindowedStream

__all__ = ["TimedStream"]

T = TypeVar("T")
U = TypeVar("U")
R = TypeVar("R")


class TimedStream(StreamEnds[T], Generic[T]):
    """Part of `DataStream`."""

    def assign_timestamps(
        self, timestamp: Callable[[T], int], strategy: WatermarkStrategy | None = None, *, name: str | None = None
    ) -> DataStream[T]:
        """Give each record its event time: whole milliseconds since the epoch.

        `strategy` says how far time has come (`BoundedDisorder`, `Monotonic`, `Punctuated`, or your own); without one, records
        are taken to be in order.

        Raises:
            GraphError: not a function, or not a strategy.
        """
        check_plain(timestamp, "assign_timestamps")
        chosen: WatermarkStrategy = BoundedDisorder(0) if strategy is None else strategy
        if not callable(getattr(chosen, "start", None)):
            raise GraphError(f'assign_timestamps: {strategy!r} is no watermark strategy; write BoundedDisorder("2s") or Monotonic()')
        options = {"extract": timestamp, "strategy": chosen}
        operator = self._add("timestamps", name, "timestamps", None, None, None, options)
        return self._stream([Edge(operator.id)], produced=self._produced)

    def window_all(self, window: WindowAssigner, /) -> WindowedStream[None, T]:
        """Group the whole stream, in one task, into windows; for windows of each key write ``key_by(...).window(...)``."""
        from sage_actor.stream.windowed import window_all

        return window_all(self._whole(), window)

    def side_output(self, tag: OutputTag[R]) -> DataStream[R]:
        """What the last operator puts aside under that tag: late records, or what a process function wrote to it."""
        if not isinstance(tag, OutputTag):
            raise GraphError(f"side_output needs an OutputTag, such as OutputTag('late'), not {tag!r}")
        operator = self._last("side_output")
        return self._stream([Edge(operator.id, tag.port)])

    def connect(self, other: DataStream[U], /) -> ConnectedStreams[T, U]:
        """This stream and another one of another type, for operators that see both."""
        from sage_actor.stream.connected import ConnectedStreams

        return ConnectedStreams(self._whole(), other)

    def connect_broadcast(
        self,
        control: DataStream[U],
        function: BroadcastProcessFunction[T, U, R] | type[BroadcastProcessFunction[T, U, R]],
        /,
        *,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
    ) -> DataStream[R]:
        """Run a function on this stream beside `control`, all records of which reach every task and are kept as broadcast state (F38)."""
        from sage_actor.stream.connected import connect_broadcast

        return connect_broadcast(self._whole(), control, function, name, parallelism, resources, on_error)

    def committed(self) -> AsyncIterator[T]:
        """Like ``async for`` over the stream itself, but each record comes with the checkpoint that makes it final: exactly once,
        also across restarts of the job (F44), and as late as checkpoints are apart.

        Raises:
            GraphError: the job takes no checkpoints.
        """
        if not self._env.settings.snapshot_mode:
            raise GraphError("committed() waits for checkpoints, and this job takes none; set checkpoint.interval")
        return self._env.iterate_stream(self._whole(), committed=True)

    def checkpoint_every(self, records: int) -> DataStream[T]:
        """Take a checkpoint of the whole job whenever its sources have read so many records together."""
        self._env.checkpoint_every(records)
        return self._whole()

    def _stream(self, taps: list[Edge], *, produced: Any = None) -> DataStream[Any]:
        from sage_actor.stream.datastream import DataStream

        return DataStream(self._env, taps) if produced is None else DataStream(self._env, taps, produced=produced)
