"""Where the checkpoints of one job are kept, over all its attempts: opened, taken over by each of them, tidied up at its end."""

from __future__ import annotations

import logging
import shutil

from sage_actor.checkpoint.manifest import Manifest
from sage_actor.checkpoint.storage import AttemptStart, CheckpointStorage, open_storage
from sage_actor.dataflow.settings import JobSettings
from sage_actor.errors import CheckpointError
from sage_actor.ports import offload
from sage_actor.runtime.scratch import make_scratch
from sage_actor.runtime.task_snapshots import Restored, SnapshotSetting

__all__ = ["JobStorage", "snapshot_setting"]

LOGGER = logging.getLogger("sage_actor")


class JobStorage:
    """Belongs to one job.

    Args:
        job: its name.
        resume: go on from the newest complete checkpoint that an earlier process left.
        restore: go on from this savepoint or checkpoint.

    Attributes:
        storage: None until `open`, and for a job that takes no checkpoints.
        temporary: the folder that holds them, if it goes with the job.
        start: what the latest attempt began with; None before the first.
    """

    def __init__(self, job: str, *, resume: bool, restore: str | None) -> None:
        self.job = job
        self.resume = resume
        self.restore = restore
        self.storage: CheckpointStorage | None = None
        self.temporary: str | None = None
        self.start: AttemptStart | None = None

    async def open(self, settings: JobSettings) -> None:
        """Find the place. Nothing is taken over yet.

        Raises:
            CheckpointError: the job is to go on from something, and takes no checkpoints or keeps them nowhere.
        """
        if not settings.snapshot_mode:
            if self.resume or self.restore:
                raise CheckpointError(self.job, "to resume, a job must take checkpoints: set checkpoint.interval and checkpoint.dir")
            return
        place = settings.checkpoint_dir
        if place is None:
            if self.resume:
                raise CheckpointError(self.job, "resume needs a place that outlives the process: set checkpoint.dir")
            place = self.temporary = await offload(lambda: make_scratch("checkpoints"))
        self.storage = open_storage(place, self.job)

    async def begin(self, storage: CheckpointStorage) -> AttemptStart:
        """Take over from whatever ran before: another process at first, then the attempt before."""
        first = self.start is None
        self.start = await storage.begin_attempt(resume=self.resume or not first, restore=self.restore if first else None)
        self.resume = True
        return self.start

    async def close(self, *, discard: bool) -> None:
        """The job has ended; with `discard` its checkpoints go, savepoints never. A disk that refuses is said in the log."""
        try:
            if self.storage is not None and discard:
                await self.storage.discard()
        except (CheckpointError, OSError) as failure:
            LOGGER.warning("job %r: its checkpoints could not be removed: %s", self.job, failure)
        if self.temporary is not None:
            place = self.temporary
            await offload(lambda: shutil.rmtree(place, ignore_errors=True))


def snapshot_setting(storage: CheckpointStorage, start: AttemptStart, mode: str) -> SnapshotSetting:
    """What the tasks of an attempt need to know of what it has begun with."""
    manifest = start.manifest
    return SnapshotSetting(
        mode=mode,
        attempt=start.attempt,
        storage=storage,
        parts=start.parts,
        url=storage.place,
        checkpoint=None if manifest is None else manifest.checkpoint,
        restored={} if manifest is None else restored_operators(manifest),
    )


def restored_operators(manifest: Manifest) -> dict[str, Restored]:
    """What tasks begin with, by uid."""
    return {
        uid: Restored(operator.parts, frozenset(operator.finished), operator.parallelism, operator.table)
        for uid, operator in manifest.operators.items()
    }
