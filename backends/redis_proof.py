"""Whether a server can do for a group what it will be asked to, tried once before anything starts."""

from __future__ import annotations

import logging
import re
from typing import Final, cast

from sage_actor.backends.redis_address import shown
from sage_actor.backends.redis_keys import EXPIRY, RedisKeys
from sage_actor.backends.redis_line import Command, RedisLine
from sage_actor.errors import BackendUnavailable

__all__ = ["prove"]

_OLDEST: Final = (6, 2)
_VERSION: Final = re.compile(rb"^redis_version:(\d+)\.(\d+)[^\r]*", re.MULTILINE)
_EVICTS: Final = re.compile(rb"^maxmemory_policy:((?:allkeys|volatile)-\w+)", re.MULTILINE)
_LIMITED: Final = re.compile(rb"^maxmemory:[1-9]", re.MULTILINE)

_log = logging.getLogger("sage_actor.backends")


async def prove(line: RedisLine, keys: RedisKeys) -> None:
    """Try every command that a group uses, on a key of its own which is gone afterwards.

    Raises:
        BackendUnavailable: the server is too old, a replica, full, or does not let our user do something; with the next step.
    """
    await _prove_version(line, keys)
    key, at = keys.proof(), "0-1"
    commands: list[Command] = [
        ("MULTI",),
        ("XADD", key, "*", "f", "proof"),
        ("EXPIRE", key, EXPIRY),
        ("EXEC",),
        ("XADD", key, "NOMKSTREAM", "*", "f", "proof"),
        ("XLEN", key),
        ("XREAD", "COUNT", 1, "STREAMS", key, "0-0"),
        ("XTRIM", key, "MINID", at),
        ("UNLINK", key),
        ("SET", key, 0, "EX", EXPIRY),
        ("MGET", key),
        ("UNLINK", key),
    ]
    await line.call(commands)


async def _prove_version(line: RedisLine, keys: RedisKeys) -> None:
    from redis.exceptions import NoPermissionError

    [answer] = await line.exchange([("INFO",)])
    if isinstance(answer, NoPermissionError):
        return  # the commands themselves will tell
    if isinstance(answer, Exception):
        raise line.refused("INFO", answer) from answer
    info = cast("bytes", answer)
    found = _VERSION.search(info)
    if found is not None and (int(found[1]), int(found[2])) < _OLDEST:
        version = found[0].decode().partition(":")[2].strip()
        raise BackendUnavailable(shown(keys.address), f"the server is Redis {version}", "6.2 or later is needed")
    evicts = _EVICTS.search(info)
    if evicts is not None and _LIMITED.search(info) is not None:
        _log.warning(
            "%s removes keys when its memory is full (maxmemory-policy %s), also those of a running job, which then sends again what it "
            "finds missing, or fails; CONFIG SET maxmemory-policy noeviction",
            shown(keys.address),
            evicts[1].decode(),
        )
