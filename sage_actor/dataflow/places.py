"""Named places where steps may run: a backend each, with workers of its own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sage_actor.actor.backend import WorkerResources
from sage_actor.dataflow.resources import parse_resources
from sage_actor.errors import ConfigError, GraphError

__all__ = ["Place", "parse_places"]

NAME = re.compile(r"[\w-]+")


@dataclass(frozen=True, slots=True)
class Place:
    """A backend under a name of the job's own.

    Attributes:
        name: what `.place(...)` says.
        backend: an address, as for the job: ``local`` (the submitting process), ``process``, ``redis://...``, ``ray``.
        workers: how many there are; None means the largest parallelism of its steps.
        resources: what each of its workers gets; None where nothing is said.
    """

    name: str
    backend: str
    workers: int | None = None
    resources: WorkerResources | None = None


def parse_places(settings: Iterable[tuple[str, Any]], where: str = "code") -> dict[str, Place]:
    """The places of settings with dotted keys: ``NAME`` (an address), or ``NAME.backend``, ``NAME.workers``, ``NAME.resources.…``.

    Raises:
        ConfigError: a place without a backend, an unknown key, or a value of the wrong type.
    """
    given: dict[str, dict[str, Any]] = {}
    for key, value in settings:
        name, _, option = key.partition(".")
        if not NAME.fullmatch(name):
            raise ConfigError(f"places.{key}", "a place's name consists of letters, digits, '-' and '_'", where)
        options = given.setdefault(name, {})
        if option.startswith("resources."):
            options.setdefault("resources", {})[option.removeprefix("resources.")] = value
        elif option in ("", "backend", "workers", "resources"):
            options[option or "backend"] = value
        else:
            raise ConfigError(f"places.{key}", "is not a setting of a place: it has backend, workers and resources", where)
    return {name: _place(name, options, where) for name, options in given.items()}


def _place(name: str, options: Mapping[str, Any], where: str) -> Place:
    backend, workers = options.get("backend"), options.get("workers")
    if not isinstance(backend, str) or not backend:
        problem = "needs a backend: 'local', 'process', 'redis://host/0', 'ray'"
        raise ConfigError(f"places.{name}", problem if backend is None else f"{problem}; not {backend!r}", where)
    if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 1):
        raise ConfigError(f"places.{name}.workers", f"must be a whole number of at least 1, not {workers!r}", where)
    try:
        resources = parse_resources(options.get("resources"), f"place {name!r}")
    except GraphError as error:
        raise ConfigError(f"places.{name}.resources", str(error), where) from None
    return Place(name, backend, workers, resources)
