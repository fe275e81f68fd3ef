"""Arrays between processes: used where they lie, writable, and nobody else's as long as somebody holds them."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
import pytest

from sage_actor import Environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="files in memory are a thing of Linux")

Array = np.ndarray[Any, np.dtype[np.float64]]
NUMBERS = 50_000


def changed(array: Array) -> tuple[int, bool, Array]:
    """Changes its argument, which is its own; says where, and whether the memory was its own too."""
    memory: Any = array
    while (below := getattr(memory, "base", None)) is not None:
        memory = below
    owned = type(memoryview(memory).obj).__name__ != "Lease"
    array += 1.0
    return os.getpid(), owned, array


@pytest.mark.asyncio
async def test_a_worker_may_change_what_it_gets_and_we_keep_what_comes_back() -> None:
    arrays = [np.full(NUMBERS, float(number)) for number in range(120)]
    async with Environment("arrays", backend="process", parallelism=1) as env:
        back = env.from_collection(arrays).map(changed).collect()
        await env.execute()
    assert len(back) == len(arrays)
    assert os.getpid() not in {pid for pid, _, _ in back}
    assert not all(owned for _, owned, _ in back), "every array was copied"
    for number, (_, _, array) in enumerate(back):  # the group has ended long ago
        assert array.flags.writeable
        assert array.flags.aligned
        assert (array == number + 1.0).all()
        assert (arrays[number] == number).all(), "the sender's own array was changed"


@pytest.mark.asyncio
async def test_large_bytes_travel_whole() -> None:
    blobs = [bytes([number]) * 100_000 for number in range(60)]
    async with Environment("blobs", backend="process", parallelism=1) as env:
        back = env.from_collection(blobs).map(lambda blob: blob[::-1] + b"!").collect()
        await env.execute()
    assert list(back) == [blob + b"!" for blob in blobs]
