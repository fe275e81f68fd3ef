"""The context of a process function inside a generated loop: the record in work is known by how far the loop is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sage_actor.dataflow.process_functions import ProcessContext
from sage_actor.dataflow.watermarks import MIN_WATERMARK

if TYPE_CHECKING:
    from sage_actor._core.batch import Batch
    from sage_actor.dataflow.context import FunctionContext
    from sage_actor.dataflow.output_tag import OutputTag
    from sage_actor.operators.side_outputs import SideOutputs

__all__ = ["RowContext"]


class RowContext(ProcessContext):
    """Costs nothing per record: time is looked up only where a function asks for it.

    The list iterator that drives the loop tells which record it has taken last; what a step makes of that record has its time.
    """

    __slots__ = ("_batch", "_end", "_iterator", "sides")

    def __init__(self, place: FunctionContext, sides: SideOutputs) -> None:
        self._batch: Batch | None = None
        self._iterator: Any = None
        self._end = 0
        super().__init__(place, sides.add)
        self.sides = sides

    def begin(self, batch: Batch, end: int, iterator: Any) -> None:
        """A loop begins over records of `batch` up to `end`, driven by that list iterator."""
        self._batch = batch
        self._end = end
        self._iterator = iterator

    def output(self, tag: OutputTag[Any], value: Any) -> None:
        self.sides.add(tag, value, self.timestamp, self.watermark)

    @property
    def timestamp(self) -> int | None:
        """Event time of the record that the loop has taken last, or None."""
        stamps = None if self._batch is None else self._batch.timestamps
        return None if stamps is None else stamps[self._at()]

    @timestamp.setter
    def timestamp(self, value: int | None) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Not settable; the base sets what it is before any record."""

    @property
    def watermark(self) -> int:
        """How far event time had come right before that record."""
        marks = None if self._batch is None else self._batch.watermarks
        return MIN_WATERMARK if marks is None else marks[self._at()]

    @watermark.setter
    def watermark(self, value: int) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Not settable."""

    def _at(self) -> int:
        left: int = self._iterator.__length_hint__()
        return self._end - left - 1
