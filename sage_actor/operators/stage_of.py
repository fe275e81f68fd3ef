"""Which stage serves which operator, and which neighbours share one generated loop."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from sage_actor.dataflow.functions import spec_is_async
from sage_actor.dataflow.graph import Operator
from sage_actor.operators.committed_stage import CommittedStage
from sage_actor.operators.parts_stage import PartsStage
from sage_actor.operators.row_stage import RowStage
from sage_actor.operators.sink_stage import CollectStage, DeliverStage, EachStage, SinkStage
from sage_actor.operators.stages import Stage

if TYPE_CHECKING:
    from sage_actor.operators.setting import TaskSetting

__all__ = ["build_stages"]

MOST_NESTED = 6
"""flat_maps in one generated loop; each nests two for-loops, and CPython allows 20 nested blocks."""
MOST_STEPS = 200
FORMS: dict[str, type[Stage]] = {
    "collect": CollectStage,
    "deliver": DeliverStage,
    "parts": PartsStage,
    "records": EachStage,
    "committed": CommittedStage,
}


STAGES = {
    "fold": ("fold_stage", "FoldStage"),
    "map_batch": ("batch_stage", "BatchStage"),
    "map_async": ("async_stage", "AsyncStage"),
    "iterate": ("iterate_stage", "IterateStage"),
    "timestamps": ("timestamp_stage", "TimestampStage"),
    "window": ("window_stage", "WindowStage"),
    "join": ("join_stage", "WindowJoinStage"),
    "interval_join": ("interval_join_stage", "IntervalJoinStage"),
    "as_of_join": ("as_of_join_stage", "AsOfJoinStage"),
    "co": ("co_stage", "CoStage"),
    "broadcast": ("broadcast_stage", "BroadcastStage"),
    "session_join": ("session_join_stage", "SessionJoinStage"),
    "keyed_process": ("process_stage", "ProcessStage"),
    "pattern": ("pattern_stage", "PatternStage"),
}
"""Kind of operator -> module and class; loaded when a graph has one."""


def is_row(operator: Operator) -> bool:
    """Whether the operator can be part of a generated loop."""
    if operator.kind in ("map", "filter", "flat_map", "process"):
        return True
    return (
        operator.kind == "sink" and operator.options["form"] == "records" and not (operator.function and spec_is_async(operator.function))
    )


def build_stages(operators: list[Operator], setting: TaskSetting) -> list[Stage]:
    """The stages of a chain, in order."""
    stages: list[Stage] = []
    run: list[Operator] = []

    def finish() -> None:
        if run:
            stages.append(RowStage(list(run), setting))
            run.clear()

    for operator in operators:
        if is_row(operator):
            nested = sum(other.kind in ("flat_map", "process") for other in run)
            if len(run) >= MOST_STEPS or nested >= MOST_NESTED:
                finish()
            run.append(operator)
            continue
        finish()
        stages.append(make_stage(operator, setting))
    finish()
    return stages


def make_stage(operator: Operator, setting: TaskSetting) -> Stage:
    """The stage of an operator that has one of its own."""
    if operator.kind == "sink":
        form = operator.options["form"]
        cls: type[Stage] = FORMS.get(form, SinkStage)
    else:
        module, name = STAGES[operator.kind]
        cls = getattr(import_module(f"sage_actor.operators.{module}"), name)
    return cls([operator], setting)
