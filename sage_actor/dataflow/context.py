"""What a user function learns about its place when it is opened."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sage_actor.errors import GraphError

if TYPE_CHECKING:
    from sage_actor.state.handles import StateAccess

__all__ = ["FunctionContext"]


@dataclass(frozen=True, slots=True)
class FunctionContext:
    """Handed to ``open(context)`` of functions, sources and sinks, once per parallel instance.

    Attributes:
        job: name of the job.
        operator_name: name of the operator.
        subtask_index: this instance, 0 <= subtask_index < parallelism.
        parallelism: how many instances run side by side.
        worker: number of the worker that hosts it (0 is the process that started the job).
        settings: the job's settings as a flat mapping of dotted keys.
        restored: whether the job goes on from a checkpoint, instead of beginning anew.
    """

    job: str
    operator_name: str
    subtask_index: int = 0
    parallelism: int = 1
    worker: int = 0
    settings: Mapping[str, object] = field(default_factory=lambda: dict[str, object]())
    restored: bool = False

    @property
    def state(self) -> StateAccess:
        """Handles of the function's state, in operators that keep state by key.

        Raises:
            GraphError: this one does not.
        """
        raise GraphError(f"operator {self.operator_name!r} keeps no state by key; write key_by(...).process(...)")

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A standard logger that carries job, operator and task in ``extra``."""
        return logging.LoggerAdapter(
            logging.getLogger("sage_actor.function"), {"job": self.job, "operator": self.operator_name, "task": self.subtask_index}
        )
