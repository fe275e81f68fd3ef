"""A keyed count over n workers, simulated with the measured costs: barriers, checkpoints, recovery, skew.

Each worker has one source task and one counting task on one core, every source feeds every count. The queues are exact (first come,
first served, each step with its cost); what is drawn by chance is where in its turn a worker is when something arrives, and the rare long
pauses of a machine with other work.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.scale.costs import Costs
from sage_actor._core.stable_hash import default_groups, key_group, operator_of_group

__all__ = ["Checkpoint", "Cluster", "Exchange", "Recovery", "checkpoints", "exchange", "links", "recovery", "skew"]

Floats = NDArray[np.float64]
GATHERED = 1024
"""Records after which a router sends without waiting for the end of the turn."""
HICCUP = (0.002, 0.05)
"""Chance that a worker is held up when something arrives, and for how long on average, seconds: collections, pages, other processes."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """So many workers, and what they run with. `load` is the share of its capacity that each works at; `workers_a_disk` write their
    parts to the same disk, which makes one after the other durable."""

    workers: int
    batch: int = 4096
    buffer: int = 16_384
    load: float = 0.7
    cores_a_worker: float = 1.0
    keys_a_worker: int = 100_000
    changed: float = 0.1
    interval: float = 10.0
    workers_a_disk: int = 8


@dataclass(frozen=True, slots=True)
class Exchange:
    """How records travel: records in a frame, seconds of a worker for one record, records a second of all workers together at full load,
    the share of a worker's time that goes to the exchange, entries a second that Redis would have to take at the load given."""

    records_in_frame: float
    record: float
    rate: float
    share: float
    redis_entries: float


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Seconds at the median and the worst of many: until all sources have sent their barriers, from there until the last count is
    aligned, until the manifest can be written; bytes a second that all snapshots write; the same alignment with full channels."""

    spread: tuple[float, float]
    alignment: tuple[float, float]
    whole: tuple[float, float]
    bytes_a_second: float
    pressed: float


@dataclass(frozen=True, slots=True)
class Recovery:
    """Seconds of each step after the loss of a worker, and the share of all time that is lost if each worker fails once in 30 days."""

    noticed: float
    started: float
    deployed: float
    restored: float
    replayed: float
    lost: float

    @property
    def whole(self) -> float:
        """From the loss until everything is as it would have been."""
        return self.noticed + self.started + self.deployed + self.restored + self.replayed


def exchange(costs: Costs, cluster: Cluster) -> Exchange:
    """What the exchange costs: a turn's batch is cut into as many frames as there are receivers."""
    n = cluster.workers
    away = (n - 1) / n
    in_frame = float(min(GATHERED, max(1.0, cluster.batch / n)))
    wire = away * (costs.record_on_wire + costs.frame / in_frame)
    record = costs.record + wire
    speed = cluster.cores_a_worker / record
    return Exchange(in_frame, record, n * speed, wire / record, n * away * speed * cluster.load / in_frame)


def completions(arrivals: Floats, service: float) -> Floats:
    """When a server that takes one after the other has finished each of what arrives (last axis, ascending)."""
    place = np.arange(arrivals.shape[-1])
    ready: Floats = np.maximum.accumulate(arrivals - service * place, axis=-1) + service * (place + 1)
    return ready


def held_up(shape: tuple[int, ...], turn: float, random: np.random.Generator) -> Floats:
    """The wait until a busy worker looks at what has arrived: the rest of its turn, and now and then much longer."""
    wait = random.uniform(0.0, turn, shape)
    rare = random.random(shape) < HICCUP[0]
    wait[rare] += random.exponential(HICCUP[1], int(rare.sum()))
    return wait


def checkpoints(costs: Costs, cluster: Cluster, *, seed: int, times: int = 30) -> Checkpoint:
    """Simulate checkpoints: triggers from the owner, barriers from every source to every count, reports back to the owner."""
    n, core = cluster.workers, cluster.cores_a_worker
    random = np.random.default_rng(seed)
    flow = exchange(costs, cluster)
    turn = min(0.002, cluster.batch * flow.record) / core
    spreads: list[float] = []
    alignments: list[float] = []
    wholes: list[float] = []
    for _ in range(times):
        told = costs.send * np.arange(1, n + 1) + costs.hop
        begun = told + held_up((n,), turn * cluster.load, random)
        # One source's barriers leave one after the other, beginning with the first receiver.
        leaves = begun[:, None] + (costs.send / core) * np.arange(1, n + 1)[None, :]
        arrives = np.sort((leaves + costs.hop).T, axis=-1)
        # What lies before a barrier: a turn's worth of records at most times the load, for the receiver works off what comes.
        behind = held_up((n, 1), turn * cluster.load / (1 - min(cluster.load, 0.95)), random)
        aligned = completions(arrives + behind, (costs.frame - costs.send) / core)[:, -1]
        reported = completions(np.sort(aligned + costs.hop), costs.report)
        spreads.append(float(leaves[:, -1].max()))
        alignments.append(float(aligned.max() - begun.min()))
        # The parts of the two tasks of each worker, one after the other on each disk, then the owner's manifest.
        wholes.append(float(reported[-1]) + (2 * min(n, cluster.workers_a_disk) + 1) * costs.durable)
    nbytes = n * cluster.keys_a_worker * cluster.changed * costs.changed_key + 2 * n * costs.manifest_part
    full = n * cluster.buffer * (costs.record + costs.record_on_wire) / core
    return Checkpoint(span(spreads), span(alignments), span(wholes), nbytes / cluster.interval, full)


def span(found: list[float]) -> tuple[float, float]:
    """Median and worst."""
    return float(np.median(found)), max(found)


def recovery(costs: Costs, cluster: Cluster, *, workers_a_host: int = 8, delay: float = 1.0) -> Recovery:
    """After one lost worker everybody begins anew from the last checkpoint."""
    n = cluster.workers
    started = delay + costs.start * min(n, workers_a_host)
    deployed = n * n * costs.channel
    restored = cluster.keys_a_worker / costs.restored_keys / cluster.cores_a_worker
    behind = cluster.interval / 2 + costs.loss_noticed + started + deployed + restored
    replayed = behind * cluster.load / (1 - cluster.load)
    whole = costs.loss_noticed + started + deployed + restored + replayed
    return Recovery(costs.loss_noticed, started, deployed, restored, replayed, min(1.0, n / (30 * 86_400) * whole))


def links(cluster: Cluster) -> tuple[int, int]:
    """Pairs of workers that are linked (the owner is one of them), and channels of the exchange."""
    n = cluster.workers
    return n * (n + 1) // 2, n * n


def skew(workers: int, exponent: float, *, keys: int = 100_000) -> tuple[float, float, float]:
    """How many times the mean the busiest of n counts has to do, with keys of a Zipf distribution: by ranges of key groups, by the best
    table of groups (largest first, to whom has least), and by the largest key alone, below which nothing can get."""
    groups = default_groups(workers)
    weight = 1.0 / np.arange(1, keys + 1) ** exponent
    weight /= weight.sum()
    of_group = np.zeros(groups)
    np.add.at(of_group, np.fromiter((key_group(key, groups) for key in range(keys)), np.int64, keys), weight)
    ranges = np.zeros(workers)
    np.add.at(ranges, [operator_of_group(group, groups, workers) for group in range(groups)], of_group)
    best = np.zeros(workers)
    for load in np.sort(of_group)[::-1]:
        best[best.argmin()] += load
    return float(ranges.max() * workers), float(best.max() * workers), max(1.0, float(weight[0] * workers))
