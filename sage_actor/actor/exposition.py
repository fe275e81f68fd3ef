"""Counts of actors for Prometheus, read when somebody asks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING

from sage_actor.actor.inspection import encodable, in_tree_order
from sage_actor.actor.instance import factory_name
from sage_actor.actor.statistics import ActorStatistics, counts_of
from sage_actor.telemetry.histogram import LogHistogram

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from sage_actor.actor.lifecycle import Lifecycle
    from sage_actor.actor.system import ActorSystem

__all__ = ["ActorCollector"]

OTHERS = "(others)"
QUANTILES = (0.5, 0.99)

_Counts = tuple[int, int, int, int, int]
"""Handled, among them answered by an expected error; dead letters, failures, restarts. None of an actor's own ever goes back."""


class ActorCollector:
    """The counts of actor systems as what prometheus_client calls a collector.

        prometheus_client.REGISTRY.register(ActorCollector(system))

    Nothing is counted for it while the actors work: a scrape reads what they count anyhow, from any thread.

    Series: ``sage_actor_messages_total{system,actor,outcome}`` (outcomes handled, expected_error and dead_lettered, which do not
    overlap), ``sage_actor_failures_total`` and ``sage_actor_restarts_total`` (by system and actor), ``sage_actor_dead_letters_total``
    and ``sage_actor_spawned_total`` (by system); as of the scrape ``sage_actor_living``, ``sage_actor_mailbox_messages``,
    ``sage_actor_mailbox_age_seconds`` (of the oldest message), ``sage_actor_wait_seconds`` and ``sage_actor_service_seconds`` with
    ``quantile`` (messages in the mailbox, handlers; one in 64 is measured, over the lives of the actors).

    The label ``actor`` is the path; actors that were spawned without a name count together, by their class: ``stock/Item-*``.
    Counters never go back: what an actor had counted at the last scrape of its life stays in its series.

    Args:
        systems: whose actors.
        unnamed: give those without a name a series each.
        limit: how many values the label ``actor`` takes for one system; further actors count together as ``(others)``.
    """

    def __init__(self, *systems: ActorSystem, unnamed: bool = False, limit: int = 1000) -> None:
        self._systems = systems
        self._unnamed = unnamed
        self._labels = [_Labels(limit) for _ in systems]
        self._totals = [_Totals() for _ in systems]
        self._lock = Lock()  # two scrapes at a time would each take the other's for the last one

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering reads no system."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """All series as of now; for the registry. Takes some milliseconds for a thousand actors."""
        with self._lock:
            groups = [self._read(number) for number in range(len(self._systems))]
        yield from self._counters(groups)
        yield from _gauges([(system.name, found) for system, found in zip(self._systems, groups, strict=True)])

    def _read(self, number: int) -> dict[str, _Group]:
        groups: dict[str, _Group] = {}
        current: dict[Lifecycle, tuple[str, _Counts]] = {}
        bare: dict[Lifecycle, str] = {}
        for lifecycle in in_tree_order(self._systems[number]):
            above = "" if lifecycle.parent is None else f"{bare.get(lifecycle.parent, lifecycle.parent.path)}/"
            bare[lifecycle] = above + (lifecycle.name if self._unnamed else _without_number(lifecycle))
            label = self._labels[number].admit(encodable(bare[lifecycle]))
            counts = counts_of(lifecycle)
            current[lifecycle] = (label, _counts(counts))
            groups.setdefault(label, _Group()).add(counts, lifecycle.samples)
        for label, counted in self._totals[number].with_those_gone(current).items():
            groups.setdefault(label, _Group()).totals = counted
        return groups

    def _counters(self, groups: Iterable[Mapping[str, _Group]]) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily

        messages = CounterMetricFamily("sage_actor_messages", "Messages that actors are done with.", labels=("system", "actor", "outcome"))
        failures = CounterMetricFamily("sage_actor_failures", "Handlers and hooks that raised.", labels=("system", "actor"))
        restarts = CounterMetricFamily("sage_actor_restarts", "Instances made after the first.", labels=("system", "actor"))
        letters = CounterMetricFamily("sage_actor_dead_letters", "Dead letters of a system.", labels=("system",))
        spawned = CounterMetricFamily("sage_actor_spawned", "Actors ever spawned.", labels=("system",))
        for system, found in zip(self._systems, groups, strict=True):
            for label, group in found.items():
                handled, expected, dead_lettered, failed, restarted = group.totals
                messages.add_metric((system.name, label, "handled"), handled - expected)
                messages.add_metric((system.name, label, "expected_error"), expected)
                messages.add_metric((system.name, label, "dead_lettered"), dead_lettered)
                failures.add_metric((system.name, label), failed)
                restarts.add_metric((system.name, label), restarted)
            letters.add_metric((system.name,), system.dead_letters.total)
            spawned.add_metric((system.name,), system.spawned)
        yield from (messages, failures, restarts, letters, spawned)


@dataclass(slots=True)
class _Group:
    """The actors of one label."""

    living: int = 0
    queued: int = 0
    age: float = 0.0
    totals: _Counts = (0, 0, 0, 0, 0)
    wait: LogHistogram = field(default_factory=LogHistogram)
    service: LogHistogram = field(default_factory=LogHistogram)

    def add(self, counts: ActorStatistics, samples: tuple[LogHistogram, LogHistogram] | None) -> None:
        self.living += 1
        self.queued += counts.queued
        self.age = max(self.age, counts.mailbox_age)
        if samples is not None:
            self.wait.merge(samples[0])
            self.service.merge(samples[1])


class _Labels:
    """Values of the label `actor`, the first so many of them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._admitted: set[str] = set()

    def admit(self, label: str) -> str:
        if label not in self._admitted:
            if len(self._admitted) >= self._limit:
                return OTHERS
            self._admitted.add(label)
        return label


