"""The checkpoints of a job: completed, resumed, collected, copied, discarded; and what is refused."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from uuid import uuid4

import pytest

from sage_actor.checkpoint.disk import blocks_of
from sage_actor.checkpoint.listing import list_checkpoints
from sage_actor.checkpoint.manifest import Manifest, OperatorManifest
from sage_actor.checkpoint.open_disk import Place
from sage_actor.checkpoint.part_names import attempt_of, checkpoint_of, job_folder
from sage_actor.checkpoint.storage import AttemptStart, CheckpointStorage, open_storage, part_prefix
from sage_actor.errors import CheckpointDamaged, CheckpointError, Fenced, SavepointNotFound
from sage_actor.state.parts import FileRef, OperatorPart, TableInfo
from sage_actor.testing import ManualClock
from sage_actor.testing.simulated_disk import DiskFaults, SimulatedDisk

Opened = Callable[[], CheckpointStorage]


@pytest.fixture(params=["local", "memory", "simulated"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opened:
    """Opens the storage of one job, again and again in the same place."""
    if request.param == "simulated":
        disk = SimulatedDisk(Random(7), ManualClock())
        return lambda: on(disk)
    place = str(tmp_path) if request.param == "local" else f"memory://storage/{uuid4().hex}"
    return lambda: open_storage(place, "job")


def on(disk: SimulatedDisk, job: str = "job") -> CheckpointStorage:
    return CheckpointStorage(Place(disk, "/checkpoints"), job_folder(job), job)


def part_of(files: list[FileRef], index: int = 0) -> OperatorPart:
    return OperatorPart("sum", index, 1, 128, 0, 127, "memory", {"t": TableInfo("keyed")}, files)


def manifest_of(start: AttemptStart, checkpoint: int, files: list[FileRef]) -> Manifest:
    return Manifest(
        "job", checkpoint, start.attempt, 1_000 + checkpoint, operators={"sum": OperatorManifest("sum", "fold", 1, 128, [part_of(files)])}
    )


async def saved(storage: CheckpointStorage, start: AttemptStart, checkpoint: int, before: list[FileRef] | None = None) -> Manifest:
    """A complete checkpoint of one file of its own, and those given."""
    name = part_prefix(start.parts, checkpoint, "sum", 0) + "x.entries"
    ref = await storage.write(name, blocks_of(f"state {checkpoint}".encode() * 100))
    manifest = manifest_of(start, checkpoint, [*(before or []), ref])
    await storage.complete(manifest)
    return manifest


async def content(storage: CheckpointStorage, manifest: Manifest | None) -> list[bytes]:
    assert manifest is not None
    return [b"".join([block async for block in storage.read(ref)]) for ref in manifest.files().values()]


@pytest.mark.asyncio
@pytest.mark.rule("F8")
async def test_the_newest_complete_checkpoint_is_resumed(opened: Opened) -> None:
    storage = opened()
    start = await storage.begin_attempt(resume=True)
    assert (start.attempt, start.manifest, start.leftover, start.skipped) == (1, None, False, ())
    await saved(storage, start, start.next_checkpoint)
    second = await saved(storage, start, start.next_checkpoint + 1)
    await storage.write(part_prefix(start.parts, start.next_checkpoint + 2, "sum", 0) + "x", blocks_of(b"never completed"))
    later = opened()
    again = await later.begin_attempt(resume=True)
    assert again.manifest == second
    assert again.attempt == 2
    assert again.next_checkpoint == 4  # 3 has files, though it was never complete
    assert await content(later, again.manifest) == [b"state 2" * 100]
    assert (await later.begin_attempt(resume=True)).attempt == 3


@pytest.mark.asyncio
@pytest.mark.rule("F42")
async def test_a_replaced_attempt_is_refused_and_changes_nothing(opened: Opened) -> None:
    zombie = opened()
    old = await zombie.begin_attempt(resume=True)
    first = await saved(zombie, old, old.next_checkpoint)
    owner = opened()
    start = await owner.begin_attempt(resume=True)
    with pytest.raises(Fenced) as refusal:
        await saved(zombie, old, old.next_checkpoint + 1)
    assert (refusal.value.attempt, refusal.value.by) == (1, 2)
    await zombie.collect(1)
    with pytest.raises(Fenced):
        await zombie.discard()
    second = await saved(owner, start, start.next_checkpoint, list(first.files().values()))
    with pytest.raises(Fenced):
        await zombie.complete(manifest_of(old, 99, []))
    await owner.collect(1)
    await zombie.collect(1)
    found = await opened().begin_attempt(resume=True)
    assert found.manifest == second
    assert len(await content(owner, found.manifest)) == 2


@pytest.mark.asyncio
@pytest.mark.rule("F42")
async def test_a_forgotten_owner_of_a_finished_job_is_refused(opened: Opened) -> None:
    zombie = opened()
    old = await zombie.begin_attempt(resume=True)
    await saved(zombie, old, 1)
    owner = opened()
    await saved(owner, await owner.begin_attempt(resume=True), 2)
    await owner.discard()
    for checkpoint in (3, 4):
        with pytest.raises(Fenced):
            await saved(zombie, old, checkpoint)
        assert (await opened().begin_attempt(resume=True)).manifest is None


@pytest.mark.asyncio
@pytest.mark.rule("F8")
@pytest.mark.parametrize("again", [True, False])
async def test_a_completion_that_failed_after_it_had_succeeded_is_settled_later(again: bool) -> None:
    disk = SimulatedDisk(Random(1), ManualClock())
    storage = on(disk)
    start = await storage.begin_attempt(resume=True)

    def fail(step: str, path: str) -> None:
        if step == "fsync folder" and "/log/" in path:
            raise OSError(5, "Input/output error", path)

    disk.before_step = fail
    with pytest.raises(CheckpointError, match="put/output"):
        await storage.complete(manifest_of(start, 1, []))
    disk.before_step = None
    assert len(await disk.list(f"{storage.folder}/log")) == 2  # it is there, and nobody can be sure
    if again:
        await storage.complete(manifest_of(start, 1, []))
        assert len(await disk.list(f"{storage.folder}/log")) == 2
    await saved(storage, start, 2)
    assert len(await disk.list(f"{storage.folder}/log")) == 3
    found = await on(disk).begin_attempt(resume=True)
    assert found.manifest is not None
    assert found.manifest.checkpoint == 2


@pytest.mark.asyncio
async def test_collect_keeps_what_is_retained_and_what_that_needs(opened: Opened) -> None:
    storage = opened()
    start = await storage.begin_attempt(resume=True)
    before: list[FileRef] = []
    for checkpoint in range(1, 7):
        manifest = await saved(storage, start, checkpoint, before if checkpoint != 4 else [])
        before = list(manifest.files().values())
        pending = await storage.write(part_prefix(start.parts, checkpoint + 1, "sum", 1) + "y", blocks_of(b"under way"))
        await storage.collect(2)
        assert await storage.disk.size(storage.path_of(pending.name)) == 9
    names = await storage.disk.list(storage.path_of(start.parts))
    assert [checkpoint_of(name) for name in names] == [4, 5, 6, 7]
    assert len(await storage.disk.list(f"{storage.folder}/log")) == 3
    found = await opened().begin_attempt(resume=True)
    assert found.manifest == manifest
    assert len(await content(storage, found.manifest)) == 3


@pytest.mark.asyncio
async def test_files_of_earlier_attempts_go_when_nothing_needs_them(opened: Opened) -> None:
    storage = opened()
    start = await storage.begin_attempt(resume=True)
    first = await saved(storage, start, 1)
    await storage.write(part_prefix(start.parts, 2, "sum", 0) + "x", blocks_of(b"never completed"))
    later = opened()
    again = await later.begin_attempt(resume=True)
    await later.collect(1)  # nothing of its own yet: nothing is touched
    assert len(await later.disk.list(later.path_of(start.parts))) == 2
    await saved(later, again, again.next_checkpoint, list(first.files().values()))
    await later.collect(1)
    assert await later.disk.list(later.path_of(start.parts)) == [next(iter(first.files())).rpartition("/")[2]]
    await saved(later, again, again.next_checkpoint + 1)
    await later.collect(1)
    assert [attempt_of(name) for name in await later.disk.list(later.path_of("parts"))] == [2]


@pytest.mark.asyncio
@pytest.mark.parametrize("damage", ["torn", "missing", "changed", "manifest"])
async def test_a_damaged_checkpoint_falls_back_loudly(opened: Opened, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    storage = opened()
    start = await storage.begin_attempt(resume=True)
    first = await saved(storage, start, 1)
    second = await saved(storage, start, 2)
    path = storage.path_of(next(iter(second.files()))) if damage != "manifest" else f"{storage.folder}/log/00000003.json"
    whole = b"".join([block async for block in storage.disk.read(path)])
    await storage.disk.remove(path)
    if damage != "missing":
        await storage.disk.create_new(path, blocks_of(whole[:-5] if damage != "changed" else b"X" + whole[1:]))
    later = opened()
    with caplog.at_level(logging.WARNING, "sage_actor.checkpoints"):
        again = await later.begin_attempt(resume=True)
    assert again.manifest == first
    assert again.next_checkpoint == 3
    assert [skipped.checkpoint for skipped in again.skipped] == [None if damage == "manifest" else 2]
    assert caplog.records
    third = await saved(later, again, 3, list(first.files().values()))
    await later.collect(2)
    assert (await opened().begin_attempt(resume=True)).manifest == third
    assert len(await content(later, first)) == 1


@pytest.mark.asyncio
async def test_nothing_intact_is_refused_rather_than_begun_anew(opened: Opened) -> None:
    storage = opened()
    start = await storage.begin_attempt(resume=True)
    only = await saved(storage, start, 1)
    await storage.disk.remove(storage.path_of(next(iter(only.files()))))
    with pytest.raises(CheckpointDamaged, match="start without resume"):
        await opened().begin_attempt(resume=True)
    assert (await opened().begin_attempt(resume=False)).manifest is None


@pytest.mark.asyncio
async def test_a_leftover_is_reported_and_kept(opened: Opened, caplog: pytest.LogCaptureFixture) -> None:
    storage = opened()
    left = await saved(storage, await storage.begin_attempt(resume=False), 1)
    other = opened()
    with caplog.at_level(logging.WARNING, "sage_actor.checkpoints"):
        start = await other.begin_attempt(resume=False)
    assert start.leftover
    assert start.manifest is None
    assert "checkpoint 1 of an earlier run is kept" in caplog.text
    assert start.next_checkpoint == 2
    restarted = await other.begin_attempt(resume=True)  # the new run goes on as itself, not as the one before
    assert restarted.manifest is None
    assert restarted.leftover
    await saved(other, restarted, 2)
    await other.collect(1)
    await other.discard()
    with pytest.raises(Fenced):  # the old owner finds out even now
        await storage.complete(manifest_of(AttemptStart(1, 0, None, ""), 5, []))
    if open_storage(storage.place, "job").disk != storage.disk:
        return  # places on a simulated disk are found in a simulation only
    third = opened()
    begun = await third.begin_attempt(resume=False, restore=start.leftover_place)
    assert begun.manifest is not None
    assert begun.manifest.checkpoint == left.checkpoint
    assert await content(third, begun.manifest) == [b"state 1" * 100]


@pytest.mark.asyncio
@pytest.mark.rule("F9")
async def test_a_finished_job_leaves_none(opened: Opened) -> None:
    storage = opened()
    start = await storage.begin_attempt(resume=True)
    manifest = await saved(storage, start, 1)
    await storage.write(part_prefix(start.parts, 2, "sum", 0) + "x", blocks_of(b"given up"))
    await storage.savepoint(manifest, None)
    await storage.discard()
    assert await storage.disk.list(storage.folder) == ["savepoints"]
    again = await opened().begin_attempt(resume=True)
    assert (again.attempt, again.manifest, again.leftover) == (1, None, False)


@pytest.mark.asyncio
async def test_discard_cut_off_anywhere_leaves_nothing_to_resume() -> None:
    for cut in range(1, 100):
        disk = SimulatedDisk(Random(cut), ManualClock())
        storage = on(disk)
        start = await storage.begin_attempt(resume=True)
        await saved(storage, start, 1)
        steps = 0

        def stop(step: str, path: str, cut: int = cut) -> None:
            nonlocal steps
            steps += 1
            if steps == cut:
                raise OSError("cut off")

        disk.before_step = stop
        try:
            await storage.discard()
        except CheckpointError:
            pass
        disk.before_step = None
        found = await on(disk).begin_attempt(resume=True)
        assert not found.skipped
        if found.manifest is not None:  # not ended: then it is all there
            assert await content(storage, found.manifest) == [b"state 1" * 100]
        if steps < cut:
            return  # beyond the last step
    raise AssertionError("discard has more steps than were tried")


@pytest.mark.asyncio
@pytest.mark.rule("F10")
@pytest.mark.parametrize("by", ["folder", "moved", "file"])
async def test_a_savepoint_stands_for_itself(tmp_path: Path, by: str) -> None:
    storage = open_storage(str(tmp_path / "checkpoints"), "job")
    start = await storage.begin_attempt(resume=True)
    first = await saved(storage, start, 1)
    second = await saved(storage, start, 2, list(first.files().values()))
    place = await storage.savepoint(second, str(tmp_path / "save" / "point"))
    await storage.discard()
    if by == "moved":
        Path(place).rename(tmp_path / "elsewhere")
        place = str(tmp_path / "elsewhere")
    elif by == "file":
        place += "/savepoint.json"
    other = open_storage(str(tmp_path / "checkpoints"), "another job")
    begun = await other.begin_attempt(resume=False, restore=place)
    assert begun.manifest is not None
    assert begun.next_checkpoint > 2
    expected = [b"state 1" * 100, b"state 2" * 100]
    assert await content(other, begun.manifest) == expected
    again = await other.begin_attempt(resume=True)  # no checkpoint of its own yet: from the savepoint again
    assert await content(other, again.manifest) == expected
    await saved(other, again, again.next_checkpoint, list(again.manifest.files().values()) if again.manifest else [])
    await other.collect(1)
    for file in sorted((tmp_path / "save").rglob("*")):
        if file.is_file():
            file.unlink()
    found = await open_storage(str(tmp_path / "checkpoints"), "another job").begin_attempt(resume=True)
    assert len(await content(other, found.manifest)) == 3


@pytest.mark.asyncio
async def test_a_savepoint_overwrites_nothing(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path / "c"), "job")
    manifest = await saved(storage, await storage.begin_attempt(resume=True), 1)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    with pytest.raises(CheckpointError, match="something in the folder"):
        await storage.savepoint(manifest, str(tmp_path / "full"))
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["letter.txt"]
    with pytest.raises(CheckpointError, match="in the way"):
        await storage.savepoint(manifest, str(tmp_path / "full" / "letter.txt"))
    with pytest.raises(SavepointNotFound, match="nowhere"):
        await storage.begin_attempt(resume=False, restore=str(tmp_path / "nowhere"))


@pytest.mark.asyncio
async def test_a_job_folder_is_restored_by_its_newest_checkpoint(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path), "job")
    start = await storage.begin_attempt(resume=True)
    await saved(storage, start, 1)
    await saved(storage, start, 2)
    other = open_storage(str(tmp_path), "other")
    begun = await other.begin_attempt(resume=False, restore=str(tmp_path / "job"))
    assert await content(other, begun.manifest) == [b"state 2" * 100]


@pytest.mark.asyncio
async def test_parts_go_to_and_from_local_files(opened: Opened, tmp_path: Path) -> None:
    storage = opened()
    (tmp_path / "sst").write_bytes(b"immutable" * 1000)
    ref = await storage.adopt(str(tmp_path / "sst"), "parts/00000001-a/00000001-s-0-1.sst")
    assert ref.size == 9000
    await storage.fetch(ref, str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == b"immutable" * 1000
    with pytest.raises(CheckpointError, match="in the way"):
        await storage.adopt(str(tmp_path / "sst"), ref.name)
    with pytest.raises(CheckpointDamaged, match="checksum"):
        await storage.fetch(FileRef(ref.name, ref.size, ref.checksum ^ 1), str(tmp_path / "wrong"))
    assert not (tmp_path / "wrong").exists()
    with pytest.raises(CheckpointDamaged, match="missing"):
        await storage.fetch(FileRef("parts/none", 1, 0), str(tmp_path / "wrong"))


@pytest.mark.asyncio
async def test_a_failed_part_leaves_nothing(opened: Opened) -> None:
    storage = opened()

    async def broken() -> AsyncIterator[bytes]:
        yield b"some"
        raise ValueError("the state could not be pickled")

    with pytest.raises(ValueError, match="pickled"):
        await storage.write("parts/00000001-a/x", broken())
    assert (await storage.write("parts/00000001-a/x", blocks_of(b"1"))).size == 1
    with pytest.raises(CheckpointError, match="in the way"):
        await storage.write("parts/00000001-a/x", blocks_of(b"2"))


@pytest.mark.asyncio
async def test_torn_writes_are_noticed_at_once() -> None:
    disk = SimulatedDisk(Random(1), ManualClock())
    storage = on(disk)
    start = await storage.begin_attempt(resume=True)
    disk.faults = DiskFaults(torn=1.0)
    with pytest.raises(CheckpointDamaged, match="called it done"):
        await storage.write("parts/00000001-a/x", blocks_of(b"0123456789"))
    with pytest.raises(CheckpointDamaged, match="in a row"):
        await storage.complete(manifest_of(start, 1, []))
    disk.faults = DiskFaults()
    await saved(storage, start, 2)
    found = await on(disk).begin_attempt(resume=True)
    assert found.manifest is not None
    assert found.manifest.checkpoint == 2


@pytest.mark.asyncio
async def test_bad_places_are_refused_in_words_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(CheckpointError, match="in the way"):
        await open_storage(str(tmp_path / "file"), "job").begin_attempt(resume=False)
    assert (tmp_path / "file").read_text() == "precious"
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "thesis.txt").write_text("precious")
    with pytest.raises(CheckpointError, match=r"something else \(thesis.txt\)"):
        await open_storage(str(tmp_path), "job").begin_attempt(resume=False)
    assert [path.name for path in (tmp_path / "job").iterdir()] == ["thesis.txt"]
    await open_storage(str(tmp_path / "c"), "a").begin_attempt(resume=False)
    (tmp_path / "c" / "a").rename(tmp_path / "c" / "b")
    before = sorted((tmp_path / "c" / "b").rglob("*"))
    with pytest.raises(CheckpointError, match="checkpoints of job 'a'"):
        await open_storage(str(tmp_path / "c"), "b").begin_attempt(resume=True)
    assert sorted((tmp_path / "c" / "b").rglob("*")) == before
    log = tmp_path / "c" / "b" / "log" / "00000001.json"
    log.write_bytes(log.read_bytes().replace(b"version=1 ", b"version=7 "))
    with pytest.raises(CheckpointError, match="written in format 7"):
        await open_storage(str(tmp_path / "c"), "b").begin_attempt(resume=True)
    with pytest.raises(CheckpointError, match="without a name"):
        open_storage(str(tmp_path), "")
    with pytest.raises(CheckpointError, match="begin_attempt comes first"):
        await open_storage(str(tmp_path), "new").discard()


@pytest.mark.asyncio
async def test_a_full_or_forbidden_disk_is_said_in_words() -> None:
    disk = SimulatedDisk(Random(1), ManualClock(), DiskFaults(full=1.0))
    with pytest.raises(CheckpointError, match="disk is full"):
        await on(disk).begin_attempt(resume=True)
    disk.faults = DiskFaults()
    storage = on(disk)
    start = await storage.begin_attempt(resume=True)
    first = await saved(storage, start, 1)
    disk.faults = DiskFaults(full=1.0)
    before = disk.paths()
    with pytest.raises(CheckpointError, match="disk is full"):
        await saved(storage, start, 2)
    with pytest.raises(CheckpointError, match="disk is full"):
        await storage.complete(manifest_of(start, 2, []))
    assert disk.paths() == before
    disk.faults = DiskFaults()

    def forbid(step: str, path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    disk.before_step = forbid
    with pytest.raises(CheckpointError, match="not writable"):
        await on(disk).begin_attempt(resume=True)
    disk.before_step = None
    assert (await on(disk).begin_attempt(resume=True)).manifest == first


@pytest.mark.asyncio
@pytest.mark.rule("F42")
async def test_a_slot_that_cannot_be_read_is_not_passed_over(opened: Opened) -> None:
    storage = opened()
    start = await storage.begin_attempt(resume=True)
    torn = f"{storage.folder}/log/00000002.json"
    await storage.disk.create_new(torn, blocks_of(b"sage_actor check"))  # a successor on a disk that shows files half written
    with pytest.raises(CheckpointDamaged):
        await saved(storage, start, 1)
    assert await storage.disk.list(f"{storage.folder}/log") == ["00000001.json", "00000002.json"]
    again = await storage.begin_attempt(resume=True)
    assert [skipped.file for skipped in again.skipped] == ["log/00000002.json"]
    await saved(storage, again, again.next_checkpoint)


@pytest.mark.asyncio
async def test_listing(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path / "all"), "a/b")
    start = await storage.begin_attempt(resume=True)
    first = replace(await saved(storage, start, 1), job="a/b")
    second = await saved(storage, start, 2)
    place = await storage.savepoint(first, None)
    await storage.disk.remove(storage.path_of(next(iter(second.files()))))
    found = await list_checkpoints(str(tmp_path / "all"))
    assert [(item.kind, item.checkpoint, bool(item.problem)) for item in found] == [
        ("checkpoint", 1, False),
        ("checkpoint", 2, True),
        ("savepoint", 1, False),
    ]
    assert found[0].size == 700
    assert "missing" in found[1].problem
    assert await list_checkpoints(place) == found[2:]
    assert await list_checkpoints(storage.folder) == found
    with pytest.raises(SavepointNotFound):
        await list_checkpoints(str(tmp_path / "none"))
