"""Another division of a running job into tasks: what may be asked for, and a change under way.

There is one way to change: a checkpoint behind which sources read nothing, the end of the attempt, and another attempt from that
checkpoint, with another plan. State, positions and transactions go through it as they go through a restart at another parallelism.
"""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sage_actor.dataflow.graph import Operator
from sage_actor.dataflow.key_table import KeyTable
from sage_actor.dataflow.plan import Plan
from sage_actor.dataflow.settings import JobSettings
from sage_actor.dataflow.source import Source
from sage_actor.errors import CheckpointError, GraphError

__all__ = ["Division", "Move", "check_plan", "choose", "refuse_unrepeatable", "same_division"]


@dataclass(frozen=True, slots=True)
class Division:
    """How a job is divided into tasks and workers, as far as that can change while it runs.

    Attributes:
        settings: of the job: default parallelism, number of workers.
        chosen: by id of the operator, a parallelism that was chosen since it was described.
        tables: by uid, owners of key groups that were chosen last; a manifest knows of those before.
    """

    settings: JobSettings
    chosen: Mapping[int, int] = field(default_factory=lambda: dict[int, int]())
    tables: Mapping[str, KeyTable] = field(default_factory=lambda: dict[str, KeyTable]())


@dataclass(slots=True)
class Move:
    """From one division to another. `done` is set when all tasks of the new one are open, or with the reason why it is not.

    Attributes:
        before: to go back to if the new one cannot be started.
        has_ended: whether the attempt that ran before is over.
    """

    before: Division
    done: asyncio.Future[None]
    has_ended: bool = False

    def settle(self, error: BaseException | None = None) -> None:
        """Tell whoever waits; perhaps nobody does any more."""
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)
            self.done.exception()


def choose(
    before: Division,
    operators: Sequence[Operator],
    parallelism: int | Mapping[str, int] | None,
    workers: int | None,
    tables: Mapping[str, KeyTable] | None,
) -> Division:
    """The division that is asked for.

    Args:
        before: as it is.
        operators: of the job.
        parallelism: the job's default, or that of operators by name or uid.
        workers: how many; None leaves it as it is.
        tables: owners of key groups, by uid.

    Raises:
        GraphError: there is no such operator, or no such number of tasks of it.
    """
    settings = before.settings if workers is None else replace(before.settings, workers=_positive(workers, "the number of workers"))
    chosen = dict(before.chosen)
    if isinstance(parallelism, Mapping):
        by_name = {operator.name: operator for operator in operators} | {op.uid: op for op in operators if op.uid is not None}
        for name, wanted in parallelism.items():
            operator = by_name.get(name)
            if operator is None:
                near = difflib.get_close_matches(name, by_name, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(map(repr, by_name))}"
                raise GraphError(f"rescale: the job has no operator of name or uid {name!r}{hint}")
            chosen[operator.id] = _positive(wanted, f"the parallelism of operator {name!r}")
    elif parallelism is not None:
        settings = replace(settings, parallelism=_positive(parallelism, "parallelism"))
    return Division(settings, chosen, dict(tables or {}))


def _positive(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise GraphError(f"rescale: {what} must be a whole number of at least 1, not {value!r}")
    return value


def check_plan(plan: Plan, former: Plan) -> None:
    """Refuse what a new plan asks of sources that cannot do it.

    Raises:
        GraphError: a source would be read by another number of tasks, and does not say how its splits are dealt.
    """
    for chain in plan.chains:
        head = chain.operators[0]
        if head.kind == "source" and chain.parallelism != former.parallelism[head.id] and not can_be_dealt(head.options["source"]):
            raise GraphError(
                f"rescale: source {head.name!r} has one position for each of its {former.parallelism[head.id]} tasks, which cannot be "
                f"dealt to {chain.parallelism}; give it splits() and assign(), or leave its parallelism as it is"
            )


def can_be_dealt(given: Any) -> bool:
    """Whether a source (or its class) can take over what others have still to read."""
    cls: Any = given if isinstance(given, type) else type(given)
    base: Any = Source
    return issubclass(cls, base) and cls.assign is not base.assign


def same_division(plan: Plan, other: Plan) -> bool:
    """Whether two plans have the same tasks in the same places, with the same key groups."""

    def seen(tasks: Iterable[Any]) -> list[Any]:
        return [(task.chain, task.index, task.parallelism, task.worker, task.key_groups, task.name) for task in tasks]

    return plan.workers == other.workers and seen(plan.tasks) == seen(other.tasks)


def refuse_unrepeatable(job: str, sources: Sequence[str]) -> None:
    """What cannot be read again from where it stands cannot move.

    Raises:
        CheckpointError: there are such sources.
    """
    if sources:
        raise CheckpointError(
            job,
            f"it cannot be rescaled: what {', '.join(sources)} reads cannot be read again from where it stands; give from_source a "
            "collection, or a Source class with position and seek",
        )
