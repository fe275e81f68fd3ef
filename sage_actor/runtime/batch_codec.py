"""Batches as the parts of a frame, and back: plain values as packed columns, large buffers as they are, the rest pickled."""

from __future__ import annotations

import pickle
from typing import Any

from sage_actor._core.batch import Batch
from sage_actor._core.columns import pack_column, same_field, take_field, unpack_column
from sage_actor._core.segment import is_aligned
from sage_actor.actor.backend import Buffer, outlives_call
from sage_actor.actor.portable import dump
from sage_actor.errors import SerializationError

__all__ = ["decode_batch", "encode_batch"]

LARGE = 32 * 1024
"""Bytes from which a buffer travels, and an array is used, where it lies."""

_REFUSALS = (pickle.PicklingError, AttributeError, TypeError, RecursionError, ValueError)
"""How pickle says no; a class of the user's may of course raise anything."""

MOST_BUFFERS = 60_000
"""Buffers that travel as parts of their own: a frame has room for 65535 parts."""

VALUES_PACKED, TIMESTAMPS_PACKED, WATERMARKS_PACKED, KEYS_PACKED, KEYS_IN_VALUES, VALUES_APART = 1, 2, 4, 8, 16, 32


def encode_batch(batch: Batch, *, out_of_band: bool = True) -> list[Buffer]:
    """Parts of a data frame: one pickle of the columns, most of them packed before; then large buffers (not copied here), unless
    they are to be in the pickle, or are so many that each is small.

    Raises:
        SerializationError: a record cannot be pickled, not even by cloudpickle.
    """
    how, columns, apart = pack(batch, out_of_band)
    buffers: list[pickle.PickleBuffer] = []
    take = buffers.append if out_of_band else None
    try:
        head = pickle.dumps((how, *columns), protocol=5, buffer_callback=take)
    except _REFUSALS:
        buffers.clear()
        try:
            head = dump((how, *columns), take)
        except _REFUSALS as error:
            culprit = next((value for value in batch.values if not picklable(value)), batch.values)
            raise SerializationError(f"a record of type {type(culprit).__name__!r}", str(error)) from error
    if len(buffers) > MOST_BUFFERS:
        return encode_batch(batch, out_of_band=False)
    return [head, *[buffer.raw() for buffer in buffers], *apart]


def pack(batch: Batch, out_of_band: bool) -> tuple[int, list[Any], list[bytes]]:
    """How the columns travel, the columns themselves as far as they go into the pickle, and the records that go beside it."""
    how = 0
    values: Any = batch.values
    keys: Any = batch.keys
    timestamps: Any = batch.timestamps
    watermarks: Any = batch.watermarks
    apart: list[bytes] = []
    if keys is not None and values.__class__ is list and (field := same_field(keys, values)) > -2:
        how, keys = how | KEYS_IN_VALUES, field
    elif keys is not None and (packed := pack_column(keys)) is not None:
        how, keys = how | KEYS_PACKED, packed
    if values.__class__ is list:
        if (packed := pack_column(values)) is not None:
            how, values = how | VALUES_PACKED, packed
        elif out_of_band and are_large_bytes(values):
            how, values, apart = how | VALUES_APART, len(values), values
    if timestamps is not None and (packed := pack_column(timestamps)) is not None:
        how, timestamps = how | TIMESTAMPS_PACKED, packed
    if watermarks is not None and (packed := pack_column(watermarks)) is not None:
        how, watermarks = how | WATERMARKS_PACKED, packed
    return how, [values, keys, timestamps, batch.tags, batch.position, watermarks], apart


def are_large_bytes(values: list[Any]) -> bool:
    """Whether every record is a bytes object worth a part of its own; one that occurs twice is cheaper in a pickle."""
    if not values or values[0].__class__ is not bytes or len(values) > 1024:
        return False
    return all(value.__class__ is bytes and len(value) >= LARGE for value in values) and len(set(map(id, values))) == len(values)


def picklable(value: Any) -> bool:
    """Whether one record can travel."""
    try:
        dump(value)
    except _REFUSALS:
        return False
    return True


def decode_batch(parts: list[memoryview]) -> Batch:
    """The batch of a data frame. Buffers are copied out of it once, unless they can be used where they lie."""
    buffers = (part if usable_in_place(part) else bytearray(part) for part in parts[1:])  # taken as far as the pickle wants
    how, values, keys, timestamps, tags, position, watermarks = pickle.loads(parts[0], buffers=buffers)
    if how & VALUES_PACKED:
        values = unpack_column(values)
    elif how & VALUES_APART:
        values = [bytes(part) for part in parts[-values:]]
    if how & KEYS_IN_VALUES:
        keys = take_field(values, keys)
    elif how & KEYS_PACKED:
        keys = unpack_column(keys)
    if how & TIMESTAMPS_PACKED:
        timestamps = unpack_column(timestamps)
    if how & WATERMARKS_PACKED:
        watermarks = unpack_column(watermarks)
    return Batch(values, keys, timestamps, tags, position, watermarks)


def usable_in_place(part: memoryview) -> bool:
    """Whether an array may lie in the frame: in memory that stays, aligned for any type, and large.

    A small one is copied, since a user who keeps it would keep the whole frame.
    """
    return part.nbytes >= LARGE and outlives_call(part) and is_aligned(part, 16)
