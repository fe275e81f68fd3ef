"""Where the sockets of running actor systems stand: a directory of this account's own, closed to all others."""

from __future__ import annotations

import os
import re
import stat
import tempfile
from pathlib import Path
from urllib.parse import quote, unquote

__all__ = ["address_of", "inspector_directory", "name_of", "private_directory"]

_NAME = re.compile(r"(?P<pid>[0-9]+)-(?P<name>.*?)(?:\+[0-9]+)?\.sock", re.DOTALL)


def inspector_directory() -> Path:
    """The directory, whether it exists or not: ``sage-actor-<user id>`` below the place for temporary files.

    Raises:
        OSError: the machine has no place for temporary files.
    """
    return Path(tempfile.gettempdir()) / f"sage-actor-{os.geteuid()}"


def private_directory(directory: Path, *, create: bool) -> None:
    """See to it that a directory is this account's and nobody else gets into it.

    Temporary files are everybody's, so another account may have made a directory, or a link, of that name beforehand.

    Args:
        directory: which.
        create: make it if it is missing.

    Raises:
        FileNotFoundError: it is missing, and not to be made.
        PermissionError: it is a link or no directory, somebody else's, or open to others.
        OSError: it cannot be made.
    """
    if create:
        try:
            directory.mkdir(mode=0o700)
        except FileExistsError:
            pass
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise PermissionError(f"{directory} is a link, or no directory; remove it")
    if found.st_uid != os.geteuid():
        raise PermissionError(f"{directory} belongs to user {found.st_uid}, not to this account; have it removed")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise PermissionError(f"{directory} is open to others (mode {stat.S_IMODE(found.st_mode):o}); remove it, or close it with mode 700")


def address_of(directory: Path, name: str, pid: int, number: int = 1) -> Path:
    """The socket of a system: ``<pid>-<name>.sock``, for further systems of one name in one process ``<pid>-<name>+2.sock``."""
    further = "" if number == 1 else f"+{number}"
    return directory / f"{pid}-{quote(name, safe='', errors='backslashreplace')}{further}.sock"


def name_of(address: Path) -> tuple[int, str] | None:
    """Process id and name of the system that a socket's own name tells; None if it is no name of ours."""
    found = _NAME.fullmatch(address.name)
    return None if found is None else (int(found["pid"]), unquote(found["name"]))
