"""What a Redis server or the way to it refuses, in words with a next step; and whether waiting may help."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import Final

from sage_actor.backends.redis_address import RedisAddress
from sage_actor.errors import BackendUnavailable

__all__ = ["RIGHTS", "may_pass", "refusal"]

RIGHTS: Final = "~sage:* resetchannels &sage:* +@all -@admin -@dangerous +info"
"""What the user of a group must be allowed to do, in the words of ``ACL SETUSER``."""

# Replies by which a server says that it will do so later, or that another one will: the beginning of each.
_LATER: Final = ("MISCONF", "NOREPLICAS", "UNBLOCKED", "BUSY", "max number of clients")
# How the libraries say that a connection that stood has ended.
_BROKEN: Final = ("closed by server", "reset by peer", "Connection lost", "Broken pipe", "connection is closed")


def refusal(address: RedisAddress, error: BaseException, doing: str = "") -> BackendUnavailable:
    """The error to raise for one of redis-py, of a socket or of TLS; `doing` is the command that was refused."""
    reason = str(error) or type(error).__name__
    where = f"{doing}: {reason}" if doing else reason
    refused = BackendUnavailable(address.shown, where, _next_step(address, error, reason))
    refused.__cause__ = error
    return refused


def may_pass(refused: BackendUnavailable) -> bool:
    """Whether the same may succeed a moment later: a server that restarts, is replaced, is full or slow.

    A wrong password, a missing right, a certificate or a server that lacks the command is there to stay.
    """
    from redis import exceptions as redis

    error = refused.__cause__
    if error is None or isinstance(error, ValueError | TypeError | redis.AuthenticationError | redis.NoPermissionError | redis.MovedError):
        return False
    if any(isinstance(cause, ssl.SSLCertVerificationError | FileNotFoundError) or _speaks_no_tls(cause) for cause in _chain(error)):
        return False
    if isinstance(error, redis.ReadOnlyError | redis.OutOfMemoryError | redis.MasterDownError | redis.TryAgainError):
        return True
    if isinstance(error, redis.ResponseError):
        return str(error).startswith(_LATER)
    return isinstance(error, redis.ConnectionError | redis.TimeoutError | redis.RedisError | OSError)


def _next_step(address: RedisAddress, error: BaseException, reason: str) -> str:
    """The hint. In order: narrower classes come before those they derive from."""
    from redis import exceptions as redis

    for cause in _chain(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                "name the file of the authority that signed its certificate with ?ssl_ca_certs=FILE, and the host as the certificate does"
            )
        if _speaks_no_tls(cause):
            return "this port does not speak TLS; write redis:// in place of rediss://"
        if isinstance(cause, FileNotFoundError) and address.url.startswith("rediss:"):
            return "is every file there that the address names (ssl_ca_certs, ssl_certfile, ssl_keyfile)?"
        if isinstance(cause, ssl.SSLError) and "certificate" in str(cause).lower():
            return "the server asks for a certificate of ours: ?ssl_certfile=FILE&ssl_keyfile=FILE"
    if isinstance(error, redis.AuthenticationError):
        return "write user and password in the address: redis://user:password@host:6379/0"
    if isinstance(error, redis.NoPermissionError):
        return f"the user needs these rights: ACL SETUSER name on >password {RIGHTS}"
    if isinstance(error, redis.ReadOnlyError):
        return "it is a replica; write the address of its master"
    if isinstance(error, redis.OutOfMemoryError):
        return "raise its `maxmemory`, or free memory there; the job needs room for what is in flight"
    if isinstance(error, redis.MovedError):
        return "it belongs to a Redis Cluster, which spreads keys; write the address of a single server"
    if isinstance(error, redis.ResponseError):
        return _next_step_of_reply(reason)
    if isinstance(error, ValueError | TypeError):
        return "write redis://user:password@host:6379/0"
    if any(words in reason for words in _BROKEN):
        return (
            "is the server still up? one that speaks TLS needs rediss:// in the address, one that asks for certificates also "
            "?ssl_certfile=FILE&ssl_keyfile=FILE"
        )
    if isinstance(error, TimeoutError) and "handshake" in reason and address.url.startswith("rediss:"):
        return "is the server stopped? if this port does not speak TLS, write redis:// in place of rediss://"
    if isinstance(error, TimeoutError):
        return "is the server stopped, overloaded, or behind a slow network? ?patience=SECONDS in the address waits longer"
    return f"start a server with `redis-server --port {address.port}`, or run with backend='process'"


def _next_step_of_reply(reason: str) -> str:
    lower = reason.lower()
    if "db index" in lower:
        return "the number at the end of the address is beyond its `databases`; 0 is always there"
    if "unknown command" in lower or "syntax error" in lower:
        return "Redis 6.2 or later is needed"
    if reason.startswith("MISCONF"):
        return "it cannot save to its disk; its log says why"
    if reason.startswith("WRONGTYPE"):
        return "somebody else writes to keys that begin with 'sage:'; choose another database"
    return "see the log of the server"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what it came from; redis-py wraps those of TLS and of sockets."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def _speaks_no_tls(error: BaseException) -> bool:
    return isinstance(error, ssl.SSLError) and ("WRONG_VERSION_NUMBER" in str(error) or "RECORD_LAYER_FAILURE" in str(error))
