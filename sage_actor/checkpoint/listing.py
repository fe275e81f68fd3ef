"""What is in a folder of checkpoints, for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sage_actor.checkpoint.log import CheckpointLog
from sage_actor.checkpoint.manifest import CheckpointEntry, Manifest, decode_entry
from sage_actor.checkpoint.open_disk import Place, open_place
from sage_actor.checkpoint.part_files import PartFiles
from sage_actor.checkpoint.refusals import in_words
from sage_actor.checkpoint.savepoint import SAVEPOINT, find_restorable
from sage_actor.errors import CheckpointDamaged, CheckpointError, SavepointNotFound

__all__ = ["Listed", "list_checkpoints"]


@dataclass(frozen=True, slots=True)
class Listed:
    """A checkpoint or savepoint that was found.

    Attributes:
        job: whose, "" where even that cannot be read.
        kind: which of the two.
        checkpoint, attempt, time_ms, size: as in its manifest; None where that cannot be read.
        problem: "" if every file was read and is whole; else what is wrong.
        place: as `restore` takes it.
    """

    job: str
    kind: Literal["checkpoint", "savepoint"]
    checkpoint: int | None
    attempt: int | None
    time_ms: int | None
    size: int | None
    problem: str
    place: str


async def list_checkpoints(place: str) -> list[Listed]:
    """Everything that could be restored from a folder: of all jobs (``checkpoint.dir``), of one job, or one savepoint.

    Reads every file to its end. Changes nothing.

    Raises:
        SavepointNotFound: nothing of the kind is there.
        CheckpointError: the disk refused.
    """
    folder = open_place(place)
    found: list[Listed] = []
    with in_words("", "list checkpoints", folder.url):
        names = await folder.disk.list(folder.path)
        if SAVEPOINT in names:
            return [await _savepoint(folder)]
        for candidate in [folder] if "log" in names or "savepoints" in names else [folder.below(name) for name in names]:
            found.extend(await _of_job(candidate))
    if not found:
        raise SavepointNotFound(place)
    return found


async def _of_job(folder: Place) -> list[Listed]:
    if await folder.disk.size(folder.path) is not None:
        return []
    names = await folder.disk.list(folder.path)
    if SAVEPOINT in names:
        return [await _savepoint(folder)]
    found: list[Listed] = []
    if "log" in names:
        found.extend(await _checkpoints(folder))
    if "savepoints" in names:
        found.extend([await _savepoint(folder.below(f"savepoints/{name}")) for name in await folder.disk.list(f"{folder.path}/savepoints")])
    return found


async def _checkpoints(folder: Place) -> list[Listed]:
    job = await _job_of(folder)
    content = await CheckpointLog(folder.disk, f"{folder.path}/log", job).read()
    own = [] if content.ended(content.generation) else content.of(content.generation)
    valid = {entry.slot for entry in (*own, *content.left_by_others(content.generation))}
    files = PartFiles(folder.disk, folder.path, job)
    found: list[Listed] = []
    for slot in sorted({*content.entries, *content.damaged}):
        place = folder.below(f"log/{slot:08d}.json").url
        entry = content.entries.get(slot)
        if entry is None:
            found.append(Listed(job, "checkpoint", None, None, None, None, content.damaged[slot], place))
        elif isinstance(entry, CheckpointEntry):
            problem = await _problem(entry.manifest, files)
            if slot not in valid:
                problem = problem or "its attempt had been replaced, or its run has ended"
            found.append(_listed(entry.manifest, "checkpoint", problem, place))
    return found


async def _job_of(folder: Place) -> str:
    """The name that the first readable entry of a log says."""
    for name in await folder.disk.list(f"{folder.path}/log"):
        content = b"".join([block async for block in folder.disk.read(f"{folder.path}/log/{name}")])
        try:
            return decode_entry(content, "", name).job
        except CheckpointDamaged:
            continue
    return ""


async def _savepoint(folder: Place) -> Listed:
    try:
        found = await find_restorable(folder.url, "")
    except CheckpointError as error:
        return Listed("", "savepoint", None, None, None, None, error.problem, folder.url)
    return _listed(found.manifest, "savepoint", await _problem(found.manifest, found.files), folder.url)


def _listed(manifest: Manifest, kind: Literal["checkpoint", "savepoint"], problem: str, place: str) -> Listed:
    return Listed(manifest.job, kind, manifest.checkpoint, manifest.attempt, manifest.time_ms, manifest.size, problem, place)


async def _problem(manifest: Manifest, files: PartFiles) -> str:
    for ref in manifest.files().values():
        try:
            await files.verify(ref)
        except CheckpointError as error:
            return f"{ref.name}: {error.problem}"
    return ""
