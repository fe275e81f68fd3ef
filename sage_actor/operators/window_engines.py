"""Which table serves which windows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from sage_actor._core.pane_windows import PaneWindows
from sage_actor._core.session_windows import SessionWindows
from sage_actor.dataflow.triggers import EventTime
from sage_actor.dataflow.windows import Count, Session, Sliding, Tumbling, WindowResult
from sage_actor.operators.count_windows import CountWindows
from sage_actor.operators.general_windows import GeneralWindows, WindowEngine
from sage_actor.operators.window_values import KernelFunctions, WindowValues
from sage_actor.state.store import DELETED

__all__ = ["WindowLayout", "build_engine", "layout_of"]

WindowLayout = Literal["panes", "windows", "records", "table", "lines"]
"""What an entry of the saved windows is: part of what must be the same when they are restored."""


def layout_of(options: dict[str, Any]) -> WindowLayout:
    """Windows that overlap share panes if the user can merge and that is less work than a sum for each; sessions without a way to merge
    keep their records.
    """
    assigner, kind = options["assigner"], options["aggregate"]
    if isinstance(assigner, Count):
        return "lines"
    if options["trigger"] is not None or not isinstance(assigner, Tumbling | Sliding | Session):
        return "table"
    if kind in ("count", "sum", "min", "max"):
        return "panes"
    values = WindowValues(options, merging=isinstance(assigner, Session))
    if values.keeps_records:
        return "records"
    if isinstance(assigner, Sliding) and assigner.step < assigner.span:
        shares = values.shareable and assigner.span // assigner.pane <= 2 * -(-assigner.span // assigner.step)
        return "panes" if shares else "windows"
    return "panes"


def build_engine(options: dict[str, Any], now_ms: Callable[[], int]) -> WindowEngine:
    """The table for the options of a window operator."""
    assigner, lateness, whole, layout = options["assigner"], options["lateness"], options["whole"], layout_of(options)
    values = WindowValues(options, merging=isinstance(assigner, Session))
    if isinstance(assigner, Count):
        return CountWindows(assigner, values, whole=whole)
    if layout == "table":
        trigger = options["trigger"] or EventTime()
        return GeneralWindows(assigner, values, trigger, lateness=lateness, whole=whole, now_ms=now_ms)
    functions: KernelFunctions | None = None
    kind: Any = options["aggregate"]
    if kind not in ("count", "sum", "min", "max"):
        functions, kind = values.functions(), "records" if layout == "records" else "custom"
    if isinstance(assigner, Session):
        return SessionWindows(
            kind, assigner.span, lateness=lateness, whole=whole, result_type=WindowResult, deleted=DELETED, functions=functions
        )
    return PaneWindows(
        kind,
        assigner.span,
        assigner.step,
        assigner.shift,
        lateness=lateness,
        whole=whole,
        result_type=WindowResult,
        deleted=DELETED,
        functions=functions,
        separate=layout != "panes",
    )
