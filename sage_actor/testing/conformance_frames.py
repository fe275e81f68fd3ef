"""Rules for frames: order, sizes, what comes early, floods, and receivers that stop reading."""

from __future__ import annotations

import array
import asyncio
import contextlib
import json
import os
import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path

from sage_actor.ports import system_clock
from sage_actor.testing.conformance_case import PATIENCE, BackendCase, open_group
from sage_actor.testing.conformance_worker import burst, digest_of, flooding, numbered, pattern

__all__ = [
    "Hold",
    "a_busy_worker_is_not_taken_for_dead",
    "a_flood_in_all_directions_ends",
    "a_frame_of_many_parts_arrives_whole",
    "a_group_without_workers_talks_to_itself",
    "a_stuck_worker_holds_nobody_up",
    "big_frames_arrive_whole",
    "flush_lets_frames_out",
    "frames_before_start_are_kept",
    "frames_of_every_size_arrive_whole",
    "groups_do_not_mix",
    "held_back",
    "many_small_frames_all_arrive",
    "order_holds_between_workers",
    "order_holds_in_both_directions",
    "parts_may_be_changed_after_send",
    "what_is_sent_before_start_is_kept_for_it",
]


async def a_group_without_workers_talks_to_itself(case: BackendCase) -> None:
    """A group of none has no workers, delivers to itself in order and later, and drops what goes to nobody."""
    async with open_group(case, 0, "echo") as owner:
        assert list(owner.group.workers) == [], f"expected no workers, got {owner.group.workers}"
        owner.endpoint.send(7, [b"to nobody"])
        burst(owner.endpoint, 0, 100)
        assert not owner.frames, "a frame was delivered inside send"
        came = await owner.until_came(0, 101)
        assert came[:-1] == [numbered(number) for number in range(100)], "frames to itself are not in order"


async def what_is_sent_before_start_is_kept_for_it(case: BackendCase) -> None:
    """What an owner sends to itself waits for its `start`."""
    async with open_group(case, 0, "echo", start=False) as owner:
        owner.endpoint.send(0, [b"early"])
        await asyncio.sleep(0)
        owner.start()
        owner.endpoint.send(0, [b"later"])
        assert await owner.until_came(0, 2) == [b"early", b"later"]


async def parts_may_be_changed_after_send(case: BackendCase) -> None:
    """Parts are joined in order, of any buffer type; changing them after `send` changes nothing that was sent."""
    async with open_group(case, 1, "echo") as owner:
        to = 1 if owner.group.workers else 0
        mutable, doubles = bytearray(b"before"), array.array("d", [1.0, 2.0])
        owner.endpoint.send(to, [b"<", mutable, b"", memoryview(doubles), memoryview(b"|>")[1:]])
        owner.endpoint.send(to, [mutable])
        owner.endpoint.send(to, [])
        expected = [b"<before" + doubles.tobytes() + b">", b"before", b""]
        mutable[:] = b"after!"
        doubles[0] = 9.0
        came = await owner.until_came(to, 3)
        assert came == expected, f"expected {expected}, got {came}"


async def order_holds_in_both_directions(case: BackendCase) -> None:
    """Owner to worker and back, each pair in order."""
    async with open_group(case, 2, "echo") as owner:
        for number in range(3000):
            owner.endpoint.send(1, [numbered(number)])
            owner.endpoint.send(2, [numbered(number + 1)])
            if number % 100 == 0:
                await asyncio.sleep(0)
        for worker, first in ((1, 0), (2, 1)):
            came = await owner.until_came(worker, 3000)
            assert came == [numbered(number + first) for number in range(3000)], f"frames of worker {worker} are not in order"


async def order_holds_between_workers(case: BackendCase) -> None:
    """Worker to worker, all pairs at once, each in order; a worker may send to itself."""
    async with open_group(case, 3, "obey") as owner:
        pairs = [(sender, receiver) for sender in (1, 2, 3) for receiver in (1, 2, 3)]
        for sender, receiver in pairs:
            owner.tell(sender, "burst", receiver, 2000)
        for receiver in (1, 2, 3):
            reports = sorted(json.loads(frame) for frame in await owner.until_came(receiver, 3))
            expected = [[sender, 2000, True] for sender in (1, 2, 3)]
            assert reports == expected, f"worker {receiver} should have seen {expected}, saw {reports}"


