"""The context of process functions in generated loops: which record they are at."""

from __future__ import annotations

from typing import Any

import pytest

from sage_actor._core.batch import Batch
from sage_actor.dataflow.output_tag import OutputTag
from sage_actor.dataflow.watermarks import MIN_WATERMARK
from sage_actor.operators.process_stage import ProcessStage
from sage_actor.operators.row_context import RowContext
from sage_actor.operators.side_outputs import SideOutputs

ODD: OutputTag[Any] = OutputTag("odd")
EVEN: OutputTag[Any] = OutputTag("even")


@pytest.mark.asyncio
async def test_time_is_that_of_the_record_taken_last(harness: Any) -> None:
    owner = harness(ProcessStage, function=lambda value, context: None, kind="process")
    context = RowContext(owner.setting.context("judge"), SideOutputs(owner.stage))
    assert (context.timestamp, context.watermark, context.job) == (None, MIN_WATERMARK, "test")
    batch = Batch([0, 1, 2, 3, 4], timestamps=[0, 10, 20, 30, 40], watermarks=[-1, 9, 19, 29, 39])
    part = batch.values[1:4]
    records = iter(part)
    context.begin(batch, 4, records)
    for number in records:
        assert (context.timestamp, context.watermark) == (10 * number, 10 * number - 1)
        context.output(ODD if number % 2 else EVEN, number)
    await context.sides.flush()
    assert owner.aside == {"odd": [(1, 10, 9), (3, 30, 29)], "even": [(2, 20, 19)]}


@pytest.mark.asyncio
async def test_without_timestamps_side_outputs_have_none(harness: Any) -> None:
    owner = harness(ProcessStage, function=lambda value, context: None, kind="process")
    context = RowContext(owner.setting.context("judge"), SideOutputs(owner.stage))
    records = iter([5])
    context.begin(Batch([5]), 1, records)
    context.output(ODD, next(records))
    assert context.timestamp is None
    await context.sides.flush()
    assert owner.aside == {"odd": [(5, None, None)]}
