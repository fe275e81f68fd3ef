"""The Sink protocol: where records go, a batch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from sage_actor.dataflow.context import FunctionContext

__all__ = ["Sink"]

T_contra = TypeVar("T_contra", contravariant=True)


class Sink(Generic[T_contra]):
    """Base class of sinks. Implement `write`; the rest has defaults.

    One instance serves one task; calls never overlap. A `write` that waits slows the whole dataflow down to its
    speed: that is the backpressure. For one call per record use a function or a `SinkFunction` instead.
    """

    async def open(self, context: FunctionContext) -> None:
        """Acquire what writing needs. Raise `ConnectorError` if it is not there."""

    async def write(self, batch: Sequence[T_contra]) -> None:
        """Take over the records, in order. The sequence belongs to the sink from now on."""
        raise NotImplementedError(f"{type(self).__name__} must implement write(batch)")

    async def flush(self) -> None:
        """Return when everything written is where it belongs. Called at end of input and before close."""

    async def close(self) -> None:
        """Release everything; also called after a failure, and then without a preceding successful open."""
