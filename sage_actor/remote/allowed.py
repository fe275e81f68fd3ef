"""The allow-list form: msgpack of plain data, arrays, refs and listed classes. Reading it makes nothing else, and runs no code.

Plain data are None, bool, int, float, str, bytes, list, tuple, set, frozenset, dict, and numpy arrays of numbers. Instances of listed
classes (structs of msgspec, dataclasses, enums) travel as their name and fields, and come back through the class itself, so that a
field of the wrong type is refused.
"""

from __future__ import annotations

import builtins
import dataclasses
import enum
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from sage_actor import errors
from sage_actor._core.actor_ref import ActorRef
from sage_actor.actor.backend import Buffer
from sage_actor.errors import ConfigError, SageError, SerializationError

if TYPE_CHECKING:
    from sage_actor.remote.wire import RefTable

__all__ = ["AllowList", "class_named", "name_of"]

_TUPLE: Final = 1
_SET: Final = 2
_FROZEN_SET: Final = 3
_INTEGER: Final = 4
_OBJECT: Final = 5
_MEMBER: Final = 6
_ARRAY: Final = 7
_REF: Final = 8
_CLASS: Final = 9
_ERROR: Final = 10
_PAIRS: Final = 11

_COLLECTIONS: Final[dict[type, int]] = {tuple: _TUPLE, set: _SET, frozenset: _FROZEN_SET}
_ATOMS: Final = frozenset({type(None), bool, float, str, bytes})
_encode = msgspec.msgpack.Encoder().encode


def name_of(cls: type) -> str:
    """What a class is called on the way: "module:name".

    Raises:
        ConfigError: it cannot be imported by that name.
    """
    name = f"{cls.__module__}:{cls.__qualname__}"
    found: object = sys.modules.get(cls.__module__)
    for part in cls.__qualname__.split("."):
        found = getattr(found, part, None)
    if cls.__module__ == "__main__" or found is not cls:
        raise ConfigError("allow", f"{name} cannot be imported by a worker; move the class to a module of its own, at its top level")
    return name


def class_named(name: str) -> type:
    """The class of a name that the owner has sent.

    Raises:
        SerializationError: it cannot be imported here.
    """
    module, _, qualified = name.partition(":")
    try:
        found: object = importlib.import_module(module)
        for part in qualified.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise SerializationError(f"class {name!r}", f"it cannot be imported here ({error})") from error
    if not isinstance(found, type):
        raise SerializationError(f"class {name!r}", "it is no class")
    return found


