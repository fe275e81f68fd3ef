"""From what the user calls a path to the files behind it, and which of them a task reads."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Sequence

from sage_actor.connectors.compression import compression_of
from sage_actor.connectors.options import FileSourceOptions
from sage_actor.errors import ConnectorError

__all__ = ["Share", "list_files", "refused", "share_of"]


def refused(path: str, error: OSError) -> ConnectorError:
    """The operating system's refusal in our words."""
    hints: dict[type[OSError], str] = {
        FileNotFoundError: "check the path; relative ones start at the working directory of the process",
        PermissionError: "the user running this process may not do that there",
        IsADirectoryError: "this is a folder; name a file",
        NotADirectoryError: "a part of this path is a file, not a folder",
        FileExistsError: "a part of this path is a file, not a folder",
    }
    failure = ConnectorError(path, error.strerror or str(error), hints.get(type(error), ""))
    failure.__cause__ = error
    return failure


def list_files(paths: Sequence[str], *, recursive: bool) -> list[str]:
    """The files behind files, globs and folders: in the order given, sorted within each, every file once.

    Blocks. Hidden files (a leading dot) count only when they are named.

    Raises:
        ConnectorError: a path or glob leads to nothing, or to something that is neither file nor folder.
    """
    found: dict[str, None] = {}
    for path in paths:
        try:
            mode = os.stat(path).st_mode
        except OSError as error:
            if not isinstance(error, FileNotFoundError) or not glob.has_magic(path):
                raise refused(path, error) from error
            matches = sorted(match for match in glob.iglob(path, recursive=True) if os.path.isfile(match))
            if not matches:
                raise ConnectorError(path, "no file matches this pattern", "check it; `**` stands for folders of any depth") from None
            found.update(dict.fromkeys(matches))
            continue
        if stat.S_ISDIR(mode):
            found.update(dict.fromkeys(_folder(path, recursive=recursive)))
        elif stat.S_ISREG(mode):
            found[path] = None
        else:
            raise ConnectorError(path, "not a regular file, so it cannot be read again after a failure", "copy it into a file first")
    return list(found)


def _folder(folder: str, *, recursive: bool) -> list[str]:
    def fail(error: OSError) -> None:
        raise refused(str(error.filename), error) from error

    files: list[str] = []
    for place, folders, names in os.walk(folder, onerror=fail):
        if recursive:
            folders[:] = [name for name in folders if not name.startswith(".")]
        else:
            folders.clear()
        whole = (os.path.join(place, name) for name in names if not name.startswith("."))
        files.extend(path for path in whole if os.path.isfile(path))
    return sorted(files)


class Share:
    """What one task reads: whole files, or every n-th piece of one file.

    Attributes:
        files: the files, in order. Positions refer to this very list: do not change it.
        piece: None for whole files; otherwise (index, count, size): of the pieces of ``size`` bytes, this task reads
            those whose number leaves ``index`` when divided by ``count``. A line belongs to the piece it begins in.
    """

    __slots__ = ("files", "piece")

    def __init__(self, files: list[str], piece: tuple[int, int, int] | None = None) -> None:
        self.files = files
        self.piece = piece


def share_of(options: FileSourceOptions, index: int, count: int) -> Share:
    """The share of task ``index`` of ``count``; all shares together hold every line exactly once. Blocks.

    Files are dealt by turns. One plain file of lines is dealt in pieces of a fixed size, not in n ranges of its length:
    tasks that look at a growing file at different moments must still agree on the borders.
    """
    files = list_files(options.paths, recursive=options.recursive)
    splittable = count > 1 and len(files) == 1 and options.format != "csv" and compression_of(files[0], options.compression) == "none"
    if splittable:
        return Share(files, (index, count, options.split_size))
    return Share(files[index::count])
