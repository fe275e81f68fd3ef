"""From graph to plan: fuse operators into chains, fix parallelism, place tasks on workers, number the channels. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from sage_actor._core.stable_hash import default_groups, group_range
from sage_actor.actor.backend import WorkerResources
from sage_actor.dataflow.graph import Edge, Graph, Operator, Partition, Port
from sage_actor.dataflow.key_table import KeyTable, is_division, range_of
from sage_actor.dataflow.placement import Hosts, PlacedWorkers, number_workers, refuse_limits, resources_of_workers
from sage_actor.dataflow.settings import JobSettings
from sage_actor.errors import GraphError

__all__ = ["Chain", "ChannelSpec", "OutputSpec", "Plan", "TaskSpec", "make_plan"]

MAX_CHANNELS = 1 << 20


@dataclass(slots=True)
class Chain:
    """Operators fused into one loop; runs as `parallelism` tasks, at one place (None: the job's backend), or in the owner."""

    id: int
    operators: list[Operator]
    parallelism: int
    in_owner: bool
    place: str | None = None

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
    table: KeyTable | None = None
    """Which task owns which key group; None: the default ranges (F14)."""


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
    table: KeyTable | None = None
    """Which task of the chain owns which key group; None: the default ranges (F14)."""
    inputs: list[ChannelSpec] = field(default_factory=lambda: list[ChannelSpec]())
    outputs: list[OutputSpec] = field(default_factory=lambda: list[OutputSpec]())

    @property
    def name(self) -> str:
        """Names of its operators and its index."""
        return f"{' -> '.join(operator.name for operator in self.operators)} [{self.index}]"

    @property
    def key_groups(self) -> tuple[int, int]:
        """Its own key groups: first and last, inclusive."""
        return group_range(self.index, self.groups, self.parallelism) if self.table is None else range_of(self.table, self.index)


@dataclass(slots=True)
class Plan:
    """Chains and tasks of one job, placed on workers 0 (the owner) to `workers`."""

    chains: list[Chain]
    tasks: list[TaskSpec]
    workers: int
    parallelism: dict[int, int]
    """Parallelism of each operator, by its id."""
    groups: list[PlacedWorkers] = field(default_factory=lambda: list[PlacedWorkers]())
    """Which workers belong to which place; together 1 to `workers`."""
    resources: list[WorkerResources] = field(default_factory=lambda: list[WorkerResources]())
    """What each worker is to have, in the order of their numbers; empty where nothing is asked for."""


def make_plan(
    graph: Graph,
    wanted: Iterable[int],
    settings: JobSettings,
    *,
    hosts_in_owner: bool,
    places_in_owner: Collection[str] = (),
    groups: Mapping[str, int] | None = None,
    tables: Mapping[str, KeyTable] | None = None,
    chosen: Mapping[int, int] | None = None,
) -> Plan:
    """Compile the given sinks and all they need.

    Args:
        graph: the description.
        wanted: ids of the operators to run; their upstream comes along.
        settings: defaults for parallelism, number of workers, places, key groups.
        hosts_in_owner: whether the job's backend has no workers: its tasks live in the owner's process (local backend).
        places_in_owner: names of the places of which the same is true.
        groups: key groups of operators (by uid or name) whose state is restored; fixed for ever by their first run (F15).
        tables: owners of the key groups of operators (by uid or name); what does not fit the plan is left out.
        chosen: parallelism of operators (by id) that was chosen since they were described.

    Raises:
        GraphError: the graph cannot run as described; names the operator.
    """
    ids = graph.upstream(wanted)
    operators = [operator for operator in graph.operators if operator.id in ids]
    hosts = Hosts(main=hosts_in_owner, places=places_in_owner)
    for operator in operators:
        hosts.refuse_misplaced(operator, settings)
    parallelism = fix_parallelism(operators, settings, chosen or {})
    chains, chain_of = fuse(operators, parallelism, hosts)
    needed: dict[str | None, int] = {}
    for chain in chains:
        if chain.in_owner:
            refuse_limits(chain.operators)
        else:
            needed[chain.place] = max(needed.get(chain.place, 0), chain.parallelism)
    placed = number_workers(needed, settings)
    workers_at = {group.place: group for group in placed}
    tasks: list[TaskSpec] = []
    tasks_of: dict[int, list[TaskSpec]] = {}
    hosted: dict[int, list[Operator]] = {}
    for chain in chains:
        offset = chain.id if chain.parallelism == 1 else 0
        row: list[TaskSpec] = []
        for index in range(chain.parallelism):
            worker = 0 if chain.in_owner else workers_at[chain.place].worker_of(index + offset)
            row.append(TaskSpec(len(tasks), chain.id, index, chain.parallelism, worker, chain.operators))
            tasks.append(row[-1])
            hosted.setdefault(worker, []).extend(chain.operators)
        tasks_of[chain.id] = row
    connect(chains, chain_of, tasks_of, settings, groups or {}, tables or {})
    workers = sum(group.count for group in placed)
    return Plan(chains, tasks, workers, parallelism, placed, resources_of_workers(placed, hosted, settings))


def fix_parallelism(operators: list[Operator], settings: JobSettings, chosen: Mapping[int, int]) -> dict[int, int]:
    """What was chosen since, else the own setting, else the job's default behind an exchange, else the upstream's."""
    parallelism: dict[int, int] = {}
    for operator in operators:
        own = chosen.get(operator.id, operator.parallelism)
        if operator.in_owner:
            if own not in (None, 1):
                raise GraphError(
                    f"operator {operator.name!r} lives in the submitting process and has exactly one task, not {own}; "
                    "put rebalance() or key_by() behind it and set the parallelism there"
                )
            parallelism[operator.id] = 1
        elif own is not None:
            parallelism[operator.id] = own
        elif any(edge.partition.kind not in ("forward", "gather") for edge in operator.inputs):
            parallelism[operator.id] = settings.parallelism
        else:
            parallelism[operator.id] = max((parallelism[edge.source] for edge in operator.inputs), default=1)
    return parallelism


def fuse(operators: list[Operator], parallelism: dict[int, int], hosts: Hosts) -> tuple[list[Chain], dict[int, int]]:
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
            and can_fuse(by_id[only.source], operator, only, parallelism)
            and same_place(chains[chain_of[only.source]], operator, hosts)
        ):
            chain = chains[chain_of[only.source]]
            chain.operators.append(operator)
            chain.place = chain.place if operator.place is None else operator.place
        else:
            in_owner = operator.in_owner or hosts.in_owner(operator.place)
            chain = Chain(len(chains), [operator], parallelism[operator.id], in_owner, operator.place)
            chains.append(chain)
        chain_of[operator.id] = chain.id
    return chains, chain_of


