"""Every disk passes the public suite; what only the simulated one can do is tested here too."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_actor.checkpoint.disk import Disk, blocks_of, current_disk
from sage_actor.checkpoint.fsspec_disk import FsspecDisk, fence_of
from sage_actor.checkpoint.local_disk import LocalDisk
from sage_actor.checkpoint.open_disk import open_place
from sage_actor.errors import CheckpointError
from sage_actor.testing import ManualClock, Simulation
from sage_actor.testing.disk_conformance import DISK_RULES, DiskCase, DiskRule, rule_name
from sage_actor.testing.simulated_disk import DiskFaults, SimulatedDisk

Maker = Callable[[Path], DiskCase]


def local(folder: Path) -> DiskCase:
    return DiskCase(lambda: (LocalDisk(), f"{folder}/{uuid4().hex}"), str(outside(folder)))


def memory(folder: Path) -> DiskCase:
    return DiskCase(lambda: FsspecDisk.open(f"memory://conformance/{uuid4().hex}"), str(outside(folder)))


def fsspec_file(folder: Path) -> DiskCase:
    return DiskCase(lambda: FsspecDisk.open(f"file://{folder}/{uuid4().hex}"), str(outside(folder)), atomic=False)


def simulated(folder: Path) -> DiskCase:
    return DiskCase(lambda: (SimulatedDisk(Random(1), ManualClock()), "/root"), str(outside(folder)))


def outside(folder: Path) -> Path:
    place = folder / "outside"
    place.mkdir()
    return place


@pytest.mark.asyncio
@pytest.mark.parametrize("make", [local, memory, fsspec_file, simulated])
@pytest.mark.parametrize("rule", DISK_RULES, ids=rule_name)
async def test_disk_holds_to_the_rules(rule: DiskRule, make: Maker, tmp_path: Path) -> None:
    await rule(make(tmp_path))


@pytest.mark.asyncio
async def test_local_disk_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*paths: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    for rule in DISK_RULES:
        place = tmp_path / rule.__name__
        place.mkdir()
        if rule.__name__ != "copies":  # that rule itself makes a link
            with monkeypatch.context() as patch:
                patch.setattr("os.link", refuse)
                await rule(local(place))


@pytest.mark.asyncio
async def test_big_files_stream_through_fsspec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sage_actor.checkpoint.fsspec_disk._WHOLE", 1000)
    disk, root = FsspecDisk.open(f"memory://big/{uuid4().hex}")
    await disk.create_new(f"{root}/a", blocks_of([b"x" * 700] * 5))
    assert b"".join([block async for block in disk.read(f"{root}/a")]) == b"x" * 3500
    with pytest.raises(FileExistsError):
        await disk.create_new(f"{root}/a", blocks_of([b"y" * 700] * 5))
    assert await disk.size(f"{root}/a") == 3500


def test_places() -> None:
    assert open_place("file:///some/place%20here/").path == "/some/place here"
    assert open_place("relative").url == str(Path.cwd() / "relative")
    place = open_place("memory://a/b").below("c")
    assert open_place(place.url).path == place.path
    assert open_place(place.url).disk == place.disk
    assert fence_of("memory") != fence_of("ftp")
    assert "none" in fence_of("ftp")
    with pytest.raises(CheckpointError, match="cannot be used"):
        open_place("nonsense://a/b", "j")


def test_a_simulation_brings_its_disk() -> None:
    seen: list[Disk] = []

    async def main() -> None:
        disk = SimulatedDisk(Random(0), ManualClock())
        asyncio.get_running_loop().sage_disk = disk  # type: ignore[attr-defined]
        seen.extend([disk, current_disk(), open_place("/anywhere").disk])

    Simulation(0).run(main)
    assert seen[0] is seen[1] is seen[2]
    assert isinstance(current_disk(), LocalDisk)


@given(seed=st.integers(0, 2**32), crash_at=st.integers(0, 12), sync=st.booleans())
def test_a_crash_leaves_what_was_synced(seed: int, crash_at: int, sync: bool) -> None:
    disk = SimulatedDisk(Random(seed), ManualClock())
    steps = 0

    def count(step: str, path: str) -> None:
        nonlocal steps
        steps += 1
        if steps == crash_at:
            disk.crash()

    async def main() -> None:
        await disk.create_new("/a/old", blocks_of(b"synced"))
        disk.before_step = count
        done = False
        with suppress(OSError):
            await disk.create_new("/a/new", blocks_of([b"one", b"two"]), fsync=sync)
            done = True
        disk.before_step = None
        disk.crash()
        assert b"".join([block async for block in disk.read("/a/old")]) == b"synced"
        size = await disk.size("/a/new")
        content = None if size is None else b"".join([block async for block in disk.read("/a/new")])
        if sync:
            assert content == b"onetwo" if done else content in {None, b"onetwo"}
        elif content is not None:
            assert b"onetwo".startswith(content)

    asyncio.run(main())


def test_unsynced_content_is_lost_in_some_crashes() -> None:
    async def main(seed: int) -> bytes | None:
        disk = SimulatedDisk(Random(seed), ManualClock())
        await disk.create_new("/a", blocks_of(b"0123456789"), fsync=False)
        disk.crash()
        return None if await disk.size("/a") is None else b"".join([block async for block in disk.read("/a")])

    found = {asyncio.run(main(seed)) for seed in range(60)}
    assert None in found
    assert len(found) > 5


@pytest.mark.asyncio
async def test_faults_are_brought_about_and_counted() -> None:
    disk = SimulatedDisk(Random(3), ManualClock())
    disk.faults = DiskFaults(full=1.0)
    with pytest.raises(OSError, match="No space"):
        await disk.create_new("/a/b", blocks_of(b"1"))
    disk.faults = DiskFaults(failing=1.0)
    with pytest.raises(OSError, match="put/output error"):
        await disk.size("/a/b")
    disk.faults = DiskFaults(torn=1.0)
    await disk.create_new("/a/b", blocks_of(b"0123456789"))
    assert (await disk.size("/a/b") or 0) < 10
    assert disk.hits == {"full": 1, "failing": 1, "torn": 1}


def test_a_slow_disk_takes_virtual_time() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        disk = SimulatedDisk(Random(3), loop.sage_clock, DiskFaults(slow=1.0, slow_seconds=100.0))  # type: ignore[attr-defined]
        await disk.size("/a")
        return loop.time()

    assert Simulation(1).run(main) > 1.0
