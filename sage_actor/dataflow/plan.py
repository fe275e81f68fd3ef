"""From graph to plan: fuse operators into chains, fix parallelism, place tasks on workers, number the channels. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sage_actor._core.stable_hash import default_groups
from sage_actor.dataflow.graph import Edge, Graph, Operator, Partition, Port
from sage_actor.dataflow.settings import JobSettings
from sage_actor.errors import GraphError

__all__ = ["Chain", "ChannelSpec", "OutputSpec", "Plan", "TaskSpec", "make_plan"]

MAX_CHANNELS = 1 << 20


@dataclass(slots=True)
class Chain:
    """Operators fused into one loop; runs as `parallelism` tasks."""

    id: int
    operators: list[Operator]
    parallelism: int
    in_owner: bool

    @property
    def name(self) -> str:
        """Names of its operators, in order."""
        return " -> ".join(operator.name for operator in self.operators)


@dataclass(frozen=True, slots=True)
class ChannelSpec:
    """One ordered path between two tasks: its number, both ends, the slot in the receiver's gate, which input it belongs to, and
    whether what comes through it carries event time."""

    id: int
    source_task: int
    source_worker: int
    target_task: int
    target_worker: int
    slot: int
    role: int = 0
    timed: bool = True


@dataclass(slots=True)
class OutputSpec:
    """Where one port of one operator of a task goes: a partition over channels, in order of the receiving tasks."""

    operator: int
    port: Port
    partition: Partition
    channels: list[ChannelSpec]
    consumer: str
    groups: int


@dataclass(slots=True)
class TaskSpec:
    """One parallel instance of a chain: all a worker needs to build it."""

    id: int
    chain: int
    index: int
    parallelism: int
    worker: int
    operators: list[Operator]
    groups: int = 128
    """Key groups of its keyed state (F15)."""
    inputs: list[ChannelSpec] = field(default_factory=lambda: list[ChannelSpec]())
    outputs: list[OutputSpec] = field(default_factory=lambda: list[OutputSpec]())

    @property
    def name(self) -> str:
        """Names of its operators and its index."""
        return f"{' -> '.join(operator.name for operator in self.operators)} [{self.index}]"


@dataclass(slots=True)
class Plan:
    """Chains and tasks of one job, placed on workers 0 (the owner) to `workers`."""

    chains: list[Chain]
    tasks: list[TaskSpec]
    workers: int
    parallelism: dict[int, int]
    """Parallelism of each operator, by its id."""


def make_plan(
    graph: Graph, wanted: Iterable[int], settings: JobSettings, *, hosts_in_owner: bool, groups: Mapping[str, int] | None = None
) -> Plan:
    """Compile the given sinks and all they need.

    Args:
        graph: the description.
        wanted: ids of the operators to run; their upstream comes along.
        settings: defaults for parallelism, number of workers, key groups.
        hosts_in_owner: whether all tasks live in the owner's process (local backend).
        groups: key groups of operators (by uid or name) whose state is restored; fixed for ever by their first run (F15).

    Raises:
        GraphError: the graph cannot run as described; names the operator.
    """
    ids = graph.upstream(wanted)
    operators = [operator for operator in graph.operators if operator.id in ids]
    parallelism = fix_parallelism(operators, settings)
    chains, chain_of = fuse(operators, parallelism, hosts_in_owner)
    largest = max((chain.parallelism for chain in chains if not chain.in_owner), default=0)
    workers = 0 if hosts_in_owner or largest == 0 else (settings.workers or largest)
    tasks: list[TaskSpec] = []
    tasks_of: dict[int, list[TaskSpec]] = {}
    for chain in chains:
        offset = chain.id if chain.parallelism == 1 else 0
        row: list[TaskSpec] = []
        for index in range(chain.parallelism):
            worker = 0 if hosts_in_owner or chain.in_owner else 1 + (index + offset) % workers
            row.append(TaskSpec(len(tasks), chain.id, index, chain.parallelism, worker, chain.operators))
            tasks.append(row[-1])
        tasks_of[chain.id] = row
    connect(chains, chain_of, tasks_of, settings, groups or {})
    return Plan(chains, tasks, workers, parallelism)


def fix_parallelism(operators: list[Operator], settings: JobSettings) -> dict[int, int]:
    """Own setting, else the job's default behind an exchange, else the upstream's."""
    parallelism: dict[int, int] = {}
    for operator in operators:
        if operator.in_owner:
            if operator.parallelism not in (None, 1):
                raise GraphError(
                    f"operator {operator.name!r} lives in the submitting process and has exactly one task, not {operator.parallelism}; "
                    "put rebalance() or key_by() behind it and set the parallelism there"
                )
            parallelism[operator.id] = 1
        elif operator.parallelism is not None:
            parallelism[operator.id] = operator.parallelism
        elif any(edge.partition.kind not in ("forward", "gather") for edge in operator.inputs):
            parallelism[operator.id] = settings.parallelism
        else:
            parallelism[operator.id] = max((parallelism[edge.source] for edge in operator.inputs), default=1)
    return parallelism


def fuse(operators: list[Operator], parallelism: dict[int, int], hosts_in_owner: bool) -> tuple[list[Chain], dict[int, int]]:
    """Join neighbours into chains where nothing but a function call lies between them."""
    consumers: dict[int, int] = {}
    for operator in operators:
        for edge in operator.inputs:
            if edge.port == "out":
                consumers[edge.source] = consumers.get(edge.source, 0) + 1
    by_id = {operator.id: operator for operator in operators}
    chains: list[Chain] = []
    chain_of: dict[int, int] = {}
    for operator in operators:
        only = operator.inputs[0] if len(operator.inputs) == 1 else None
        if (
            only is not None
            and consumers.get(only.source) == 1
            and can_fuse(by_id[only.source], operator, only, parallelism, hosts_in_owner)
        ):
            chain = chains[chain_of[only.source]]
            chain.operators.append(operator)
        else:
            chain = Chain(len(chains), [operator], parallelism[operator.id], operator.in_owner)
            chains.append(chain)
        chain_of[operator.id] = chain.id
    return chains, chain_of


def can_fuse(first: Operator, second: Operator, edge: Edge, parallelism: dict[int, int], hosts_in_owner: bool) -> bool:
    """Whether `second` may run in the same loop as `first`."""
    if edge.port != "out" or not first.chaining or not second.chaining:
        return False
    if second.kind == "map_async" or parallelism[first.id] != parallelism[second.id]:
        return False
    if not hosts_in_owner and first.in_owner != second.in_owner:
        return False
    return edge.partition.kind == "forward" or parallelism[first.id] == 1


def with_event_time(operators: Iterable[Operator]) -> set[int]:
    """Operators whose records have timestamps: assign_timestamps lies before them."""
    timed: set[int] = set()
    for operator in sorted(operators, key=lambda operator: operator.id):
        if operator.kind in ("timestamps", "window") or any(edge.source in timed for edge in operator.inputs):
            timed.add(operator.id)
    return timed


def connect(
    chains: list[Chain], chain_of: dict[int, int], tasks_of: dict[int, list[TaskSpec]], settings: JobSettings, restored: Mapping[str, int]
) -> None:
    """Create the channels between tasks of different chains."""
    number = 0
    timed = with_event_time([operator for chain in chains for operator in chain.operators])
    names = {operator.id: operator.name for chain in chains for operator in chain.operators}
    for chain in chains:
        head = chain.operators[0]
        targets = tasks_of[chain.id]
        known = [restored[uid] for uid in (operator.uid or operator.name for operator in chain.operators) if uid in restored]
        groups = max(known, default=settings.max_parallelism or default_groups(len(targets)))
        if groups < len(targets):
            raise GraphError(
                f"operator {head.name!r}: parallelism {len(targets)} is more than max_parallelism {groups}; a key group has one owner"
            )
        for target in targets:
            target.groups = groups
        for edge in head.inputs:
            sources = tasks_of[chain_of[edge.source]]
            pointwise = edge.partition.kind == "forward" and len(sources) == len(targets)
            for source in sources:
                receivers = [targets[source.index]] if pointwise else targets[:1] if edge.partition.kind == "gather" else targets
                channels: list[ChannelSpec] = []
                for target in receivers:
                    channel = ChannelSpec(
                        number, source.id, source.worker, target.id, target.worker, len(target.inputs), edge.role, edge.source in timed
                    )
                    number += 1
                    channels.append(channel)
                    target.inputs.append(channel)
                if number > MAX_CHANNELS:
                    raise GraphError(
                        f"operator {names[head.id]!r}: the job would need more than {MAX_CHANNELS} channels; lower the parallelism"
                    )
                source.outputs.append(OutputSpec(edge.source, edge.port, edge.partition, channels, head.name, groups))
