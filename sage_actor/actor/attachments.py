"""What an actor's life has only if something needs it: children, hooks, watchers, a context.

Most actors have none of them, and a system may have very many actors; each is made when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from sage_actor.actor.context import ActorContext
from sage_actor.actor.family import Family
from sage_actor.actor.hooks import Hooks
from sage_actor.actor.quiescence import Quiescence
from sage_actor.actor.supervisor_scope import Supervision
from sage_actor.actor.watching import DeathWatch

if TYPE_CHECKING:
    from sage_actor.actor.lifecycle import Lifecycle
    from sage_actor.actor.system import ActorSystem

__all__ = ["Attachments"]


class Attachments:
    """The base of `Lifecycle`."""

    __slots__ = ("_actor_context", "_deathwatch", "_family", "_hooks", "_quiescence", "_supervision", "system")

    def __init__(self, system: ActorSystem, supervision: Supervision) -> None:
        self.system = system
        self._supervision = supervision
        self._family: Family | None = None
        self._hooks: Hooks | None = None
        self._quiescence: Quiescence | None = None
        self._deathwatch: DeathWatch | None = None
        self._actor_context: ActorContext | None = None

    @property
    def actor_context(self) -> ActorContext:
        """What the actor sees of the runtime."""
        if self._actor_context is None:
            self._actor_context = ActorContext(cast("Lifecycle", self))
        return self._actor_context

    def cancel_timers(self) -> None:
        """End all timers of the actor."""
        if self._actor_context is not None:
            self._actor_context.cancel_timers()

    @property
    def family(self) -> Family:
        """The children, and how they are supervised."""
        if self._family is None:
            self._family = Family(self.system, cast("Lifecycle", self), self._supervision)
        return self._family

    @property
    def children(self) -> list[Lifecycle]:
        """The living children, first started first."""
        return [] if self._family is None else self._family.children

    @property
    def escalating(self) -> int:
        """Failures of children on their way to become this actor's own."""
        return 0 if self._family is None else self._family.escalating

    @property
    def hooks(self) -> Hooks:
        """The calls of hooks of this actor's instances."""
        if self._hooks is None:
            self._hooks = Hooks(cast("Lifecycle", self))
        return self._hooks

    @property
    def hook_running(self) -> str:
        """The name of the hook that is under way, "" if none is."""
        return "" if self._hooks is None else self._hooks.running

    @property
    def quiescence(self) -> Quiescence:
        """Waiting until nothing is in hand."""
        if self._quiescence is None:
            self._quiescence = Quiescence(self.system)
        return self._quiescence

    @property
    def deathwatch(self) -> DeathWatch:
        """Whom this actor watches, and who watches it."""
        if self._deathwatch is None:
            self._deathwatch = DeathWatch(cast("Lifecycle", self))
        return self._deathwatch
