"""What a window holds and what comes out of it, for every way to combine records."""

from __future__ import annotations

import copy
import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sage_actor.dataflow.windows import TimeSpan
from sage_actor.state.pickling import dump, is_unchanging, load

__all__ = ["KernelFunctions", "WindowValues"]


@dataclass(frozen=True, slots=True)
class KernelFunctions:
    """What the kernels in _core call; see `WindowFunctions` in _core/window.pyi."""

    create: Callable[[], Any] | None
    add: Callable[[Any, Any], Any] | None
    merge: Callable[[Any, Any], Any] | None
    finish: Callable[[Any, Any, int, int], Any]
    copy: Callable[[Any], Any]


class WindowValues:
    """How records become a window's accumulator, two accumulators one, and an accumulator a result.

    Where accumulators cannot be merged but must be (sessions), the records themselves are kept and combined when a result is due.
    """

    def __init__(self, options: dict[str, Any], *, merging: bool) -> None:
        self.kind: str = options["aggregate"]
        self.function: Any = copy.deepcopy(options["function"]) if self.kind == "aggregate" else options["function"]
        self.initial: Callable[[], Any] = options["initial"]
        merge = options["merge"] if self.kind == "fold" else getattr(self.function, "merge", None)
        self._merge: Callable[[Any, Any], Any] | None = merge if self.kind in ("fold", "aggregate") else None
        self.keeps_records = self.kind == "apply" or (merging and self.kind in ("fold", "aggregate") and self._merge is None)
        binary = {"sum": operator.add, "min": min, "max": max, "reduce": self.function}
        self.binary: Callable[[Any, Any], Any] | None = binary.get(self.kind)

    @property
    def shareable(self) -> bool:
        """Whether windows that overlap may share what they hold: the user has said how to merge."""
        return self._merge is not None

    def begin(self, value: Any) -> Any:
        """The accumulator of a first record."""
        if self.keeps_records:
            return [value]
        return self._first(value)

    def _first(self, value: Any) -> Any:
        if self.binary is not None:
            return value
        if self.kind == "count":
            return 1
        if self.kind == "fold":
            return self.function(self.initial(), value)
        return self.function.add(self.function.create(), value)

    def add(self, accumulator: Any, value: Any) -> Any:
        """The accumulator with one more record; may be the same object."""
        if self.keeps_records:
            accumulator.append(value)
            return accumulator
        return self._next(accumulator, value)

    def _next(self, accumulator: Any, value: Any) -> Any:
        if self.binary is not None:
            return self.binary(accumulator, value)
        if self.kind == "count":
            return accumulator + 1
        if self.kind == "fold":
            return self.function(accumulator, value)
        return self.function.add(accumulator, value)

    def merge(self, accumulators: Sequence[Any]) -> Any:
        """One accumulator for all, in their order."""
        if self.keeps_records:
            return [record for accumulator in accumulators for record in accumulator]
        if self.kind == "count":
            return sum(accumulators)
        function = self._merge or self.binary
        assert function is not None
        return functools.reduce(function, accumulators)

    def result(self, accumulator: Any, key: Any, span: TimeSpan) -> Any:
        """What to emit; never something that changes later."""
        if self.kind == "apply":
            return self.function(key, span, list(accumulator))
        if self.keeps_records:
            records = iter(accumulator)
            accumulator = self._first(next(records))
            for record in records:
                accumulator = self._next(accumulator, record)
        if self.kind == "aggregate":
            return self.function.result(accumulator)
        return accumulator if is_unchanging(accumulator) else copy.copy(accumulator)

    def functions(self) -> KernelFunctions:
        """The same for a kernel. For reduce, fold, aggregate and apply."""
        if self.keeps_records:
            return KernelFunctions(None, None, None, self._finish, list)
        if self.kind == "reduce":
            return KernelFunctions(None, self.function, self.function, self._finish, copied)
        if self.kind == "fold":
            return KernelFunctions(self.initial, self.function, self._merge, self._finish, copied)
        aggregate = self.function
        return KernelFunctions(aggregate.create, aggregate.add, self._merge, self._finish, copied)

    def _finish(self, accumulator: Any, key: Any, start: int, end: int) -> Any:
        return self.result(accumulator, key, TimeSpan(start, end))


def copied(accumulator: Any) -> Any:
    """A copy that no change reaches; what nobody can change stands for itself."""
    return accumulator if is_unchanging(accumulator) else load(dump(accumulator))
