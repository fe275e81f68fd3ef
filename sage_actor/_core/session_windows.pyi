"""Session windows over a batch, in C."""

from typing import Any

from sage_actor._core.window import WindowFunctions, WindowKind, WindowTable

class SessionWindows(WindowTable):
    """Sessions: records that follow each other by less than `gap`."""

    def __init__(
        self,
        kind: WindowKind,
        gap: int,
        *,
        lateness: int = 0,
        whole: bool = False,
        result_type: type[tuple[Any, ...]],
        deleted: object,
        functions: WindowFunctions | None = None,
    ) -> None: ...
