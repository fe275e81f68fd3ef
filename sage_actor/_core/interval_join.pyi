"""The interval join: a buffer of both sides, and the loop over a batch."""

from typing import Any, final

from sage_actor._core.join_buffer import JoinBuffer

@final
class IntervalJoin(JoinBuffer):
    """Pairs a left record at l with the right ones in [l + lower, l + upper]."""

    def __init__(self, deleted: object, lower: int, upper: int) -> None: ...
    @property
    def late(self) -> list[int]:
        """Positions of late records (time <= watermark) of the batch in work; the caller empties it."""

    @property
    def index(self) -> int:
        """The record in work; after an exception of `run` the one with the bad key or time."""

    def run(
        self,
        side: int,
        keys: list[Any],
        values: list[Any],
        times: list[int],
        watermarks: list[int],
        start: int,
        most: int,
        pairs: list[tuple[Any, Any]],
        pair_times: list[int],
        pair_watermarks: list[int],
    ) -> int:
        """Join and keep the records from `start` on, until the end or until `most` pairs are there.

        Returns:
            Where to go on, with the same lists; their length when all is done. (The record to go on with may have had some of its
            pairs already: nothing else may be done with this object in between.)

        Raises:
            UnstableKey, TypeError, OverflowError: a key is none, or a time is no int of 64 bits; records before `index` are done, and
                the call can be repeated from behind it.
        """
