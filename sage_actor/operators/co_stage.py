"""Connected streams: map, flat_map and process over two inputs, with state and timers where both are keyed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, cast

from sage_actor._core.batch import Batch
from sage_actor.dataflow.process_functions import KeyedContext, ProcessContext
from sage_actor.errors import GraphError
from sage_actor.operators.keyed_call_stage import Call, KeyedCallStage
from sage_actor.operators.stages import Emit
from sage_actor.operators.timers import NEVER

if TYPE_CHECKING:
    from sage_actor.operators.timers import TimerService
    from sage_actor.state.handles import StateAccess

__all__ = ["SECOND_METHODS", "CoStage"]

SECOND_METHODS: Final = {"map": "map_second", "flat_map": "flat_map_second", "process": "process_second"}
"""The method that takes the records of the second input, by that for the first."""


class Unkeyed(ProcessContext):
    """The context of streams without keys; it has the attribute that the calling loop sets."""

    __slots__ = ("key",)


class Nothing:
    """State and timers of streams without keys: there are none."""

    next_event = NEVER
    key: object = None
    event_time = True

    def close(self) -> None:
        """Nothing to do."""


def as_process(form: str, call: Callable[..., Any]) -> Call:
    """A user's method as a function of (value, context) that answers any number of results."""
    if form == "process":
        return call
    if form == "flat_map":
        return lambda value, context: cast("Iterable[Any] | None", call(value))
    return lambda value, context: (call(value),)


class CoStage(KeyedCallStage):
    """Hands records of either input to the method for it; both methods belong to one object, and see the same state of a key."""

    async def open(self) -> None:
        operator = self.operators[0]
        form: str = operator.options["form"]
        self.is_keyed: bool = operator.options["keyed"]
        replica = self.create_replica(operator)
        second = getattr(getattr(replica.call, "__self__", None), SECOND_METHODS[form], None)
        if second is None:
            raise GraphError(
                f"operator {operator.name!r}: connected streams need an object with both {form!r} and {SECOND_METHODS[form]!r}, or two "
                "functions"
            )
        self.calls = as_process(form, replica.call), as_process(form, second)
        if self.is_keyed:
            await self.start(replica)
            return
        self.timers = cast("TimerService", Nothing())
        self.access = cast("StateAccess", Nothing())
        self.keyed = cast("KeyedContext", Unkeyed(self.setting.context(operator.name), self.sides.add))
        self.started = True
        await self.open_replica(0, replica)

    async def process(self, batch: Batch, emit: Emit) -> None:
        await self.run(self.calls[0], batch, emit, 0)

    async def process_second(self, batch: Batch, emit: Emit) -> None:
        await self.run(self.calls[1], batch, emit, 1)

    def keys_of(self, batch: Batch, values: list[Any], role: int = 0) -> list[Any]:
        return super().keys_of(batch, values, role) if self.is_keyed else [None] * len(values)

    async def prepare(self, checkpoint: int) -> None:
        if self.is_keyed:
            await super().prepare(checkpoint)
