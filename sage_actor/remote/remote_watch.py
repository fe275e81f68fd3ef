"""Death watch and links over a border: whom an actor elsewhere watches here is told to its own process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sage_actor.actor.watching import DeathWatch

if TYPE_CHECKING:
    from sage_actor.actor.lifecycle import Lifecycle
    from sage_actor.remote.standin import Standin

__all__ = ["RemoteDeathWatch"]


class RemoteDeathWatch(DeathWatch):
    """The death watch of a `Standin`.

    Who watches the actor from here is kept here, and told when the standin learns of its end. That it watches somebody here (one
    half of a link) is told to its process, which watches with a standin of its own.
    """

    __slots__ = ("_standin",)

    def __init__(self, standin: Standin) -> None:
        super().__init__(standin.as_lifecycle())
        self._standin = standin

    def watch(self, other: Lifecycle, *, only_failures: bool = False) -> None:
        """Have the actor watch one that lives here. Only links do that."""
        self.mirror(other)
        self._standin.tie(other, tied=True)

    def unwatch(self, other: Lifecycle) -> None:
        """Undo it."""
        if other.deathwatch._watchers.pop(self._lifecycle, None) is not None and self._standin.cell.state_name != "stopped":
            self._standin.tie(other, tied=False)
        self._watched.pop(other, None)

    def mirror(self, other: Lifecycle) -> None:
        """Note, on this side, that the actor and `other` are linked, so that either can undo it."""
        other.deathwatch._watchers[self._lifecycle] = True
        self._watched[other] = None

    def forget(self, other: Lifecycle) -> None:
        """The link has been undone from the actor's side."""
        other.deathwatch._watchers.pop(self._lifecycle, None)
        self._watched.pop(other, None)

    def _told(self, other: Lifecycle, only_failures: bool) -> None:
        """One that it watches has ended: its own process hears of that by itself."""
        self._watched.pop(other, None)
