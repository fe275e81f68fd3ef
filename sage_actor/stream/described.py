"""What every stream and every end of one has in common: the operator it describes, and where it reads from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from sage_actor.dataflow.fitting import UNKNOWN, check_fit
from sage_actor.dataflow.functions import FunctionSpec
from sage_actor.dataflow.graph import Edge, Operator, Partition
from sage_actor.dataflow.placement import unknown_place
from sage_actor.dataflow.policies import OnError, parse_policy
from sage_actor.dataflow.resources import Resources, parse_resources
from sage_actor.errors import GraphError

if TYPE_CHECKING:
    from sage_actor.stream.environment import EnvironmentBase

__all__ = ["DataStreamSink", "Described", "check_parallelism", "check_whole"]


class Described:
    """The output of one operator, or of several united, and what can be said of the last one."""

    def __init__(self, env: EnvironmentBase, taps: Sequence[Edge], *, produced: Any = UNKNOWN, parallelism: int | None = None) -> None:
        self._env = env
        self._taps = tuple(taps)
        self._produced = produced
        self._parallelism = parallelism

    def name(self, name: str) -> Self:
        """Name the last operator."""
        self._env.graph.rename(self._last("name"), name)
        return self

    def uid(self, uid: str) -> Self:
        """Give the last operator a stable id for saved state."""
        self._env.graph.set_uid(self._last("uid"), uid)
        return self

    def set_parallelism(self, parallelism: int) -> Self:
        """Set how many tasks run the last operator (after key_by, rebalance and the like: the next one)."""
        check_parallelism(parallelism, "set_parallelism")
        if any(tap.partition.kind != "forward" for tap in self._taps):
            self._parallelism = parallelism
        else:
            set_operator_parallelism(self._last("set_parallelism"), parallelism)
        return self

    def place(self, name: str) -> Self:
        """Run the last operator at a place of the environment (``places=``).

        A step that is given no place runs where the step before it runs if the two are one chain, else on the job's backend.

        Raises:
            GraphError: the environment has no such place, or there is no last operator (behind key_by, rebalance and the like).
        """
        if any(tap.partition.kind != "forward" for tap in self._taps):
            raise GraphError(f"place({name!r}): key_by, rebalance and the like run nowhere; call it behind the step that follows")
        place_operator(self._env, self._last("place"), name)
        return self

    def on_error(self, policy: OnError) -> Self:
        """Set what the last operator does with a record whose function raises."""
        operator = self._last("on_error")
        operator.on_error = parse_policy(policy, f"operator {operator.name!r}")
        return self

    def disable_chaining(self) -> Self:
        """Give the last operator a task of its own; the output stays the same."""
        self._last("disable_chaining").chaining = False
        return self

    def explain(self) -> str:
        """Graph and plan of the environment as text."""
        return self._env.explain()

    def _repr_svg_(self) -> str:
        return self._env.explain(format="svg")

    def __repr__(self) -> str:
        ends = ", ".join(self._env.graph.operators[tap.source].name for tap in self._taps)
        return f"<{type(self).__name__} of {ends!r} in {self._env.name!r}>"

    # -- building blocks ------------------------------------------------------------------------------------------

    def _dealt(self, partition: Partition) -> list[Edge]:
        return [Edge(tap.source, tap.port, partition, tap.role) for tap in self._taps]

    def _last(self, what: str) -> Operator:
        if len(self._taps) != 1:
            raise GraphError(f"{what}: a union has no last operator; call it on a stream before the union")
        return self._env.graph.operators[self._taps[0].source]

    def _end(
        self,
        name: str | None,
        default_name: str,
        spec: FunctionSpec | None,
        parallelism: int | None,
        on_error: OnError | None,
        *,
        resources: Resources | None = None,
        in_owner: bool = False,
        **options: Any,
    ) -> DataStreamSink:
        operator = self._add("sink", name, default_name, spec, parallelism, on_error, options, resources=resources)
        operator.in_owner = in_owner
        if in_owner:
            operator.parallelism = 1
        return DataStreamSink(self._env, operator)

    def _add(
        self,
        kind: str,
        name: str | None,
        default_name: str,
        spec: FunctionSpec | None,
        parallelism: int | None,
        on_error: OnError | None,
        options: Mapping[str, Any],
        *,
        resources: Resources | None = None,
    ) -> Operator:
        graph = self._env.graph
        label = name or default_name
        policy = None if on_error is None else parse_policy(on_error, f"operator {label!r}")
        asked = parse_resources(resources, f"operator {label!r}")
        if parallelism is not None:
            check_parallelism(parallelism, f"operator {label!r}")
        if spec is not None and len(self._taps) == 1:
            check_fit(self._produced, graph.operators[self._taps[0].source].name, spec, label)
        if spec is not None:
            self._env.late_bindings.check(spec, label)
        inputs = [Edge(tap.source, tap.port, tap.partition) for tap in self._taps]
        operator = graph.add(kind, name, default_name=default_name, function=spec, inputs=inputs, options=options)
        operator.on_error = policy
        operator.resources = asked
        operator.parallelism = parallelism if parallelism is not None else self._parallelism
        operator.served = any(graph.operators[tap.source].served for tap in self._taps)
        return operator

    def _add_two(
        self,
        kind: str,
        other: Described,
        name: str | None,
        default_name: str,
        spec: FunctionSpec | None,
        parallelism: int | None,
        on_error: OnError | None,
        options: Mapping[str, Any],
        *,
        resources: Resources | None = None,
    ) -> Operator:
        """An operator with two inputs: this stream, and the other."""
        if other._env is not self._env:
            raise GraphError(f"{kind}: the streams belong to two environments ({self._env.name!r} and {other._env.name!r})")
        operator = self._add(kind, name, default_name, None, parallelism, on_error, options, resources=resources)
        operator.function = spec
        operator.inputs.extend(Edge(tap.source, tap.port, tap.partition, 1) for tap in other._taps)
        operator.served = operator.served or any(self._env.graph.operators[tap.source].served for tap in other._taps)
        return operator


class DataStreamSink:
    """The end of a stream. ``env.submit(sink)`` starts only what this end needs."""

    def __init__(self, env: EnvironmentBase, operator: Operator) -> None:
        self.env = env
        self.operator = operator

    @property
    def name(self) -> str:
        """The operator's name."""
        return self.operator.name

    @property
    def uid(self) -> str | None:
        """The operator's stable id, if it has one."""
        return self.operator.uid

    def set_parallelism(self, parallelism: int) -> Self:
        """Set how many tasks write."""
        check_parallelism(parallelism, "set_parallelism")
        set_operator_parallelism(self.operator, parallelism)
        return self

    def place(self, name: str) -> Self:
        """Write at a place of the environment (``places=``); without one, see `DataStream.place`."""
        place_operator(self.env, self.operator, name)
        return self

    def __repr__(self) -> str:
        return f"<DataStreamSink {self.name!r} in {self.env.name!r}>"


def place_operator(env: EnvironmentBase, operator: Operator, name: str) -> None:
    """Refuses a place that the environment does not have."""
    if name not in env.settings.places:
        raise GraphError(f"operator {operator.name!r}: {unknown_place(name, env.settings)}")
    operator.place = name


def set_operator_parallelism(operator: Operator, parallelism: int) -> None:
    """Refuses more than one task for what lives in the submitting process."""
    if operator.in_owner and parallelism > 1:
        raise GraphError(f"operator {operator.name!r} runs in the submitting process and has exactly one task, not {parallelism}")
    operator.parallelism = parallelism


def check_parallelism(value: object, place: str) -> None:
    """A whole number of at least 1."""
    check_whole(value, place, "parallelism")


def check_whole(value: object, place: str, option: str) -> None:
    """Raise GraphError unless it is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise GraphError(f"{place}: {option} must be a whole number of at least 1, not {value!r}")
