"""What workers have from the owner's system: the defaults of its actors."""

from __future__ import annotations

from dataclasses import dataclass

from sage_actor.actor.mailbox import MailboxSettings
from sage_actor.actor.supervision import ExponentialDelay, FailureRate, FixedDelay, NoRestart, RestartStrategy
from sage_actor.actor.supervisor_scope import Supervision

__all__ = ["SETTINGS", "Defaults"]

SETTINGS = (ExponentialDelay, FailureRate, FixedDelay, NoRestart, MailboxSettings, Supervision)
"""Our own classes that travel with every spawn; listed in every allow-list."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """How actors restart, queue and supervise where `spawn` does not say."""

    restart: RestartStrategy
    mailbox: MailboxSettings
    supervision: Supervision
