"""Which methods of an actor class messages may name, and what is declared about each."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Literal, TypeVar, overload

from sage_actor._core.actor_cell import Handler

__all__ = ["HOOKS", "Pool", "blocking", "handler_of", "handlers_of", "interruptible"]

F = TypeVar("F", bound=Callable[..., object])

Pool = Literal["thread", "process"]

HOOKS = frozenset({"on_start", "on_stop", "on_restart", "on_passivate", "on_terminated"})
"""Methods that the runtime calls; a message cannot name them."""

_TABLE = "__sage_handlers__"  # kept in the class itself: looked up for every spawn


@overload
def blocking(method: F, /) -> F: ...
@overload
def blocking(*, pool: Pool = "thread") -> Callable[[F], F]: ...
def blocking(method: F | None = None, /, *, pool: Pool = "thread") -> F | Callable[[F], F]:
    """Declare that a plain method blocks: it runs in a thread (or a process), and the event loop goes on meanwhile.

    The actor itself handles nothing else until the method returns, so its state is as safe as in any other method. An
    interrupted or stopped actor does not wait for the thread: what the method still does then is lost.

    Args:
        pool: "thread", or "process" for work that keeps a core busy. In another process `self` is not the actor: only the
            arguments and the result travel (by cloudpickle), and touching an attribute of `self` there raises.

    Raises:
        TypeError: the method is async: it does not block, or must not.
    """

    def declare(function: F) -> F:
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"@blocking is for plain methods; {function.__qualname__} is async, and runs on the event loop as it is")
        function.__sage_pool__ = pool  # type: ignore[attr-defined]
        return function

    return declare if method is None else declare(method)


def interruptible(method: F, /) -> F:
    """Declare that an async method may be cancelled when whoever asked gives up (cancelled, or past its deadline).

    It then sees `CancelledError` where it awaits, which is no failure: the actor goes on with the next message. Without this
    declaration a handler that has begun runs to its end, so that it cannot leave the actor's state half changed.
    """
    method.__sage_interruptible__ = True  # type: ignore[attr-defined]
    return method


def handler_of(function: Callable[..., object], name: str = "") -> Handler:
    """What is known about one function or method: whether calling it may have to be awaited, and what is declared about it."""
    bare = inspect.unwrap(function)
    waits = inspect.iscoroutinefunction(bare) or inspect.iscoroutinefunction(function)
    streaming = inspect.isasyncgenfunction(bare)
    pool: str | None = getattr(function, "__sage_pool__", None)
    return Handler(
        function,
        name or getattr(function, "__name__", "receive"),
        plain=not (waits or streaming or pool is not None),
        pool=pool,
        interruptible=bool(getattr(function, "__sage_interruptible__", False)),
        streaming=streaming,
    )


def handlers_of(cls: type, *, outermost: type) -> dict[FunctionType, Handler]:
    """The methods of a class by every function object that names them, those of its bases included.

    A method of a base names the override: ``ref.ask(Base.size)`` calls the size() of the actor's own class.

    Args:
        cls: the actor class.
        outermost: the base class whose own methods and bases do not count; nor do the `hidden_methods` of `cls`.
    """
    table: dict[FunctionType, Handler] | None = cls.__dict__.get(_TABLE)
    if table is None:
        table = {}
        of_name: dict[str, Handler] = {}
        declared: frozenset[str] = getattr(cls, "hidden_methods", HOOKS)
        hidden = HOOKS | declared
        for klass in cls.__mro__:
            if klass in (outermost, object):
                continue
            for name, function in vars(klass).items():
                if not isinstance(function, FunctionType) or name in hidden or (name.startswith("__") and name.endswith("__")):
                    continue
                if name not in of_name:
                    most_derived = inspect.getattr_static(cls, name)
                    of_name[name] = handler_of(most_derived if isinstance(most_derived, FunctionType) else function, name)
                table[function] = of_name[name]
        setattr(cls, _TABLE, table)
    return table
