"""Deliberate faults, planted into the engine one at a time: each must be found by the progression test within 300 seeds.

python tests/mutants.py            # the table: mutant, found at which seed, what was seen
python tests/mutants.py -k timers  # those whose name contains a word
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import sys
import time
from collections.abc import Callable, Generator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from sage_actor._core.batch import BARRIER, WATERMARK, Marker
from sage_actor._core.frame import FrameHeader
from sage_actor._core.stable_hash import key_group
from sage_actor.checkpoint.log import CheckpointLog
from sage_actor.checkpoint.storage import CheckpointStorage
from sage_actor.dataflow.source import NotReady
from sage_actor.dataflow.two_phase_commit import TwoPhaseCommitSink
from sage_actor.operators.sink_stage import SinkStage
from sage_actor.runtime import channels, gate_loop, routing, source_loop, task, task_host, valve
from sage_actor.state import operator_state, restoring
from sage_actor.stream.results import Collected
from sage_actor.testing import progression
from sage_actor.testing.simulated_store import SimulatedStore, StoreSink

SEEDS = 300

Replacement = tuple[object, str, Any]
"""Owner, attribute, and what stands there instead."""


def _marks_overtake(kind: int) -> list[Replacement]:
    original = routing.Router.mark

    async def mark(self: Any, marker: Marker) -> None:
        if marker.kind != kind:
            await original(self, marker)
            return
        for channel in self.channels:
            channel.mark(marker)

    async def snapshot_at(self: Any, checkpoint: int) -> None:
        if checkpoint > self.snapshots.latest:
            frozen = await self._freeze(checkpoint)
            await self._mark(Marker(BARRIER, checkpoint))
            self.snapshots.save(checkpoint, frozen)

    async def flush(self: Any) -> None:
        if self.pending_watermark > self.sent_watermark:
            self.sent_watermark = self.pending_watermark
            await self._mark(Marker(WATERMARK, self.sent_watermark))
        for router in self.routers:
            await router.flush()

    late = (task.Task, "snapshot_at", snapshot_at) if kind == BARRIER else (task.Task, "flush", flush)
    return [(routing.Router, "mark", mark), late]


def alignment_does_not_hold() -> list[Replacement]:
    original = gate_loop.GateLoop.__init__

    def make(self: Any, owner: Any) -> None:
        original(self, owner)
        self.holds = False

    return [(gate_loop.GateLoop, "__init__", make)]


def records_before_the_barrier_miss_the_snapshot() -> list[Replacement]:
    original = task.Task._freeze

    async def snapshot_at(self: Any, checkpoint: int) -> None:
        if checkpoint <= self.snapshots.latest:
            return
        await self.flush()
        await self._mark(Marker(BARRIER, checkpoint))
        for _ in range(20):  # whatever comes behind the barrier meanwhile is in the snapshot
            await asyncio.sleep(0)
        self.snapshots.save(checkpoint, await original(self, checkpoint))

    return [(task.Task, "snapshot_at", snapshot_at)]


def commits_beyond() -> list[Replacement]:
    original = SinkStage.completed

    async def completed(self: Any, checkpoint: int) -> None:
        await original(self, 1 << 60)

    return [(SinkStage, "completed", completed)]


def commits_only_the_last() -> list[Replacement]:
    original = SinkStage.completed

    async def completed(self: Any, checkpoint: int) -> None:
        while self.pending and self.pending[0][0] < checkpoint:
            self.pending.popleft()
        await original(self, checkpoint)

    return [(SinkStage, "completed", completed)]


def sink_is_not_idempotent() -> list[Replacement]:
    original = SimulatedStore.commit

    def commit(self: Any, name: str) -> None:
        if self.transactions[name].state == "committed":
            self.transactions[name].state = "prepared"
        original(self, name)

    return [(SimulatedStore, "commit", commit)]


def restored_transactions_are_aborted() -> list[Replacement]:
    original: Any = TwoPhaseCommitSink[Any, Any].recover

    async def recover(self: Any, prepared: Any, recovery: Any) -> None:
        await original(self, [], recovery)

    return [(TwoPhaseCommitSink, "recover", recover)]


def orphans_are_left() -> list[Replacement]:
    async def abort_orphans(self: Any, keep: Any) -> None:
        """None."""

    return [(StoreSink, "abort_orphans", abort_orphans)]


def _without(name: str) -> list[Replacement]:
    original = operator_state.OperatorState.attach

    def attach(self: Any, table_name: str, table: Any, *, key: Any = None) -> None:
        if table_name != name:
            original(self, table_name, table, key=key)

    return [(operator_state.OperatorState, "attach", attach)]


def position_of_a_prefetched_batch() -> list[Replacement]:
    original = source_loop.SourceLoop._wait_for_read

    async def wait_for_read(self: Any, source: Any, limit: int) -> Any:
        ahead: Any = getattr(self, "ahead", None)
        self.ahead = None
        got: Any = await original(self, source, limit) if ahead is None else ahead
        if got is not None and not isinstance(got, NotReady):
            self.ahead = await source.read(limit)
        return got

    return [(source_loop.SourceLoop, "_wait_for_read", wait_for_read)]


def zombies_are_not_fenced() -> list[Replacement]:
    async def look_at(self: Any, slot: int) -> Any:
        entry = self._content.entries[slot] = await self._log.entry(slot)
        return entry

    async def refuse_forgotten(self: Any, *written: int) -> None:
        """Nobody."""

    return [(CheckpointStorage, "_look_at", look_at), (CheckpointStorage, "_refuse_forgotten", refuse_forgotten)]


def manifests_replace_each_other() -> list[Replacement]:
    original = CheckpointLog.append

    async def append(self: Any, entry: Any) -> None:
        await self._disk.remove(self.file_of(entry.slot))
        await original(self, entry)

    return [(CheckpointLog, "append", append)]


def credit_leaks() -> list[Replacement]:
    original = channels.RemoteChannel.credit
    calls = [0]

    def credit(self: Any, records: int, nbytes: int) -> None:
        calls[0] += 1
        if calls[0] % 5:
            original(self, records, nbytes)

    return [(channels.RemoteChannel, "credit", credit)]


def _rewritten(change: Callable[[Any, Any], Any]) -> list[Replacement]:
    original = task_host.TaskHost.on_frame

    def on_frame(self: Any, sender: int, header: Any, parts: Any, nbytes: int) -> None:
        original(self, sender, change(self, header), parts, nbytes)

    return [(task_host.TaskHost, "on_frame", on_frame)]


def _header(header: Any, *, job: int, attempt: int, sequence: int) -> FrameHeader:
    return FrameHeader(header.kind, job, attempt, header.channel, sequence, header.records)


def frames_of_old_attempts_are_taken() -> list[Replacement]:
    return _rewritten(lambda host, h: _header(h, job=host.job.number, attempt=host.job.attempt, sequence=h.sequence))


def gaps_and_duplicates_are_taken() -> list[Replacement]:
    def change(host: Any, header: Any) -> Any:
        inbound = host.inbound.get(header.channel)
        if inbound is None or header.attempt != host.job.attempt:
            return header
        return _header(header, job=header.job, attempt=header.attempt, sequence=inbound.expected)

    return _rewritten(change)


def last_delta_is_forgotten() -> list[Replacement]:
    original = operator_state.OperatorState.write

    async def write(self: Any, frozen: Any, storage: Any, prefix: str) -> Any:
        part = await original(self, frozen, storage, prefix)
        if len(part.files) > 1:
            part.files.pop()
        return part

    return [(operator_state.OperatorState, "write", write)]


def key_groups_are_wrongly_divided() -> list[Replacement]:
    def wrong_group(key: object, groups: int) -> int:
        return (key_group(key, groups) + 1) % groups

    return [(restoring, "key_group", wrong_group)]


def collected_results_are_not_reset() -> list[Replacement]:
    def begin(self: Any) -> Any:
        return self._records

    return [(Collected, "begin", begin)]


def the_end_does_not_wait_for_the_last_commit() -> list[Replacement]:
    async def finish_snapshots(self: Any) -> None:
        number = self.snapshots.latest + 1
        self.snapshots.save(number, await self._freeze(number), "final")
        await self.snapshots.saving

    return [(task.Task, "_finish_snapshots", finish_snapshots)]


def watermarks_of_the_fastest_channel() -> list[Replacement]:
    def combine(self: Any) -> int:
        return self._rise(max(state.watermark for state in self.channels))  # type: ignore[no-any-return]

    return [(valve.Valve, "_combine", combine)]


def sources_begin_anew() -> list[Replacement]:
    async def assign(self: Any, splits: Any) -> None:
        """Whatever was left."""

    return [(progression.ProgressionSource, "assign", assign)]


MUTANTS: dict[str, Callable[[], list[Replacement]]] = {
    "a barrier overtakes records": functools.partial(_marks_overtake, BARRIER),
    "alignment does not hold": alignment_does_not_hold,
    "a snapshot is taken behind its barrier": records_before_the_barrier_miss_the_snapshot,
    "commits go beyond the checkpoint": commits_beyond,
    "what a lost notification was about is never committed": commits_only_the_last,
    "a commit is made twice": sink_is_not_idempotent,
    "restored transactions are aborted": restored_transactions_are_aborted,
    "transactions of dead attempts are left": orphans_are_left,
    "timers are not saved": functools.partial(_without, "timers"),
    "windows are not saved": functools.partial(_without, "windows"),
    "folds are not saved": functools.partial(_without, "fold"),
    "the position of a prefetched batch is saved": position_of_a_prefetched_batch,
    "a source begins anew when it is restored": sources_begin_anew,
    "a zombie's manifest is accepted": zombies_are_not_fenced,
    "a manifest replaces another": manifests_replace_each_other,
    "credit leaks": credit_leaks,
    "frames of an old attempt are taken": frames_of_old_attempts_are_taken,
    "lost and doubled frames go unnoticed": gaps_and_duplicates_are_taken,
    "the last delta of a chain is forgotten": last_delta_is_forgotten,
    "key groups are wrongly divided on rescale": key_groups_are_wrongly_divided,
    "collected results are not reset": collected_results_are_not_reset,
    "the end does not wait for the last commit": the_end_does_not_wait_for_the_last_commit,
    "a watermark overtakes records": functools.partial(_marks_overtake, WATERMARK),
    "the fastest channel decides event time": watermarks_of_the_fastest_channel,
}


@contextlib.contextmanager
def planted(name: str) -> Generator[None, None, None]:
    """Inside, the engine has that fault."""
    replacements = MUTANTS[name]()
    originals = [(owner, attribute, getattr(owner, attribute)) for owner, attribute, _ in replacements]
    for owner, attribute, replacement in replacements:
        setattr(owner, attribute, replacement)
    try:
        yield
    finally:
        for owner, attribute, original in originals:
            setattr(owner, attribute, original)


def hunt(name: str, seeds: int = SEEDS) -> tuple[int | None, str, float]:
    """The first seed that finds the mutant (None: nobody), what was seen, and the seconds it took."""
    begun = time.perf_counter()
    with planted(name):
        for seed in range(seeds):
            try:
                progression.run_progression(seed, max_steps=300_000)
            except Exception as error:  # noqa: BLE001 - whatever shows the fault
                return seed, f"{type(error).__name__}: {error}".splitlines()[0], time.perf_counter() - begun
    return None, "", time.perf_counter() - begun


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("-k", default="", help="only those whose name contains this")
    arguments = parser.parse_args()
    names = [name for name in MUTANTS if arguments.k in name]
    missed = 0
    print(f"{'mutant':<56}{'seed':>5}{'s':>7}  what was seen")
    with ProcessPoolExecutor(arguments.processes) as pool:
        for name, (seed, seen, seconds) in zip(names, pool.map(hunt, names, [arguments.seeds] * len(names)), strict=True):
            missed += seed is None
            print(f"{name:<56}{'-' if seed is None else seed:>5}{seconds:>7.1f}  {seen[:110] or 'NOT FOUND'}", flush=True)
    print(f"{len(names) - missed} of {len(names)} found within {arguments.seeds} seeds")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
