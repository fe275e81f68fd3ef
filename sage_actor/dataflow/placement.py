"""Which worker of which place a task goes to, and what each worker is to have. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from sage_actor.actor.backend import WorkerResources
from sage_actor.dataflow.graph import Operator
from sage_actor.dataflow.resources import describe_resources, sum_of_resources, within
from sage_actor.dataflow.settings import JobSettings
from sage_actor.errors import GraphError

__all__ = ["Hosts", "PlacedWorkers", "number_workers", "refuse_limits", "resources_of_workers", "unknown_place"]


@dataclass(frozen=True, slots=True)
class PlacedWorkers:
    """The workers of one place: so many, numbered from `first` on, one place after the other.

    Attributes:
        place: its name; None for the job's own backend.
    """

    place: str | None
    first: int
    count: int

    def worker_of(self, index: int) -> int:
        """Tasks are dealt to the workers of their place in turn."""
        return self.first + index % self.count

    def __contains__(self, worker: object) -> bool:
        return isinstance(worker, int) and self.first <= worker < self.first + self.count


class Hosts:
    """Which places have no workers of their own, so that their tasks live in the submitting process.

    Args:
        main: whether the job's own backend is such a one.
        places: names of the others.
    """

    def __init__(self, *, main: bool, places: Collection[str] = ()) -> None:
        self._main = main
        self._places = frozenset(places)

    def in_owner(self, place: str | None) -> bool:
        """Whether tasks of that place (None: the job's backend) live in the submitting process."""
        return self._main if place is None else place in self._places

    def refuse_misplaced(self, operator: Operator, settings: JobSettings) -> None:
        """Raise GraphError if an operator cannot be where it was told to be, or have there what it asks for."""
        place = operator.place
        if place is not None and place not in settings.places:
            raise GraphError(f"operator {operator.name!r}: {unknown_place(place, settings)}")
        if operator.in_owner and place is not None and not self.in_owner(place):
            raise GraphError(
                f"operator {operator.name!r} lives in the submitting process, so it cannot be placed at {place!r}; "
                "place the step behind or before it"
            )


def unknown_place(place: str, settings: JobSettings) -> str:
    """What is wrong with a place that the job does not have."""
    known = ", ".join(map(repr, settings.places)) or "none: give the environment places={...}"
    return f"there is no place {place!r}; the places of this job: {known}"


def refuse_limits(operators: Iterable[Operator]) -> None:
    """Raise GraphError where steps in the owner ask for what nobody can set aside there. Cores are a wish there."""
    for operator in operators:
        asked = operator.resources
        if asked is None:
            continue
        limits = {"num_gpus": asked.num_gpus, "memory": asked.memory, **asked.custom}
        for name, amount in limits.items():
            if amount:
                raise GraphError(
                    f"operator {operator.name!r} asks for {name}, but it runs in the submitting process, where nobody can set it aside; "
                    "give the job a backend with workers, or the step a place that has some"
                )


def number_workers(needed: Mapping[str | None, int], settings: JobSettings) -> list[PlacedWorkers]:
    """Worker numbers for every place that needs any: those of the job's backend first, then place by place as they were given.

    Args:
        needed: the largest parallelism at each place that has workers (None: the job's backend).
        settings: may say how many workers there are.
    """
    groups: list[PlacedWorkers] = []
    first = 1
    for place in (None, *settings.places):
        parallelism = needed.get(place, 0)
        if parallelism:
            wanted = settings.workers if place is None else settings.places[place].workers
            groups.append(PlacedWorkers(place, first, wanted or parallelism))
            first += groups[-1].count
    return groups


def resources_of_workers(
    groups: Sequence[PlacedWorkers], hosted: Mapping[int, Sequence[Operator]], settings: JobSettings
) -> list[WorkerResources]:
    """What each worker is to have, in the order of their numbers; empty where nothing is asked for.

    A worker has what the settings give each worker of its place, and beside it the sum of what its tasks ask for.

    Args:
        groups: all workers.
        hosted: for each worker, the operators of its tasks; one that has several tasks there comes several times.
        settings: of the job.

    Raises:
        GraphError: tasks ask for more than their worker has; names the worker, its place and the operators.
    """
    found: list[WorkerResources] = []
    for group in groups:
        given = resources_of_place(group.place, settings)
        for worker in range(group.first, group.first + group.count):
            asking = [operator for operator in hosted.get(worker, ()) if operator.resources is not None]
            try:
                found.append(within(sum_of_resources(operator.resources for operator in asking), given))
            except ValueError as problem:
                names = ", ".join(dict.fromkeys(repr(operator.name) for operator in asking))
                where = "" if group.place is None else f" of place {group.place!r}"
                raise GraphError(
                    f"worker {worker}{where} cannot host the tasks of {names}: together they ask for {problem}; "
                    "lower what they ask for, give the workers more, or have more workers"
                ) from None
    return found if any(describe_resources(resources) for resources in found) else []


def resources_of_place(place: str | None, settings: JobSettings) -> WorkerResources | None:
    """What the settings give each worker of a place: its own, and what they give every worker where it says nothing."""
    common = settings.worker_resources
    own = None if place is None else settings.places[place].resources
    if own is None or common is None:
        return own or common
    return replace(
        own, num_cpus=common.num_cpus if own.num_cpus is None else own.num_cpus, memory=common.memory if own.memory is None else own.memory
    )
