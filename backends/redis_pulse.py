"""The heartbeat of one worker: shows that it lives, watches that others do, keeps its keys from expiring."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from sage_actor.backends.redis_keys import RedisKeys
from sage_actor.backends.redis_line import shown
from sage_actor.errors import BackendError, BackendUnavailable
from sage_actor.ports import system_clock

__all__ = ["RedisPulse"]

_PERIOD: Final = 0.5
_SILENCE: Final = 5.0
_PATIENCE: Final = 2.0  # with the server
_EXPIRY: Final = 60  # seconds that the keys of a killed group outlive it


class RedisPulse:
    """Beats in a thread of its own, so that user code which blocks the loop is not taken for death.

    `silent` is called on the loop once for each watched worker whose beat stood still for 5 s after it was first seen, or
    that was never heard for 5 s after `expect`; `gone` once when the server does not answer; the pulse ends with that.
    """

    def __init__(
        self, keys: RedisKeys, worker: int, watched: Sequence[int], *, silent: Callable[[int], None], gone: Callable[[BackendError], None]
    ) -> None:
        self._keys = keys
        self._worker = worker
        self._watched = tuple(watched)
        self._silent = silent
        self._gone = gone
        self._loop = asyncio.get_running_loop()
        self._stop = threading.Event()
        self._expecting = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"sage-pulse-{worker}", daemon=True)

    def start(self) -> None:
        """Begin to beat. Call once."""
        self._thread.start()

    def expect(self) -> None:
        """Every watched worker is up: one that was never heard is silent from now on."""
        self._expecting.set()

    async def aclose(self) -> None:
        """Stop beating; returns when the thread has ended. Idempotent."""
        self._stop.set()
        while self._thread.is_alive():
            await system_clock.sleep(0.002)

    def _run(self) -> None:
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.exceptions import RedisError
        from redis.retry import Retry

        options: dict[str, Any] = {
            "protocol": 2, "socket_timeout": _PATIENCE, "socket_connect_timeout": _PATIENCE, "retry": Retry(NoBackoff(), 0)
        }  # fmt: skip
        # redis-py's own types leave most of this open.
        client = cast("Any", Redis).from_url(self._keys.address, **options)
        try:
            self._beat(client)
        except (RedisError, OSError) as error:
            reason = str(error) or type(error).__name__
            self._on_loop(self._gone, BackendUnavailable(shown(self._keys.address), f"no heartbeat: {reason}", "is the server still up?"))
        finally:
            client.close()

    def _beat(self, client: Any) -> None:
        keys = self._keys
        own = keys.beat(self._worker)
        streams = [keys.stream(self._worker, peer) for peer in keys.peers(self._worker)]
        names = [keys.beat(worker) for worker in self._watched]
        seen: dict[int, tuple[object, float]] = {}
        beat = 0
        while not self._stop.is_set():
            beat += 1
            pipe = client.pipeline(transaction=False)
            if names:
                pipe.mget(names)
            pipe.set(own, beat, ex=_EXPIRY)
            if beat % 8 == 2:  # every 4 s: a stream exists only once something was sent
                for stream in streams:
                    pipe.expire(stream, _EXPIRY)
            replies = pipe.execute()
            if names:
                self._look(dict(zip(self._watched, replies[0], strict=True)), seen)
            self._stop.wait(_PERIOD)

    def _look(self, beats: dict[int, object], seen: dict[int, tuple[object, float]]) -> None:
        now = system_clock.monotonic()
        for worker, value in beats.items():
            known = seen.get(worker)
            if known is None and value is None and not self._expecting.is_set():
                continue  # it may be starting
            if known is None or known[0] != value:
                seen[worker] = (value, now)
            elif now - known[1] > _SILENCE:
                seen[worker] = (value, float("inf"))  # told once
                self._on_loop(self._silent, worker)

    def _on_loop(self, function: Callable[[Any], None], argument: object) -> None:
        if not self._stop.is_set():
            with contextlib.suppress(RuntimeError):  # the loop has closed: nobody is left to be told
                self._loop.call_soon_threadsafe(function, argument)
