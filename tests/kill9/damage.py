"""Harm that comes to the newest checkpoint while nobody runs: its manifest, or a file of its own, is torn or gone."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Damage", "missing_part", "torn_manifest", "torn_part"]


@dataclass(frozen=True, slots=True)
class Damage:
    """What was harmed: the file, relative to the job's folder, and the checkpoint that cannot be used any more.

    Attributes:
        named: how the file is called in what is said of it.
    """

    checkpoint: int
    file: str
    how: str
    named: str

    def __str__(self) -> str:
        return f"checkpoint {self.checkpoint}, {self.file} {self.how}"


def checkpoints_of(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The manifests with their files, oldest first."""
    found: list[tuple[Path, dict[str, Any]]] = []
    for file in sorted((folder / "log").glob("[0-9]*.json")):
        entry = json.loads(file.read_bytes().splitlines()[1])
        if entry["entry"] == "checkpoint":
            found.append((file, entry["manifest"]))
    return found


def files_of(manifest: dict[str, Any]) -> set[str]:
    """Names of all files that it needs."""
    return {ref["name"] for operator in manifest["operators"].values() for part in operator["parts"] for ref in part["files"]}


def torn_manifest(folder: Path) -> Damage:
    """Half of it is gone."""
    file, manifest = checkpoints_of(folder)[-1]
    os.truncate(file, file.stat().st_size // 2)
    return Damage(manifest["checkpoint"], f"log/{file.name}", "torn", f"entry {int(file.stem)} of the log")


def own_file(folder: Path) -> tuple[int, Path]:
    """The largest file that only the newest checkpoint needs."""
    (_, before), (_, newest) = checkpoints_of(folder)[-2:]
    own = [folder / name for name in files_of(newest) - files_of(before)]
    return newest["checkpoint"], max(own, key=lambda file: (file.stat().st_size, file))


def damage_of(number: int, file: Path, folder: Path, how: str) -> Damage:
    """Of a part."""
    name = str(file.relative_to(folder))
    return Damage(number, name, how, name)


def torn_part(folder: Path) -> Damage:
    """The end of a file is gone."""
    number, file = own_file(folder)
    os.truncate(file, file.stat().st_size - 1)
    return damage_of(number, file, folder, "torn")


def missing_part(folder: Path) -> Damage:
    """A file is gone."""
    number, file = own_file(folder)
    file.unlink()
    return damage_of(number, file, folder, "removed")
