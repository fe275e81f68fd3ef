"""How folders and files of checkpoints are named: every name tells which attempt wrote the file, and for which checkpoint."""

from __future__ import annotations

import hashlib
import re
from typing import Final
from urllib.parse import quote

from sage_actor.errors import CheckpointError

__all__ = ["PARTS", "attempt_of", "checkpoint_of", "job_folder", "part_prefix", "parts_folder"]

PARTS: Final = "parts"
_LONGEST: Final = 120  # bytes of a name; file systems take 255, and more is put behind it
_NUMBERED: Final = re.compile(r"\.?([0-9]{8,})-")


def job_folder(job: str) -> str:
    """A name for the folder of a job, a different one for every job, whatever characters its name is made of.

    Raises:
        CheckpointError: the job has no name.
    """
    if not job:
        raise CheckpointError(job, "a job without a name cannot keep checkpoints, since nobody could find them again; name it")
    return _file_name(job)


def parts_folder(attempt: int, token: str) -> str:
    """The folder for what an attempt saves; the token tells it from one of the same number in a log that was since discarded."""
    return f"{PARTS}/{attempt:08d}-{token}"


def part_prefix(parts: str, checkpoint: int, uid: str, index: int) -> str:
    """How the names of all files begin that one task of an operator saves at one checkpoint.

    Args:
        parts: of the attempt, as in `AttemptStart.parts`.
        checkpoint: the id.
        uid: of the operator.
        index: of the task.
    """
    return f"{parts}/{checkpoint:08d}-{_file_name(uid)}-{index}-"


def attempt_of(folder: str) -> int:
    """The attempt that a folder below `PARTS` belongs to, 0 if its name does not say."""
    match = _NUMBERED.match(folder)
    return int(match[1]) if match else 0


def checkpoint_of(file: str) -> int:
    """The checkpoint that a file's name (without folders) belongs to, finished or not; 0 if it does not say."""
    match = _NUMBERED.match(file)
    return int(match[1]) if match else 0


def _file_name(text: str) -> str:
    name = quote(text, safe="", errors="surrogatepass").replace("~", "%7E")
    if name.startswith("."):
        name = f"%2E{name[1:]}"
    if len(name) > _LONGEST:
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]
        name = f"{name[: _LONGEST - 25]}~{digest}"
    return name
