"""Frames between real processes: small and giant ones mixed, a sender killed in the middle, no memory left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import select
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest

from sage_actor.actor.backend import PoolingEndpoint, outlives_call
from sage_actor.backends import process
from sage_actor.backends.segment_file import create_segment_file
from sage_actor.backends.socket_endpoint import SocketEndpoint
from sage_actor.backends.worker_group import ProcessGroup
from sage_actor.errors import BackendError, FrameError, WorkerLost

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="files in memory are a thing of Linux")

SIZES = (1, 70_000, 0, 300, 2_000_000, 65_536, 65_535, 5, 131_073)

ENTRIES = """
import asyncio, resource, sys

SIZES = {sizes}

def content(number):
    return number.to_bytes(8, "little") + bytes([number % 251]) * SIZES[number % len(SIZES)]

async def echo(endpoint):
    endpoint.start(lambda sender, frame: endpoint.send(sender, [frame]), lambda loss: None)
    await asyncio.Event().wait()

async def hold(endpoint):
    held = []
    def receive(sender, frame):
        held.append(frame)
        if len(held) == 10:
            held.clear()
            endpoint.send(sender, [b"all let go"])
    endpoint.start(receive, lambda loss: None)
    await asyncio.Event().wait()

async def stream(endpoint):
    endpoint.start(lambda sender, frame: None, lambda loss: None)
    number = 0
    while True:
        for _ in range(7):
            endpoint.send(0, [content(number)])
            number += 1
        await endpoint.flush()

async def fill(endpoint):
    for _ in range(400):
        endpoint.send(0, [bytes(70_000)])
    flushing = asyncio.ensure_future(endpoint.flush())
    await asyncio.sleep(0)
    print("no room" if not flushing.done() else "room", file=sys.stderr, flush=True)
    await flushing

async def narrow(endpoint):
    endpoint.start(lambda sender, frame: endpoint.send(sender, [b"took %d" % frame.nbytes]), lambda loss: None)
    pages = int(open("/proc/self/statm").read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 16_000_000,) * 2)
    endpoint.send(0, [b"narrow now"])
    await asyncio.Event().wait()
"""


def content(number: int) -> bytes:
    """What the stream sends as its frame of that number."""
    return number.to_bytes(8, "little") + bytes([number % 251]) * SIZES[number % len(SIZES)]


@pytest.fixture
def entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that only this test's import path has."""
    (tmp_path / "frame_entries.py").write_text(ENTRIES.replace("{sizes}", repr(SIZES)))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return "frame_entries"


@pytest.fixture
def short_files() -> Iterator[None]:
    """Files that we write to may not grow beyond a megabyte, so there is no room for segments."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


class Owner:
    """The owner's side of a group of one: copies of the frames, the losses, and which frames were ours to keep."""

    def __init__(self, group: ProcessGroup) -> None:
        self.group = group
        self.frames: list[bytes] = []
        self.kept: list[memoryview] = []
        self.lost: list[BackendError] = []
        self.changed = asyncio.Event()
        group.endpoint.start(self.receive, self.lose)

    def receive(self, sender: int, frame: memoryview) -> None:
        if outlives_call(frame):
            self.kept.append(frame)
        self.frames.append(bytes(frame))
        self.changed.set()

    def lose(self, error: BackendError) -> None:
        self.lost.append(error)
        self.changed.set()

    async def until(self, *, frames: int = 0, losses: int = 0) -> None:
        async with asyncio.timeout(30):
            while len(self.frames) < frames or len(self.lost) < losses:
                self.changed.clear()
                await self.changed.wait()


@contextlib.asynccontextmanager
async def owner_of(entry: str) -> AsyncGenerator[Owner, None]:
    group = await process.create("process").start(1, group="frames-of-a-test", entry=entry)
    try:
        yield Owner(group)
    finally:
        await group.kill()


@pytest.mark.asyncio
@pytest.mark.parametrize("keep", [False, True], ids=["dropped", "kept"])
async def test_frames_of_all_sizes_come_whole_and_in_order(entries: str, keep: bool) -> None:
    async with owner_of(f"{entries}:echo") as owner:
        sent = [content(number) for number in range(180)]
        for number, frame in enumerate(sent):
            owner.group.endpoint.send(1, [frame[:11], frame[11:]])
            if not keep:
                owner.kept.clear()
            if number % 20 == 0:
                await asyncio.sleep(0)
        await owner.until(frames=len(sent))
        assert owner.frames == sent
        if keep:
            large = [frame for frame in sent if len(frame) >= 65_536]
            assert owner.kept == large, "a frame changed after it was delivered, though we had kept it"
            owner.kept[0][:3] = b"our"


