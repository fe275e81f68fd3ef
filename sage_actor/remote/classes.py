"""Classes that other workers cannot import (of the main script, a notebook, or made in a function), by number.

Such a class is pickled by value once, by the process in which it was first met, and told to all others before anything that
needs it. From then on it travels as a number. So each process has one class for it, also for what comes back to where it was
made: pickling it by value each time would put new functions into a class whose methods name messages.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, cast
from weakref import WeakKeyDictionary

import cloudpickle

from sage_actor.actor.lifecycle import describe
from sage_actor.errors import SerializationError

__all__ = ["BytesPickler", "ClassTable", "Reduced", "UndefinedClass"]

_CloudPickler: Any = cloudpickle.Pickler
Reduced = Any  # what a reducer answers: a tuple of the pickle protocol, a name, or NotImplemented


class UndefinedClass(LookupError):
    """A number has come before its class, over another link: whatever names it has to wait."""


class ClassTable:
    """The numbered classes of one process.

    Args:
        worker: this process; its numbers are its own.
        announce: tells all others of classes: (numbers, their pickle).
        reduce_other: reduces what is no class, such as refs; answers NotImplemented for the rest.
    """

    def __init__(self, worker: int, announce: Callable[[list[int], bytes], None], reduce_other: Callable[[object], Reduced]) -> None:
        self._next = worker << 32
        self._announce = announce
        self.reduce_other = reduce_other
        self._numbers: dict[type, int] = {}
        self._classes: dict[int, type] = {}
        self._missing: dict[int, str] = {}
        self._lost: set[int] = set()
        self._importable: WeakKeyDictionary[type, bool] = WeakKeyDictionary()

    def importable(self, cls: type) -> bool:
        """Whether others find it under its name."""
        known = self._importable.get(cls)
        if known is None:
            known = self._importable[cls] = _is_importable(cls)
        return known

    def number_of(self, cls: type) -> int:
        """The number that stands for a class everywhere, told to all others if it is new.

        Raises:
            SerializationError: the class cannot be pickled.
        """
        number = self._numbers.get(cls)
        if number is None:
            self._define(cls)
            number = self._numbers[cls]
        return number

    def known(self, cls: type) -> int | None:
        """Its number, if it has one."""
        return self._numbers.get(cls)

    def at(self, number: int) -> type:
        """The class of a number.

        Raises:
            UndefinedClass: its definition has not come yet.
            SerializationError: it never will, or could not be read here.
        """
        try:
            return self._classes[number]
        except KeyError:
            missing = self._missing.get(number)
            if missing is None and number >> 32 in self._lost:
                missing = "it was lost with the worker that defined it"
            if missing is not None:
                raise SerializationError("a class that cannot be imported", missing, "") from None
            raise UndefinedClass(number) from None

    def lost(self, worker: int) -> None:
        """No further definition comes from there."""
        self._lost.add(worker)

    def take(self, numbers: list[int], data: bytes) -> None:
        """Classes that another process has defined.

        Raises:
            UndefinedClass: one of them needs a class whose definition has not come yet.
        """
        try:
            classes = cast("list[type]", pickle.loads(data))
        except UndefinedClass:
            raise
        except Exception as error:  # noqa: BLE001 - what user classes are made of, while it is rebuilt; whatever names one of them is refused
            self._missing.update(dict.fromkeys(numbers, f"its definition could not be read here: {describe(error)}"))
            return
        for number, cls in zip(numbers, classes, strict=True):
            if "__sage_handlers__" in cls.__dict__:
                delattr(cls, "__sage_handlers__")  # of the process that it comes from
            self._register(number, cls)
            main = sys.modules["__main__"]
            if cls.__module__ == "__main__" and "." not in cls.__qualname__ and not hasattr(main, cls.__qualname__):
                setattr(main, cls.__qualname__, cls)  # pickles that users make themselves name it so

    def _define(self, cls: type) -> None:
        closure: dict[type, None] = {cls: None}
        while True:  # until no further class turns up in those that are known to be needed
            count = len(closure)
            pickler = _DefinitionPickler(self, closure)
            try:
                data = pickler.pickled(list(closure))
            except SerializationError:
                raise
            except Exception as error:
                hint = "move it to a module that the workers can import"
                raise SerializationError(f"class {cls.__qualname__!r}", str(error), hint) from error
            if len(closure) == count:
                break
        numbers: list[int] = []
        for needed in closure:
            self._next += 1
            numbers.append(self._next)
            self._register(self._next, needed)
        self._announce(numbers, data)

    def _register(self, number: int, cls: type) -> None:
        self._numbers[cls] = number
        self._classes[number] = cls
        self._importable[cls] = False


class BytesPickler(_CloudPickler):  # type: ignore[misc]  # cloudpickle has no types
    """cloudpickle, protocol 5, into bytes; for one value. Its kinds override `reducer_override`."""

    def __init__(self, buffers: Callable[[pickle.PickleBuffer], object] | None = None) -> None:
        self._file = io.BytesIO()
        base: Any = super()
        base.__init__(self._file, protocol=5, buffer_callback=buffers)

    def pickled(self, value: object) -> bytes:
        """Its pickle."""
        self.dump(value)
        return self._file.getvalue()

    def reduce_as_ever(self, value: Any) -> Reduced:
        """What cloudpickle makes of it."""
        base: Any = super()
        return base.reducer_override(value)


class _DefinitionPickler(BytesPickler):
    """Pickles classes by value: those that have no number yet."""

    def __init__(self, table: ClassTable, closure: dict[type, None]) -> None:
        super().__init__()
        self._table = table
        self._closure = closure

    def reducer_override(self, obj: Any) -> Reduced:
        if isinstance(obj, type) and not self._table.importable(obj):
            number = self._table.known(obj)
            if number is not None:
                return self._table.reduce_other(obj)
            self._closure.setdefault(obj)
            return self.reduce_as_ever(obj)
        reduced = self._table.reduce_other(obj)
        return self.reduce_as_ever(obj) if reduced is NotImplemented else reduced


def _is_importable(cls: type) -> bool:
    module: ModuleType | None = sys.modules.get(cls.__module__)
    if module is None or cls.__module__ == "__main__":
        return cls.__module__ == "builtins"
    if _by_value(cls.__module__):
        return False
    found: object = module
    for name in cls.__qualname__.split("."):
        found = getattr(found, name, None)
    # NoneType, function and their like are names of no module; cloudpickle knows them.
    return found is cls or cls.__module__ == "builtins"


def _by_value(module: str) -> bool:
    listing: Any = cloudpickle
    registered: set[str] = listing.list_registry_pickle_by_value()
    return any(module == name or module.startswith(f"{name}.") for name in registered)
