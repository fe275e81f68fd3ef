"""Making the instance of an actor from what `spawn` was given."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from sage_actor.actor.actor import Actor
from sage_actor.errors import ActorError

if TYPE_CHECKING:
    from sage_actor.actor.lifecycle import Lifecycle

__all__ = ["factory_name", "make_instance"]


def make_instance(factory: Callable[..., object], arguments: tuple[object, ...], lifecycle: Lifecycle) -> Actor:
    """Call the class (or a partial of it) so that ``self.context`` is there already in ``__init__``; any other function gets
    its actor a context when it has returned one.

    Raises:
        ActorError: what came out is no actor.
        Exception: whatever the class raised.
    """
    maker: Any = factory
    options: dict[str, Any] = {}
    while isinstance(maker, partial):
        maker, arguments, options = maker.func, (*maker.args, *arguments), {**maker.keywords, **options}
    if isinstance(maker, type) and issubclass(maker, Actor) and maker.__new__ is object.__new__:
        actor = object.__new__(maker)
        actor._sage_lifecycle = lifecycle
        actor.__init__(*arguments, **options)  # type: ignore[misc]
        return actor
    made = maker(*arguments, **options)
    if not isinstance(made, Actor):
        raise ActorError(f"actor {lifecycle.path!r}: spawn needs a class derived from Actor (or a function that makes one), got {made!r}")
    made._sage_lifecycle = lifecycle
    return made


def factory_name(factory: Callable[..., object]) -> str:
    """What an actor made by it is called: the class's name."""
    maker: Any = factory
    while isinstance(maker, partial):
        maker = maker.func
    return str(getattr(maker, "__name__", "actor"))
