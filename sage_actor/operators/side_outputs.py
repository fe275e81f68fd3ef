"""Records that an operator puts aside under a tag, gathered until the stage hands its results on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sage_actor._core.batch import Batch
from sage_actor.dataflow.watermarks import MIN_WATERMARK

if TYPE_CHECKING:
    from sage_actor.dataflow.output_tag import OutputTag
    from sage_actor.operators.stages import Stage

__all__ = ["SideOutputs"]


class SideOutputs:
    """The side outputs of one operator of a stage, in the order in which they were written.

    The stage calls `flush` before each of its methods returns, so that what was put aside precedes the watermark and the barrier
    that come after it.
    """

    __slots__ = ("in_force", "index", "records", "stage")

    def __init__(self, stage: Stage, index: int = 0, *, in_force: Callable[[], int] = lambda: MIN_WATERMARK) -> None:
        """Args:
        stage, index: the stage, and which of its operators.
        in_force: tells the watermark in force, for records that come without.
        """
        self.stage = stage
        self.index = index
        self.in_force = in_force
        self.records: list[tuple[str, Any, int | None, int]] = []

    def __len__(self) -> int:
        return len(self.records)

    def add(self, tag: OutputTag[Any], value: Any, timestamp: int | None, watermark: int | None = None) -> None:
        """Put a record aside, with the event time of what it comes from and the watermark in force."""
        self.records.append((tag.port, value, timestamp, self.in_force() if watermark is None else watermark))

    def take_back(self, length: int) -> None:
        """Forget all but the first `length` records: what a failing call has put aside does not count."""
        del self.records[length:]

    async def flush(self) -> None:
        """Send them on, one batch per tag."""
        if not self.records:
            return
        records, self.records = self.records, []
        operator = self.stage.operators[self.index].id
        for port in dict.fromkeys(record[0] for record in records):
            mine = [record for record in records if record[0] == port]
            batch = Batch([value for _, value, _, _ in mine])
            stamps = [stamp for _, _, stamp, _ in mine if stamp is not None]
            if len(stamps) == len(mine):
                batch.timestamps = stamps
                batch.watermarks = [mark for _, _, _, mark in mine]
            await self.stage.setting.aside(operator, port, batch)