class _Totals:
    """Sums over the actors of a label, those included that have ended since they were seen.

    Actors are told apart by themselves, not by their paths, which others take over; so the ended ones are held until the next scrape.
    """

    def __init__(self) -> None:
        self._last: dict[Lifecycle, tuple[str, _Counts]] = {}
        self._gone: dict[str, _Counts] = {}

    def with_those_gone(self, living: dict[Lifecycle, tuple[str, _Counts]]) -> dict[str, _Counts]:
        """The sums as of now.

        Args:
            living: label and counts of each living actor.
        """
        for lifecycle, (label, counts) in self._last.items():
            if lifecycle not in living:
                self._gone[label] = _added(self._gone.get(label), counts)
        self._last = living
        sums = dict(self._gone)
        for label, counts in living.values():
            sums[label] = _added(sums.get(label), counts)
        return sums


def _gauges(systems: list[tuple[str, dict[str, _Group]]]) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    plain: tuple[tuple[str, str, Callable[[_Group], float]], ...] = (
        ("sage_actor_living", "Actors that live.", lambda group: group.living),
        ("sage_actor_mailbox_messages", "Messages that wait in mailboxes.", lambda group: group.queued),
        ("sage_actor_mailbox_age_seconds", "How long the oldest message is known to wait.", lambda group: group.age),
    )
    for name, meaning, value in plain:
        family = GaugeMetricFamily(name, meaning, labels=("system", "actor"))
        for system, groups in systems:
            for label, group in groups.items():
                family.add_metric((system, label), value(group))
        yield family
    times: tuple[tuple[str, str, Callable[[_Group], LogHistogram]], ...] = (
        ("sage_actor_wait_seconds", "Time that messages lay in a mailbox, sampled.", lambda group: group.wait),
        ("sage_actor_service_seconds", "Time that handlers took, sampled.", lambda group: group.service),
    )
    for name, meaning, histogram in times:
        family = GaugeMetricFamily(name, meaning, labels=("system", "actor", "quantile"))
        for system, groups in systems:
            for label, group in groups.items():
                if histogram(group).total:
                    for quantile in QUANTILES:
                        family.add_metric((system, label, str(quantile)), histogram(group).percentile(quantile) / 1e9)
        yield family


def _counts(actor: ActorStatistics) -> _Counts:
    return actor.handled, actor.expected_errors, actor.dead_lettered, actor.failed, actor.restarts


def _added(some: _Counts | None, more: _Counts) -> _Counts:
    if some is None:
        return more
    return some[0] + more[0], some[1] + more[1], some[2] + more[2], some[3] + more[3], some[4] + more[4]


def _without_number(lifecycle: Lifecycle) -> str:
    """The name, with ``*`` for the number that `spawn` put behind the class of an actor without one."""
    stem = factory_name(lifecycle.factory)
    return f"{stem}-*" if re.fullmatch(re.escape(stem) + "-[0-9]+", lifecycle.name) else lifecycle.name
