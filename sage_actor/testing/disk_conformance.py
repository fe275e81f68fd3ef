"""What a `Disk` for checkpoints must hold to. Ours pass it; run it on yours.

    @pytest.mark.asyncio
    @pytest.mark.parametrize("rule", DISK_RULES, ids=rule_name)
    async def test_my_disk(rule, tmp_path):
        await rule(DiskCase(make=lambda: (MyDisk(), "/some/empty/folder"), local=str(tmp_path)))

A rule raises `AssertionError` that says what was expected and what came.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sage_actor.checkpoint.disk import Disk, blocks_of

__all__ = ["DISK_RULES", "DiskCase", "DiskRule", "rule_name"]

_TURNS: Final = 40  # after how many turns of the loop, at most, a call is cancelled


@dataclass(frozen=True, slots=True)
class DiskCase:
    """A disk under test.

    Attributes:
        make: gives a disk and the path of a folder on it that is empty or not there, a new one each time.
        local: an empty folder of this machine's file system.
        atomic: whether a cancelled or refused write leaves nothing, and a new file is never seen in part.
    """

    make: Callable[[], tuple[Disk, str]]
    local: str
    atomic: bool = True


DiskRule = Callable[[DiskCase], Awaitable[None]]


def rule_name(rule: Callable[..., object]) -> str:
    """For the ids of parametrised tests."""
    return rule.__name__


def _holds(condition: object, what: str) -> None:
    if not condition:
        raise AssertionError(what)


async def _content(disk: Disk, path: str) -> bytes:
    return b"".join([block async for block in disk.read(path)])


async def _refused(kind: type[OSError] | tuple[type[OSError], ...], call: Awaitable[object], what: str) -> None:
    try:
        await call
    except kind:
        return
    raise AssertionError(f"{what} was accepted")


def _read(local: str) -> bytes:
    return Path(local).read_bytes()


def _write(local: str, content: bytes) -> None:
    Path(local).write_bytes(content)


async def reads_what_was_written(case: DiskCase) -> None:
    """Content of any size comes back, in folders that were made by the way; an empty file too."""
    disk, root = case.make()
    contents = {"a": b"", "b.json": b"x", "deep/er/c": bytes(range(256)) * 5_000, "d e%2F\N{SNOWMAN}": b"odd"}
    for name, content in contents.items():
        pieces = [content[at : at + 70_001] for at in range(0, len(content), 70_001)]
        await disk.create_new(f"{root}/{name}", blocks_of(pieces))
    for name, content in contents.items():
        _holds(await _content(disk, f"{root}/{name}") == content, f"{name} reads differently")
        _holds(await disk.size(f"{root}/{name}") == len(content), f"{name} has another size")


async def never_replaces(case: DiskCase) -> None:
    """What exists is neither replaced nor changed, by writing, linking or taking in, and leaves nothing unfinished behind."""
    disk, root = case.make()
    await disk.create_new(f"{root}/old", blocks_of(b"old"))
    await disk.create_new(f"{root}/other", blocks_of(b"other"))
    local = os.path.join(case.local, "new")
    _write(local, b"local")
    await _refused(FileExistsError, disk.create_new(f"{root}/old", blocks_of(b"newer")), "creating a file that exists")
    await _refused(FileExistsError, disk.link_or_copy(f"{root}/other", f"{root}/old"), "linking over a file that exists")
    await _refused(FileExistsError, disk.take_in(local, f"{root}/old"), "taking in over a file that exists")
    _holds(await _content(disk, f"{root}/old") == b"old", "the old file has changed")
    _holds(await disk.list(root) == ["old", "other"], "a refused write left something behind")


async def one_of_many_wins(case: DiskCase) -> None:
    """Of several writers of one name exactly one succeeds, and his content is what is there."""
    disk, root = case.make()
    for turn in range(5):
        path = f"{root}/slot-{turn}"
        results = await asyncio.gather(
            *(disk.create_new(path, blocks_of([b"writer ", b"%d" % number])) for number in range(4)), return_exceptions=True
        )
        winners = [number for number, result in enumerate(results) if result is None]
        _holds(len(winners) == 1, f"{len(winners)} of four writers succeeded")
        _holds(all(isinstance(result, FileExistsError | None) for result in results), f"a loser got something else: {results}")
        _holds(await _content(disk, path) == b"writer %d" % winners[0], "the content is not the winner's")


async def lists_names(case: DiskCase) -> None:
    """Names of files and folders, sorted; nothing for a folder that is not there; a file is no folder."""
    disk, root = case.make()
    _holds(await disk.list(f"{root}/nowhere") == [], "a missing folder has names in it")
    for name in ("b", "a", "folder/c", "folder/deep/d"):
        await disk.create_new(f"{root}/{name}", blocks_of(b"1"))
    _holds(await disk.list(root) == ["a", "b", "folder"], f"listed {await disk.list(root)}")
    _holds(await disk.list(f"{root}/folder") == ["c", "deep"], f"listed {await disk.list(f'{root}/folder')}")
    await _refused(NotADirectoryError, disk.list(f"{root}/a"), "listing a file")
    _holds(await disk.size(f"{root}/folder") is None, "a folder has a size")
    _holds(await disk.size(f"{root}/none") is None, "a missing file has a size")


async def removes(case: DiskCase) -> None:
    """A removed file is gone, and its name free; removing twice is harmless; folders go when they are empty."""
    disk, root = case.make()
    await disk.create_new(f"{root}/folder/a", blocks_of(b"1"))
    await disk.remove_folder(f"{root}/folder")
    _holds(await _content(disk, f"{root}/folder/a") == b"1", "a folder with a file in it was removed")
    await disk.remove(f"{root}/folder/a")
    await disk.remove(f"{root}/folder/a")
    await _refused(FileNotFoundError, _content(disk, f"{root}/folder/a"), "reading a removed file")
    await disk.create_new(f"{root}/folder/a", blocks_of(b"2"))
    _holds(await _content(disk, f"{root}/folder/a") == b"2", "a removed file came back")
    await disk.remove(f"{root}/folder/a")
    await disk.remove_folder(f"{root}/folder")
    await disk.remove_folder(f"{root}/folder")
    _holds("folder" not in await disk.list(root), "an empty folder was not removed")


async def copies(case: DiskCase) -> None:
    """A linked file outlives its first name; what comes from this machine, and goes back, is the same."""
    disk, root = case.make()
    content = bytes(range(256)) * 3_000
    await disk.create_new(f"{root}/a", blocks_of(content))
    await disk.link_or_copy(f"{root}/a", f"{root}/b/c")
    await disk.remove(f"{root}/a")
    _holds(await _content(disk, f"{root}/b/c") == content, "a linked file went with its first name")
    await _refused(FileNotFoundError, disk.link_or_copy(f"{root}/a", f"{root}/d"), "linking a missing file")
    out, back = os.path.join(case.local, "out"), os.path.join(case.local, "back")
    await disk.bring_out(f"{root}/b/c", out)
    _holds(_read(out) == content, "what was brought out differs")
    await _refused(FileExistsError, disk.bring_out(f"{root}/b/c", out), "bringing out over a file that exists")
    os.link(out, back)
    await disk.take_in(back, f"{root}/e")
    os.unlink(back)
    os.unlink(out)
    _holds(await _content(disk, f"{root}/e") == content, "what was taken in differs")


async def makes_folders(case: DiskCase) -> None:
    """A folder may be made again; a file in the way refuses it and stays."""
    disk, root = case.make()
    await disk.make_folder(f"{root}/a/b")
    await disk.make_folder(f"{root}/a/b")
    await disk.create_new(f"{root}/file", blocks_of(b"1"))
    await _refused((FileExistsError, NotADirectoryError), disk.make_folder(f"{root}/file"), "a folder in place of a file")
    await _refused((FileExistsError, NotADirectoryError), disk.create_new(f"{root}/file/x", blocks_of(b"2")), "a file below a file")
    _holds(await _content(disk, f"{root}/file") == b"1", "the file in the way has changed")


async def leaves_nothing_half_done(case: DiskCase) -> None:
    """A write that fails or is cancelled, at whatever turn, leaves the whole file or nothing, and the disk goes on working."""
    disk, root = case.make()

    async def broken() -> AsyncIterator[bytes]:
        yield b"some"
        raise ValueError("the source of the content failed")

    try:
        await disk.create_new(f"{root}/broken", broken())
    except ValueError:
        pass
    else:
        raise AssertionError("an error of the content was swallowed")
    _holds(await disk.list(root) == [], "a failed write left something behind")
    for turns in range(_TURNS):
        path = f"{root}/cancelled-{turns}"
        writing = asyncio.ensure_future(disk.create_new(path, blocks_of([b"a" * 3_000, b"b" * 3_000])))
        for _ in range(turns):
            await asyncio.sleep(0)
        writing.cancel()
        try:
            await writing
        except asyncio.CancelledError:
            pass
        size = await disk.size(path)
        _holds(size in {None, 6_000} or not case.atomic, f"a cancelled write left {size} bytes")
    left = [name for name in await disk.list(root) if name.startswith(".")]
    _holds(not left, f"cancelled writes left {left}")


DISK_RULES: Final[tuple[DiskRule, ...]] = (
    reads_what_was_written,
    never_replaces,
    one_of_many_wins,
    lists_names,
    removes,
    copies,
    makes_folders,
    leaves_nothing_half_done,
)
