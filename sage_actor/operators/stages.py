"""What a chain is made of. A stage takes a batch and hands batches on; where it must wait (room downstream, a pause
between tries, a call in flight) it simply awaits, which suspends the whole chain and, through credit, its senders."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

from sage_actor._core.batch import Batch
from sage_actor.dataflow.context import FunctionContext
from sage_actor.dataflow.functions import Replica
from sage_actor.dataflow.graph import Operator
from sage_actor.dataflow.policies import DeadLetter, OnError, Retry
from sage_actor.errors import GraphError, OperatorError
from sage_actor.telemetry.counters import OperatorCounters

if TYPE_CHECKING:
    from sage_actor.operators.setting import TaskSetting

EVENTS = logging.getLogger("sage_actor.records")
EVENTS.addHandler(logging.NullHandler())

__all__ = ["Emit", "Faults", "Stage", "Turns", "as_list", "cancelled_from_outside", "compute_keys", "short"]

Emit = Callable[[Batch], Awaitable[None]]


class Stage:
    """One part of a chain: one operator, or several fused into a generated loop."""

    def __init__(self, operators: list[Operator], setting: TaskSetting) -> None:
        self.operators = operators
        self.setting = setting
        self.counters = [OperatorCounters(operator.name) for operator in operators]
        self.faults = Faults(self)
        self.replicas: list[Replica] = []

    async def open(self) -> None:
        """Create and open the user's functions."""

    def create_replica(self, operator: Operator) -> Replica:
        """Make this task's own instance of an operator's function; it is closed with the stage."""
        assert operator.function is not None
        try:
            replica = operator.function.create(parallelism=self.setting.parallelism)
        except GraphError:
            raise
        except Exception as error:
            raise self.faults.error(self.operators.index(operator), error, -1, None, known=False) from error
        self.replicas.append(replica)
        return replica

    async def open_replica(self, index: int, replica: Replica) -> None:
        """Run the user's ``open``; its exception becomes an `OperatorError`."""
        try:
            await replica.open(self.context(self.operators[index]))
        except (Exception, asyncio.CancelledError) as error:
            if cancelled_from_outside(error):
                raise
            raise self.faults.error(index, error, -1, None, known=False) from error

    async def process(self, batch: Batch, emit: Emit) -> None:
        """Take over one batch; results go to `emit` in order."""
        raise NotImplementedError

    async def process_second(self, batch: Batch, emit: Emit) -> None:
        """Take over one batch of the second input, of an operator that has two."""
        raise NotImplementedError

    async def advance(self, watermark: int, emit: Emit) -> int:
        """Event time has reached `watermark`, which is higher than ever before: emit what is due, in order of time.

        Returns:
            The watermark to pass on.
        """
        return watermark

    async def alarm(self, emit: Emit) -> None:
        """A time asked for with ``setting.alarm`` has come. Never concurrent with the other methods; may come without reason."""

    async def prepare(self, checkpoint: int) -> None:
        """The barrier of a checkpoint is here: put what is held elsewhere into the operator's state, which is frozen next."""

    async def completed(self, checkpoint: int) -> None:
        """A checkpoint, and with it all before it, is complete. May come late, or never (F8)."""

    async def end(self, emit: Emit) -> None:
        """Input has ended, and event time with it: emit what is still held."""

    async def close(self) -> None:
        """Close the user's functions, all of them, also after a failure; then raise the first error, if any."""
        first: BaseException | None = None
        for index, replica in enumerate(self.replicas):
            try:
                await replica.close()
            except Exception as error:  # noqa: BLE001 - every close() runs; the first error is reported below
                first = first or self.faults.error(min(index, len(self.operators) - 1), error, -1, None, known=False)
        if first is not None:
            raise first

    async def pause(self, seconds: float) -> None:
        """Wait before the next try; what was done before it goes on meanwhile."""
        await self.faults.flush()
        await self.setting.flush()
        await self.setting.clock.sleep(seconds)

    def context(self, operator: Operator) -> FunctionContext:
        """The context of one operator of this task."""
        return self.setting.context(operator.name)

    def keys_of(self, batch: Batch, values: list[Any], role: int = 0) -> list[Any]:
        """The keys of a batch: those it came with, or computed by the key function of the input with that role.

        Raises:
            OperatorError: the key function raised; names the record.
        """
        if batch.keys is not None:
            return batch.keys
        operator = self.operators[0]
        key = next(edge.partition.key for edge in operator.inputs if edge.role == role)
        assert key is not None
        self.faults.begin(batch, 0, len(values))

        def explain(error: Exception, index: int) -> BaseException:
            self.counters[0].errors += 1
            return self.faults.error(0, error, index, values[index])

        return compute_keys(key, values, explain)


