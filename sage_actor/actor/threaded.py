"""SyncActorSystem: actors for code without an event loop, on a loop in a thread of their own."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from threading import Thread
from types import TracebackType
from typing import TYPE_CHECKING, Self

from sage_actor.actor.sync import SyncSystem
from sage_actor.actor.system import DEFAULT_MAILBOX, DEFAULT_RESTART, DEFAULT_SUPERVISION, ActorSystem
from sage_actor.errors import ActorError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sage_actor.actor.backend import Backend
    from sage_actor.actor.mailbox import MailboxSettings
    from sage_actor.actor.remoting import Serialization
    from sage_actor.actor.supervision import RestartStrategy
    from sage_actor.actor.supervisor_scope import Supervision
    from sage_actor.actor.tracing import Tracer
    from sage_actor.ports import Clock

__all__ = ["SyncActorSystem"]


class SyncActorSystem(SyncSystem):
    """Actors for plain scripts and notebooks: ``with SyncActorSystem("demo") as system: ref = system.spawn(Counter, 5)``.

    An `ActorSystem` on an event loop of its own (uvloop where it is installed) in a daemon thread of its own, with the face of
    ``ActorSystem.sync``. It works beside any other event loop, also in the thread of one that runs (Jupyter), which then stands
    still while a call waits. Usable from all threads but its own, and only between entering and leaving.

    Leaving stops every actor as leaving an `ActorSystem` does (drained, unless an exception leaves the body), and returns when the
    thread has ended. A handler that blocks the loop holds that up; Ctrl-C ends the wait. An interpreter that ends without leaving
    does not wait: the actors end with it.

    Arguments are those of `ActorSystem`.
    """

    def __init__(
        self,
        name: str = "actors",
        *,
        clock: Clock | None = None,
        restart: RestartStrategy = DEFAULT_RESTART,
        mailbox: MailboxSettings = DEFAULT_MAILBOX,
        supervision: Supervision = DEFAULT_SUPERVISION,
        stop_timeout: float | str = 10.0,
        dead_letters: int = 1000,
        inline_asks: bool = True,
        inspect: bool = True,
        tracer: Tracer | None = None,
        backend: str | Backend | None = None,
        workers: int | None = None,
        serialization: Serialization = "pickle",
        allow: Sequence[type] = (),
    ) -> None:
        super().__init__(
            ActorSystem(
                name,
                clock=clock,
                restart=restart,
                mailbox=mailbox,
                supervision=supervision,
                stop_timeout=stop_timeout,
                dead_letters=dead_letters,
                inline_asks=inline_asks,
                inspect=inspect,
                tracer=tracer,
                backend=backend,
                workers=workers,
                serialization=serialization,
                allow=allow,
            )
        )
        self._thread: Thread | None = None
        self._running: Future[None] = Future()
        self._ended: Future[None] = Future()
        self._leaving: asyncio.Future[bool] | None = None

    @property
    def name(self) -> str:
        """For messages, logs and the inspector."""
        return self._system.name

    def __enter__(self) -> Self:
        if self._thread is not None:
            raise ActorError(f"actor system {self.name!r} has been started before; make a new one")
        self._thread = Thread(target=self._run, name=f"actors of {self.name}", daemon=True)
        self._thread.start()
        self._running.result()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close(drain=kind is None)

    def close(self, *, drain: bool = True) -> None:
        """Stop every actor, last spawned first, and end the thread; returns when it has ended. Idempotent.

        Args:
            drain: let each actor finish its mailbox first; otherwise only the message in hand.

        Raises:
            BaseException: what ended the thread before its time: a SystemExit or KeyboardInterrupt that a handler raised.
            ActorError: called by one of its own actors.
        """
        if self._thread is None:
            return
        if not self._ended.done():
            loop = self._loop_to_ask("close", "self.context.stop()")
            try:
                loop.call_soon_threadsafe(self._leave, drain)
            except RuntimeError:
                pass  # the thread is ending by itself
        self._ended.result()
        self._thread.join()

    def _leave(self, drain: bool) -> None:
        if self._leaving is not None and not self._leaving.done():
            self._leaving.set_result(drain)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=_new_loop) as runner:
                runner.run(self._live())
        except BaseException as error:  # noqa: BLE001 - the end of a thread: whoever starts or closes the system is told
            if not self._running.done():
                self._running.set_exception(error)
            self._ended.set_exception(error)
        else:
            self._ended.set_result(None)

    async def _live(self) -> None:
        self._leaving = asyncio.get_running_loop().create_future()
        async with self._system:
            self._running.set_result(None)
            await self._system.aclose(drain=await self._leaving)

    def _loop_to_ask(self, what: str, instead: str) -> asyncio.AbstractEventLoop:
        if self._thread is None:
            raise ActorError(f"{what}: actor system {self.name!r} is not running; use it inside `with`")
        return super()._loop_to_ask(what, instead)


def _new_loop() -> asyncio.AbstractEventLoop:
    """uvloop where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
