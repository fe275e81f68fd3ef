"""ActorMailbox: what an actor's cell adds to a mailbox. For the actor layer."""

from collections.abc import Callable
from typing import Any

from sage_actor._core.actor_cell import Handler
from sage_actor._core.actor_ref import ActorRef
from sage_actor._core.batch_queue import BatchQueue, Overflow
from sage_actor._core.reply import Call

nothing: object
"""What the mailbox answers when there is nothing to take; None is a message like any other."""

class ActorMailbox(BatchQueue):
    """Signals before mail, the stash, dead letters counted once each (A41), and a sample of how long messages wait."""

    def __init__(
        self,
        path: str,
        lifecycle: Any,
        *,
        capacity: int,
        overflow: Overflow,
        priority: Callable[[object], float] | None = None,
        stash_capacity: int = 1000,
        clock_monotonic: Callable[[], float] | None = None,
    ) -> None: ...
    @property
    def path(self) -> str:
        """Where the actor stands in the tree."""
    @property
    def lifecycle(self) -> Any:
        """Who decides."""
    @property
    def ref(self) -> ActorRef[Any]:
        """The actor's one ref."""
    @property
    def state(self) -> int:
        """0 starting, 1 running, 2 draining, 3 restarting, 4 stopping, 5 stopped."""
    @property
    def state_name(self) -> str:
        """The same in words."""
    @property
    def handled(self) -> int:
        """Messages whose handler has returned or raised."""
    @property
    def failed(self) -> int:
        """Handlers and hooks that raised."""
    @property
    def dead_lettered(self) -> int:
        """Accepted messages that no handler saw to its end."""
    @property
    def expected_errors(self) -> int:
        """Asks answered by an expected error."""
    @property
    def queued(self) -> int:
        """Messages that wait in the mailbox."""
    @property
    def stashed(self) -> int:
        """Messages put aside, and those that come next because they were."""
    def bind(self, ref: ActorRef[Any]) -> None:
        """Give the cell its one ref."""
    def take_leftovers(self) -> list[Any]:
        """Everything that was accepted and will not be handled, oldest first."""
    def refuse_leftover(self, item: object, reason: str) -> None:
        """Count one as a dead letter and fail its ask."""
    def has_mail(self) -> bool:
        """Whether a message or signal waits that could be begun next; what is stashed does not count."""
    def signal(self, handler: Handler, arguments: tuple[object, ...]) -> Call:
        """Put a call of a hook into the control lane."""
    def unstash(self) -> int:
        """Handle what was stashed next; how many."""
    def queued_since(self) -> float:
        """A time on the clock before which no waiting message was sent; 0.0 if none waits."""
    def pending_messages(self) -> list[Any]:
        """What waits, oldest first; it goes on waiting."""
    async def submit_when_room(self, item: object) -> bool:
        """Wait for room and enqueue; False if the actor ended meanwhile (then it is a dead letter)."""
