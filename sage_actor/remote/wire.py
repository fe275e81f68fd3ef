"""How values travel between the workers of an actor system: forms, the pickler, and who may be named in it.

Forms:

* `PLAIN`: msgpack of a few plain scalars, which is what most messages are; nine times as fast as the pickler.
* `PICKLE`: protocol 5 with buffers out of band, functions by value (cloudpickle), classes that cannot be imported by number, refs
  by address.
* `ALLOWED`: msgpack of plain data and listed classes; where it is chosen, the other two ways of reading a pickle are shut.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, Final, Protocol, TypeGuard

import msgspec

from sage_actor._core.actor_ref import ActorRef
from sage_actor.actor.backend import Buffer
from sage_actor.errors import SerializationError
from sage_actor.remote.allowed import AllowList, class_named
from sage_actor.remote.classes import BytesPickler, ClassTable, Reduced

__all__ = ["ALLOWED", "PICKLE", "PLAIN", "Address", "RefTable", "Wire"]

PLAIN: Final = 0
PICKLE: Final = 1
ALLOWED: Final = 2

MOST_BUFFERS: Final = 60_000
"""A frame has at most 65,535 parts."""

HINT: Final = "make such things in the actor's on_start, or pass what they are made from"
_SCALARS: Final = frozenset({type(None), bool, int, float, str, bytes})
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode

Address = tuple[int, int, str, type | None]
"""Worker, number, path and class of an actor."""


def is_ref(value: object) -> TypeGuard[ActorRef[Any]]:
    """Whether it is an actor's ref."""
    return type(value) is ActorRef


class RefTable(Protocol):
    """Who knows which ref is which actor."""

    def address_of(self, ref: ActorRef[Any]) -> Address:
        """Where its actor lives.

        Raises:
            SerializationError: it belongs to another actor system.
        """
        ...

    def ref_at(self, address: Address) -> ActorRef[Any]:
        """The ref for an address: the local one where the actor lives here."""
        ...