class Faults:
    """What becomes of records whose function raised, for the operators of one stage."""

    __slots__ = ("asides", "base", "dropped", "fatal", "keys", "length", "replies", "stage", "tags")

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.base = -1
        self.length = 0
        self.keys: list[Any] | None = None
        self.tags: list[Any] | None = None
        self.dropped: list[int] = []
        self.fatal: BaseException | None = None
        self.asides: list[tuple[int, DeadLetter[Any]]] = []
        self.replies: list[tuple[Any, BaseException]] = []

    def begin(self, batch: Batch, start: int, length: int) -> None:
        """Remember the columns of the records now in work."""
        self.base = -1 if batch.position < 0 else batch.position + start
        self.length = length
        self.keys = None if batch.keys is None else (batch.keys if start == 0 else batch.keys[start:])
        self.tags = None if batch.tags is None else (batch.tags if start == 0 else batch.tags[start:])

    def error(self, index: int, error: BaseException, offset: int, value: Any, *, known: bool = True) -> BaseException:
        """Wrap an exception with its address. `offset` counts within the records in work, -1 if unknown."""
        operator = self.stage.operators[index]
        setting = self.stage.setting
        position = self.base + offset if self.base >= 0 and offset >= 0 else None
        key = self.keys[offset] if self.keys is not None and 0 <= offset < len(self.keys) else None
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        shown = short(value) if known else None
        wrapped = OperatorError(setting.job, operator.name, text, key, position, shown, setting.index)
        wrapped.__cause__ = error
        return wrapped

    def policy(self, index: int) -> OnError | str:
        """The policy of an operator; in a served flow a record's error answers its request unless "fail" was asked for."""
        operator = self.stage.operators[index]
        if operator.on_error is None:
            return "reply" if operator.served else "fail"
        return operator.on_error

    def settle(self, index: int, error: BaseException, offset: int, value: Any, tries: int = 1) -> float | None:
        """Decide about one failed call.

        Returns:
            Seconds to wait before the next try, or None: the record is dropped (and counted, set aside, or answered).

        Raises:
            OperatorError: the policy is to fail.
        """
        counters = self.stage.counters[index]
        counters.errors += 1
        policy = self.policy(index)
        if isinstance(policy, Retry):
            pause = policy.pause(tries, self.stage.setting.random)
            if pause is not None:
                counters.retried += 1
                return pause
            policy = policy.then
        operator = self.stage.operators[index]
        if operator.served and operator.on_error != "fail" and policy != "dead_letter":
            policy = "reply"
        wrapped = None
        if policy == "fail":
            self.fatal = self.error(index, error, offset, value)
            raise self.fatal from error
        if policy == "dead_letter":
            counters.dead_letters += 1
            position = self.base + offset if self.base >= 0 and offset >= 0 else None
            key = self.keys[offset] if self.keys is not None and 0 <= offset < len(self.keys) else None
            self.asides.append((operator.id, DeadLetter(value, error, operator.name, position, key)))
        else:
            counters.skipped += 1
        if counters.skipped + counters.dead_letters == 1:
            setting = self.stage.setting
            EVENTS.info(
                "first record dropped: %s", short(error), extra={"job": setting.job, "operator": operator.name, "task": setting.index}
            )
        if operator.served and self.tags is not None and 0 <= offset < len(self.tags):
            wrapped = self.error(index, error, offset, value)
            self.replies.append((self.tags[offset], wrapped))
        self.dropped.append(offset)
        return None

    async def flush(self) -> None:
        """Send what was set aside to the dead-letter readers, and errors to the waiting requests."""
        if self.asides:
            asides, self.asides = self.asides, []
            for operator_id in dict.fromkeys(number for number, _ in asides):
                letters = [letter for number, letter in asides if number == operator_id]
                await self.stage.setting.aside(operator_id, "dead", Batch(letters))
        if self.replies:
            replies, self.replies = self.replies, []
            owner = self.stage.operators[-1].id
            await self.stage.setting.aside(owner, "failed", Batch([e for _, e in replies], tags=[tag for tag, _ in replies]))