def taken_by_segments() -> int:
    """Bytes of all the segment files that this process has open."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if "sage-segments" in os.readlink(f"/proc/self/fd/{name}"):
                found += os.fstat(int(name)).st_blocks * 512
    return found


@pytest.mark.asyncio
async def test_the_memory_of_a_burst_goes_back_to_the_system(entries: str) -> None:
    async with owner_of(f"{entries}:hold") as owner:
        for _ in range(10):
            owner.group.endpoint.send(1, [bytes(10_000_000)])
            await asyncio.sleep(0)
        assert taken_by_segments() >= 100_000_000
        await owner.until(frames=1)
        async with asyncio.timeout(20):
            while taken_by_segments() > 70_000_000:  # noqa: ASYNC110  nobody tells us of it
                await asyncio.sleep(0)


@pytest.mark.asyncio
async def test_memory_that_is_not_to_be_kept_for_reuse_goes_back_at_once(entries: str) -> None:
    async with owner_of(f"{entries}:hold") as owner:
        for _ in range(10):
            owner.group.endpoint.send(1, [bytes(1_000_000)])
        await owner.until(frames=1)
        assert taken_by_segments() >= 10_000_000
        assert isinstance(owner.group.endpoint, PoolingEndpoint)
        owner.group.endpoint.keep_for_reuse(0)
        assert taken_by_segments() < 2_500_000, "more than the one frame that the worker may still hold"


@pytest.mark.asyncio
async def test_a_frame_outlives_its_group(entries: str) -> None:
    async with owner_of(f"{entries}:echo") as owner:
        frame = bytes(range(256)) * 1000
        owner.group.endpoint.send(1, [frame])
        await owner.until(frames=1)
        await owner.group.aclose()
        assert owner.kept == [frame]


@pytest.mark.asyncio
@pytest.mark.usefixtures("short_files")
async def test_without_memory_for_segments_frames_take_the_socket(entries: str) -> None:
    async with owner_of(f"{entries}:echo") as owner:
        sent = [content(number) for number in range(27)]
        for frame in sent:
            owner.group.endpoint.send(1, [frame])
        await owner.until(frames=len(sent))
        assert owner.frames == sent
        assert not any(len(frame) > 1_000_000 for frame in owner.kept)


@pytest.mark.asyncio
async def test_an_endpoint_that_cannot_be_opened_closes_its_sockets(tmp_path: Path) -> None:
    own, theirs = create_segment_file(), os.open(tmp_path, os.O_RDONLY)
    assert own is not None
    try:
        for segments in ([theirs, own, own], [own, own, theirs]):  # a folder cannot be mapped
            ours = {peer: socket.socketpair() for peer in (1, 2)}
            with pytest.raises(OSError, match=r"No such device|denied|Is a directory"):
                await SocketEndpoint.open(0, {peer: pair[0] for peer, pair in ours.items()}, segments)
            for near, far in ours.values():
                far.close()
                for _ in range(5):
                    await asyncio.sleep(0)  # a transport closes on a later turn
                assert near.fileno() < 0
    finally:
        os.close(own)
        os.close(theirs)


@pytest.mark.asyncio
async def test_a_sender_killed_in_the_middle_leaves_a_whole_prefix(entries: str) -> None:
    for wanted in (1, 50, 333):
        async with owner_of(f"{entries}:stream") as owner:
            await owner.until(frames=wanted)
            os.kill(owner.group.workers[0].pid, signal.SIGKILL)
            await owner.until(losses=1)
            assert isinstance(owner.lost[0], WorkerLost)
            count = len(owner.frames)
            assert count >= wanted
            assert owner.frames == [content(number) for number in range(count)]


@pytest.mark.asyncio
async def test_a_frame_that_nobody_has_memory_for_fails_the_group(entries: str) -> None:
    async with owner_of(f"{entries}:narrow") as owner:
        await owner.until(frames=1)
        owner.group.endpoint.send(1, [bytes(1_000_000)])
        await owner.until(frames=2)
        assert owner.frames[1] == b"took 1000000"
        owner.group.endpoint.send(1, [bytes(24_000_000)])
        await owner.until(losses=1)
        assert isinstance(owner.lost[0], FrameError)
        assert "no memory for a frame of 24000000 bytes from worker 0" in str(owner.lost[0])


@pytest.mark.asyncio
@pytest.mark.usefixtures("short_files")
async def test_a_frame_that_a_socket_has_no_memory_for_fails_the_group(entries: str) -> None:
    async with owner_of(f"{entries}:narrow") as owner:
        await owner.until(frames=1)
        owner.group.endpoint.send(1, [bytes(24_000_000)])
        await owner.until(losses=1)
        assert isinstance(owner.lost[0], FrameError)
        assert "no memory to receive a frame from worker 0" in str(owner.lost[0])


def test_a_killed_owner_leaves_no_worker_that_waits_for_room(entries: str) -> None:
    program = (
        f"import asyncio, sys; sys.path[:] = {sys.path!r}\n"
        "from sage_actor.backends.process import create\n"
        "async def main():\n"
        f"    group = await create('process').start(1, group='g', entry='{entries}:fill')\n"
        "    print(group.workers[0].pid, flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stderr is not None
        pid = int(owner.stdout.readline())
        watched = os.pidfd_open(pid)
        try:
            assert owner.stderr.readline() == b"no room\n"
            owner.kill()
            assert select.select([watched], [], [], 3.0)[0], "the worker lives on"
        finally:
            os.close(watched)
