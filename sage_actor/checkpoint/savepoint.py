"""Savepoints: copies of a checkpoint that stand for themselves, and finding what a user wants to restore.

FOLDER/savepoint.json    the manifest; file names in it are relative to FOLDER, so that FOLDER can be moved
      /parts/...         every file it needs
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Final

from sage_actor.checkpoint.disk import blocks_of, parent_of
from sage_actor.checkpoint.log import CheckpointLog, Skipped
from sage_actor.checkpoint.manifest import CheckpointEntry, Manifest, decode_entry, encode_entry
from sage_actor.checkpoint.open_disk import Place, open_place
from sage_actor.checkpoint.part_files import PartFiles
from sage_actor.checkpoint.refusals import in_words
from sage_actor.errors import CheckpointDamaged, CheckpointError, SavepointNotFound
from sage_actor.state.parts import FileRef

__all__ = ["SAVEPOINT", "Restorable", "copy_into", "find_restorable", "newest_intact", "write_savepoint"]

SAVEPOINT: Final = "savepoint.json"
_LOGGER: Final = logging.getLogger("sage_actor.checkpoints")


@dataclass(frozen=True, slots=True)
class Restorable:
    """A checkpoint or savepoint that was found.

    Attributes:
        manifest: what it says.
        files: where its files are.
    """

    manifest: Manifest
    files: PartFiles


async def write_savepoint(manifest: Manifest, files: PartFiles, target: Place) -> str:
    """Copy a checkpoint into a folder of its own (rule F10). The manifest comes last: without it the copy counts for nothing.

    Args:
        manifest: of the checkpoint.
        files: where its files are now.
        target: the folder; there must be nothing in it.

    Returns:
        Where it is, as `find_restorable` takes it.

    Raises:
        CheckpointError: something is there already, which is left as it is; or the disk refused.
        CheckpointDamaged: a file of the checkpoint is.
    """
    with in_words(manifest.job, "write a savepoint", target.url):
        if await target.disk.list(target.path):
            raise CheckpointError(manifest.job, "there is something in the folder for the savepoint already; choose another", target.url)
        copies = PartFiles(target.disk, target.path, manifest.job)
        for name, ref in manifest.files().items():
            await copies.copy_from(files, ref, name)
        entry = CheckpointEntry(manifest.job, 0, "", manifest)
        await target.disk.create_new(f"{target.path}/{SAVEPOINT}", blocks_of(encode_entry(entry)))
    if await _read_manifest(target.below(SAVEPOINT), manifest.job) != manifest:
        raise CheckpointDamaged(manifest.job, SAVEPOINT, "something else stands there than was written")
    return target.url


async def find_restorable(place: str, job: str) -> Restorable:
    """What a path or url stands for: a savepoint's folder, the file of a checkpoint in a log, or a job's folder (then its newest).

    Files are not looked at, except where the newest intact checkpoint is searched.

    Raises:
        SavepointNotFound: nothing of the kind is there.
        CheckpointDamaged: its manifest is.
        CheckpointError: the disk refused, or the format is unknown.
    """
    found = open_place(place, job)
    with in_words(job, "look for a savepoint", found.url):
        if found.path.endswith(".json"):
            if await found.disk.size(found.path) is None:
                raise SavepointNotFound(place)
            folder = parent_of(found.path)
            base = folder if found.path.endswith(f"/{SAVEPOINT}") else parent_of(folder)
            return Restorable(await _read_manifest(found, job), PartFiles(found.disk, base, job))
        if await found.disk.size(f"{found.path}/{SAVEPOINT}") is not None:
            return Restorable(await _read_manifest(found.below(SAVEPOINT), job), PartFiles(found.disk, found.path, job))
        newest = await _newest_in_log(found, job)
    if newest is None:
        raise SavepointNotFound(place)
    return newest


async def _read_manifest(file: Place, job: str) -> Manifest:
    with in_words(job, "read a savepoint", file.url):
        content = b"".join([block async for block in file.disk.read(file.path)])
    entry = decode_entry(content, job, file.url)
    if not isinstance(entry, CheckpointEntry):
        raise SavepointNotFound(file.url)
    return entry.manifest


async def _newest_in_log(folder: Place, job: str) -> Restorable | None:
    names = [name for name in await folder.disk.list(f"{folder.path}/log") if name.endswith(".json")]
    if not names:
        return None
    content = b"".join([block async for block in folder.disk.read(f"{folder.path}/log/{names[-1]}")])
    owner = decode_entry(content, job, names[-1]).job
    log = await CheckpointLog(folder.disk, f"{folder.path}/log", owner).read()
    files = PartFiles(folder.disk, folder.path, owner)
    entries = sorted([*log.of(log.generation), *log.left_by_others(log.generation)], key=lambda entry: entry.slot)
    found, _ = await newest_intact(entries, files)
    return None if found is None else Restorable(found.manifest, files)


async def newest_intact(entries: list[CheckpointEntry], files: PartFiles) -> tuple[CheckpointEntry | None, list[Skipped]]:
    """The newest checkpoint of which every file is whole, and those that were passed over; each of these is logged as a warning.

    Args:
        entries: oldest first.
        files: where their files are.
    """
    skipped: list[Skipped] = []
    whole: set[FileRef] = set()
    for entry in reversed(entries):
        try:
            for ref in entry.manifest.files().values():
                if ref not in whole:
                    await files.verify(ref)
                    whole.add(ref)
        except CheckpointDamaged as damage:
            skipped.append(Skipped(entry.manifest.checkpoint, damage.file, damage.problem))
            _LOGGER.warning(
                "job %r: checkpoint %d cannot be used (%s: %s); looking for an older one",
                files.job,
                entry.manifest.checkpoint,
                damage.file,
                damage.problem,
            )
            continue
        return entry, skipped
    return None, skipped


async def copy_into(files: PartFiles, parts: str, found: Restorable) -> Manifest:
    """Take over every file of a checkpoint that was found elsewhere, so that the place where it was found may go.

    Args:
        files: where they go.
        parts: folder of the attempt that restores it.
        found: what to take over.

    Returns:
        Its manifest, with the new names.
    """
    folders: dict[str, str] = {}
    renamed: dict[str, FileRef] = {}
    for name, ref in found.manifest.files().items():
        folder, _, last = name.rpartition("/")
        folder = folders.setdefault(folder, f"{parts}+{len(folders)}")  # as in `parts`, the number of the attempt stands first
        renamed[name] = await files.copy_from(found.files, ref, f"{folder}/{last}")
    operators = {
        uid: replace(operator, parts=[replace(part, files=[renamed[ref.name] for ref in part.files]) for part in operator.parts])
        for uid, operator in found.manifest.operators.items()
    }
    return replace(found.manifest, operators=operators)
