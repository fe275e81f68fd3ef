"""What a step asks for: cores, GPUs, memory, and whatever else a cluster gives out by name. Pure."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from typing import cast

from sage_actor.actor.backend import WorkerResources
from sage_actor.durations import parse_size
from sage_actor.errors import ConfigError, GraphError

__all__ = ["Resources", "describe_resources", "parse_resources", "sum_of_resources", "within"]

Resources = Mapping[str, float | str] | WorkerResources
"""``{"num_cpus": 0.5, "num_gpus": 1, "memory": "2gb", "tpu": 1}``: any other name is a resource of the cluster's own."""

KNOWN = ("num_cpus", "num_gpus", "memory")
ALIKE = {"cpu": "num_cpus", "cpus": "num_cpus", "cores": "num_cpus", "gpu": "num_gpus", "gpus": "num_gpus", "mem": "memory"}


def parse_resources(given: object, place: str) -> WorkerResources | None:
    """What one task of a step, or one worker of a place, asks for; None where nothing is asked for.

    Args:
        given: a mapping (see `Resources`), a `WorkerResources`, or None.
        place: whose it is, for the error.

    Raises:
        GraphError: not a mapping, not an amount, or a name that is nearly one of the known ones.
    """
    if given is None:
        return None
    if isinstance(given, WorkerResources):
        given = _amounts(given) | ({} if given.memory is None else {"memory": given.memory})
    if not isinstance(given, Mapping):
        raise GraphError(f"{place}: resources are a mapping such as {{'num_cpus': 0.5, 'memory': '2gb'}}, not {given!r}")
    memory: int | None = None
    amounts: dict[str, float] = {}
    for name, value in cast("Mapping[object, object]", given).items():
        if not isinstance(name, str) or not name:
            raise GraphError(f"{place}: the name of a resource is a text, not {name!r}")
        if name == "memory":
            memory = _bytes(value, place)
            continue
        if name not in KNOWN:
            near = ALIKE.get(name.lower()) or next(iter(difflib.get_close_matches(name, KNOWN, n=1, cutoff=0.8)), None)
            if near is not None:
                raise GraphError(f"{place}: there is no resource {name!r}; did you mean {near!r}?")
        amounts[name] = _amount(name, value, place)
    return WorkerResources(amounts.pop("num_cpus", None), amounts.pop("num_gpus", None), memory, amounts)


def _amount(name: str, value: object, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise GraphError(f"{place}: an amount of {name!r} is a number of at least 0, not {value!r}")
    return value


def _bytes(value: object, place: str) -> int:
    try:
        nbytes = parse_size(cast("str | int", value), key="memory")
    except ConfigError as error:
        raise GraphError(f"{place}: {error.reason}") from None
    if nbytes < 1:
        raise GraphError(f"{place}: a memory of {value!r} leaves room for nothing")
    return nbytes


def sum_of_resources(parts: Iterable[WorkerResources | None]) -> WorkerResources | None:
    """What several ask for together; None if none of them asks for anything."""
    total: dict[str, float] = {}
    memory: int | None = None
    asked = False
    for part in parts:
        if part is None:
            continue
        asked = True
        for name, amount in _amounts(part).items():
            total[name] = round(total.get(name, 0) + amount, 9)  # three times 0.1 fits into 0.3
        if part.memory is not None:
            memory = (memory or 0) + part.memory
    return WorkerResources(total.pop("num_cpus", None), total.pop("num_gpus", None), memory, total) if asked else None


def _amounts(resources: WorkerResources) -> dict[str, float]:
    amounts = dict(resources.custom)
    if resources.num_cpus is not None:
        amounts["num_cpus"] = resources.num_cpus
    if resources.num_gpus is not None:
        amounts["num_gpus"] = resources.num_gpus
    return amounts


def within(asked: WorkerResources | None, given: WorkerResources | None) -> WorkerResources:
    """What a worker gets: what its place gives to each of its workers, and beside it what its tasks ask for.

    Raises:
        ValueError: they ask for more than there is of something; says of what, and how much.
    """
    if asked is None or given is None:
        return asked or given or WorkerResources(custom={})
    amounts = _amounts(asked)
    for name, amount in _amounts(given).items():
        if amounts.get(name, 0) > amount:
            raise ValueError(f"{name} {amounts[name]:g}, where each worker has {amount:g}")
        amounts[name] = amount
    if asked.memory is not None and given.memory is not None and asked.memory > given.memory:
        raise ValueError(f"memory {size_in_words(asked.memory)}, where each worker has {size_in_words(given.memory)}")
    memory = asked.memory if given.memory is None else given.memory
    return WorkerResources(amounts.pop("num_cpus", None), amounts.pop("num_gpus", None), memory, amounts)


def size_in_words(nbytes: int) -> str:
    """As people write it: the largest unit that divides it, or bytes."""
    for unit, factor in (("TB", 1 << 40), ("GB", 1 << 30), ("MB", 1 << 20), ("KB", 1 << 10)):
        if nbytes and nbytes % factor == 0:
            return f"{nbytes // factor} {unit}"
    return f"{nbytes} bytes"


def describe_resources(resources: WorkerResources | None) -> str:
    """``num_cpus 0.5, memory 2 GB``; "" where nothing is asked for."""
    if resources is None:
        return ""
    amounts = _amounts(resources)
    first = [f"{name} {amounts.pop(name):g}" for name in ("num_cpus", "num_gpus") if name in amounts]
    memory = [] if resources.memory is None else [f"memory {size_in_words(resources.memory)}"]
    return ", ".join([*first, *memory, *(f"{name} {amounts[name]:g}" for name in sorted(amounts))])
