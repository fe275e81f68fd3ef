"""What we test with, for your tests: a real Redis server, and the suites that decide what is a backend, source or sink."""

from __future__ import annotations

from sage_actor.testing.redis_server import RedisServer, redis_server

__all__ = ["RedisServer", "redis_server"]
