"""Methods declared `blocking`: run beside the event loop, in a thread or in another process."""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING

from sage_actor.errors import BadCall, SerializationError
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

    Raises:
        BadCall: the arguments do not fit a method that runs in a process, or cannot travel there. (For a thread the cell finds out.)
        Exception: whatever the method raised; for a process see `ProcessPool.perform`.
    """
    if handler.pool != "process":
        return await offload(partial(handler.function, actor, *arguments, **options))
    pool = system.process_pool()
    try:
        inspect.signature(handler.function).bind(actor, *arguments, **options)
        call = pool.pack(handler.function, arguments, options)
    except TypeError as error:
        raise BadCall(actor.ref.path, f"{handler.name}: {error}") from error
    except SerializationError as error:
        raise BadCall(actor.ref.path, f"{error.what} cannot travel to another process: {error.reason}") from error
    return await pool.perform(call)
