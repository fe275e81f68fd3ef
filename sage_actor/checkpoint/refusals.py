"""What a disk says when it refuses, in words that say what to do."""

from __future__ import annotations

import errno
from collections.abc import Generator
from contextlib import contextmanager

from sage_actor.errors import CheckpointError

__all__ = ["in_words"]

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_IN_THE_WAY = frozenset({errno.ENOTDIR, errno.EEXIST, errno.EISDIR})


@contextmanager
def in_words(job: str, doing: str, place: str) -> Generator[None]:
    """Turn the refusals of a disk into `CheckpointError`; other errors pass.

    Args:
        job: whose checkpoints.
        doing: what was to be done, as in "write a part".
        place: the file or folder.
    """
    try:
        yield
    except OSError as error:
        raise CheckpointError(job, f"cannot {doing}: {_reason(error)}", place) from error


def _reason(error: OSError) -> str:
    said = error.strerror or str(error) or type(error).__name__
    if error.errno in _FULL:
        return f"the disk is full ({said}); free some space, or choose another checkpoint.dir"
    if error.errno in _FORBIDDEN or isinstance(error, PermissionError):
        return f"it is not writable ({said}); check who may write there, or choose another checkpoint.dir"
    if error.errno in _IN_THE_WAY or isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError):
        return f"something of that name is in the way ({said}); it was left as it is"
    return said
