"""Tumbling and sliding windows over a batch, in C."""

from typing import Any

from sage_actor._core.window import WindowFunctions, WindowKind, WindowTable

class PaneWindows(WindowTable):
    """Tumbling (every == size) and sliding windows; 0 <= offset < every <= size. Panes are shared by the windows over them."""

    def __init__(
        self,
        kind: WindowKind,
        size: int,
        every: int,
        offset: int,
        *,
        lateness: int = 0,
        whole: bool = False,
        result_type: type[tuple[Any, ...]],
        deleted: object,
        functions: WindowFunctions | None = None,
        separate: bool = False,
    ) -> None: ...
