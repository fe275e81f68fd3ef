"""Reading the state of a running job from outside: the owner's side, which finds the task, and the task's side, which answers."""

from __future__ import annotations

import asyncio
import itertools
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sage_actor._core.stable_hash import key_group
from sage_actor.actor.portable import dump
from sage_actor.dataflow.plan import Plan, TaskSpec
from sage_actor.errors import StateError
from sage_actor.operators.fold_stage import FoldStage
from sage_actor.runtime.portable import pack_error, unpack_error
from sage_actor.runtime.task import Task
from sage_actor.runtime.task_snapshots import state_uid

__all__ = ["Queries", "Question", "answer"]

FOLD: Final = "fold"
"""The name of what count, sum, min, max, reduce, fold and aggregate keep for a key."""

NOTHING: Final = object()

Question = tuple[int, str, str, Any]
"""Number, uid of the operator, name of the state, key."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A question under way."""

    operator: str
    state: str
    answered: asyncio.Future[tuple[bool, Any]]


class Queries:
    """The questions of one attempt that wait for their answers. Belongs to the job's loop.

    Args:
        order: sends an order to tasks; see `Attempt.order`.
    """

    def __init__(self, job: str, plan: Plan, order: Callable[[str, Any, set[int]], None]) -> None:
        self._job = job
        self._plan = plan
        self._order = order
        self._numbers = itertools.count(1)
        self._open: set[int] = set()
        self._early: dict[int, list[Question]] = {}
        self._waiting: dict[int, Waiting] = {}
        self._closed = False

    async def ask(self, operator: str, state: str, key: Any, default: Any) -> Any:
        """What the state is for the key now, or `default`; waits until the task that has the key is open.

        Raises:
            StateError: there is no such operator or state, the task has ended, or the attempt ends first.
            UnstableKey: such a key has no state anywhere.
        """
        uid, task = self._find(operator, state, key)
        if self._closed:
            raise self._ended(operator, state)
        number = next(self._numbers)
        waiting = self._waiting[number] = Waiting(operator, state, asyncio.get_running_loop().create_future())
        question: Question = (number, uid, state, key)
        if task.id in self._open:
            self._order("query", question, {task.id})
        else:
            self._early.setdefault(task.id, []).append(question)
        try:
            found, value = await waiting.answered
        finally:
            del self._waiting[number]
        return value if found else default

    def opened(self, task: int) -> None:
        """A task has opened its state: what was asked of it meanwhile goes out."""
        self._open.add(task)
        for question in self._early.pop(task, ()):
            if question[0] in self._waiting:
                self._order("query", question, {task})

    def hear(self, number: int, packed: bytes, failed: bool) -> None:
        """A task has answered; nobody may be waiting any more."""
        waiting = self._waiting.get(number)
        if waiting is None or waiting.answered.done():
            return
        answered = waiting.answered
        if failed:
            answered.set_exception(unpack_error(packed))
            return
        try:
            answered.set_result(pickle.loads(packed))
        except Exception as error:  # noqa: BLE001 - the user's classes are made anew here, which may raise anything
            problem = f"the value cannot be read here: {type(error).__name__}: {error}"
            answered.set_exception(StateError(waiting.operator, waiting.state, problem))

    def close(self) -> None:
        """The attempt is over: nobody answers any more."""
        self._closed = True
        for waiting in self._waiting.values():
            if not waiting.answered.done():
                waiting.answered.set_exception(self._ended(waiting.operator, waiting.state))

    def _ended(self, operator: str, state: str) -> StateError:
        return StateError(operator, state, f"the attempt of job {self._job!r} ended before the query was answered; ask again when it runs")

    def _find(self, operator: str, state: str, key: Any) -> tuple[str, TaskSpec]:
        """The uid of the operator, and the task that owns the key."""
        known = {each.name: (each, chain) for chain in self._plan.chains for each in chain.operators}
        by_uid = {each.uid: (each, chain) for each, chain in known.values() if each.uid is not None}
        found = by_uid.get(operator) or known.get(operator)
        if found is None:
            names = ", ".join(repr(name) for name in known)
            raise StateError(operator, state, f"job {self._job!r} has no operator of that name or uid; it has {names}")
        each, chain = found
        tasks = [task for task in self._plan.tasks if task.chain == chain.id]
        group = key_group(key, tasks[0].groups)
        return state_uid(each), next(task for task in tasks if task.key_groups[0] <= group <= task.key_groups[1])


def answer(task: Task, question: Question) -> tuple[int, bytes, bool]:
    """On the task's worker, between two turns of its loop: number, packed answer, and whether that is an error."""
    number, uid, state, key = question
    try:
        value = _read(task, uid, state, key)
        return number, dump((value is not NOTHING, None if value is NOTHING else value)), False
    except Exception as error:  # noqa: BLE001 - the user's aggregate, migration or pickling may raise anything; the asker is told
        told = error if isinstance(error, StateError) else _explain(task, uid, state, error)
        return number, pack_error(told), True


def _read(task: Task, uid: str, state: str, key: Any) -> Any:
    operator = next(each for each in task.spec.operators if state_uid(each) == uid)
    if task.gate.closed:
        raise StateError(operator.name, state, f"its task {task.spec.index} has ended, and its state is gone")
    fold = next((stage for stage in task.stages if isinstance(stage, FoldStage) and stage.operators[0] is operator), None)
    if fold is not None:
        if state != FOLD:
            raise StateError(operator.name, state, f"there is no state of that name; the operator has {FOLD!r}")
        accumulator = fold.table.get(key, NOTHING)
        if accumulator is NOTHING and fold.spilled is not None:
            accumulator = fold.spilled.table.get(key, NOTHING)
        return fold.aggregate.result(accumulator) if fold.kind == "aggregate" and accumulator is not NOTHING else accumulator
    states = task.snapshots.states.get(uid)
    if states is None:
        raise StateError(operator.name, state, f"a {operator.kind} operator has no state that can be queried")
    return states.peek(state, key, NOTHING)


def _explain(task: Task, uid: str, state: str, error: Exception) -> StateError:
    name = next((each.name for each in task.spec.operators if state_uid(each) == uid), uid)
    wrapped = StateError(name, state, f"the value cannot be read: {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped
