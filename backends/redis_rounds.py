"""Keeps a server told of what is so here, and looks at what is so there: twice a second, and at once when something has changed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Final

from sage_actor.backends.redis_line import Command, RedisLine, shown
from sage_actor.backends.redis_outage import Outage
from sage_actor.errors import BackendUnavailable
from sage_actor.ports import Clock, system_clock

__all__ = ["Life", "RedisRounds", "may_live"]

_PERIOD: Final = 0.5
_AGAIN: Final = 0.2  # seconds before the channel is listened to anew
_CALL: Final = 20.0  # seconds between two rings for ourselves
_DEAF: Final = 3  # of them that may be missed: a way that forgets idle connections (NAT) tells neither end
_STEP: Final = 0.75  # seconds that count at most between two looks: one that comes late was not looking
_SILENCE: Final = 5.0
_CUT_OFF: Final = 1.5


def may_live(silent: float, *, connected: bool) -> bool:
    """Whether somebody may live whose heartbeat has stood still for so many seconds: 5, or 1.5 if they are not even connected.

    The connection of a killed process ends at once, so its end is seen soon; one that is only cut off comes back sooner than that.
    """
    return silent <= (_SILENCE if connected else _CUT_OFF)


class Life:
    """Whether somebody lives whose heartbeat we read; see `may_live`.

    Only time in which we could read counts: nobody is taken for dead because the server, or we, were away.
    """

    __slots__ = ("_beat", "_clock", "_looked", "_still")

    def __init__(self, clock: Clock = system_clock) -> None:
        self._clock = clock
        self._beat: object = None
        self._looked = clock.monotonic()
        self._still = 0.0

    def look(self, beat: object, *, connected: bool) -> bool:
        """False if they are gone."""
        now = self._clock.monotonic()
        step, self._looked = min(now - self._looked, _STEP), now
        if beat != self._beat:
            self._beat, self._still = beat, 0.0
        else:
            self._still += step
        # No beat at all: the server has just come back empty, and they may not have come back to it yet.
        return may_live(self._still, connected=connected or beat is None)


class RedisRounds:
    """Rounds of commands on one connection; a second one listens to a channel, where others ring, and see that we are connected.

    What is told must be told again in each round: then a server that has forgotten everything knows it half a second later, and no
    single message matters.
    """

    def __init__(
        self,
        address: str,
        channel: str,
        *,
        ask: Callable[[], Sequence[Command]],
        answer: Callable[[list[object]], None],
        broken: Callable[[BackendUnavailable], None],
        away: Callable[[BackendUnavailable | None], None] | None = None,
        patience: float,
        call: float = _CALL,
    ) -> None:
        """Nothing is connected before `open`.

        Args:
            ask: the commands of the next round, at least one.
            answer: gets the replies to them, in order; if it raises, that ends the rounds.
            broken: called once when the server was away for longer than `patience`, or refuses us; there are no rounds after that.
            call: seconds between two rings for ourselves, which show that we hear.
            away: called with the reason when an outage begins, and with None when it is over.
        """
        self._address = address
        self._channel = channel
        self._ask = ask
        self._answer = answer
        self._broken = broken
        self._away = away
        self._patience = patience
        self._call = call
        self._next_call = 0.0
        self._line = RedisLine(address)
        self._due = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Connect, listen, and make the first round; go on in the background.

        Raises:
            BackendUnavailable: the server is not there, or refuses us.
        """
        bell = RedisLine(self._address)
        try:
            await self._line.connect()
            await bell.connect()
            await bell.call([("SUBSCRIBE", self._channel)])
            await self._round()
        except BaseException:
            await bell.aclose()
            await self._line.aclose()
            raise
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._listen(bell), name=f"redis-bell-{self._channel}"),
            loop.create_task(self._run(), name=f"redis-rounds-{self._channel}"),
        ]
        for task in self._tasks:
            task.add_done_callback(self._task_ended)

    def ring(self) -> None:
        """Make a round now. Rings during a round are one more round."""
        self._due.set()

    async def aclose(self) -> None:
        """End the rounds, and close the connections. Idempotent."""
        for task in self._tasks:
            task.remove_done_callback(self._task_ended)
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._line.aclose()

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        # Only a fault of ours, or of a handler: without this everybody would wait for ever, and an agent seem to be there.
        if not task.cancelled() and (error := task.exception()) is not None:
            reason = f"{task.get_name()} failed with {type(error).__name__}: {error}"
            self._broken(BackendUnavailable(shown(self._address), reason, "is this a Redis server?"))

    async def _round(self) -> None:
        commands = list(self._ask())
        asked = len(commands)
        now = system_clock.monotonic()
        if now >= self._next_call:
            self._next_call = now + self._call
            commands.append(("PUBLISH", self._channel, ""))
        self._answer((await self._line.call(commands))[:asked])

    async def _run(self) -> None:
        outage = Outage(self._patience)
        try:
            while True:
                try:
                    if outage.lasts:
                        await self._line.aclose()
                        self._line = RedisLine(self._address)
                        await self._line.connect()
                    self._due.clear()
                    await self._round()
                except BackendUnavailable as error:
                    if not outage.lasts and self._away is not None:
                        self._away(error)
                    await system_clock.sleep(outage.pause(error))
                    continue
                if outage.lasts and self._away is not None:
                    self._away(None)
                outage.over()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_PERIOD):
                        await self._due.wait()
        except BackendUnavailable as error:
            self._broken(error)

    async def _listen(self, bell: RedisLine) -> None:
        try:
            while True:
                # The rounds judge an outage; without the bell they are only slower.
                with contextlib.suppress(BackendUnavailable, TimeoutError):
                    while True:
                        async with asyncio.timeout(_DEAF * self._call):
                            await bell.receive()
                        self.ring()
                await bell.aclose()
                await system_clock.sleep(_AGAIN)
                bell = RedisLine(self._address)
                with contextlib.suppress(BackendUnavailable):
                    await bell.connect()
                    await bell.call([("SUBSCRIBE", self._channel)])
        finally:
            await bell.aclose()
