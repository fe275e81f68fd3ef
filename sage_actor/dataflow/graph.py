"""The logical graph: what the user described. Nothing here runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sage_actor.actor.backend import WorkerResources
from sage_actor.dataflow.functions import FunctionSpec
from sage_actor.dataflow.policies import OnError
from sage_actor.errors import GraphError

__all__ = ["Edge", "Graph", "Operator", "Partition", "Port"]

Port = str
"""A way out of an operator: "out", "dead" (letters), "failed" (requests), or "side:NAME" of an `OutputTag`."""
PartitionKind = Literal["forward", "hash", "rebalance", "shuffle", "broadcast", "custom", "gather"]


@dataclass(frozen=True, slots=True)
class Partition:
    """How the records of an edge are dealt to the receiving tasks.

    ``forward`` keeps task i on task i (or deals round-robin where the parallelisms differ); ``hash`` by `key`;
    ``custom`` by ``function(key, n)``; ``gather`` sends everything to task 0.
    """

    kind: PartitionKind = "forward"
    key: Callable[[Any], Any] | None = None
    function: Callable[[Any, int], int] | None = None


FORWARD = Partition()


@dataclass(slots=True)
class Edge:
    """From one port of an operator into the next operator."""

    source: int
    port: Port = "out"
    partition: Partition = FORWARD
    role: int = 0
    """Which input of a two-input operator it is: 0 or 1."""


@dataclass(slots=True, eq=False)
class Operator:
    """One step. ``options`` holds what only its kind knows.

    Attributes:
        id: number in the graph, in order of description.
        kind: source, sink, map, filter, flat_map, process, and those listed in operators/stage_of.py.
        name: shown to people; unique in the graph (``map``, ``map-2``).
        uid: stable id for saved state; unique, or None.
        function: what the user gave, if the kind takes a function.
        inputs: edges into it; empty for sources.
        parallelism: tasks; None means derived when planned.
        in_owner: must run in the process that submits the job (its data or its reader lives there).
        served: whether it belongs to a flow of requests.
        place: the named place that it must run at; None means derived when planned.
        resources: what each of its tasks asks for.
    """

    id: int
    kind: str
    name: str
    function: FunctionSpec | None = None
    inputs: list[Edge] = field(default_factory=lambda: list[Edge]())
    parallelism: int | None = None
    uid: str | None = None
    on_error: OnError | None = None
    chaining: bool = True
    in_owner: bool = False
    served: bool = False
    place: str | None = None
    resources: WorkerResources | None = None
    options: dict[str, Any] = field(default_factory=lambda: dict[str, Any]())

    @property
    def bounded(self) -> bool:
        """For sources: whether it ends by itself."""
        return bool(self.options.get("bounded", True))


class Graph:
    """Operators in the order of their description; each reads only from earlier ones, so there are no cycles."""

    def __init__(self) -> None:
        self.operators: list[Operator] = []
        self._names: dict[str, int] = {}

    def add(
        self,
        kind: str,
        name: str | None,
        *,
        default_name: str,
        function: FunctionSpec | None = None,
        inputs: Iterable[Edge] = (),
        options: Mapping[str, Any] | None = None,
    ) -> Operator:
        """Append an operator; a given name must be new, a derived one is numbered."""
        operator = Operator(len(self.operators), kind, "", function, list(inputs), options=dict(options or {}))
        if name is None:
            name = default_name
            number = 2
            while name in self._names:
                name = f"{default_name}-{number}"
                number += 1
        self.rename(operator, name)
        self.operators.append(operator)
        return operator

    def rename(self, operator: Operator, name: str) -> None:
        """Give an operator its name.

        Raises:
            GraphError: another operator has it.
        """
        if not name:
            raise GraphError("an operator's name must be a non-empty text")
        if self._names.get(name, operator.id) != operator.id:
            raise GraphError(f"two operators are named {name!r}; names tell operators apart in errors and metrics, give one another name")
        self._names.pop(operator.name, None)
        operator.name = name
        self._names[name] = operator.id

    def set_uid(self, operator: Operator, uid: str) -> None:
        """Give an operator its stable id.

        Raises:
            GraphError: another operator has it.
        """
        for other in self.operators:
            if other is not operator and other.uid == uid:
                raise GraphError(
                    f"operators {other.name!r} and {operator.name!r} have the same uid {uid!r}; saved state needs a unique one"
                )
        operator.uid = uid

    def upstream(self, ids: Iterable[int]) -> set[int]:
        """The given operators and all they read from."""
        found: set[int] = set()
        waiting = list(ids)
        while waiting:
            current = waiting.pop()
            if current not in found:
                found.add(current)
                waiting.extend(edge.source for edge in self.operators[current].inputs)
        return found

    def sinks(self) -> list[Operator]:
        """Operators that end a flow on purpose."""
        return [operator for operator in self.operators if operator.kind == "sink"]

    def loose_ends(self) -> list[Operator]:
        """Operators whose output nobody reads."""
        read = {edge.source for operator in self.operators for edge in operator.inputs}
        return [operator for operator in self.operators if operator.kind != "sink" and operator.id not in read]
