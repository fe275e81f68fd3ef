"""Which stage serves which operator, and which neighbours share one generated loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sage_actor.dataflow.functions import spec_is_async
from sage_actor.dataflow.graph import Operator
from sage_actor.runtime.async_stage import AsyncStage
from sage_actor.runtime.batch_stage import BatchStage
from sage_actor.runtime.fold_stage import FoldStage
from sage_actor.runtime.iterate_stage import IterateStage
from sage_actor.runtime.parts_stage import PartsStage
from sage_actor.runtime.row_stage import RowStage
from sage_actor.runtime.sink_stage import CollectStage, DeliverStage, EachStage, SinkStage
from sage_actor.runtime.stages import Stage

if TYPE_CHECKING:
    from sage_actor.runtime.setting import TaskSetting

__all__ = ["build_stages"]

MOST_NESTED = 6
"""flat_maps in one generated loop; each nests two for-loops, and CPython allows 20 nested blocks."""
MOST_STEPS = 200
FORMS: dict[str, type[Stage]] = {"collect": CollectStage, "deliver": DeliverStage, "parts": PartsStage, "records": EachStage}


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
        cls = {"fold": FoldStage, "map_batch": BatchStage, "map_async": AsyncStage, "iterate": IterateStage}[operator.kind]
    return cls([operator], setting)
