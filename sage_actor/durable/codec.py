"""Events, messages and states as bytes: msgpack, events and messages under the name of their class. No pickle.

What was encoded is decoded again at once, before anything is stored: what no later life could read is refused while it can
still be refused. The actor is given the decoded object, so that it sees the same when it happens and when it is replayed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgspec

from sage_actor.errors import ActorError

__all__ = ["Codec", "Encoded", "StateCodec", "StoredDelivery", "StoredEvent", "StoredMark", "StoredSnapshot", "encode"]

_BAD_VALUE: Final = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)
_encoder = msgspec.msgpack.Encoder()
encode = _encoder.encode
"""Any of the structs below, or builtins, as msgpack."""


class StoredEvent(msgspec.Struct, array_like=True, frozen=True):
    """Payload of an `EVENT` entry."""

    name: str
    body: msgspec.Raw


class StoredDelivery(msgspec.Struct, array_like=True, frozen=True):
    """Payload of a `DELIVERY` entry; that of `CONFIRMED` is a list of numbers."""

    stream: int
    number: int
    to: str
    name: str
    body: msgspec.Raw


class StoredMark(msgspec.Struct, array_like=True, frozen=True):
    """Payload of a `HANDLED` entry: everything of this sender to this path, up to this number, was handled."""

    sender: str
    stream: int
    to: str
    number: int


class StoredSnapshot(msgspec.Struct, array_like=True, frozen=True):
    """Payload of a snapshot: the state, and what entries that may be deleted have said about deliveries."""

    state: msgspec.Raw
    stream: int
    last_number: int
    owed: list[StoredDelivery]
    handled: list[StoredMark]


class Encoded(NamedTuple):
    """One object of a declared class, as it will be stored and as it will come back."""

    name: str
    body: msgspec.Raw
    value: object


class Codec:
    """Encodes objects of the declared classes. The name of a class is its tag; two of one name are refused."""

    def __init__(self, owner: str, classes: Iterable[type]) -> None:
        """Args:
            owner: the actor class, for errors.
            classes: structs of msgspec, dataclasses, or types that msgspec knows by itself.

        Raises:
            ActorError: one of them cannot be encoded, with the place in it.
            NameError: an annotation names something that is not defined (yet).
        """
        self._owner = owner
        self._decoders: dict[str, msgspec.msgpack.Decoder[Any]] = {}
        self._names: dict[type, str] = {}
        for cls in classes:
            if not isinstance(cls, type):
                raise ActorError(f"{owner}: {cls!r} among its events or messages is no class; declare each class by itself")
            if cls in self._names:
                continue
            if cls.__name__ in self._decoders:
                raise ActorError(f"{owner}: two of its classes are named {cls.__name__!r}, which is the tag in the journal; rename one")
            _refuse_unencodable(owner, cls)
            self._decoders[cls.__name__] = msgspec.msgpack.Decoder(cls)
            self._names[cls] = cls.__name__

    def encode(self, value: object) -> Encoded:
        """Bytes of an object, and what they will be read back as.

        Raises:
            ActorError: its class is not declared, or it holds something that its class does not say.
        """
        name = self._names.get(type(value))
        if name is None:
            raise ActorError(
                f"{self._owner} cannot store a {type(value).__qualname__}: {self._known()}; add the class to `events` or `messages`"
            )
        try:
            body = encode(value)
            return Encoded(name, msgspec.Raw(body), self._decoders[name].decode(body))
        except _BAD_VALUE as error:
            raise ActorError(
                f"{self._owner} cannot store this {name}: {error}; nothing was stored, since it could not be read back"
            ) from error

    def decode(self, name: str, body: bytes | msgspec.Raw) -> object:
        """The object of stored bytes.

        Raises:
            ActorError: no class of that name is declared, or the bytes do not fit it.
        """
        decoder = self._decoders.get(name)
        if decoder is None:
            raise ActorError(
                f"it is a {name!r}, and {self._known()}; keep every class that was ever stored declared, or map its name in `upgrade`"
            )
        try:
            return decoder.decode(body)
        except msgspec.MsgspecError as error:
            raise ActorError(
                f"its bytes do not fit the class {name!r} ({error}); if the class has changed, raise `event_version` and override `upgrade`"
            ) from error

    def _known(self) -> str:
        return f"{self._owner} knows {', '.join(self._decoders) or 'no classes'}"


class StateCodec:
    """Encodes what `snapshot_state` returns."""

    def __init__(self, owner: str, cls: object) -> None:
        """Args:
            owner: the actor class, for errors.
            cls: what the state is; `object` for builtins that come back as they are.

        Raises:
            ActorError: it cannot be encoded, with the place in it.
            NameError: an annotation names something that is not defined (yet).
        """
        self._owner = owner
        self._untyped = cls is object
        if not self._untyped:
            _refuse_unencodable(owner, cls)
        self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(Any if self._untyped else cls)

    def encode(self, state: object) -> msgspec.Raw:
        """Bytes of a state.

        Raises:
            ActorError: it would not come back, or come back as something else.
        """
        try:
            body = encode(state)
            again = self._decoder.decode(body)
        except _BAD_VALUE as error:
            raise ActorError(f"{self._owner}: what snapshot_state returned cannot be stored: {error}") from error
        if self._untyped and again != state:
            raise ActorError(
                f"{self._owner}: what snapshot_state returned ({type(state).__qualname__}) would come back as something else "
                f"({type(again).__qualname__}, or something in it); name its type in `state_class`, or return builtins"
            )
        return msgspec.Raw(body)

    def decode(self, body: bytes | msgspec.Raw) -> object:
        """The state of stored bytes.

        Raises:
            ActorError: they do not fit the declared class.
        """
        try:
            return self._decoder.decode(body)
        except msgspec.MsgspecError as error:
            raise ActorError(
                f"its bytes do not fit `state_class` ({error}); if that has changed, raise `event_version` and override `upgrade_state`"
            ) from error


def _refuse_unencodable(owner: str, cls: object) -> None:
    from msgspec import inspect as shapes

    name = getattr(cls, "__qualname__", repr(cls))
    try:
        shape = shapes.type_info(cls)
    except TypeError as error:
        raise ActorError(f"{owner}: {name} cannot be stored: {error}") from error
    seen: set[int] = set()
    pending: list[tuple[str, object]] = [(name, shape)]
    while pending:
        place, part = pending.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, shapes.CustomType) and part.cls is not object:
            raise ActorError(
                f"{owner}: {name} cannot be stored: {place} is a {part.cls.__qualname__}, which has no encoding; "
                "use structs of msgspec, dataclasses and what msgspec knows by itself"
            )
        if isinstance(part, shapes.Field):
            pending.append((f"{name}.{part.name}", part.type))
        elif isinstance(part, tuple):
            pending += [(place, item) for item in part]  # pyright: ignore[reportUnknownVariableType] - the parts of a shape
        elif isinstance(part, shapes.Type):
            pending += [(place, getattr(part, field)) for field in part.__struct_fields__]
