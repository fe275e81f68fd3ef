"""User functions: base classes, and how a function, an instance or a class becomes something to call.

A function is given in one of four forms: a callable, an instance, a class with a mapping (``cls(mapping)``), or a class
with keywords (``cls(**keywords)``). Instances are copied for every parallel instance of their operator, classes are
constructed there, so replicas never share state. ``open(context)`` and ``close()`` run once per replica and may be async.
"""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sage_actor.dataflow.context import FunctionContext
from sage_actor.errors import GraphError

if TYPE_CHECKING:
    from sage_actor.dataflow.process_functions import ProcessContext

__all__ = [
    "AggregateFunction",
    "BaseFunction",
    "FilterFunction",
    "FlatMapFunction",
    "FunctionSpec",
    "MapFunction",
    "Message",
    "ProcessFunction",
    "Replica",
    "SinkFunction",
    "check_plain",
    "is_async_callable",
    "is_plain_callable",
    "method_name",
    "spec_is_async",
]

T = TypeVar("T")
R = TypeVar("R")
A = TypeVar("A")
T_contra = TypeVar("T_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)

METHOD_OF_KIND = {
    "map": "map",
    "filter": "filter",
    "flat_map": "flat_map",
    "sink": "write",
    "process": "process",
    "map_batch": "map_batch",
    "map_async": "map",
    "map_lists": "map",
}
FALLBACK_METHODS = ("process", "execute", "__call__")
RUNTIME_FLAGS = ("batch_processing", "enable_vectorization", "cache_results")


class BaseFunction:
    """Base of all function classes; its two hooks are optional. Subclasses need not call ``super().__init__()``."""

    def open(self, context: FunctionContext) -> Awaitable[None] | None:
        """Called once per replica before the first record. May be ``async def``."""
        return None

    def close(self) -> Awaitable[None] | None:
        """Called once per replica after the last record, also after a failure. May be ``async def``."""
        return None


class MapFunction(BaseFunction, Generic[T_contra, R_co]):
    """One record in, one out. Implement ``map`` (or ``process``/``execute``/``__call__``, exactly one)."""

    def map(self, value: T_contra, /) -> R_co:
        """Return the result for one record."""
        raise NotImplementedError(f"{type(self).__name__} must implement map(value)")


class FilterFunction(BaseFunction, Generic[T_contra]):
    """Keeps the records for which ``filter`` answers something true."""

    def filter(self, value: T_contra, /) -> object:
        """Say whether to keep the record."""
        raise NotImplementedError(f"{type(self).__name__} must implement filter(value)")


class FlatMapFunction(BaseFunction, Generic[T_contra, R_co]):
    """One record in, any number out, in the order of the iterable, which may be lazy and endless."""

    def flat_map(self, value: T_contra, /) -> Iterable[R_co]:
        """Return the results for one record."""
        raise NotImplementedError(f"{type(self).__name__} must implement flat_map(value)")


class SinkFunction(BaseFunction, Generic[T_contra]):
    """Takes one record at a time. To take batches derive from `Sink` instead."""

    def write(self, value: T_contra, /) -> object:
        """Take one record; the result is ignored."""
        raise NotImplementedError(f"{type(self).__name__} must implement write(value)")


class ProcessFunction(BaseFunction, Generic[T_contra, R_co]):
    """One record and its context in, any number of results out."""

    def process(self, value: T_contra, context: ProcessContext, /) -> Iterable[R_co] | None:
        """Return the results for one record, or None for none."""
        raise NotImplementedError(f"{type(self).__name__} must implement process(value, context)")


class AggregateFunction(BaseFunction, Generic[T, A, R]):
    """An incremental aggregation of the records of one key (or window)."""

    def create(self) -> A:
        """Return a fresh accumulator."""
        raise NotImplementedError(f"{type(self).__name__} must implement create()")

    def add(self, accumulator: A, value: T, /) -> A:
        """Return the accumulator with the value added; may mutate and return the same object."""
        raise NotImplementedError(f"{type(self).__name__} must implement add(accumulator, value)")

    def result(self, accumulator: A, /) -> R:
        """Return what to emit; must not change the accumulator."""
        raise NotImplementedError(f"{type(self).__name__} must implement result(accumulator)")


@dataclass(frozen=True, slots=True)
class Message(Generic[T]):
    """What ``partition_key`` functions see of a record."""

    value: T
    key: object = None
    timestamp: int | None = None

    def get_hash(self) -> int:
        """A hash of the key (of the value where there is no key) that is equal in every process (rule F14a)."""
        from sage_actor._core.stable_hash import stable_hash

        return stable_hash(self.value if self.key is None else self.key)


@dataclass(frozen=True, slots=True)
class FunctionSpec:
    """What the user gave for one operator, before any replica exists."""

    kind: str
    target: Any
    config: Mapping[str, Any] | None = None
    keywords: Mapping[str, Any] = field(default_factory=lambda: dict[str, Any]())

    def __post_init__(self) -> None:
        if is_converter(self.target):
            given = ", ".join([*(["a configuration"] if self.config is not None else []), *sorted(self.keywords)])
            if given:
                raise GraphError(
                    f"{self.kind}: unknown option {given} for {self.display!r}, which is called with each record; "
                    "a configuration goes with a class that has a method such as 'map' or 'process'"
                )
            return
        if self.config is not None and not isinstance(self.target, type):
            raise GraphError(f"{self.kind}: a configuration goes with a class, but {self.target!r} is not one")
        if self.keywords and not isinstance(self.target, type):
            known = ", ".join(sorted(self.keywords))
            raise GraphError(
                f"{self.kind}: unknown option {known} for {self.display!r}; keywords are passed on to a class, and this is not one"
            )
        if not is_plain_callable(self.target) or isinstance(self.target, type):
            method_name(self.kind, self.target)

    @property
    def display(self) -> str:
        """A name a reader recognises: the function's or class's own."""
        target = self.target
        if inspect.ismethod(target):
            return f"{type(target.__self__).__name__}.{target.__name__}"
        name = getattr(target, "__name__", None) or type(target).__name__
        return self.kind if name == "<lambda>" else str(name)

    def flag(self, name: str) -> bool:
        """Whether a runtime flag (batch_processing, ...) is set in the configuration."""
        return any(options is not None and options.get(name) for options in (self.config, self.keywords))

    def create(self, *, parallelism: int) -> Replica:
        """Build one replica: construct the class, or copy the instance.

        Raises:
            GraphError: the instance cannot be copied and parallelism is above 1; names the attribute.
        """
        target = self.target
        if is_plain_callable(target):
            return Replica(self, target)
        if isinstance(target, type):
            if self.config is not None:
                instance = target(self.config, **self.keywords)
            else:
                keywords = dict(self.keywords)
                if any(name in keywords for name in RUNTIME_FLAGS):
                    accepted = inspect.signature(target).parameters
                    if not any(p.kind is p.VAR_KEYWORD for p in accepted.values()):
                        keywords = {k: v for k, v in keywords.items() if k in accepted or k not in RUNTIME_FLAGS}
                instance = target(**keywords)
            return Replica(self, instance)
        return Replica(self, copy_instance(self, target, parallelism))


def is_converter(target: object) -> bool:
    """A class that is called with the record, like ``int`` or a dataclass: it has no method that could serve."""
    if not isinstance(target, type) or issubclass(target, BaseFunction):
        return False
    own = {name for cls in target.__mro__[:-1] for name in vars(cls)}
    if target.__module__.partition(".")[0] in sys.stdlib_module_names:
        return True  # such as pathlib.Path, which has an `open` of its own
    return own.isdisjoint(("open", "map", "filter", "flat_map", "write", *FALLBACK_METHODS))


def is_plain_callable(target: object) -> bool:
    """Functions, builtins, bound methods, partials and converter classes: called as they are, never copied."""
    if isinstance(target, type):
        return is_converter(target)
    return inspect.isroutine(target) or (callable(target) and type(target).__module__ in ("functools", "operator"))


def copy_instance(spec: FunctionSpec, instance: Any, parallelism: int) -> Any:
    """Copy a function instance for one replica; at parallelism 1 an instance that cannot be copied serves itself."""
    try:
        return copy.deepcopy(instance)
    except (TypeError, ValueError, RecursionError, AttributeError, NotImplementedError) as error:
        if parallelism == 1:
            return instance
        culprit = "it"
        for name, value in getattr(instance, "__dict__", {}).items():
            try:
                copy.deepcopy(value)
            except (TypeError, ValueError, RecursionError, AttributeError, NotImplementedError):
                culprit = f"its attribute {name!r} ({type(value).__name__})"
                break
        raise GraphError(
            f"{spec.kind} {spec.display!r}: {culprit} cannot be copied for {parallelism} parallel instances ({error}); "
            "create it in open(context), or pass the class with its configuration instead of an instance"
        ) from error


def method_name(kind: str, target: Any) -> str:
    """Which method serves an operator of this kind (design: two candidates refuse)."""
    own = METHOD_OF_KIND.get(kind, "process")
    cls = target if isinstance(target, type) else type(target)
    candidates = [name for name in dict.fromkeys((own, *FALLBACK_METHODS)) if implements(cls, name)]
    if not candidates:
        if isinstance(target, type | BaseFunction):
            raise GraphError(f"{kind}: class {cls.__name__!r} has none of the methods {own!r}, 'process', 'execute', '__call__'")
        raise GraphError(f"{kind}: {target!r} is neither a function nor has it a method {own!r}, 'process' or 'execute'")
    if own in candidates and issubclass(cls, (MapFunction, FilterFunction, FlatMapFunction, SinkFunction, ProcessFunction)):
        return own
    if len(candidates) > 1:
        raise GraphError(
            f"{kind}: class {cls.__name__!r} has several methods that could serve ({', '.join(candidates)}); keep one, "
            f"or derive from the base class of the operator, which decides for {own!r}"
        )
    return candidates[0]


PLACEHOLDERS = (__name__, "sage_actor.dataflow.process_functions", "sage_actor.dataflow.co_functions")
"""Modules whose base classes have methods that only say what to implement."""


def implements(cls: type, name: str) -> bool:
    """Whether a class has such a method of its own or from a base other than our placeholders (nor from its metaclass)."""
    for base in cls.__mro__[:-1]:
        if name in vars(base):
            return base.__module__ not in PLACEHOLDERS and callable(getattr(cls, name, None))
    return False


def check_plain(function: object, place: str) -> None:
    """Raise GraphError unless it can be called and answers at once: an async function has no one to await it here."""
    if not callable(function):
        raise GraphError(f"{place} needs a function, not {function!r}")
    if is_async_callable(function):
        name = getattr(function, "__name__", type(function).__name__)
        raise GraphError(f"{place} takes a plain function, but {name!r} is async; await in a map_async before it")


class Replica:
    """One parallel instance of a user function."""

    __slots__ = ("_closed", "_instance", "_opened", "call", "is_async", "spec", "takes_context")

    def __init__(self, spec: FunctionSpec, instance: Any) -> None:
        self.spec = spec
        self._instance = instance
        self._opened = False
        self._closed = False
        self.call: Callable[..., Any] = instance if is_plain_callable(instance) else getattr(instance, method_name(spec.kind, instance))
        self.is_async = is_async_callable(self.call)
        self.takes_context = spec.kind == "process" and required_positionals(self.call) >= 2

    async def open(self, context: FunctionContext) -> None:
        """Run the instance's ``open(context)``, if it has one."""
        self._opened = True
        hook = None if is_plain_callable(self._instance) else getattr(self._instance, "open", None)
        if hook is not None:
            result = hook(context)
            if inspect.isawaitable(result):
                await result

    async def close(self) -> None:
        """Run ``close()`` once, if ``open`` was begun."""
        if self._closed or not self._opened:
            return
        self._closed = True
        hook = None if is_plain_callable(self._instance) else getattr(self._instance, "close", None)
        if hook is not None:
            result = hook()
            if inspect.isawaitable(result):
                await result


def is_async_callable(call: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine (also through partials and callable objects)."""
    inner: Any = call
    while callable(getattr(inner, "func", None)):
        inner = inner.func
    call = inner
    return inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(vars(type(call)).get("__call__"))


def required_positionals(call: Callable[..., Any]) -> int:
    """How many positional arguments the callable insists on; 1 where Python cannot tell (builtins)."""
    try:
        parameters = inspect.signature(call).parameters.values()
    except (TypeError, ValueError):
        return 1
    return sum(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


def spec_is_async(spec: FunctionSpec) -> bool:
    """Whether the function that will be called is a coroutine function."""
    if is_plain_callable(spec.target) or (callable(spec.target) and not isinstance(spec.target, type | BaseFunction)):
        return is_async_callable(spec.target)
    return is_async_callable(getattr(spec.target, method_name(spec.kind, spec.target)))