class Wire:
    """Both ends of the way for values, in one process.

    Args:
        refs: turns refs into addresses and back.
        classes: the classes that have numbers.
        allowed: what may travel where pickles may not; None where they may.
    """

    def __init__(self, refs: RefTable, worker: int, announce: Callable[[list[int], bytes], None], allowed: AllowList | None = None) -> None:
        self.refs = refs
        self.classes = ClassTable(worker, announce, self._reduce)
        self.allowed = allowed
        if allowed is not None:
            allowed.refs = refs

    # -- out --

    def encode(self, value: object, what: str) -> tuple[int, list[Buffer]]:
        """Form and parts of a value; buffers are not copied.

        Args:
            what: it, in words, for errors.

        Raises:
            SerializationError: it cannot travel: what, and why.
        """
        if type(value) in _SCALARS:
            try:
                return PLAIN, [_encode(value)]
            except (OverflowError, UnicodeEncodeError):
                pass  # an integer beyond 64 bits, half a surrogate
        if self.allowed is not None:
            return ALLOWED, self.allowed.encode(value, what)
        return PICKLE, self._pickle(value, what)

    def encode_call(self, arguments: tuple[object, ...], options: dict[str, object] | None, what: str) -> tuple[int, list[Buffer]]:
        """Form and parts of the arguments of a method; `decode_call` reads them."""
        if options is None and all(type(argument) in _SCALARS for argument in arguments):
            try:
                return PLAIN, [_encode(arguments)]
            except (OverflowError, UnicodeEncodeError):
                pass
        if self.allowed is not None:
            return ALLOWED, self.allowed.encode((arguments, options), what)
        named = [(f"argument {number}", argument) for number, argument in enumerate(arguments, 1)]
        named += [(f"argument {name!r}", option) for name, option in (options or {}).items()]
        return PICKLE, self._pickle((arguments, options), what, named)

    def _pickle(self, value: object, what: str, named: Sequence[tuple[str, object]] = ()) -> list[Buffer]:
        buffers: list[pickle.PickleBuffer] = []
        try:
            data = _MessagePickler(self, buffers.append).pickled(value)
            if len(buffers) > MOST_BUFFERS:
                buffers.clear()
                data = _MessagePickler(self, None).pickled(value)
            return [data, *[buffer.raw() for buffer in buffers]]
        except SerializationError:
            raise
        except Exception as error:
            raise SerializationError(f"{what}: {_culprit(self, value, named)}", str(error), HINT) from error

    def _reduce(self, value: object) -> Reduced:
        """Refs and numbered classes; NotImplemented for everything else."""
        if is_ref(value):
            worker, number, path, cls = self.refs.address_of(value)
            return _ref_at, (worker, number, path, self._key_of(cls))
        if isinstance(value, type):
            return NotImplemented if self.classes.importable(value) else (_class_at, (self.classes.number_of(value),))
        return NotImplemented

    def reduce(self, value: object) -> Reduced:
        """For the pickler."""
        return self._reduce(value)

    def _key_of(self, cls: type | None) -> int | str | None:
        """What tells the class of an actor whose ref travels. Without it the ref works as well, for messages that name no method."""
        if cls is None:
            return None
        if self.classes.importable(cls):
            return f"{cls.__module__}:{cls.__qualname__}"
        try:
            return self.classes.number_of(cls)
        except SerializationError:
            return None

    def ref_of(self, worker: int, number: int, path: str, key: int | str | None) -> ActorRef[Any]:
        """For the unpickler: the ref that was reduced.

        Raises:
            UndefinedClass: its actor's class is defined, and the definition has not come yet.
        """
        cls: type | None = None
        if key is not None:
            try:
                cls = self.classes.at(key) if isinstance(key, int) else class_named(key)
            except SerializationError:
                pass  # its module is the sender's alone, or its definition was lost
        return self.refs.ref_at((worker, number, path, cls))

    # -- in --

    def decode(self, form: int, parts: Sequence[Buffer]) -> Any:
        """The value. Parts behind the first become part of it: they must be its own, and writable.

        Raises:
            UndefinedClass: it names a class whose definition has not come yet.
            SerializationError: it has a form that is not taken here.
            Exception: whatever the value's own classes raise.
        """
        if form == PLAIN:
            return _decode(parts[0])
        if self.allowed is not None:
            if form != ALLOWED:
                raise SerializationError("a pickle", "this actor system runs with serialization='msgspec', which takes none")
            return self.allowed.decode(parts)
        if form != PICKLE:
            raise SerializationError(f"a value of form {form}", "this process does not know it; run the same release everywhere")
        token = _decoding.set(self)
        try:
            return pickle.loads(parts[0], buffers=parts[1:])
        finally:
            _decoding.reset(token)

    def decode_call(self, form: int, parts: Sequence[Buffer]) -> tuple[tuple[object, ...], dict[str, object]]:
        """Arguments and options of a method; raises what `decode` does."""
        value = self.decode(form, parts)
        if form == PLAIN:
            return tuple(value), {}
        return tuple(value[0]), value[1] or {}

    def take_classes(self, numbers: list[int], data: Buffer) -> None:
        """Classes that another process has defined.

        Raises:
            UndefinedClass: one of them needs a class whose definition has not come yet.
            SerializationError: pickles are not taken here.
        """
        if self.allowed is not None:
            raise SerializationError("the pickle of a class", "this actor system runs with serialization='msgspec', which takes none")
        token = _decoding.set(self)
        try:
            self.classes.take(numbers, bytes(data))
        finally:
            _decoding.reset(token)


_decoding: ContextVar[Wire] = ContextVar("sage_actor_decoding")
"""Whose value is being read: refs and numbers in it mean what they mean there."""


def _ref_at(worker: int, number: int, path: str, key: int | str | None) -> ActorRef[Any]:
    return _decoding.get().ref_of(worker, number, path, key)


def _class_at(number: int) -> type:
    return _decoding.get().classes.at(number)


class _MessagePickler(BytesPickler):
    """cloudpickle that knows refs and numbered classes."""

    def __init__(self, wire: Wire, buffers: Callable[[pickle.PickleBuffer], object] | None) -> None:
        super().__init__(buffers)
        self._wire = wire

    def reducer_override(self, obj: Any) -> Reduced:
        reduced = self._wire.reduce(obj)
        return self.reduce_as_ever(obj) if reduced is NotImplemented else reduced


def _culprit(wire: Wire, value: object, named: Sequence[tuple[str, object]]) -> str:
    """What of a message cannot be pickled, by its type."""
    for place, part in named:
        try:
            _MessagePickler(wire, lambda buffer: None).pickled(part)
        except Exception:  # noqa: BLE001 - a user's class may raise anything while it is pickled; the first that does is named
            return f"{place} ({_class_name(part)})"
    return f"a {_class_name(value)}"


def _class_name(value: Any) -> str:
    """The name of its class."""
    cls: type = value.__class__
    return cls.__name__
