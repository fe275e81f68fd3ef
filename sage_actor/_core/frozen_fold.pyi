"""The content of a `KeyedFold` as it was at one moment, drained while the fold goes on."""

from collections.abc import Callable
from typing import Any

from sage_actor._core.keyed import KeyedFold

class FrozenFold:
    """An iterator over slices of at most 1000 (key, accumulator). Made by `KeyedFold.freeze`.

    What is given is as it was when it was frozen: an entry that changes before is kept first. Freezing costs what was changed
    since the time before, and nothing is copied but that.
    """

    copy: Callable[[Any], Any] | None
    """Set it where accumulators may be changed in place: it copies what is kept."""
    def __init__(self, fold: KeyedFold, count: int, numbers: bytes | None) -> None: ...
    def __iter__(self) -> FrozenFold: ...
    def __next__(self) -> list[tuple[Any, Any]]: ...
    def keep(self, at: int, accumulator: Any) -> None:
        """For the fold: that entry is about to change."""
    def detach(self) -> None:
        """For the fold: all entries are about to go."""
    def close(self) -> None:
        """The rest is not wanted."""
