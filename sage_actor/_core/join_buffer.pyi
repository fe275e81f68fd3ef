"""What joins keep: records of two sides by key, sorted by time."""

from collections.abc import Hashable, Iterator, Sequence
from typing import Any, final

@final
class Slot:
    """The records of one key: side 0 and side 1, each sorted by time and, among equal times, by arrival."""

    @property
    def key(self) -> Any:
        """What names the slot: the key it was added under, or that one's ``__stable_key__``."""

    def count(self, side: int) -> int:
        """Number of records of a side."""

    def times(self, side: int) -> list[int]:
        """Their times, ascending."""

    def records(self, side: int) -> list[Any]:
        """The records of a side, in order of time."""

    def numbers(self, side: int) -> list[int]:
        """In which order the records came; unique and rising within a buffer."""

    def count_until(self, side: int, time: int) -> int:
        """How many of a side have at most that time."""

    def record(self, side: int, position: int) -> Any:
        """The record at that position, from 0. Raises IndexError."""

    def time(self, side: int, position: int) -> int:
        """Its time. Raises IndexError."""

class JoinBuffer:
    """Records of two sides by key; a `Freezable` (state/store.py). Equal keys share a slot; UnstableKey for what is no key.

    Args:
        deleted: what stands for a removed entry in frozen content.
        bounds: how long a record of either side is of use: it expires when its time + bound <= the watermark; None for never.
    """

    def __init__(self, deleted: object, bounds: tuple[int | None, int | None] = (None, None)) -> None: ...
    @property
    def records(self) -> int:
        """How many are held."""

    @property
    def next_due(self) -> int:
        """A watermark below this expires nothing."""

    def __len__(self) -> int:
        """Number of slots."""

    def add(self, key: Hashable, side: int, time: int, value: Any) -> Slot:
        """Put a record into its place."""

    def find(self, key: Hashable) -> Slot | None:
        """The slot of a key; None if nothing was put there, or all of it has gone."""

    def plain_key(self, key: Any) -> Any:
        """The key, or what its ``__stable_key__`` says: equal keys give equal ones."""

    def slots(self) -> list[Slot]:
        """All slots, in no order to rely on; some may be empty."""

    def drop(self, slot: Slot, side: int, count: int) -> None:
        """Remove the `count` oldest of a side; an empty slot goes as a whole."""

    def remove(self, slot: Slot) -> None:
        """Remove all records of a slot."""

    def expire(self, watermark: int, most: int) -> bool:
        """Remove what has expired, looking at about `most` slots; whether there is more to do. A record stays at most a sixteenth
        of the longer bound, and the disorder of its side, beyond its expiry."""

    def freeze(self, *, full: bool) -> Iterator[list[tuple[Any, Any]]]:
        """Entries ``(key, number) -> (side, time, value)``, as of the call; see `Freezable`. Costs a pointer per key if full, else
        nothing."""

    def load(self, entries: Sequence[tuple[Any, Any]]) -> None:
        """Restore; an entry that is there already is kept once."""
