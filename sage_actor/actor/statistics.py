"""Counts of actors as of one moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sage_actor.actor.lifecycle import Lifecycle
    from sage_actor.actor.system import ActorSystem

__all__ = ["ActorStatistics", "SystemStatistics", "counts_of", "counts_of_system", "statistics_of", "statistics_of_system"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorStatistics:
    """One actor. ``accepted = handled + dead_lettered + queued + stashed + in_hand``, always (rule A41).

    Attributes:
        path: where it stands in the tree.
        class_name: its class.
        state: starting, running, draining, restarting, passive, stopping or stopped.
        accepted: messages that entered its mailbox (or were dropped by its overflow policy).
        handled: messages whose handler has returned or raised.
        failed: failures: handlers, hooks and signals that raised.
        expected_errors: asks that were answered by an exception of `Actor.expected_errors`.
        dead_lettered: accepted messages that no handler saw, or that were interrupted.
        queued: messages that wait in the mailbox.
        stashed: messages put aside, and those that were and come next.
        in_hand: messages being handled.
        waiting_senders: tells and asks that wait for room.
        restarts: instances made after the first.
        mailbox_age: seconds that no waiting message has waited longer than; 0 if none waits. Exact for the first one after idleness,
            to 64 messages in a mailbox that never empties.
        wait: median and 99th percentile of the seconds that messages waited; sampled, one in 64.
        service: the same for the seconds that handlers took.
        children: its children, first started first.
    """

    path: str
    class_name: str
    state: str
    accepted: int
    handled: int
    failed: int
    expected_errors: int
    dead_lettered: int
    queued: int
    stashed: int
    in_hand: int
    waiting_senders: int
    restarts: int
    mailbox_age: float
    wait: tuple[float, float]
    service: tuple[float, float]
    children: tuple[ActorStatistics, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemStatistics:
    """A system and all of its living actors.

    Attributes:
        name: of the system.
        living: actors that live now.
        spawned: actors ever spawned.
        failures: failures of all actors, ended ones included.
        restarts: restarts of all actors, ended ones included.
        dead_letters: dead letters so far.
        actors: those that the system itself spawned, first started first.
    """

    name: str
    living: int
    spawned: int
    failures: int
    restarts: int
    dead_letters: int
    actors: tuple[ActorStatistics, ...]


def statistics_of(lifecycle: Lifecycle) -> ActorStatistics:
    """The counts of one actor and its children."""
    return counts_of(lifecycle, tuple(statistics_of(child) for child in lifecycle.children))


def counts_of(lifecycle: Lifecycle, children: tuple[ActorStatistics, ...] = ()) -> ActorStatistics:
    """The counts of one actor alone, with whatever is to stand for its children."""
    cell = lifecycle.cell
    queue = cell.statistics()
    since = cell.queued_since()
    samples = lifecycle.samples
    percentiles = [
        (histogram.percentile(0.5) / 1e9, histogram.percentile(0.99) / 1e9) for histogram in (samples if samples is not None else ())
    ] or [(0.0, 0.0), (0.0, 0.0)]
    return ActorStatistics(
        path=lifecycle.path,
        class_name=lifecycle.class_name,
        state="passive" if cell.passive else cell.state_name,
        accepted=queue.accepted,
        handled=cell.handled,
        failed=cell.failed,
        expected_errors=cell.expected_errors,
        dead_lettered=cell.dead_lettered,
        queued=cell.queued,
        stashed=cell.stashed,
        in_hand=cell.in_hand,
        waiting_senders=queue.waiting_putters,
        restarts=lifecycle.restarts,
        mailbox_age=max(0.0, lifecycle.system.clock.monotonic() - since) if since else 0.0,
        wait=percentiles[0],
        service=percentiles[1],
        children=children,
    )


def statistics_of_system(system: ActorSystem) -> SystemStatistics:
    """The counts of a system and its living actors."""
    return counts_of_system(system, tuple(statistics_of(child) for child in system.family.children))


def counts_of_system(system: ActorSystem, actors: tuple[ActorStatistics, ...] = ()) -> SystemStatistics:
    """The counts of a system, with whatever is to stand for its actors."""
    return SystemStatistics(
        name=system.name,
        living=system.living,
        spawned=system.spawned,
        failures=system.failures,
        restarts=system.restarts,
        dead_letters=system.dead_letters.total,
        actors=actors,
    )
