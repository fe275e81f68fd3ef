"""Durations and sizes as people write them: ``"10s"``, ``"5m"``, ``"100ms"``, ``"1GB"``, or a bare number."""

from __future__ import annotations

import math
import re
from typing import Literal

from sage_actor.errors import ConfigError

__all__ = ["parse_duration", "parse_size"]

_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LONG_NAMES = {
    **dict.fromkeys(("microsecond", "microseconds", "µs"), "us"),
    **dict.fromkeys(("millisecond", "milliseconds", "msec"), "ms"),
    **dict.fromkeys(("second", "seconds", "sec"), "s"),
    **dict.fromkeys(("minute", "minutes", "min"), "m"),
    **dict.fromkeys(("hour", "hours"), "h"),
    **dict.fromkeys(("day", "days"), "d"),
}
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([a-zµ]+)\s*", re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([kmgt]?)i?b?", re.IGNORECASE)


def parse_duration(value: str | float, unit: Literal["s", "ms"] = "s", *, key: str = "duration") -> float:
    """Seconds of a duration.

    Args:
        value: ``"10s"``, ``"1h 30m"``, ``"100ms"`` (units us, ms, s, m, h, d, any case), or a bare number, which
            counts in `unit`.
        unit: what a bare number means.
        key: name of the setting, for the error.

    Raises:
        ConfigError: not a duration, negative, infinite or not a number.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigError(key, f"{value!r} is not a duration; write a number or a text such as '10s', '5m', '100ms'")
    if isinstance(value, str):
        text = value.strip()
        if not _NUMBER.fullmatch(text):
            return _sum_of_parts(text, key)
        number = float(text)
    else:
        number = float(value)
    if not math.isfinite(number) or number < 0:
        raise ConfigError(key, f"{value!r} is not a duration: it must be finite and not negative")
    return number * _SECONDS[unit]


def _sum_of_parts(text: str, key: str) -> float:
    seconds, at = 0.0, 0
    while at < len(text):
        part = _PART.match(text, at)
        name = _LONG_NAMES.get(part[2].lower(), part[2].lower()) if part else ""
        if part is None or name not in _SECONDS:
            raise ConfigError(key, f"{text!r} is not a duration; write a number with us, ms, s, m, h or d, such as '10s' or '1h 30m'")
        seconds += float(part[1]) * _SECONDS[name]
        at = part.end()
    if not text:
        raise ConfigError(key, "an empty text is not a duration; write something such as '10s'")
    return seconds


def parse_size(value: str | int, *, key: str = "size") -> int:
    """Bytes of a size: ``"1GB"``, ``"64 MiB"``, ``"512k"`` (1024-based, any case), or a bare number of bytes.

    Raises:
        ConfigError: not a size, or negative.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise ConfigError(key, f"{value!r} is not a size: it must not be negative")
        return value
    size = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if size is None:
        raise ConfigError(key, f"{value!r} is not a size; write a number of bytes or a text such as '512KB', '1GB' (1024-based)")
    return int(float(size[1]) * 1024 ** _POWERS[size[2].lower()])
