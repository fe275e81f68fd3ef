"""Refuses, while the graph is built, two annotated functions that cannot follow each other."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterable
from typing import Any, Union, get_args, get_origin

from sage_actor.dataflow.functions import FunctionSpec, method_name
from sage_actor.errors import GraphError

__all__ = ["UNKNOWN", "check_fit", "input_type", "output_type"]

UNKNOWN = object()
LIST_KINDS = ("map_batch", "map_lists")
NUMERIC_TOWER = {float: (int,), complex: (int, float)}


def signature_hints(spec: FunctionSpec) -> tuple[Callable[..., Any], dict[str, Any]] | None:
    """The callable that will run and its resolved annotations, or None where Python cannot tell."""
    target: Any = spec.target
    call: Any = target
    if isinstance(target, type) or not callable(target) or not hasattr(target, "__code__"):
        method = getattr(target, "__func__", None)
        if method is not None:
            call = method
        elif hasattr(target, "__code__"):
            call = target
        else:
            try:
                call = getattr(target if isinstance(target, type) else type(target), method_name(spec.kind, target))
            except GraphError:
                return None
    try:
        return call, typing.get_type_hints(call)
    except (TypeError, NameError, AttributeError, SyntaxError, ValueError):
        return None


def input_type(spec: FunctionSpec) -> Any:
    """Annotation of the record parameter, or UNKNOWN."""
    found = signature_hints(spec)
    if found is None:
        return UNKNOWN
    call, hints = found
    code = getattr(call, "__code__", None)
    if code is None:
        return UNKNOWN
    names = [name for name in code.co_varnames[: code.co_argcount] if name not in ("self", "cls")]
    hint = hints.get(names[0], UNKNOWN) if names else UNKNOWN
    if spec.kind in LIST_KINDS:
        # The function takes lists: what counts is what they are lists of.
        return get_args(hint)[0] if len(get_args(hint)) == 1 else UNKNOWN
    return hint


def output_type(spec: FunctionSpec) -> Any:
    """Annotation of what one call contributes to the stream, or UNKNOWN."""
    found = signature_hints(spec)
    if found is None:
        return UNKNOWN
    hint = found[1].get("return", UNKNOWN)
    if spec.kind in ("map", "map_async"):
        return hint
    if spec.kind in ("flat_map", *LIST_KINDS) and get_args(hint) and len(get_args(hint)) in (1, 3):
        origin = get_origin(hint)
        if isinstance(origin, type) and issubclass(origin, Iterable):
            return get_args(hint)[0]
    return UNKNOWN


def can_fit(produced: Any, accepted: Any) -> bool:
    """False only when no value of the one type can be of the other."""
    if UNKNOWN in (produced, accepted):
        return True
    for hint in (produced, accepted):
        if hint is Any or hint is object or isinstance(hint, typing.TypeVar | str):
            return True
    if produced is None:
        produced = type(None)
    if accepted is None:
        accepted = type(None)
    if get_origin(produced) in (Union, types.UnionType):
        return any(can_fit(part, accepted) for part in get_args(produced))
    if get_origin(accepted) in (Union, types.UnionType):
        return any(can_fit(produced, part) for part in get_args(accepted))
    first, second = get_origin(produced) or produced, get_origin(accepted) or accepted
    if not isinstance(first, type) or not isinstance(second, type):
        return True
    if (
        typing.is_typeddict(first)
        or typing.is_typeddict(second)
        or getattr(first, "_is_protocol", False)
        or getattr(second, "_is_protocol", False)
    ):
        return True
    if first in NUMERIC_TOWER.get(second, ()) or second in NUMERIC_TOWER.get(first, ()):
        return first in NUMERIC_TOWER.get(second, ()) or issubclass(first, second)
    return issubclass(first, second) or issubclass(second, first)


def check_fit(produced: Any, producer: str, spec: FunctionSpec, consumer: str) -> None:
    """Raise GraphError naming both operators when the consumer cannot take what the producer gives."""
    accepted = input_type(spec)
    if not can_fit(produced, accepted):
        raise GraphError(
            f"operator {producer!r} gives {type_name(produced)}, but operator {consumer!r} takes {type_name(accepted)}; "
            "put a map between them, or correct the annotations"
        )


def type_name(hint: Any) -> str:
    """Readable name of an annotation."""
    return getattr(hint, "__name__", None) or str(hint)