async def big_frames_arrive_whole(case: BackendCase) -> None:
    """Frames of 8 MB, among small ones, both ways."""
    frames = [b"small", os.urandom(8_000_000), b"", os.urandom(8_000_001), b"small again"]
    async with open_group(case, 1, "echo") as owner:
        for frame in frames:
            owner.endpoint.send(1, [frame[:5], frame[5:]])
        came = await owner.until_came(1, len(frames))
        sizes = [len(frame) for frame in came]
        assert came == frames, f"expected sizes {[len(frame) for frame in frames]}, got {sizes} (or other content)"


async def many_small_frames_all_arrive(case: BackendCase) -> None:
    """20,000 frames in one turn of the loop, none lost, none twice."""
    async with open_group(case, 1, "echo") as owner:
        for number in range(20_000):
            owner.endpoint.send(1, [b"%d" % number])
        came = await owner.until_came(1, 20_000)
        assert came == [b"%d" % number for number in range(20_000)], "frames are missing, repeated or out of order"


async def frames_before_start_are_kept(case: BackendCase) -> None:
    """Neither side loses what arrives before it has started."""
    async with open_group(case, 1, "late", start=False) as owner:
        for number in range(100):
            owner.endpoint.send(1, [numbered(number)])
        await system_clock.sleep(0.3)  # the worker's early frames lie here unread meanwhile
        owner.start()
        came = await owner.until_came(1, 200)
        assert came == [numbered(number) for number in range(100)] * 2, "frames sent before start are lost or out of order"


async def flush_lets_frames_out(case: BackendCase) -> None:
    """`flush` returns, also when its wait was cancelled before; nothing is lost by that."""
    async with open_group(case, 1, "echo") as owner:
        frame = bytes(1_000_000)
        for _ in range(20):
            owner.endpoint.send(1, [frame])
            waiting = asyncio.ensure_future(owner.endpoint.flush())
            await asyncio.sleep(0)
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await waiting
        async with asyncio.timeout(PATIENCE):
            await owner.endpoint.flush()
        assert await owner.until_came(1, 20) == [frame] * 20


async def groups_do_not_mix(case: BackendCase) -> None:
    """Two groups of the same name side by side: each has its own workers, frames and end."""
    async with open_group(case, 1, "echo") as first, open_group(case, 1, "echo") as second:
        assert first.group.workers[0].pid != second.group.workers[0].pid
        first.endpoint.send(1, [b"first"])
        second.endpoint.send(1, [b"second"])
        assert await first.until_came(1, 1) == [b"first"]
        await first.group.aclose()
        second.endpoint.send(1, [b"still there"])
        assert await second.until_came(1, 2) == [b"second", b"still there"]
        assert not second.lost, f"the end of one group was told to the other: {second.lost}"


async def frames_of_every_size_arrive_whole(case: BackendCase) -> None:
    """Powers of two, one byte less and one more, from nothing to 32 MB, both ways: the limits of whatever lies between."""
    sizes = sorted({size for power in range(26) for size in (2**power - 1, 2**power, 2**power + 1)})
    async with open_group(case, 1, "digest") as owner:
        for asked, size in enumerate(sizes, 1):
            owner.endpoint.send(1, [pattern(size)])
            if asked % 16 == 0 or size > 2**18:
                await owner.until_came(1, asked)  # not everything at once: the frames come to 200 MB
        answers = owner.came(1)
        wrong = [size for size, answer in zip(sizes, answers, strict=True) if answer != digest_of(pattern(size))]
        assert not wrong, f"frames of these sizes did not arrive as they were sent: {wrong}"
    async with open_group(case, 1, "obey") as owner:
        for number, size in enumerate(sizes[2::3], 1):
            owner.tell(1, "give", size)
            came = (await owner.until_came(1, number))[-1]
            assert came == pattern(size), f"a frame of {size} bytes from a worker came with {len(came)}, or other content"
            owner.came(1)[-1] = b""


