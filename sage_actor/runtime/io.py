"""Sources of the stream layer itself: collections, iterables, async iterables, and a user's `Source` classes."""

from __future__ import annotations

import asyncio
import copy
import inspect
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, cast

from sage_actor._core.batch_queue import BatchQueue
from sage_actor.dataflow.context import FunctionContext
from sage_actor.dataflow.source import NOT_READY, NotReady, Source
from sage_actor.errors import GraphError

__all__ = ["AsyncIterableSource", "IterableSource", "SequenceSource", "classify_source", "keep_pristine", "make_source"]


class SequenceSource(Source[Any]):
    """Slices of a sequence (a list, a range, a numpy array); its position is an index."""

    def __init__(self, records: Sequence[Any]) -> None:
        self.records = records
        self.index = 0

    async def read(self, limit: int) -> Sequence[Any] | None:
        part = self.read_nowait(limit)
        assert not isinstance(part, NotReady)
        return part

    def read_nowait(self, limit: int) -> Sequence[Any] | NotReady | None:
        part = self.records[self.index : self.index + limit]
        if not len(part):
            return None
        self.index += len(part)
        return part if isinstance(part, list | range) or hasattr(part, "dtype") else list(part)

    def position(self) -> object:
        return self.index

    async def seek(self, position: object) -> None:
        assert isinstance(position, int)
        self.index = position


class IterableSource(Source[Any]):
    """Any iterable, read lazily in slices on the event loop; its position is a count, so it resumes by skipping."""

    def __init__(self, records: Iterable[Any]) -> None:
        self.records = records
        self.iterator: Iterator[Any] | None = None
        self.count = 0
        self.ended = False
        self.error: Exception | None = None

    async def read(self, limit: int) -> Sequence[Any] | None:
        part = self.read_nowait(limit)
        assert not isinstance(part, NotReady)
        return part

    def read_nowait(self, limit: int) -> Sequence[Any] | NotReady | None:
        if self.ended:
            return None
        if self.iterator is None:
            self.iterator = iter(self.records)
        if self.error is not None:
            raise self.error
        part: list[Any] = []
        try:
            part.extend(islice(self.iterator, limit))
        except Exception as error:
            if not part:
                raise
            self.error = error  # the records before the failure first; the next read raises it
        if not part:
            self.ended = True
            return None
        self.count += len(part)
        return part

    def position(self) -> object:
        return self.count

    async def seek(self, position: object) -> None:
        assert isinstance(position, int)
        self.iterator = iter(self.records)
        next(islice(self.iterator, position, position), None)
        self.count = position

    async def close(self) -> None:
        close = getattr(self.iterator, "close", None)
        if close is not None and inspect.isgenerator(self.iterator):
            close()


class AsyncIterableSource(Source[Any]):
    """An async iterable (or generator), pumped into a bounded queue so that batches form by themselves.

    Reading ahead is bounded by the queue. A failure of the iterable is raised after the records before it.
    """

    bounded = False

    def __init__(self, records: AsyncIterable[Any]) -> None:
        self.records = records
        self.queue = BatchQueue(1024, name="async source")
        self.pump: asyncio.Task[None] | None = None
        self.error: BaseException | None = None

    async def open(self, context: FunctionContext) -> None:
        self.pump = asyncio.get_running_loop().create_task(self._pump(), name=f"pump {context.operator_name}")
        self.pump.add_done_callback(lambda _: self.queue.close())  # also when it is cancelled before its first step

    async def _pump(self) -> None:
        iterator: AsyncIterator[Any] = aiter(self.records)
        queue = self.queue
        try:
            async for record in iterator:
                if not queue.put_nowait(record):
                    await queue.put(record)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            self.error = error
        except Exception as error:  # noqa: BLE001 - the user's generator; raised by read() behind its records
            self.error = error
        finally:
            queue.close()
            close = getattr(iterator, "aclose", None)
            if close is not None:
                await close()

    def read_nowait(self, limit: int) -> Sequence[Any] | NotReady | None:
        part = self.queue.drain(limit)
        return part or NOT_READY

    def drain(self) -> bool:
        if self.pump is not None:
            self.pump.cancel()
        return True

    async def read(self, limit: int) -> Sequence[Any] | None:
        part = await self.queue.get_batch(limit)
        if part:
            return part
        if self.error is not None:
            raise self.error
        return None

    async def close(self) -> None:
        if self.pump is not None:
            self.pump.cancel()
            await asyncio.wait((self.pump,))


def classify_source(given: Any, config: Mapping[str, Any] | None, keywords: Mapping[str, Any]) -> tuple[str, bool, bool]:
    """What a user handed to ``from_source``.

    Returns:
        A name to show, whether it must stay in the submitting process, and whether it ends by itself.

    Raises:
        GraphError: it is no source.
    """
    if isinstance(given, type) and issubclass(given, Source):
        return given.__name__, False, given.bounded
    if isinstance(given, type):
        raise GraphError(f"source: class {given.__name__!r} is not a Source; derive it from sage_actor.Source and implement read(limit)")
    if config is not None or keywords:
        raise GraphError(f"source: a configuration goes with a class, but {given!r} is not one")
    if isinstance(given, Source):
        source = cast("Source[Any]", given)
        return type(source).__name__, True, source.bounded
    if isinstance(given, AsyncIterable):
        return "async-iterable", True, False
    if isinstance(given, Iterable):
        return "iterable", True, True
    if inspect.isasyncgenfunction(given) or inspect.isgeneratorfunction(given):
        raise GraphError(f"source: {given.__name__} is a generator function; call it: from_source({given.__name__}())")
    raise GraphError(f"source: {given!r} is neither a Source nor (async) iterable")


def can_go_on(given: Any) -> bool:
    """For a `Source` or its class: whether it implements going on from a position."""
    cls: Any = given if isinstance(given, type) else type(cast("object", given))
    base: Any = Source
    if not issubclass(cls, base):
        return True
    return bool(cls.seek is not base.seek or cls.assign is not base.assign)


def keep_pristine(options: dict[str, Any], *, checkpoints: bool) -> bool:
    """Before a job that may be restarted: whether its source can be read again, from the start or (with checkpoints) a position.

    Iterators are gone once they have been read, and so is a `Source` object that cannot be copied.
    """
    given: Any = options["source"]
    if checkpoints and not can_go_on(given):
        return False
    if isinstance(given, type):
        return True
    if isinstance(given, Source):
        try:
            options["pristine"] = copy.deepcopy(cast("Source[Any]", given))
        except (TypeError, ValueError, RecursionError, AttributeError, NotImplementedError):
            return False
        return True
    if isinstance(given, AsyncIterable):
        return False
    return iter(given) is not given


def make_source(options: Mapping[str, Any]) -> Source[Any]:
    """This task's own source."""
    given: Any = options["source"]
    if isinstance(given, type):
        made: Source[Any] = (
            given(options["config"], **options["keywords"]) if options["config"] is not None else given(**options["keywords"])
        )
        return made
    if isinstance(given, Source):
        # The object that was given serves the first attempt; a later one begins with a copy of what it was before.
        source = cast("Source[Any]", copy.deepcopy(options["pristine"]) if options.get("used") else given)
        cast("dict[str, Any]", options)["used"] = True
        return source
    if isinstance(given, AsyncIterable):
        return AsyncIterableSource(cast("AsyncIterable[Any]", given))
    if isinstance(given, Sequence) or hasattr(given, "dtype"):
        return SequenceSource(cast("Sequence[Any]", given))
    return IterableSource(given)
