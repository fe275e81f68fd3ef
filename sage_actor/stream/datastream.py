"""The fluent face: describing a dataflow step by step. Nothing runs until the environment starts it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from sage_actor.dataflow.fitting import output_type
from sage_actor.dataflow.functions import (
    BaseFunction,
    FilterFunction,
    FlatMapFunction,
    FunctionSpec,
    MapFunction,
    ProcessFunction,
    check_plain,
    spec_is_async,
)
from sage_actor.dataflow.graph import Edge, Partition
from sage_actor.dataflow.policies import DeadLetter, OnError
from sage_actor.dataflow.resources import Resources
from sage_actor.errors import GraphError
from sage_actor.stream.described import check_parallelism, check_whole
from sage_actor.stream.timed import TimedStream

if TYPE_CHECKING:
    from sage_actor.stream.keyed import KeyedStream

__all__ = ["DataStream"]

T = TypeVar("T")
R = TypeVar("R")
K = TypeVar("K")

Config = Mapping[str, Any]


class DataStream(TimedStream[T], Generic[T]):
    """A lazy stream of records of type T: what one operator gives, or several united.

    Every step takes ``name=`` (unique in the graph), ``parallelism=``, ``on_error=``, ``resources=`` (what each of its tasks
    asks for: ``{"num_cpus": 0.5, "num_gpus": 1, "memory": "2gb"}``) and, for classes, their configuration as one mapping or as
    keywords. Steps keep the order of records unless they say otherwise.
    """

    # -- one record at a time -------------------------------------------------------------------------------------

    @overload
    def map(
        self,
        function: Callable[[T], Awaitable[R]],
        /,
        *,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
        concurrency: int | None = None,
        ordered: bool = True,
        timeout: str | float | None = None,
    ) -> DataStream[R]: ...
    @overload
    def map(
        self,
        function: type[MapFunction[T, R]],
        config: Config | None = None,
        /,
        *,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
        **keywords: Any,
    ) -> DataStream[R]: ...
    @overload
    def map(
        self,
        function: MapFunction[T, R],
        /,
        *,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
    ) -> DataStream[R]: ...
    @overload
    def map(
        self,
        function: Callable[[T], R],
        /,
        *,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
        concurrency: int | None = None,
        ordered: bool = True,
        timeout: str | float | None = None,
    ) -> DataStream[R]: ...
    @overload
    def map(
        self,
        function: BaseFunction | type[BaseFunction],
        config: Config | None = None,
        /,
        *,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
        **keywords: Any,
    ) -> DataStream[Any]: ...
    def map(
        self,
        function: Any,
        config: Config | None = None,
        /,
        *,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
        concurrency: int | None = None,
        ordered: bool = True,
        timeout: str | float | None = None,
        **keywords: Any,
    ) -> DataStream[Any]:
        """One record in, one out, in order.

        An async function, or any function with ``concurrency=``, runs up to that many calls at a time (plain functions
        on threads); see `map_async`.

        Raises:
            GraphError: the function's annotations cannot follow the previous operator's; an unknown option.
        """
        spec = FunctionSpec("map", function, config, keywords)
        if concurrency is not None or timeout is not None or spec_is_async(spec):
            return self._async(spec, name, parallelism, resources, on_error, concurrency, ordered, timeout)
        if spec.flag("batch_processing") or spec.flag("enable_vectorization"):
            batch = FunctionSpec("map_lists", function, config, keywords)
            return self._step(
                "map_batch", batch, name, parallelism, on_error, resources=resources, vectorized=spec.flag("enable_vectorization")
            )
        return self._step("map", spec, name, parallelism, on_error, resources=resources)

    def filter(
        self,
        function: Callable[[T], object] | FilterFunction[T] | type[BaseFunction] | BaseFunction,
        config: Config | None = None,
        /,
        *,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
        **keywords: Any,
    ) -> DataStream[T]:
        """Keep the records for which the function answers something true."""
        spec = FunctionSpec("filter", function, config, keywords)
        return self._step("filter", spec, name, parallelism, on_error, resources=resources, produced=self._produced)

    @overload
    def flat_map(
        self,
        function: Callable[[T], Iterable[R]],
        /,
        *,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
    ) -> DataStream[R]: ...
    @overload
    def flat_map(
        self,
        function: FlatMapFunction[T, R] | type[FlatMapFunction[T, R]],
        config: Config | None = None,
        /,
        *,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
        **keywords: Any,
    ) -> DataStream[R]: ...
    def flat_map(
        self,
        function: Any,
        config: Config | None = None,
        /,
        *,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
        **keywords: Any,
    ) -> DataStream[Any]:
        """One record in, any number out, in the order of the returned iterable.

        The iterable may be endless: it is drained in slices as room downstream allows. With an ``on_error`` other than
        "fail" a record's results are gathered before the first is passed on, so that a failing record gives none.
        """
        return self._step(
            "flat_map", FunctionSpec("flat_map", function, config, keywords), name, parallelism, on_error, resources=resources
        )

    # -- batches, calls in flight, processes ------------------------------------------------------------------------

    @overload
    def map_batch(
        self,
        function: Callable[[list[T]], Sequence[R]],
        /,
        *,
        max_batch: int | None = None,
        vectorized: Literal[False] = False,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
    ) -> DataStream[R]: ...
    @overload
    def map_batch(
        self,
        function: Any,
        config: Config | None = None,
        /,
        *,
        max_batch: int | None = None,
        vectorized: bool = False,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
        **keywords: Any,
    ) -> DataStream[Any]: ...
    def map_batch(
        self,
        function: Any,
        config: Config | None = None,
        /,
        *,
        max_batch: int | None = None,
        vectorized: bool = False,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
        **keywords: Any,
    ) -> DataStream[Any]:
        """A list of records in, a list of as many results out (or numpy arrays, if `vectorized`).

        Batches form by themselves from what is waiting, 1 to `max_batch` records. With an ``on_error`` other than "fail"
        a failing batch is halved and called again until only the bad records are set aside, so the function must be safe
        to call twice for a record.
        """
        if max_batch is not None:
            check_whole(max_batch, "map_batch", "max_batch")
        spec = FunctionSpec("map_batch", function, config, keywords)
        return self._step("map_batch", spec, name, parallelism, on_error, resources=resources, vectorized=vectorized, max_batch=max_batch)

    @overload
    def map_async(
        self,
        function: Callable[[T], Awaitable[R]],
        /,
        *,
        concurrency: int | None = None,
        ordered: bool = True,
        timeout: str | float | None = None,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
    ) -> DataStream[R]: ...
    @overload
    def map_async(
        self,
        function: Any,
        config: Config | None = None,
        /,
        *,
        concurrency: int | None = None,
        ordered: bool = True,
        timeout: str | float | None = None,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
        **keywords: Any,
    ) -> DataStream[Any]: ...
    def map_async(
        self,
        function: Any,
        config: Config | None = None,
        /,
        *,
        concurrency: int | None = None,
        ordered: bool = True,
        timeout: str | float | None = None,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
        **keywords: Any,
    ) -> DataStream[Any]:
        """One record in, one out, with up to `concurrency` calls (100 if not given) in flight per task.

        Results come in input order, or as they complete if ``ordered=False``; on a keyed stream calls of one key run one
        at a time, in order. A call longer than `timeout` (seconds or "1s") fails with TimeoutError and goes by ``on_error``.
        A full operator stops taking input (rule F31): that is the backpressure.
        """
        return self._async(
            FunctionSpec("map_async", function, config, keywords), name, parallelism, resources, on_error, concurrency, ordered, timeout
        )

    def process(
        self,
        function: Callable[..., Iterable[R] | None] | ProcessFunction[T, R] | type[BaseFunction] | BaseFunction,
        config: Config | None = None,
        /,
        *,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
        **keywords: Any,
    ) -> DataStream[R]:
        """One record (and, if the function takes two arguments, the `FunctionContext`) in, any number of results out."""
        return self._step("process", FunctionSpec("process", function, config, keywords), name, parallelism, on_error, resources=resources)

    def iterate(
        self,
        step: Callable[[T], T] | Callable[[T], Iterable[T]],
        /,
        *,
        until: Callable[[T], object],
        max_rounds: int = 1000,
        limit: int = 100_000,
        name: str | None = None,
        parallelism: int | None = None,
        resources: Resources | None = None,
        on_error: OnError | None = None,
    ) -> DataStream[T]:
        """Apply `step` again and again to each record until ``until(record)`` answers true; then emit it.

        A generator function as `step` may give several records, each of which goes on by itself (first in, first out). The
        work-list lives in one task, so the loop needs no channel back and cannot deadlock. A record that goes through more
        than `max_rounds` rounds, or a work-list longer than `limit`, is an error of that record, by ``on_error``.
        """
        for option, value in (("max_rounds", max_rounds), ("limit", limit)):
            check_whole(value, "iterate", option)
        spec = FunctionSpec("iterate", step)
        if spec_is_async(spec):
            raise GraphError(f"iterate takes a plain function as step, but {spec.display!r} is async; await in a map_async before it")
        check_plain(until, "iterate: until")
        return self._step(
            "iterate",
            spec,
            name,
            parallelism,
            on_error,
            resources=resources,
            produced=self._produced,
            until=until,
            max_rounds=max_rounds,
            limit=limit,
        )

    # -- who gets which record ------------------------------------------------------------------------------------

    def key_by(self, key: Callable[[T], K], /) -> KeyedStream[K, T]:
        """Group by a key: all records of equal keys go to the same task, in order per sender (rules F14, F15)."""
        from sage_actor.stream.keyed import KeyedStream

        if not callable(key):
            raise GraphError(f"key_by needs a function of the record, not {key!r}; for a field write key_by(lambda r: r[{key!r}])")
        check_plain(key, "key_by")
        return KeyedStream(self._env, self._dealt(Partition("hash", key=key)), produced=self._produced, parallelism=self._parallelism)

    keyby = key_by

    def partition(self, parallelism: int, /) -> DataStream[T]:
        """Deal the records round-robin over `parallelism` tasks of the next operator."""
        check_parallelism(parallelism, "partition")
        return DataStream(self._env, self._dealt(Partition("rebalance")), produced=self._produced, parallelism=parallelism)

    def partition_custom(self, partitioner: Callable[[K, int], int], key: Callable[[T], K], /) -> DataStream[T]:
        """Deal each record to the task ``partitioner(key(record), number_of_tasks)`` of the next operator."""
        check_plain(partitioner, "partition_custom")
        check_plain(key, "partition_custom")
        return DataStream(
            self._env,
            self._dealt(Partition("custom", key=key, function=partitioner)),
            produced=self._produced,
            parallelism=self._parallelism,
        )

    def rebalance(self) -> DataStream[T]:
        """Deal batches round-robin over the tasks of the next operator, which gets the job's parallelism."""
        return DataStream(self._env, self._dealt(Partition("rebalance")), produced=self._produced, parallelism=self._parallelism)

    def shuffle(self) -> DataStream[T]:
        """Deal each record to a task of the next operator at random."""
        return DataStream(self._env, self._dealt(Partition("shuffle")), produced=self._produced, parallelism=self._parallelism)

    def broadcast(self) -> DataStream[T]:
        """Give every record to every task of the next operator."""
        return DataStream(self._env, self._dealt(Partition("broadcast")), produced=self._produced, parallelism=self._parallelism)

    def union(self, *others: DataStream[T]) -> DataStream[T]:
        """This stream and others as one; order is kept within each, not between them."""
        taps = list(self._taps)
        for other in others:
            if not isinstance(other, DataStream):
                raise GraphError(f"union takes streams, not {other!r}")
            if other._env is not self._env:
                raise GraphError(f"union: the streams belong to two environments ({self._env.name!r} and {other._env.name!r})")
            taps.extend(other._taps)
        return DataStream(self._env, taps, parallelism=self._parallelism)

    def dead_letters(self) -> DataStream[DeadLetter[Any]]:
        """The records that the last operator set aside (``on_error="dead_letter"``), with their errors."""
        operator = self._last("dead_letters")
        policy = operator.on_error
        if policy != "dead_letter" and getattr(policy, "then", None) != "dead_letter":
            raise GraphError(f"dead_letters: operator {operator.name!r} sets no record aside; give it on_error='dead_letter'")
        return DataStream(self._env, [Edge(operator.id, "dead")])

    # -- building blocks ------------------------------------------------------------------------------------------

    def _async(
        self,
        spec: FunctionSpec,
        name: str | None,
        parallelism: int | None,
        resources: Resources | None,
        on_error: OnError | None,
        concurrency: int | None,
        ordered: bool,
        timeout: str | float | None,
    ) -> DataStream[Any]:
        from sage_actor.durations import parse_duration

        if concurrency is not None:
            check_whole(concurrency, f"{spec.kind} {spec.display!r}", "concurrency")
        seconds = None if timeout is None else parse_duration(timeout)
        return self._step(
            "map_async",
            spec,
            name,
            parallelism,
            on_error,
            resources=resources,
            concurrency=concurrency or 100,
            ordered=ordered,
            timeout=seconds,
        )

    def _step(
        self,
        kind: str,
        spec: FunctionSpec,
        name: str | None,
        parallelism: int | None,
        on_error: OnError | None,
        *,
        resources: Resources | None = None,
        produced: Any = None,
        **options: Any,
    ) -> DataStream[Any]:
        operator = self._add(kind, name, spec.display, spec, parallelism, on_error, options, resources=resources)
        return DataStream(self._env, [Edge(operator.id)], produced=output_type(spec) if produced is None else produced)

    flatmap = flat_map
