"""The heartbeat of one worker: shows that it lives, watches that others do, keeps its keys from expiring."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from sage_actor.backends.redis_address import RedisAddress
from sage_actor.backends.redis_keys import EXPIRY, RedisKeys
from sage_actor.backends.redis_outage import Outage
from sage_actor.backends.redis_refusals import refusal
from sage_actor.errors import BackendError, BackendUnavailable
from sage_actor.ports import system_clock

__all__ = ["RedisPulse"]

_PERIOD: Final = 0.5
_SILENCE: Final = 5.0
_ANSWER: Final = 2.0  # seconds that the server may take for one


class RedisPulse:
    """Beats in a thread of its own, so that user code which blocks the loop is not taken for death.

    `silent` is called on the loop once for each watched worker whose beat stood still for so long (`silence`) after it was first
    seen, or that was never heard for so long after `expect`. Only time counts in which our own beats were heard: while the server
    is away nobody is silent, and after it everybody has all of it again. `gone` is called once when the server was away for as long as the
    patience in its address, or refuses what will not pass; the pulse ends with that.
    """

    def __init__(
        self,
        keys: RedisKeys,
        worker: int,
        watched: Sequence[int],
        *,
        silent: Callable[[int], None],
        gone: Callable[[BackendError], None],
        period: float = _PERIOD,
        silence: float = _SILENCE,
    ) -> None:
        """Nothing beats before `start`.

        Args:
            period: seconds between two beats.
            silence: seconds after which a worker that does not beat is silent; many periods.
        """
        self._keys = keys
        self._address = RedisAddress.of(keys.address)
        self._worker = worker
        self._watched = tuple(watched)
        self._silent = silent
        self._gone = gone
        self._period = period
        self._silence = silence
        self._loop = asyncio.get_running_loop()
        self._stop = threading.Event()
        self._expecting = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"sage-pulse-{worker}", daemon=True)
        self._beat = 0
        self._seen: dict[int, tuple[object, int]] = {}  # the last beat of each, and how many looks it has stood still
        self._told: set[int] = set()

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
        from redis.exceptions import RedisError

        outage = Outage(self._address.patience)
        while not self._stop.is_set():
            client: Any = None  # redis-py's own types leave most of this open
            try:
                client = self._client()
                while not self._stop.is_set():
                    self._exchange(client)
                    outage.over()
                    self._stop.wait(self._period)
            except (RedisError, OSError, ValueError, TypeError) as error:
                self._seen.clear()
                try:
                    pause = outage.pause(refusal(self._address, error, "heartbeat"))
                except BackendUnavailable as gone:
                    self._on_loop(self._gone, gone)
                    return
                self._stop.wait(pause)
            finally:
                if client is not None:
                    client.close()

    def _client(self) -> Any:
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        options: dict[str, Any] = {
            "protocol": 2, "socket_timeout": _ANSWER, "socket_connect_timeout": _ANSWER, "retry": Retry(NoBackoff(), 0)
        }  # fmt: skip
        return cast("Any", Redis).from_url(self._address.url, **options)

    def _exchange(self, client: Any) -> None:
        keys = self._keys
        names = [keys.beat(worker) for worker in self._watched]
        self._beat += 1
        pipe = client.pipeline(transaction=False)
        pipe.set(keys.beat(self._worker), self._beat, ex=EXPIRY)
        if self._beat % 8 == 2:  # every 4 s; a stream exists only once something was sent
            for peer in keys.peers(self._worker):
                pipe.expire(keys.stream(self._worker, peer), EXPIRY)
        if names:
            pipe.mget(names)
        replies = pipe.execute()
        if names:
            self._look(dict(zip(self._watched, replies[-1], strict=True)))

    def _look(self, beats: dict[int, object]) -> None:
        for worker, value in beats.items():
            known = self._seen.get(worker)
            if known is None and value is None and not self._expecting.is_set():
                continue  # it may be starting
            if known is None or (value is not None and known[0] != value):
                self._seen[worker] = (value, 0)
                continue
            # Looks are counted, not seconds: a server that is slow to answer us is slow to hear others.
            still = known[1] + 1
            self._seen[worker] = (known[0], still)
            if still * self._period > self._silence and worker not in self._told:
                self._told.add(worker)
                self._on_loop(self._silent, worker)

    def _on_loop(self, function: Callable[[Any], None], argument: object) -> None:
        if not self._stop.is_set():
            with contextlib.suppress(RuntimeError):  # the loop has closed: nobody is left to be told
                self._loop.call_soon_threadsafe(function, argument)
