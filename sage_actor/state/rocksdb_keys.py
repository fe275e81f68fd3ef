"""Keys as bytes: equal keys give equal bytes, in every process, as `stable_hash` gives them equal numbers.

Changing the encoding needs a new format of what is stored (`rocksdb_checkpoint.FORMAT`).
"""

from __future__ import annotations

import struct
from dataclasses import fields
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Final, cast
from uuid import UUID

from sage_actor.errors import UnstableKey
from sage_actor.state.pickling import dump, load

__all__ = ["decode", "encode", "encode_any"]

_SIZE: Final = struct.Struct(">I")
_FLOAT: Final = struct.Struct(">d")
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - both ends of the difference are naive
_MICROSECOND: Final = timedelta(microseconds=1)
_DEEPEST: Final = 64


def encode(key: Any, depth: int = 0) -> tuple[bytes, bool]:
    """The bytes, and whether `decode` gives the key itself back and not merely an equal one.

    Raises:
        UnstableKey: the key has no encoding that is the same everywhere.
    """
    cls = cast("Any", type(key))
    if cls is str:
        return b"s" + cast("str", key).encode("utf-8", "surrogatepass"), True
    if cls is int:
        return b"i" + _integer(key), True
    if cls is tuple:
        return _sequence(b"t", cast("tuple[Any, ...]", key), depth)
    if cls is bytes:
        return b"b" + key, True
    if key is None:
        return b"n", True
    return _encode_other(key, depth), cls is float and not key.is_integer()


def encode_any(key: Any) -> tuple[bytes, bool]:
    """As `encode`, and by its pickle what that refuses: for sub-keys, which need not be stable."""
    try:
        return encode(key)
    except UnstableKey:
        return b"p" + dump(key), True


def decode(data: bytes) -> Any:
    """The key, if `encode` called it exact."""
    kind, rest = data[:1], data[1:]
    if kind == b"s":
        return rest.decode("utf-8", "surrogatepass")
    if kind == b"i":
        return int.from_bytes(rest, "big", signed=True)
    if kind == b"b":
        return rest
    if kind == b"n":
        return None
    if kind == b"f":
        return _FLOAT.unpack(rest)[0]
    if kind == b"p":
        return load(rest)
    items: list[Any] = []
    at = 0
    while at < len(rest):
        (size,) = _SIZE.unpack_from(rest, at)
        at += 4 + size
        items.append(decode(rest[at - size : at]))
    return tuple(items)


def _integer(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _sequence(kind: bytes, items: tuple[Any, ...], depth: int) -> tuple[bytes, bool]:
    if depth > _DEEPEST:
        raise UnstableKey("tuple", f"it is nested deeper than {_DEEPEST}")
    parts, all_exact = [kind], True
    for item in items:
        data, exact = encode(item, depth + 1)
        parts += (_SIZE.pack(len(data)), data)
        all_exact = all_exact and exact
    return b"".join(parts), all_exact


def _encode_other(key: Any, depth: int) -> bytes:
    """The order of the questions is that of `stable_hash`: an IntEnum is an int, a str subclass a str."""
    cls = cast("Any", type(key))
    own = getattr(cls, "__stable_key__", None)
    if own is not None:
        if depth > _DEEPEST:
            raise UnstableKey(type(key).__name__, f"it is nested deeper than {_DEEPEST}")
        return encode(own(key), depth + 1)[0]
    if isinstance(key, str):
        return encode(str.__str__(key))[0]
    if isinstance(key, int):
        return b"i" + _integer(int(key))
    if isinstance(key, float):
        return _float(key)
    if isinstance(key, bytes):
        return b"b" + bytes(key)
    if isinstance(key, tuple):
        return _sequence(b"t", tuple(cast("tuple[Any, ...]", key)), depth)[0]
    if isinstance(key, Decimal):
        return _decimal(key)
    if isinstance(key, Enum):
        name: Any = key.name if key.name is not None else key.value
        return _sequence(b"e", (type(key).__qualname__, str(name)), depth)[0]
    if isinstance(key, UUID):
        return b"u" + key.bytes
    if isinstance(key, datetime):
        return _time(key)
    if isinstance(key, date):
        return b"d" + _integer(key.toordinal())
    return _record(key, depth)


def _float(key: float) -> bytes:
    if key - key != 0:
        raise UnstableKey(type(key).__name__, f"{key!r} is not finite and not equal to itself everywhere")
    return b"i" + _integer(int(key)) if key.is_integer() else b"f" + _FLOAT.pack(key)


def _decimal(key: Decimal) -> bytes:
    if not key.is_finite():
        raise UnstableKey(type(key).__name__, f"{key!r} is not finite")
    if key == 0:
        return b"i" + _integer(0)
    if abs(key.adjusted()) > 4096:
        raise UnstableKey(type(key).__name__, "its exponent is beyond 4096")
    sign, digits, exponent = key.as_tuple()
    text = "".join(map(str, digits)).lstrip("0")
    kept = text.rstrip("0")
    exponent = int(exponent) + len(text) - len(kept)
    if exponent >= 0:
        return b"i" + _integer(int(key))
    nearest = float(key)
    if Decimal(nearest) == key:
        return b"f" + _FLOAT.pack(nearest)
    return b"D" + f"{'-' if sign else ''}{kept}e{exponent}".encode()


def _time(key: datetime) -> bytes:
    # without `fold`, which equality between times of one zone ignores
    offset = key.replace(fold=0).utcoffset()
    since = key.replace(tzinfo=None, fold=0) - _EPOCH
    return b"l" + _integer(since // _MICROSECOND) if offset is None else b"a" + _integer((since - offset) // _MICROSECOND)


def _record(key: Any, depth: int) -> bytes:
    cls = cast("Any", type(key))
    rules: Any = getattr(cls, "__dataclass_params__", None) or getattr(cls, "__struct_config__", None)
    if rules is None or not (rules.frozen and rules.eq):
        raise UnstableKey(cls.__qualname__)
    record = hasattr(cls, "__dataclass_params__")
    names: list[str] = [field.name for field in fields(key) if field.compare] if record else list(cls.__struct_fields__)
    return _sequence(b"r", (cls.__qualname__, *(getattr(key, name) for name in names)), depth)[0]
