"""Where the demo keeps its checkpoints: a folder for each backend and each library, in the data directory, held by one demo at a time."""

from __future__ import annotations

import fcntl
import os
import sys
import zlib
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

from sage_actor.cli.census import SourceFile
from sage_actor.config.paths import checkpoint_directory

__all__ = ["checkpoints_of_demo"]


@contextmanager
def checkpoints_of_demo(backend: str, files: Sequence[SourceFile]) -> Generator[Path | None, None, None]:
    """The folder, while the ``with`` block runs; None if another demo on this backend has it, or it cannot be made.

    What is left there by a demo that was killed is of the same files and of this version: others have other folders. Empty
    afterwards, it is removed.
    """
    kind = backend.partition(":")[0]
    folder = checkpoint_directory() / f"demo-{kind}-{_fingerprint(files):08x}"
    lock = folder.with_suffix(".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        print(f"note: no checkpoints, since {folder} cannot be made: {error.strerror or error}", file=sys.stderr)
        yield None
        return
    try:
        if not _held(descriptor, lock):
            print("note: another demo runs on this backend and has the checkpoints; this one takes none", file=sys.stderr)
            yield None
            return
        try:
            yield folder
        finally:
            with suppress(OSError):
                folder.rmdir()
                lock.unlink()
    finally:
        os.close(descriptor)


def _held(descriptor: int, lock: Path) -> bool:
    """Take the lock. It goes with the process, however that ends; the one who ends well removes its file too."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(descriptor).st_ino == lock.stat().st_ino
    except OSError:
        return False


def _fingerprint(files: Sequence[SourceFile]) -> int:
    """Of what is counted, and of the program that counts."""
    told = [version("sage_actor"), sys.version, *(f"{file.path} {os.stat(file.path).st_size}" for file in files)]
    return zlib.crc32("\n".join(told).encode("utf-8", "surrogatepass"))
