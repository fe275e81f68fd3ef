"""Plug-ins found through entry points: what an installed distribution offers under a group and a name.

Our own entry points are read straight from our own metadata file, because importing ``importlib.metadata`` and asking it
about every installed distribution costs more than the rest of starting a small job. Everybody else's go through it.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys

__all__ = ["find", "names"]

_loaded: dict[tuple[str, str], object] = {}


def find(group: str, name: str) -> object | None:
    """The object that an entry point names, imported; None when no installed distribution offers that name.

    The first answer is kept for the life of the process. Blocks for the import of the plug-in's module.

    Raises:
        ImportError, AttributeError: the entry point exists but what it names does not load.
    """
    known = _loaded.get((group, name))
    if known is not None:
        return known
    target = _own_entry_points().get(group, {}).get(name)
    if target is not None:
        found = _load(target)
    else:
        from importlib.metadata import entry_points

        others = tuple(entry_points(group=group, name=name))
        if not others:
            return None
        found = _load(others[0].value)
    _loaded[group, name] = found
    return found


def names(group: str) -> tuple[str, ...]:
    """Every name offered under a group by any installed distribution, sorted. Nothing is imported."""
    from importlib.metadata import entry_points

    return tuple(sorted({point.name for point in entry_points(group=group)} | set(_own_entry_points().get(group, {}))))


def _load(target: str) -> object:
    module, _, path = target.partition("[")[0].strip().partition(":")
    found: object = importlib.import_module(module)
    for attribute in filter(None, path.split(".")):
        found = getattr(found, attribute)
    return found


@functools.cache
def _own_entry_points() -> dict[str, dict[str, str]]:
    for folder in sys.path:
        try:
            entries = os.listdir(folder or ".")
        except OSError:  # sys.path may name what does not exist, or an archive
            continue
        for entry in entries:
            if entry.startswith("sage_actor-") and entry.endswith(".dist-info"):
                try:
                    with open(os.path.join(folder, entry, "entry_points.txt"), encoding="utf-8") as file:
                        return _parse(file.read())
                except OSError:
                    continue
    return {}


def _parse(text: str) -> dict[str, dict[str, str]]:
    groups: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            current = groups.setdefault(line.strip("[]"), {})
        elif "=" in line and not line.startswith(("#", ";")):
            name, _, target = line.partition("=")
            current[name.strip()] = target.strip()
    return groups
