"""What travels to a worker, and the words for what cannot."""

from __future__ import annotations

import pickle
import sys
from typing import TYPE_CHECKING, Any

from sage_actor.actor.portable import dump
from sage_actor.dataflow.graph import Operator
from sage_actor.dataflow.plan import TaskSpec
from sage_actor.dataflow.settings import JobSettings
from sage_actor.errors import SerializationError

if TYPE_CHECKING:
    from sage_actor.runtime.task_host import JobIdentity
    from sage_actor.runtime.task_snapshots import SnapshotSetting

__all__ = ["PICKLING_ERRORS", "blame", "pack_tasks"]

PICKLING_ERRORS = (pickle.PicklingError, AttributeError, TypeError, RecursionError, ValueError, NotImplementedError)


def pack_tasks(job: JobIdentity, settings: JobSettings, snapshots: SnapshotSetting, tasks: list[TaskSpec]) -> bytes:
    """Everything one worker needs. Functions travel by value; classes of the main script once, so that record pickles
    can name them.

    Raises:
        SerializationError: names the operator and attribute that cannot be pickled.
    """
    try:
        return dump((job, settings, main_classes(), snapshots, tasks))
    except PICKLING_ERRORS as error:
        operators = {operator.id: operator for task in tasks for operator in task.operators}
        raise blame(list(operators.values()), error) from error


def main_classes() -> dict[str, type]:
    """Classes defined in the main script that can travel."""
    module = sys.modules.get("__main__")
    found: dict[str, type] = {}
    for name, value in list(vars(module).items()) if module is not None else ():
        if isinstance(value, type) and value.__module__ == "__main__" and value.__qualname__ == name:
            try:
                dump(value)
            except PICKLING_ERRORS:
                continue
            found[name] = value
    return found


def blame(operators: list[Operator], error: BaseException) -> SerializationError:
    """Find the operator, and in it the attribute or variable, that cannot be pickled."""
    for operator in operators:
        if travels(operator):
            continue
        candidates: list[tuple[str, Any]] = []
        spec = operator.function
        if spec is not None:
            candidates += variables(spec.target)
            candidates += [
                (f"configuration {key!r}", value) for options in (spec.config, spec.keywords) for key, value in (options or {}).items()
            ]
        for key, value in operator.options.items():
            candidates += [(f"option {key!r}", value), *variables(value)]
        for edge in operator.inputs:
            candidates += variables(edge.partition.key) + variables(edge.partition.function)
        for place, value in candidates:
            if not travels(value):
                return SerializationError(f"operator {operator.name!r}: {place} ({type(value).__name__})", str(error))
        return SerializationError(f"operator {operator.name!r}", str(error))
    return SerializationError("the job", str(error))


def variables(target: Any) -> list[tuple[str, Any]]:
    """What a function closes over or refers to, or an instance holds."""
    found: list[tuple[str, Any]] = []
    code = getattr(target, "__code__", None)
    if code is not None:
        for name, cell in zip(code.co_freevars, target.__closure__ or (), strict=False):
            found.append((f"variable {name!r}", cell.cell_contents))
        found += [(f"global {name!r}", target.__globals__[name]) for name in code.co_names if name in target.__globals__]
    elif not isinstance(target, type):
        found += [(f"attribute {name!r}", value) for name, value in getattr(target, "__dict__", {}).items()]
    return found


def travels(value: Any) -> bool:
    """Whether cloudpickle takes it."""
    try:
        dump(value)
    except PICKLING_ERRORS:
        return False
    return True
