"""From what a user writes (a path, a url) to a disk and a path on it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from sage_actor.checkpoint.disk import Disk, current_disk
from sage_actor.checkpoint.local_disk import LocalDisk

__all__ = ["Place", "open_place"]


@dataclass(frozen=True, slots=True)
class Place:
    """A folder or file on some disk.

    Attributes:
        disk: which.
        path: on it, without a slash at its end.
        scheme: what stands before a path of this disk in a url: "" or such as "memory://".
    """

    disk: Disk
    path: str
    scheme: str = ""

    def below(self, name: str) -> Place:
        """A place in this folder."""
        return Place(self.disk, f"{self.path}/{name}", self.scheme)

    @property
    def url(self) -> str:
        """As `open_place` takes it, in any process."""
        return f"{self.scheme}{self.path}"


def open_place(place: str, job: str = "") -> Place:
    """Find the disk for a path or url. Touches nothing.

    In a simulation that brings a disk every place is on it. Else a path, or a ``file:`` url, is on this machine, and another url
    goes to `fsspec <https://filesystem-spec.readthedocs.io>`_.

    Args:
        place: what the user wrote.
        job: for messages.

    Raises:
        CheckpointError: fsspec, or what it needs for this protocol, is not installed; or it does not know the protocol.
    """
    disk = current_disk()
    scheme, separator, _ = place.partition("://")
    if not isinstance(disk, LocalDisk):
        return Place(disk, place.rstrip("/"))
    if separator and scheme not in {"file", "local"}:
        from sage_actor.checkpoint.fsspec_disk import FsspecDisk

        remote, path = FsspecDisk.open(place, job)
        return Place(remote, path.rstrip("/"), f"{scheme}://")
    path = unquote(urlsplit(place).path) if separator else os.path.expanduser(place)
    return Place(disk, os.path.abspath(path))
