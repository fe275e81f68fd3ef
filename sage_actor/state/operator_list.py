"""State that belongs to a task rather than to keys: a list, saved whole, dealt out again when it is restored (rule F39)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from sage_actor.errors import StateMismatch

__all__ = ["ListMode", "OperatorList", "deal_items"]

ListMode = Literal["split", "union", "own"]


class OperatorList:
    """Items of one task; change ``items``, or put another list there.

    Saved whole at every checkpoint and pickled at the barrier, so it is meant for positions and handles, not for data.
    """

    __slots__ = ("items", "mode")

    def __init__(self, mode: ListMode, items: list[Any]) -> None:
        self.mode: ListMode = mode
        self.items = items


def deal_items(
    operator: str, name: str, mode: ListMode, saved: Sequence[tuple[int, list[Any]]], before: int, index: int, parallelism: int
) -> list[Any]:
    """What one task gets of a list that the tasks of a former parallelism saved.

    "split": its own share where the parallelism is the same, else an even share of all items, in order; "union": all items;
    "own": what the task of the same index had.

    Args:
        operator, name: of the list, for errors.
        mode: as the list was saved.
        saved: index and items of each former task that had some.
        before: the former parallelism.
        index: this task.
        parallelism: the present parallelism.

    Raises:
        StateMismatch: "own" at another parallelism.
    """
    if mode == "own" and before != parallelism and any(items for _, items in saved):
        raise StateMismatch(
            operator,
            f"its list {name!r} belongs to each of {before} tasks by itself and cannot be dealt to {parallelism}",
            f"start it with parallelism {before}",
        )
    if mode == "own" or (mode == "split" and before == parallelism):
        return [item for former, items in saved if former == index for item in items]
    together = [item for _, items in sorted(saved, key=lambda share: share[0]) for item in items]
    if mode == "union":
        return together
    return together[len(together) * index // parallelism : len(together) * (index + 1) // parallelism]
