"""Warns when two operators' functions see one variable that has changed between them (a late-bound loop variable)."""

from __future__ import annotations

import warnings
from types import CodeType, FunctionType
from typing import Any

from sage_actor.dataflow.functions import FunctionSpec

__all__ = ["LateBindingWarning", "LateBindings"]


class LateBindingWarning(UserWarning):
    """Two functions made from one expression share a variable, and both will see its last value."""


class LateBindings:
    """Remembers, per piece of code, the values its outer variables had when an operator was described."""

    def __init__(self) -> None:
        self._seen: dict[CodeType, tuple[str, dict[str, Any]]] = {}

    def check(self, spec: FunctionSpec, operator: str) -> None:
        """Warn if the same code was used before and a variable it reads has another value by now."""
        function = spec.target
        if not isinstance(function, FunctionType):
            return
        values = outer_values(function)
        before = self._seen.get(function.__code__)
        self._seen[function.__code__] = (operator, values)
        if before is None:
            return
        changed = sorted(name for name, value in values.items() if name in before[1] and differs(before[1][name], value))
        if changed:
            warnings.warn(
                f"operators {before[0]!r} and {operator!r} use one function and the variable {', '.join(map(repr, changed))}, "
                f"which has changed between them; both will see its last value. Bind it: lambda x, {changed[0]}={changed[0]}: ...",
                LateBindingWarning,
                stacklevel=5,
            )


class Captured:
    """A closure cell and what it held."""

    __slots__ = ("cell", "value")

    def __init__(self, cell: Any, value: Any) -> None:
        self.cell = cell
        self.value = value


def differs(before: Any, now: Any) -> bool:
    """Whether one variable holds another object now. Two cells are two variables: each function has its own."""
    if isinstance(before, Captured) and isinstance(now, Captured):
        return before.cell is now.cell and before.value is not now.value
    return before is not now


def outer_values(function: FunctionType) -> dict[str, Any]:
    """The closure cells that are shared by reference, and the globals, that a function reads, with their present values."""
    values: dict[str, Any] = {}
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
        try:
            values[name] = Captured(cell, cell.cell_contents)
        except ValueError:  # not assigned yet
            continue
    for name in code.co_names:
        if name in function.__globals__:
            values[name] = function.__globals__[name]
    return values
