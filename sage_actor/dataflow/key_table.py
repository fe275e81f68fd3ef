"""Which task owns which key group, where that is not the even division of rule F14: tables that follow the load. Pure.

A table names for each key group the task that owns it. Every task owns one contiguous range, at least one group long, so state is kept,
saved and restored in ranges as ever; what moves are the borders. That costs little: the largest load is at most an even share and the
heaviest group more than with any division (a key group is never divided, it is what keeps the order of a key).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from sage_actor._core.stable_hash import operator_of_group

__all__ = ["KeyTable", "divide_evenly", "divide_load", "heaviest", "is_division", "loads_of", "range_of"]

KeyTable = tuple[int, ...]
"""For each key group the task that owns it; never falling, every task named."""


def divide_evenly(groups: int, parallelism: int) -> KeyTable:
    """The default ranges (F14), as a table."""
    return tuple(operator_of_group(group, groups, parallelism) for group in range(groups))


def is_division(table: Sequence[int], groups: int, parallelism: int) -> bool:
    """Whether this is a table for so many groups and tasks: one owner for each group, one range for each task."""
    if len(table) != groups or not table or table[0] != 0 or table[-1] != parallelism - 1:
        return False
    return all(before <= after <= before + 1 for before, after in pairwise(table))


def range_of(table: Sequence[int], task: int) -> tuple[int, int]:
    """First and last group of a task, inclusive."""
    owners = list(table)
    first = owners.index(task)
    return first, first + owners.count(task) - 1


def loads_of(load: Sequence[int], table: Sequence[int]) -> list[int]:
    """What falls to each task."""
    loads = [0] * (table[-1] + 1)
    for weight, task in zip(load, table, strict=True):
        loads[task] += weight
    return loads


def heaviest(load: Sequence[int], table: Sequence[int]) -> int:
    """What falls to the task that gets most."""
    return max(loads_of(load, table))


def divide_load(load: Sequence[int], parallelism: int) -> KeyTable:
    """The table under which the task that gets most gets least. Of several such the first, so that all who ask agree.

    Args:
        load: of each key group, not negative.
        parallelism: tasks; not more than there are groups.
    """
    low, high = max(load), sum(load)
    while low < high:  # the least bound that so many ranges can keep
        middle = (low + high) // 2
        if _needed(load, middle) <= parallelism:
            high = middle
        else:
            low = middle + 1
    table: list[int] = []
    task = filled = 0
    for group, weight in enumerate(load):
        left = len(load) - group
        if table and (filled + weight > low or left <= parallelism - 1 - task):  # every task behind this one needs a group too
            task, filled = task + 1, 0
        table.append(task)
        filled += weight
    return tuple(table)


def _needed(load: Sequence[int], bound: int) -> int:
    """How many ranges it takes if none may weigh more than `bound`."""
    ranges, filled = 1, 0
    for weight in load:
        if filled + weight > bound:
            ranges, filled = ranges + 1, 0
        filled += weight
    return ranges