def can_fuse(first: Operator, second: Operator, edge: Edge, parallelism: dict[int, int]) -> bool:
    """Whether `second` may run in the same loop as `first`, as far as records are concerned."""
    if edge.port != "out" or not first.chaining or not second.chaining:
        return False
    if second.kind == "map_async" or parallelism[first.id] != parallelism[second.id]:
        return False
    return edge.partition.kind == "forward" or parallelism[first.id] == 1


def same_place(chain: Chain, operator: Operator, hosts: Hosts) -> bool:
    """Whether an operator may run where a chain runs. One without a place of its own takes that of the chain.

    What must live in the owner (a collection, `collect`) joins whatever else runs there.
    """
    placeless = chain.place is None and all(earlier.in_owner for earlier in chain.operators)
    if operator.place is not None:
        return operator.place == chain.place or (placeless and hosts.in_owner(operator.place))
    if operator.in_owner:
        return chain.in_owner
    return not placeless or hosts.in_owner(None)


def with_event_time(operators: Iterable[Operator]) -> set[int]:
    """Operators whose records have timestamps: assign_timestamps lies before them."""
    timed: set[int] = set()
    for operator in sorted(operators, key=lambda operator: operator.id):
        if operator.kind in ("timestamps", "window") or any(edge.source in timed for edge in operator.inputs):
            timed.add(operator.id)
    return timed


def connect(
    chains: list[Chain],
    chain_of: dict[int, int],
    tasks_of: dict[int, list[TaskSpec]],
    settings: JobSettings,
    restored: Mapping[str, int],
    tables: Mapping[str, KeyTable],
) -> None:
    """Create the channels between tasks of different chains."""
    number = 0
    timed = with_event_time([operator for chain in chains for operator in chain.operators])
    names = {operator.id: operator.name for chain in chains for operator in chain.operators}
    for chain in chains:
        head = chain.operators[0]
        targets = tasks_of[chain.id]
        uids = [operator.uid or operator.name for operator in chain.operators]
        known = [restored[uid] for uid in uids if uid in restored]
        groups = max(known, default=settings.max_parallelism or default_groups(len(targets)))
        if groups < len(targets):
            raise GraphError(
                f"operator {head.name!r}: parallelism {len(targets)} is more than max_parallelism {groups}; a key group has one owner"
            )
        table = next((tables[uid] for uid in uids if uid in tables and is_division(tables[uid], groups, len(targets))), None)
        for target in targets:
            target.groups, target.table = groups, table
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
                source.outputs.append(OutputSpec(edge.source, edge.port, edge.partition, channels, head.name, groups, table))
