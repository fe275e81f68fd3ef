"""The checkpoints of one job: taking over, completing, retaining, copying, leaving none.

<checkpoint.dir>/<job>/log/00000001.json ...   one sequence: who took over, which checkpoints are complete
                      /parts/<attempt>/...     what tasks saved
                      /savepoints/...          copies that stand for themselves
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from sage_actor.checkpoint.log import CheckpointLog, LogContent, Skipped
from sage_actor.checkpoint.manifest import AttemptEntry, CheckpointEntry, EndEntry, Entry, Manifest
from sage_actor.checkpoint.open_disk import Place, open_place
from sage_actor.checkpoint.part_files import PartFiles
from sage_actor.checkpoint.part_names import PARTS, attempt_of, checkpoint_of, job_folder, part_prefix, parts_folder
from sage_actor.checkpoint.refusals import in_words
from sage_actor.checkpoint.savepoint import Restorable, copy_into, find_restorable, newest_intact, write_savepoint
from sage_actor.errors import CheckpointDamaged, CheckpointError, Fenced
from sage_actor.ports import current_clock, current_random

__all__ = ["AttemptStart", "CheckpointStorage", "open_storage", "part_prefix"]

_LOGGER: Final = logging.getLogger("sage_actor.checkpoints")
_TRIES: Final = 8  # slots that may turn out torn one after the other before the disk is given up
_OURS: Final = frozenset({"log", PARTS, "savepoints"})


@dataclass(frozen=True, slots=True)
class AttemptStart:
    """What a new attempt begins with.

    Attributes:
        attempt: its number; higher than that of any before.
        next_checkpoint: the first checkpoint id that it may use; higher than any that was completed.
        manifest: what to go on from, intact; None to begin at the beginning.
        parts: the folder for what its tasks save, as `part_prefix` takes it.
        leftover: whether checkpoints of an earlier run lie there that this one neither resumes nor touches.
        leftover_place: where the newest of them is, as ``restore`` takes it.
        skipped: what would have been newer, and why it is not taken.
    """

    attempt: int
    next_checkpoint: int
    manifest: Manifest | None
    parts: str
    leftover: bool = False
    leftover_place: str = ""
    skipped: tuple[Skipped, ...] = ()


def open_storage(place: str, job: str) -> CheckpointStorage:
    """The storage for a job's checkpoints below a folder. Touches nothing yet.

    Args:
        place: path or url of the folder for all jobs (``checkpoint.dir``), or `CheckpointStorage.place` of another process.
        job: its name, of any characters.

    Raises:
        CheckpointError: the job has no name, or the url's protocol is not to be had.
    """
    name = job_folder(job)
    return CheckpointStorage(open_place(place, job), name, job)


class CheckpointStorage(PartFiles):
    """The checkpoints of one job (`open_storage`). Every process may write and read parts; the rest is for the job's owner.

    Owners are told apart by attempts. The one that came last rules; an older one, however long it slept, is refused with `Fenced`
    at the next thing that it wants to make true (rule F42).

    Attributes:
        place: absolute path or url of the folder for all jobs, for `open_storage` in other processes.
    """

    def __init__(self, place: Place, name: str, job: str) -> None:
        self._place = place.below(name)
        super().__init__(place.disk, self._place.path, job)
        self.place = place.url
        self._log = CheckpointLog(place.disk, f"{self.folder}/log", job)
        self._content = LogContent()
        self._own: AttemptEntry | None = None
        self._unusable: set[int] = set()
        self._pinned: list[frozenset[str]] = []

    # -- taking over --

    async def begin_attempt(self, *, resume: bool, restore: str | None = None) -> AttemptStart:
        """Take over. Whatever older attempts complete from now on is refused, before anything else is looked at.

        Args:
            resume: go on with the last run of this job, if it has not ended: from its newest intact checkpoint, else from what
                it was restored from, else from the beginning. Otherwise a new run begins; what the last one left is kept.
            restore: what a run without a checkpoint of its own begins with: a savepoint, a checkpoint's file, or a job's folder.

        Raises:
            SavepointNotFound: there is nothing at `restore`.
            CheckpointDamaged: no checkpoint to resume from is intact, or what is to be restored is not. Nothing was removed.
            CheckpointError: the folder is not writable, full, not ours or of another job; or of an unknown format.
        """
        with in_words(self.job, "take over the checkpoints of this job", self._place.url):
            await self._check_folder()
            given = None if restore is None else await find_restorable(restore, self.job)
            own = await self._take_over(resume=resume, restore=restore or "", least=0 if given is None else given.manifest.checkpoint + 1)
            self._own = own
            entries = self._content.of(own.generation)
            found, skipped = await newest_intact(entries, self)
            self._unusable = {entry.slot for entry in entries if found is None or entry.slot > found.slot}
            skipped.extend(self._unreadable())
            manifest = found.manifest if found is not None else await self._from_elsewhere(own, given, damaged=bool(entries))
        return AttemptStart(
            own.attempt, own.next_checkpoint, manifest, parts_folder(own.attempt, own.token), *self._leftover(own), tuple(skipped)
        )

    def _check_not_replaced(self, content: LogContent) -> None:
        """An owner that ran before goes on only if nobody has taken over from it meanwhile, or even finished its job."""
        own = self._own
        if own is None:
            return
        newer = [entry.attempt for entry in content.attempts if entry.attempt > own.attempt]
        if newer or own.slot not in content.entries:
            raise Fenced(self.job, own.attempt, max(newer, default=own.attempt + 1))

    async def _take_over(self, *, resume: bool, restore: str, least: int) -> AttemptEntry:
        attempts, checkpoints = await self._used_in_parts()
        token = f"{current_random().getrandbits(48):012x}"
        for _ in range(_TRIES):
            content = self._content = await self._log.read()
            self._check_not_replaced(content)
            generation = content.generation
            origin = restore
            if not resume or generation == 0 or content.ended(generation):
                generation += 1
            elif not origin:
                origin = next((entry.restored for entry in reversed(content.attempts) if entry.generation == generation), "")
            own = AttemptEntry(
                self.job,
                content.last + 1,
                # An unreadable slot may be that of an attempt.
                max([attempts, *(entry.attempt for entry in content.attempts)]) + len(content.damaged) + 1,
                token,
                generation,
                max(least, checkpoints + 1, content.next_checkpoint()),
                current_clock().now_ms(),
                origin,
            )
            try:
                await self._log.append(own)
            except FileExistsError:
                continue  # somebody was faster: what he wrote has to be read first
            except CheckpointDamaged as damage:
                _LOGGER.warning("job %r: %s: %s; trying the next slot", self.job, damage.file, damage.problem)
                continue
            content.entries[own.slot] = own
            return own
        raise CheckpointError(
            self.job, f"could not take over in {_TRIES} tries: others write there, or what is written is torn", self.folder
        )

    async def _used_in_parts(self) -> tuple[int, int]:
        """The highest attempt, and the highest checkpoint id, of which there are files."""
        attempt = checkpoint = 0
        for folder in await self.disk.list(self.path_of(PARTS)):
            attempt = max(attempt, attempt_of(folder))
            names = await self.disk.list(self.path_of(f"{PARTS}/{folder}"))
            checkpoint = max([checkpoint, *map(checkpoint_of, names)])
        return attempt, checkpoint

    async def _check_folder(self) -> None:
        names = await self.disk.list(self.folder)
        foreign = [name for name in names if name not in _OURS and not name.startswith(".")]
        if foreign and "log" not in names:
            raise CheckpointError(
                self.job,
                f"the folder for its checkpoints holds something else ({', '.join(foreign[:3])}); choose another checkpoint.dir",
                self._place.url,
            )
        await self.disk.make_folder(f"{self.folder}/log")

    async def _from_elsewhere(self, own: AttemptEntry, given: Restorable | None, *, damaged: bool) -> Manifest | None:
        if own.restored:
            found = await find_restorable(own.restored, self.job) if given is None else given
            return await copy_into(self, parts_folder(own.attempt, own.token), found)
        if damaged:
            raise CheckpointDamaged(
                self.job, "log", "no checkpoint of the last run is intact; start without resume, or restore a savepoint, to begin anew"
            )
        return None

    def _unreadable(self) -> list[Skipped]:
        skipped: list[Skipped] = []
        for slot, problem in sorted(self._content.damaged.items(), reverse=True):
            _LOGGER.warning("job %r: entry %d of the log of its checkpoints is passed over: %s", self.job, slot, problem)
            skipped.append(Skipped(None, f"log/{slot:08d}.json", problem))
        return skipped

    def _leftover(self, own: AttemptEntry) -> tuple[bool, str]:
        left = self._content.left_by_others(own.generation)
        if not left:
            return False, ""
        place = self._place.below(f"log/{left[-1].slot:08d}.json").url
        _LOGGER.warning(
            "job %r: checkpoint %d of an earlier run is kept, and not used; restore=%r begins from it",
            self.job,
            left[-1].manifest.checkpoint,
            place,
        )
        return True, place

    # -- making true --

    async def complete(self, manifest: Manifest) -> None:
        """Make a checkpoint complete: when this returns, the next attempt begins from it or from a later one.

        If it raises anything but `Fenced`, or is cancelled, the checkpoint may be complete or not: what it holds must neither be
        committed nor given up. The next `complete`, or the next attempt, settles it. Calling it again with the same manifest is harmless.

        Raises:
            Fenced: a newer attempt has taken over; nothing was written.
            CheckpointDamaged: what was written did not stay.
            CheckpointError: the disk refused.
        """
        with in_words(self.job, f"complete checkpoint {manifest.checkpoint}", self._place.url):
            own = self._owner()
            await self._append(lambda slot: CheckpointEntry(self.job, slot, own.token, manifest))

    async def _append(self, made: Callable[[int], Entry]) -> None:
        """Write an entry into the slot after the last one known, unless somebody has taken over since."""
        await self._refuse_forgotten()
        for _ in range(_TRIES):
            entry = made(self._content.last + 1)
            try:
                await self._log.append(entry)
            except FileExistsError:
                if not _same(await self._look_at(entry.slot), entry):
                    continue
            except CheckpointDamaged as damage:
                self._content.damaged[entry.slot] = damage.problem
                _LOGGER.warning("job %r: %s: %s; trying the next slot", self.job, damage.file, damage.problem)
                continue
            # A log is removed from its beginning: if our place in it is still there now, that of a successor would have been too.
            await self._refuse_forgotten(entry.slot)
            self._content.entries[entry.slot] = entry
            return
        raise CheckpointDamaged(self.job, "log", f"{_TRIES} entries in a row did not stay as they were written")

    async def _refuse_forgotten(self, *written: int) -> None:
        """Fail if this attempt is no longer in the log: a successor has finished the job and removed it."""
        own = self._owner()
        try:
            found: Entry | None = await self._log.entry(own.slot)
        except FileNotFoundError:
            found = None
        if found != own:
            await self._log.remove(written)
            raise Fenced(self.job, own.attempt, own.attempt + 1)

    async def _look_at(self, slot: int) -> Entry:
        """What stands in the slot that we wanted; remembered if it does not concern us.

        A slot that cannot be read is not passed over: it may be that of a successor, who is just writing it.
        """
        own = self._owner()
        try:
            entry = await self._log.entry(slot)
        except FileNotFoundError:
            raise Fenced(self.job, own.attempt, own.attempt + 1) from None  # taken and removed: a successor tidies up
        if isinstance(entry, CheckpointEntry):
            if entry.token != own.token and entry.manifest.attempt > own.attempt:
                raise Fenced(self.job, own.attempt, entry.manifest.attempt)
        elif entry.token != own.token:
            raise Fenced(self.job, own.attempt, entry.attempt)
        self._content.entries[slot] = entry
        return entry

    def _owner(self) -> AttemptEntry:
        if self._own is None:
            raise CheckpointError(self.job, "begin_attempt comes first: only an attempt may complete or remove checkpoints", self.folder)
        return self._own

    # -- tidying up --

    async def collect(self, retained: int) -> None:
        """Remove what nothing needs any more: all but the newest checkpoints of this run, and files that none of these names.

        Files of checkpoints that are still under way, of newer attempts, and of what other runs left are not touched. A replaced
        attempt removes nothing.

        Args:
            retained: how many checkpoints to keep, at least 1. With 1 there is none to fall back to.

        Raises:
            CheckpointError: the disk refused; the rest is removed next time.
        """
        with in_words(self.job, "remove old checkpoints", self._place.url):
            own = self._owner()
            if not await self._rules():
                return
            entries = [entry for entry in self._content.of(own.generation) if entry.slot not in self._unusable]
            if not entries or entries[-1].token != own.token:
                return  # as long as the state that this attempt began with is the newest, all of it may be needed
            kept = [*entries[-max(1, retained) :], *self._content.left_by_others(own.generation)]
            slots = {entry.slot for entry in self._content.of(own.generation)} - {entry.slot for entry in kept}
            await self._log.remove(slots)
            for slot in slots:
                del self._content.entries[slot]
            await self._remove_parts(kept, own, entries[-1].manifest.checkpoint)

    async def _remove_parts(self, kept: list[CheckpointEntry], own: AttemptEntry, newest: int | None) -> None:
        """Remove the files of this attempt up to a checkpoint (None: all), and of older ones, that nothing names."""
        needed = {name for entry in kept for name in entry.manifest.files()}.union(*self._pinned)
        for folder in await self.disk.list(self.path_of(PARTS)):
            attempt = attempt_of(folder)
            if attempt > own.attempt:
                continue
            for name in await self.disk.list(self.path_of(f"{PARTS}/{folder}")):
                under_way = newest is not None and attempt == own.attempt and checkpoint_of(name) > newest
                if not under_way and f"{PARTS}/{folder}/{name}" not in needed:
                    await self.disk.remove(self.path_of(f"{PARTS}/{folder}/{name}"))
            if attempt < own.attempt or newest is None:
                await self.disk.remove_folder(self.path_of(f"{PARTS}/{folder}"))

    async def _rules(self) -> bool:
        """Whether nobody has taken over, as far as can be seen."""
        own = self._owner()
        return await self._log.taken(own.slot) and not await self._log.taken(self._content.last + 1)

    async def savepoint(self, manifest: Manifest, target: str | None) -> str:
        """Copy a checkpoint to where a person wants it: in itself complete, never removed by us, free to be moved (rule F10).

        Args:
            manifest: of a checkpoint whose files are all there. They are not removed meanwhile.
            target: path or url of a folder that is empty or not there; None chooses one in the job's folder.

        Returns:
            Its folder, as `begin_attempt` takes it for ``restore``.

        Raises:
            CheckpointError: something is there already, or a disk refused.
            CheckpointDamaged: a file of the checkpoint is.
        """
        place = self._place.below(f"savepoints/{manifest.checkpoint:08d}-{manifest.time_ms}") if target is None else None
        pinned = frozenset(manifest.files())
        self._pinned.append(pinned)
        try:
            return await write_savepoint(manifest, self, place or open_place(target or "", self.job))
        finally:
            self._pinned.remove(pinned)

    async def discard(self) -> None:
        """The run has ended: remove its checkpoints (rule F9 for good), leave savepoints and what other runs left.

        Cut off in the middle, nothing of the run can be resumed either.

        Raises:
            Fenced: a newer attempt has taken over; nothing was removed.
            CheckpointError: the disk refused; the run counts as ended, or not.
        """
        with in_words(self.job, "remove the checkpoints of a finished job", self._place.url):
            own = self._owner()
            clock = current_clock()
            await self._append(lambda slot: EndEntry(self.job, slot, own.attempt, own.token, own.generation, clock.now_ms()))
            left = self._content.left_by_others(own.generation)
            ended = {entry.slot for entry in self._content.of(own.generation)}
            await self._remove_parts(left, own, None)
            if left:
                await self._log.remove(ended)  # the attempts stay: they keep the slots that forgotten owners would take
                return
            await self._log.remove([*self._content.entries, *self._content.damaged])
            for name in await self.disk.list(f"{self.folder}/log"):
                if name.startswith("."):
                    await self.disk.remove(f"{self.folder}/log/{name}")
            for folder in (self.path_of(PARTS), f"{self.folder}/log", self.folder):
                with suppress(OSError):
                    await self.disk.remove_folder(folder)


def _same(found: Entry, wanted: Entry) -> bool:
    """Whether an entry says what we wanted to say, so that an earlier call was cut off only after it had succeeded."""
    if isinstance(found, EndEntry) and isinstance(wanted, EndEntry):
        return found.token == wanted.token
    return found == wanted
