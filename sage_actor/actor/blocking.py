"""Methods declared `blocking`: run beside the event loop, in a thread or in another process."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sage_actor.ports import offload

if TYPE_CHECKING:
    from sage_actor._core.actor_cell import Handler
    from sage_actor.actor.actor import Actor
    from sage_actor.actor.system import ActorSystem

__all__ = ["run_blocking"]


async def run_blocking(
    system: ActorSystem, handler: Handler, actor: Actor, arguments: tuple[object, ...], options: dict[str, object]
) -> object:
    """Run a method as it was declared and answer what it returns.

    Cancelling the wait does not end the method: a thread runs on and its result is dropped, a process is ended.
    """
    if handler.pool == "process":
        return await system.process_pool().run(handler.function, arguments, options)
    return await offload(partial(handler.function, actor, *arguments, **options))
