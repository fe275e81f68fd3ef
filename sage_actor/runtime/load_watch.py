"""Looks at the load of a job again and again, and has it divided anew where that helps: for the parallelism, and for key groups."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sage_actor.dataflow.key_table import KeyTable, divide_evenly, divide_load, heaviest
from sage_actor.dataflow.parallelism import OperatorLoad, ParallelismController
from sage_actor.dataflow.plan import Plan
from sage_actor.errors import GraphError, SageError, StateMismatch
from sage_actor.ports import Cancellable
from sage_actor.runtime.task_snapshots import state_uid

if TYPE_CHECKING:
    from sage_actor.runtime.coordinator import Coordinator

__all__ = ["LoadWatch", "better_tables", "operator_loads"]

EVENTS = logging.getLogger("sage_actor.jobs")

GAIN = 0.2
"""The task with the most to do must get so much less, or key groups stay where they are: moving them costs a restart."""
FEWEST = 1000
"""Records that it takes to conclude something from their keys; where they are slow to come the next look includes them."""

Tasks = Sequence[Mapping[str, Any]]
Change = Callable[[], Coroutine[Any, Any, None]]


class LoadWatch:
    """Belongs to one job, over all its attempts. Does nothing unless a controller or the strategy ``key_group`` was asked for.

    A change that fails is logged, and tried again when the load has been seen anew; one that can never be made ends the looking.
    """

    def __init__(self, coordinator: Coordinator, controller: ParallelismController | None) -> None:
        self.coordinator = coordinator
        self.controller = controller
        self.clock = coordinator.clock
        self.timers: dict[str, Cancellable] = {}
        self.changing: asyncio.Task[None] | None = None
        self.attempt = 0
        self.tasks: Tasks = ()
        self.history: list[Mapping[str, OperatorLoad]] = []
        self.looked_at = self.quiet_until = 0.0
        self.counted_in = 0
        self.counted: dict[str, Sequence[int]] = {}

    def start(self) -> None:
        """Begin to look, until `close`."""
        settings = self.coordinator.settings
        moves = self.controller is not None or settings.balancing == "key_group"
        if not moves:
            return
        if not settings.snapshot_mode:
            self._keep("it answers requests, which are never replayed")
            return
        if self.coordinator.unrepeatable:
            self._keep(f"what {', '.join(self.coordinator.unrepeatable)} reads cannot be read again from where it stands")
            return
        if self.controller is not None:
            self._again("parallelism", self.controller.interval, self._look_at_tasks)
        if settings.balancing == "key_group":
            self._again("key groups", settings.rebalance_interval, self._look_at_keys)

    def _keep(self, reason: object) -> None:
        EVENTS.warning("job keeps its division into tasks: %s", reason, extra={"job": self.coordinator.job.id})

    def _again(self, what: str, interval: float, look: Callable[[], Change | None]) -> None:
        def due() -> None:
            self.timers[what] = self.clock.call_later(interval, due)
            if self.changing is not None or self.coordinator.job.status != "running":
                return
            change = look()
            if change is not None:
                self.changing = asyncio.get_running_loop().create_task(self._change(change), name=f"rescale {self.coordinator.job.id}")

        self.timers[what] = self.clock.call_later(interval, due)

    async def _change(self, change: Change) -> None:
        try:
            await change()
        except (GraphError, StateMismatch) as error:
            self._keep(error)
            self._stop()
        except (SageError, OSError) as error:
            EVENTS.warning("job could not be divided anew: %s", error, extra={"job": self.coordinator.job.id})
        finally:
            self.changing = None
            if self.controller is not None:
                self.quiet_until = self.clock.monotonic() + self.controller.cool_down

    def _stop(self) -> None:
        for timer in self.timers.values():
            timer.cancel()

    # -- parallelism -------------------------------------------------------------------------------------------------

    def _look_at_tasks(self) -> Change | None:
        coordinator, controller = self.coordinator, self.controller
        assert controller is not None
        tasks, now = coordinator.snapshots(), self.clock.monotonic()
        if self.attempt != coordinator.number or now < self.quiet_until:
            self.attempt, self.history = coordinator.number, []
        else:
            loads = operator_loads(coordinator.plan, self.tasks, tasks, now - self.looked_at)
            self.history = [*self.history, loads][-controller.looks :]
        self.tasks, self.looked_at = tasks, now
        wanted = controller.decide(self.history)
        if not wanted:
            return None
        EVENTS.info("parallelism follows the load: %s", wanted, extra={"job": coordinator.job.id})
        return lambda: coordinator.rescale(wanted)

    # -- key groups --------------------------------------------------------------------------------------------------

    def _look_at_keys(self) -> Change | None:
        coordinator = self.coordinator
        total: dict[str, list[int]] = {}
        for task in coordinator.snapshots():
            for consumer, counts in task.get("key_groups", {}).items():
                before = total.get(consumer)
                total[consumer] = list(counts) if before is None else [a + b for a, b in zip(before, counts, strict=True)]
        if self.counted_in != coordinator.number:
            self.counted, self.counted_in = {}, coordinator.number
        load: dict[str, Sequence[int]] = {}
        for name, counts in total.items():
            then = self.counted.get(name, [0] * len(counts))
            since = [now - before for now, before in zip(counts, then, strict=True)]
            if sum(since) >= FEWEST:
                load[name] = since
                self.counted[name] = counts
        tables = better_tables(coordinator.plan, load)
        if not tables:
            return None
        EVENTS.info("key groups move: %s", ", ".join(tables), extra={"job": coordinator.job.id})
        return lambda: coordinator.rescale(tables=tables)

    async def close(self) -> None:
        """Look no more."""
        self._stop()
        changing = self.changing
        if changing is not None:
            changing.cancel()
            await asyncio.wait((changing,))


def operator_loads(plan: Plan, before: Tasks, now: Tasks, seconds: float) -> dict[str, OperatorLoad]:
    """What was done between two looks by the operators whose parallelism is free: behind an exchange, with no parallelism of their own,
    not in the submitting process because of what they are. Each has the load of the chain that it is in."""
    then = {task["task"]: task for task in before}
    rows: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for task in now:
        former = then.get(task["task"])
        if former is not None:
            busy, blocked = (int(task[name]) - int(former[name]) for name in ("busy_ns", "backpressured_ns"))
            rows[task["operator"]].append((busy, blocked, int(task["gate_depth"])))
    loads: dict[str, OperatorLoad] = {}
    for chain in plan.chains:
        seen = rows.get(chain.operators[0].name)
        if seen is None:
            continue
        whole = max(1.0, seconds * 1e9 * len(seen))  # a task that waits for long has not said so yet: idle time is what is left
        busy, blocked, queued = (sum(row[place] for row in seen) for place in range(3))
        load = OperatorLoad(chain.parallelism, min(1.0, busy / whole), min(1.0, blocked / whole), queued)
        for operator in chain.operators:
            dealt = any(edge.partition.kind not in ("forward", "gather", "broadcast") for edge in operator.inputs)
            if dealt and operator.parallelism is None and not operator.in_owner:
                loads[operator.name] = load
    return loads


def better_tables(plan: Plan, load: Mapping[str, Sequence[int]]) -> dict[str, KeyTable]:
    """By uid, the owners of key groups where a new table takes enough from the task that has most.

    Args:
        plan: as it runs.
        load: by name of the receiving operator, the records of each key group.
    """
    tables: dict[str, KeyTable] = {}
    for chain in plan.chains:
        head = chain.operators[0]
        weights = load.get(head.name)
        if weights is None or chain.parallelism < 2:
            continue
        task = next(task for task in plan.tasks if task.chain == chain.id)
        present = task.table or divide_evenly(task.groups, chain.parallelism)
        wanted = divide_load(weights, chain.parallelism)
        if heaviest(weights, wanted) <= (1 - GAIN) * heaviest(weights, present):
            tables[state_uid(head)] = wanted
    return tables
