"""The backends of one job: its own, and those of the places that its steps name."""

from __future__ import annotations

from collections.abc import Iterable

from sage_actor.actor.backend import Backend
from sage_actor.actor.open_backend import open_backend
from sage_actor.dataflow.graph import Operator
from sage_actor.dataflow.plan import Plan
from sage_actor.dataflow.settings import JobSettings
from sage_actor.errors import BackendError
from sage_actor.runtime.places import PlacedBackend, at_place

__all__ = ["JobBackends"]


class JobBackends:
    """Backends opened by their addresses; those of places that no step names are left alone. Nothing is started.

    Raises:
        BackendError: one of them is unknown or cannot be used; names the place.
    """

    def __init__(self, settings: JobSettings, operators: Iterable[Operator]) -> None:
        self._main = open_backend(settings.backend)
        self._places: dict[str, Backend] = {}
        named = {operator.place for operator in operators}
        for name, place in settings.places.items():
            if name not in named:
                continue
            try:
                self._places[name] = open_backend(place.backend)
            except BackendError as error:
                raise at_place(name, error) from error

    @property
    def hosts_in_owner(self) -> bool:
        """Whether the job's own backend has no workers."""
        return self._main.hosts_in_owner

    @property
    def places_in_owner(self) -> frozenset[str]:
        """Names of the places whose backends have none."""
        return frozenset(name for name, backend in self._places.items() if backend.hosts_in_owner)

    def for_plan(self, plan: Plan) -> Backend:
        """What starts the workers of a plan."""
        if all(group.place is None for group in plan.groups):
            return self._main
        backends = {group.place: self._main if group.place is None else self._places[group.place] for group in plan.groups}
        return PlacedBackend(backends, plan.groups)