def compute_keys(key: Callable[[Any], Any], values: list[Any], explain: Callable[[Exception, int], BaseException]) -> list[Any]:
    """``[key(value) for value in values]``; a failure is raised as ``explain(error, index)``.

    For a key function that is ``lambda x: x`` the values are the keys: nothing is called, and the list is shared.
    """
    if is_identity(key):
        return values
    it: Any = iter(values)  # a list iterator: its length hint tells which record failed
    try:
        return list(map(key, it))
    except Exception as error:
        raise explain(error, len(values) - it.__length_hint__() - 1) from error


def identity(value: object) -> object:
    """What is looked for by its code."""
    return value


IDENTITY = identity.__code__


def is_identity(function: Callable[..., Any]) -> bool:
    """Whether a function is written as ``lambda x: x``, whatever the name of its parameter."""
    code = getattr(function, "__code__", None)
    return code is not None and code.co_code == IDENTITY.co_code and code.co_argcount == code.co_nlocals == 1


LARGE = (str, bytes, bytearray, list, tuple, dict, set, frozenset)


def as_list(values: Any) -> list[Any]:
    """A column as a list: itself if it is one; a numpy column as Python objects."""
    if values.__class__ is list:
        return cast("list[Any]", values)
    tolist = getattr(values, "tolist", None)
    if tolist is not None and getattr(values, "ndim", 1) == 1:
        return cast("list[Any]", tolist())
    return list(values)


def cancelled_from_outside(error: BaseException) -> bool:
    """Whether a caught CancelledError ends this task, or a user's function raised it (and it is an error like any other)."""
    if not isinstance(error, asyncio.CancelledError):
        return False
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def short(value: Any, limit: int = 120) -> str:
    """A bounded repr for messages; a repr that raises is named, not passed on."""
    try:
        if value.__class__ in LARGE and len(value) > 1000:
            return f"<{type(value).__name__} of {len(value)}>"
        text = repr(value)
    except Exception as error:  # noqa: BLE001 - a user's __repr__ must not hide the error that is being reported
        return f"<{type(value).__name__}, whose repr raised {type(error).__name__}>"
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


class Turns:
    """Keeps turns short: yields to the event loop when about 2 ms of user code have run, and learns how many records fit."""

    __slots__ = ("begun", "budget", "flush", "size")

    def __init__(self, most: int, flush: Callable[[], Awaitable[None]] | None = None) -> None:
        self.flush = flush
        self.budget = 0.002
        self.size = min(64, most)
        self.begun = 0.0

    def learn(self, records: int, seconds: float, most: int) -> None:
        """Adapt how many records are taken at once to about half a turn."""
        if records >= self.size and seconds < self.budget / 8:
            self.size = min(self.size * 4, most)
        elif seconds > self.budget and self.size > 1:
            self.size = max(1, int(self.size * self.budget / (2 * seconds)))

    async def breathe(self) -> None:
        """If this task has had its share: hand on what it has so far, and give the other tasks of the loop their turn."""
        now = time.perf_counter()
        if now - self.begun > self.budget:
            if self.flush is not None:
                await self.flush()
            await asyncio.sleep(0)
            self.begun = time.perf_counter()
