"""Where a task stands between the barriers of its input channels (rules F3 to F7, F9)."""

from __future__ import annotations

__all__ = ["Alignment"]


class Alignment:
    """Counts the barriers of a checkpoint over the channels that are still open. Pure; the task holds and releases the gate.

    A newer barrier gives up an older alignment; barriers of checkpoints that are over or were cancelled are ignored.
    """

    def __init__(self, channels: int) -> None:
        self.open = set(range(channels))
        self.arrived: set[int] = set()
        self.checkpoint = 0
        self.latest = 0

    @property
    def under_way(self) -> bool:
        """Whether barriers of a checkpoint are being waited for."""
        return bool(self.arrived)

    def barrier(self, channel: int, checkpoint: int) -> set[int] | None:
        """A barrier has come.

        Returns:
            None if it is stale and to be ignored; else the channels held for an older checkpoint, which is given up: release
            them. Then hold this channel, and ask `complete`.
        """
        if checkpoint <= self.latest or (self.arrived and checkpoint < self.checkpoint):
            return None
        given_up: set[int] = set()
        if self.arrived and checkpoint > self.checkpoint:
            given_up, self.arrived = self.arrived, set()
        self.checkpoint = checkpoint
        self.arrived.add(channel)
        return given_up

    def end(self, channel: int) -> None:
        """A channel has ended: no barrier is expected from it any more (F7)."""
        self.open.discard(channel)

    def complete(self) -> bool:
        """Whether the barrier has come from every open channel."""
        return bool(self.arrived) and self.arrived >= self.open

    def finish(self) -> set[int]:
        """The snapshot is taken; answers the channels to release."""
        self.latest = self.checkpoint
        held, self.arrived = self.arrived, set()
        return held

    def cancel(self, checkpoint: int) -> set[int]:
        """A checkpoint has been given up, and all before it: later barriers of it mean nothing. Answers the channels to release."""
        self.latest = max(self.latest, checkpoint)
        if self.arrived and self.checkpoint <= checkpoint:
            held, self.arrived = self.arrived, set()
            return held
        return set()
