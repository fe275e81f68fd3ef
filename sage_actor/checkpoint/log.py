"""The log of a job: a sequence of small files, each created if absent and never replaced.

Whoever wants to say something takes the slot after the last one he knows. So of two owners one finds the slot taken, reads
what is in it, and learns that he has been replaced (rule F42); no clock and no lock is asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from sage_actor.checkpoint.disk import Disk, blocks_of
from sage_actor.checkpoint.manifest import AttemptEntry, CheckpointEntry, EndEntry, Entry, decode_entry, encode_entry
from sage_actor.errors import CheckpointDamaged, CheckpointError

__all__ = ["CheckpointLog", "LogContent", "Skipped"]

_SLOT: Final = re.compile(r"([0-9]{8,})\.json")


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something in a checkpoint folder that was passed over.

    Attributes:
        checkpoint: id of the checkpoint that cannot be used, None if even that is unreadable.
        file: what is damaged, relative to the job's folder.
        problem: how.
    """

    checkpoint: int | None
    file: str
    problem: str


@dataclass(slots=True)
class LogContent:
    """What a log says, as far as it can be read.

    Attributes:
        entries: by slot.
        damaged: slots whose file is torn or changed, and how.
    """

    entries: dict[int, Entry] = field(default_factory=dict[int, Entry])
    damaged: dict[int, str] = field(default_factory=dict[int, str])

    @property
    def last(self) -> int:
        """The highest slot that is taken, 0 if none is."""
        return max((*self.entries, *self.damaged), default=0)

    @property
    def attempts(self) -> list[AttemptEntry]:
        """Who took over, in order."""
        return [entry for _, entry in sorted(self.entries.items()) if isinstance(entry, AttemptEntry)]

    @property
    def generation(self) -> int:
        """The run that wrote last, 0 if there was none."""
        return max((entry.generation for entry in self.entries.values() if not isinstance(entry, CheckpointEntry)), default=0)

    def ended(self, generation: int) -> bool:
        """Whether that run has ended for good."""
        return any(isinstance(entry, EndEntry) and entry.generation == generation for entry in self.entries.values())

    def of(self, generation: int) -> list[CheckpointEntry]:
        """The checkpoints of a run that count, oldest first: each was written by the attempt that had taken over last.

        What a forgotten owner wrote into a log that was discarded since has no attempt here, and counts for nothing.
        """
        found: list[CheckpointEntry] = []
        owner: AttemptEntry | None = None
        for _, entry in sorted(self.entries.items()):
            if isinstance(entry, AttemptEntry):
                owner = entry
            elif isinstance(entry, EndEntry):
                owner = None
            elif owner is not None and owner.generation == generation and entry.token == owner.token:
                found.append(entry)
        return found

    def left_by_others(self, generation: int) -> list[CheckpointEntry]:
        """The checkpoints of every other run that has not ended, oldest first."""
        others = {entry.generation for entry in self.attempts} - {generation}
        found = [entry for other in others if not self.ended(other) for entry in self.of(other)]
        return sorted(found, key=lambda entry: entry.slot)

    def next_checkpoint(self) -> int:
        """The lowest checkpoint id above all that are mentioned."""
        used = [entry.manifest.checkpoint for entry in self.entries.values() if isinstance(entry, CheckpointEntry)]
        return max([1, *(number + 1 for number in used), *(entry.next_checkpoint for entry in self.attempts)])


class CheckpointLog:
    """The files of one log.

    Args:
        disk: where.
        folder: of the log.
        job: whose.
    """

    def __init__(self, disk: Disk, folder: str, job: str) -> None:
        self._disk = disk
        self._folder = folder
        self._job = job

    def file_of(self, slot: int) -> str:
        """The path of a slot's file."""
        return f"{self._folder}/{slot:08d}.json"

    async def read(self) -> LogContent:
        """Everything in it; what is damaged is said in the content.

        Raises:
            CheckpointError: it is another job's, or of a format that this version does not know.
            OSError: the disk refuses.
        """
        content = LogContent()
        for name in await self._disk.list(self._folder):
            match = _SLOT.fullmatch(name)
            if match is None:
                continue
            slot = int(match[1])
            try:
                content.entries[slot] = await self.entry(slot)
            except FileNotFoundError:
                continue  # removed since the folder was listed
            except CheckpointDamaged as damage:
                content.damaged[slot] = damage.problem
        return content

    async def entry(self, slot: int) -> Entry:
        """What stands in a slot.

        Raises:
            FileNotFoundError: nothing.
            CheckpointDamaged: it is torn or changed, or stood in another slot once.
            CheckpointError: as `read`.
            OSError: the disk refuses.
        """
        file = self.file_of(slot)
        blocks = [block async for block in self._disk.read(file)]
        entry = decode_entry(b"".join(blocks), self._job, file)
        if entry.job != self._job:
            raise CheckpointError(
                self._job,
                f"this folder holds the checkpoints of job {entry.job!r}; give this job another name or another checkpoint.dir",
                self._folder,
            )
        if entry.slot != slot:
            raise CheckpointDamaged(self._job, file, f"it was written for slot {entry.slot}, not {slot}: somebody renamed or copied it")
        return entry

    async def append(self, entry: Entry) -> None:
        """Take the entry's slot, durably. What was written is read back: only what is found whole counts.

        Raises:
            FileExistsError: the slot is taken.
            CheckpointDamaged: it was taken, but what is there now is not what was to be written.
            OSError: the disk refuses; the slot may be taken or not.
        """
        await self._disk.create_new(self.file_of(entry.slot), blocks_of(encode_entry(entry)))
        try:
            found = await self.entry(entry.slot)
        except FileNotFoundError as error:
            raise CheckpointDamaged(self._job, self.file_of(entry.slot), "it vanished as soon as it was written") from error
        if found != entry:
            raise CheckpointDamaged(self._job, self.file_of(entry.slot), "something else stands there than was written")

    async def taken(self, slot: int) -> bool:
        """Whether a slot is taken."""
        return await self._disk.size(self.file_of(slot)) is not None

    async def remove(self, slots: Iterable[int]) -> None:
        """Remove slots, lowest first."""
        for slot in sorted(slots):
            await self._disk.remove(self.file_of(slot))
