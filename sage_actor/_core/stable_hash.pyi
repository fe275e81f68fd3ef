"""A key hash that is equal for equal keys in every process, and the key groups built on it (rules F14, F14a)."""

from array import array
from typing import Any

from sage_actor._core.batch import Batch

def stable_hash(key: Any) -> int:
    """64-bit unsigned hash. Equal keys (1 == 1.0 == True == Decimal(1), tuples of such) hash equally, in every process and for
    every PYTHONHASHSEED. Allowed: str, bytes, bool, int, finite float, Decimal, UUID, date, datetime, Enum, tuples, frozen
    dataclasses and frozen msgspec structs of these, types with __stable_key__(). Raises UnstableKey for all others and None."""

def key_group(key: Any, groups: int) -> int:
    """stable_hash(key) mod groups (1 <= groups <= 32768; GraphError otherwise, here and below)."""

def operator_of_group(group: int, groups: int, parallelism: int) -> int:
    """group * parallelism // groups."""

def group_range(index: int, groups: int, parallelism: int) -> tuple[int, int]:
    """First and last group (inclusive) owned by operator `index` (F14)."""

def default_groups(parallelism: int) -> int:
    """clamp(round_up_to_power_of_two(1.5 * parallelism), 128, 32768) (F15)."""

def split_by_key(
    batch: Batch, groups: int, parallelism: int, table: array[int] | None = None, counts: array[int] | None = None
) -> list[Batch | None]:
    """Split by batch.keys into one batch per operator instance (None if empty), order kept, all columns carried.

    `table` (typecode "H") says for each key group which instance owns it; without it these are the ranges of `group_range`. `counts`
    (typecode "Q") has the records of each group added.
    The result's position is -1 unless everything went to one instance, which then gets `batch` itself. Arrays of values stay
    arrays. Raises UnstableKey for a key, SageError for a batch without keys or with columns of different length; `batch` is unchanged."""