class AllowList:
    """Encodes and decodes what a list of classes allows.

    Args:
        classes: those whose instances may travel, actor classes that may be spawned on workers included.

    Raises:
        ConfigError: one of them cannot be imported by its name.
    """

    def __init__(self, classes: Sequence[type]) -> None:
        self._names = {cls: name_of(cls) for cls in classes}
        self._classes = {name: cls for cls, name in self._names.items()}
        self.refs: RefTable

    @property
    def names(self) -> list[str]:
        """The names of the classes."""
        return list(self._classes)

    # -- out --

    def encode(self, value: object, what: str) -> list[Buffer]:
        """Parts of a value: msgpack, then the content of arrays.

        Raises:
            SerializationError: something in it is of a class that is not listed; says which and how to list it.
        """
        buffers: list[Buffer] = []
        try:
            return [_encode(self._pack(value, buffers)), *buffers]
        except SerializationError as error:
            raise SerializationError(f"{what}: {error.what}", error.reason, error.hint) from None
        except (AttributeError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise SerializationError(what, str(error)) from error

    def _pack(self, value: Any, buffers: list[Buffer]) -> object:
        cls: type = value.__class__
        if cls in _ATOMS:
            return value
        if cls is int:
            return value if -(2**63) <= value < 2**64 else _extension(_INTEGER, str(value))
        if cls is list:
            return [self._pack(item, buffers) for item in value]
        if cls is dict:
            if all(type(key) is str for key in value):
                return {key: self._pack(item, buffers) for key, item in value.items()}
            return _extension(_PAIRS, [[self._pack(key, buffers), self._pack(item, buffers)] for key, item in value.items()])
        code = _COLLECTIONS.get(cls)
        if code is not None:
            return _extension(code, [self._pack(item, buffers) for item in value])
        if cls is ActorRef:
            worker, number, path, actor_class = self.refs.address_of(value)
            return _extension(_REF, [worker, number, path, None if actor_class is None else self._names.get(actor_class)])
        if cls in self._names:
            return self._pack_listed(value, cls, buffers)
        if isinstance(value, type) and value in self._names:
            return _extension(_CLASS, self._names[value])
        if isinstance(value, BaseException):
            return self._pack_error(value, buffers)
        packed = _packed_array(value, cls, buffers)
        if packed is not None:
            return packed
        raise _not_allowed(value)

    def _pack_listed(self, value: Any, cls: type, buffers: list[Buffer]) -> object:
        name = self._names[cls]
        if isinstance(value, enum.Enum):
            return _extension(_MEMBER, [name, value.name])
        if isinstance(value, BaseException):
            return self._pack_error(value, buffers)
        fields = _fields_of(cls)
        if fields is None:
            raise SerializationError(
                f"a {cls.__qualname__}", "it is listed, but neither a struct of msgspec, a dataclass, an enum nor an exception"
            )
        return _extension(_OBJECT, [name, [self._pack(getattr(value, field), buffers) for field in fields]])

    def _pack_error(self, error: BaseException, buffers: list[Buffer]) -> object:
        cls = type(error)
        name = self._names.get(cls, cls.__name__ if self._error_class(cls.__name__) is cls else None)
        try:
            if name is not None:
                return _extension(_ERROR, [name, [self._pack(argument, buffers) for argument in error.args]])
        except SerializationError:
            pass  # of its arguments; its text travels
        return _extension(_ERROR, ["RemoteError", [cls.__name__, str(error)]])

    # -- in --

    def decode(self, parts: Sequence[Buffer]) -> Any:
        """The value.

        Raises:
            SerializationError: it names a class that is not listed here, or does not fit its class.
        """
        try:
            return msgspec.msgpack.decode(parts[0], ext_hook=self._hook(parts))
        except (msgspec.MsgspecError, TypeError, ValueError, LookupError) as error:
            raise SerializationError("a value that has come", str(error)) from error

    def _hook(self, parts: Sequence[Buffer]) -> Callable[[int, memoryview], object]:
        def unpack(code: int, data: memoryview) -> object:
            content: Any = msgspec.msgpack.decode(data, ext_hook=unpack)
            if code == _TUPLE:
                return tuple(content)
            if code == _SET:
                return set(content)
            if code == _FROZEN_SET:
                return frozenset(content)
            if code == _INTEGER:
                return int(content)
            if code == _PAIRS:
                return dict(content)
            if code == _ARRAY:
                return _array(content, parts)
            return self._named(code, content)

        return unpack

    def _named(self, code: int, content: Any) -> object:
        if code == _REF:
            worker, number, path, name = content
            return self.refs.ref_at((int(worker), int(number), str(path), None if name is None else self._listed(name)))
        if code == _CLASS:
            return self._listed(content)
        if code == _MEMBER:
            members = cast("type[enum.Enum]", self._listed(content[0]))
            return members[content[1]]
        if code == _OBJECT:
            return _instance(self._listed(content[0]), content[1])
        if code == _ERROR:
            cls = self._classes.get(content[0]) or self._error_class(content[0])
            if cls is None or not issubclass(cls, BaseException):
                raise SerializationError(f"an error {content[0]!r}", "it is not listed")
            return cls(*content[1])
        raise SerializationError(f"an extension {code}", "this process does not know it; run the same release everywhere")

    def _listed(self, name: str) -> type:
        cls = self._classes.get(name)
        if cls is None:
            raise SerializationError(f"a {name}", "it is not listed; add the class to `allow=` of the actor system")
        return cls

    @staticmethod
    def _error_class(name: str) -> type[BaseException] | None:
        """Errors that everybody has: ours and Python's."""
        from sage_actor.actor.portable import RemoteError

        found: object = RemoteError if name == "RemoteError" else getattr(errors, name, None) or getattr(builtins, name, None)
        if isinstance(found, type) and issubclass(found, Exception) and (issubclass(found, SageError) or found.__module__ == "builtins"):
            return found
        return None


def _extension(code: int, content: object) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(code, _encode(content))


def _fields_of(cls: Any) -> tuple[str, ...] | None:
    if issubclass(cls, msgspec.Struct):
        names: tuple[str, ...] = cls.__struct_fields__
        return names
    if dataclasses.is_dataclass(cls):
        return tuple(field.name for field in dataclasses.fields(cls) if field.init)
    return None


def _instance(cls: type, values: list[object]) -> object:
    fields = _fields_of(cls)
    if fields is None or len(fields) != len(values):
        raise SerializationError(f"a {cls.__qualname__}", "it has other fields here; run the same code everywhere")
    made: Any = cls(**dict(zip(fields, values, strict=True)))
    if issubclass(cls, msgspec.Struct):
        for field in msgspec.structs.fields(cls):
            _check(cls, field.name, getattr(made, field.name), field.type)
    return made


def _check(cls: type, field: str, value: object, annotated: Any) -> None:
    """Plain annotations are held to; what msgspec cannot judge passes."""
    fits = not isinstance(annotated, type) or isinstance(value, annotated) or (annotated is float and type(value) is int)
    if annotated in (int, float, str, bytes, bool) and not fits:
        raise SerializationError(f"a {cls.__qualname__}", f"its field {field!r} is a {type(value).__name__}, not {annotated.__name__}")


def _packed_array(value: Any, cls: type, buffers: list[Buffer]) -> object | None:
    numpy = sys.modules.get("numpy")  # who has an array has it loaded
    if numpy is None or cls is not numpy.ndarray or value.dtype.kind not in "biufcSUmM":
        return None
    whole = numpy.ascontiguousarray(value)
    buffers.append(memoryview(whole.reshape(-1).view(numpy.uint8)) if whole.nbytes else b"")
    return _extension(_ARRAY, [whole.dtype.str, list(value.shape), len(buffers)])


def _array(content: Any, parts: Sequence[Buffer]) -> object:
    import numpy as np

    code, shape, place = content
    return np.frombuffer(parts[int(place)], dtype=np.dtype(str(code))).reshape(shape)


def _not_allowed(value: object) -> SerializationError:
    cls: type = value if isinstance(value, type) else type(value)
    what = f"the class {cls.__qualname__}" if isinstance(value, type) else f"a {cls.__qualname__}"
    return SerializationError(
        what, f"serialization='msgspec' lets only listed classes travel; add it: ActorSystem(..., allow=[{cls.__qualname__}])"
    )
