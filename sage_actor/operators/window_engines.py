"""Which table serves which windows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sage_actor._core.pane_windows import PaneWindows
from sage_actor._core.session_windows import SessionWindows
from sage_actor.dataflow.triggers import EventTime
from sage_actor.dataflow.windows import Count, Session, Sliding, Tumbling, WindowResult
from sage_actor.operators.count_windows import CountWindows
from sage_actor.operators.general_windows import GeneralWindows, WindowEngine
from sage_actor.operators.window_values import WindowValues
from sage_actor.state.store import DELETED

__all__ = ["build_engine"]


def build_engine(options: dict[str, Any], now_ms: Callable[[], int]) -> WindowEngine:
    """The table for the options of a window operator."""
    assigner, kind = options["assigner"], options["aggregate"]
    lateness, whole = options["lateness"], options["whole"]
    if kind in ("count", "sum", "min", "max") and options["trigger"] is None:
        if isinstance(assigner, Tumbling | Sliding):
            return PaneWindows(
                kind,
                assigner.span,
                assigner.step,
                assigner.shift,
                lateness=lateness,
                whole=whole,
                result_type=WindowResult,
                deleted=DELETED,
            )
        if isinstance(assigner, Session):
            return SessionWindows(kind, assigner.span, lateness=lateness, whole=whole, result_type=WindowResult, deleted=DELETED)
    values = WindowValues(options, merging=isinstance(assigner, Session))
    if isinstance(assigner, Count):
        return CountWindows(assigner, values, whole=whole)
    trigger = options["trigger"] or EventTime()
    return GeneralWindows(assigner, values, trigger, lateness=lateness, whole=whole, now_ms=now_ms)