async def a_frame_of_many_parts_arrives_whole(case: BackendCase) -> None:
    """65,535 parts, most of them tiny, some empty, one large: one frame, both ways."""
    parts = [b"%d," % number if number % 7 else b"" for number in range(65_534)] + [os.urandom(300_000)]
    whole = b"".join(parts)
    async with open_group(case, 1, "echo") as owner:
        owner.endpoint.send(1, [b"before"])
        owner.endpoint.send(1, parts)
        owner.endpoint.send(1, [b"behind"])
        came = await owner.until_came(1, 3)
        assert came == [b"before", whole, b"behind"], f"expected one frame of {len(whole)} bytes, got {[len(frame) for frame in came]}"


async def a_flood_in_all_directions_ends(case: BackendCase) -> None:
    """Owner and two workers each send 16 MB to each other, at the same time: nobody waits for room that only the other can make."""
    count, size = 64, 250_000
    async with open_group(case, 2, "flood") as owner:
        owner.tell_all(count, size)
        for number in range(count):
            for worker in (1, 2):
                owner.endpoint.send(worker, [flooding(number, size)])
        for worker in (1, 2):
            *flood, report = await owner.until_came(worker, count + 1)
            right = flood == [flooding(number, size) for number in range(count)]
            assert right, f"the flood of worker {worker} is not whole, or not in order"
            seen, expected = json.loads(report), {str(sender): count for sender in (0, 1, 2) if sender != worker}
            assert seen == expected, f"worker {worker} should have seen {expected}, saw {seen}"


async def a_stuck_worker_holds_nobody_up(case: BackendCase) -> None:
    """While one worker reads nothing, frames for it wait, 32 MB of them, and everybody else is served; then it gets them all."""
    frame = os.urandom(500_000)
    async with open_group(case, 2, "obey") as owner, held_back() as hold:
        owner.tell(1, "hold", hold.path)
        await owner.until_came(1, 1)
        await hold.until_still()
        for _ in range(64):
            owner.endpoint.send(1, [json.dumps(["measure"]).encode(), b" " * 500_000])
        for number in range(20):
            owner.tell(2, "echo", str(number))
            await owner.until_came(2, number + 1)
        assert len(owner.came(1)) == 1, "worker 1 has answered although its loop stands still"
        owner.endpoint.send(2, [json.dumps(["echo", frame.hex()]).encode()])
        assert (await owner.until_came(2, 21))[-1] == frame.hex().encode()
        hold.release()
        came = await owner.until_came(1, 66)
        assert came[1:] == [b"awake"] + [b"500011"] * 64, f"expected 64 frames, got {came[1:]}"


async def a_busy_worker_is_not_taken_for_dead(case: BackendCase) -> None:
    """A worker whose loop stands still for 3 s, because user code computes, lives, and goes on where it was."""
    async with open_group(case, 2, "obey") as owner:
        owner.tell(1, "pause", 3.0)
        await owner.until_came(1, 1)
        owner.tell(1, "echo", "behind it")
        came = await owner.until_came(1, 3)
        assert sorted(came[1:]) == [b"awake", b"behind it"], f"expected it to go on, got {came}"
        assert not owner.lost, f"a worker that was busy for 3 s was told as lost: {owner.lost}"


class Hold:
    """Holds a worker back that was told to "hold" a path: it stands still until there is such a file."""

    def __init__(self, folder: str) -> None:
        self._go_on = Path(folder, "go on")

    @property
    def path(self) -> str:
        """What to tell the worker."""
        return str(self._go_on)

    async def until_still(self) -> None:
        """Return when the worker stands still."""
        async with asyncio.timeout(PATIENCE):
            while not os.path.exists(f"{self._go_on}.still"):  # noqa: ASYNC240  another process makes it
                await system_clock.sleep(0.005)

    def release(self) -> None:
        """Let it go on."""
        self._go_on.touch()


@contextlib.asynccontextmanager
async def held_back() -> AsyncGenerator[Hold, None]:
    """For the order "hold"; the end of the block releases, too."""
    with tempfile.TemporaryDirectory(prefix="sage-conformance-") as folder:
        hold = Hold(folder)
        try:
            yield hold
        finally:
            hold.release()
            await system_clock.sleep(0.1)  # the worker looks every 10 ms
