"""Our exactly-once sinks against the public rules, and the rules against sinks that break them."""

from __future__ import annotations

import gzip
import json
import shutil
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from sage_actor.connectors import SqliteSink, TransactionalFileSink
from sage_actor.connectors.transactional_file_sink import FileTransaction
from sage_actor.dataflow.sink import Sink, SinkRecovery
from sage_actor.dataflow.two_phase_commit import TwoPhaseCommitSink
from sage_actor.testing.connector_conformance import rule_name
from sage_actor.testing.sink_conformance import EXACTLY_ONCE_RULES, ExactlyOnceCase

Rule = Callable[[ExactlyOnceCase[object]], Awaitable[None]]
BATCHES: list[list[object]] = [[["a", 1], ["b", 2]], [["c", 3]], [["d", 4], ["e", 5], ["f", 6]]]


def visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if not path.name.startswith("."))


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob(".*"))


def json_lines(folder: Path) -> list[object]:
    packed = {".gz": gzip.decompress}
    return [json.loads(line) for path in visible(folder) for line in packed.get(path.suffix, bytes)(path.read_bytes()).splitlines()]


def files_case(folder: Path, make: Callable[[], Sink[object]]) -> ExactlyOnceCase[object]:
    def clear() -> None:
        shutil.rmtree(folder, ignore_errors=True)

    return ExactlyOnceCase(make, clear, BATCHES, lambda: json_lines(folder), lambda: hidden(folder))


@pytest.mark.rule("F23")
@pytest.mark.rule("F24")
@pytest.mark.rule("F25")
@pytest.mark.asyncio
@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}, {"roll_size": 1}], ids=["plain", "gzip", "rolling"])
@pytest.mark.parametrize("rule", EXACTLY_ONCE_RULES, ids=rule_name)
async def test_transactional_file_sink(tmp_path: Path, rule: Rule, options: dict[str, Any]) -> None:
    folder = tmp_path / "out"
    await rule(files_case(folder, lambda: TransactionalFileSink({"path": folder, "format": "jsonl", **options})))


def rows(path: Path, table: str) -> list[object]:
    connection = sqlite3.connect(path)
    try:
        known = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE name = ?", (table,))]
        return [list(row) for row in connection.execute(f"SELECT * FROM {table} ORDER BY rowid")] if known else []
    finally:
        connection.close()


@pytest.mark.rule("F23")
@pytest.mark.rule("F24")
@pytest.mark.rule("F25")
@pytest.mark.asyncio
@pytest.mark.parametrize("rule", EXACTLY_ONCE_RULES, ids=rule_name)
async def test_sqlite_sink(tmp_path: Path, rule: Rule) -> None:
    path = tmp_path / "out.db"

    def clear() -> None:
        for file in tmp_path.glob("out.db*"):
            file.unlink()

    def make() -> SqliteSink:
        return SqliteSink(path=path, table="results", columns=["name", "n"])

    def leftovers() -> list[object]:
        return [*rows(path, "sage_staged_results"), *rows(path, "sage_transactions")]

    await rule(ExactlyOnceCase(make, clear, BATCHES, lambda: rows(path, "results"), leftovers, turns=2))


# -- sinks that are wrong in one point


class CommitsEarly(TransactionalFileSink):
    async def pre_commit(self, transaction: FileTransaction) -> None:
        await super().pre_commit(transaction)
        await self.commit_transaction(transaction)


class ForgetsToCommit(TransactionalFileSink):
    async def recover(self, prepared: Sequence[tuple[int, object]], recovery: SinkRecovery) -> None:
        await super().recover([], recovery)


class LeavesOrphans(TransactionalFileSink):
    async def abort_orphans(self, keep: Sequence[FileTransaction]) -> None:
        pass


class AbortsOthers(TransactionalFileSink):
    async def recover(self, prepared: Sequence[tuple[int, object]], recovery: SinkRecovery) -> None:
        await super().recover(prepared, SinkRecovery(recovery.context, recovery.attempt, recovery.checkpoint))


class AppendsOnCommit(TwoPhaseCommitSink[object, list[object]]):
    """Keeps records in the checkpoint, and appends them at each commit: not idempotent."""

    shown: ClassVar[list[object]] = []

    async def begin(self) -> list[object]:
        return []

    async def write_to(self, transaction: list[object], batch: Sequence[object]) -> None:
        transaction.extend(batch)

    async def pre_commit(self, transaction: list[object]) -> None:
        pass

    async def commit_transaction(self, transaction: list[object]) -> None:
        self.shown.extend(transaction)

    async def abort(self, transaction: list[object]) -> None:
        pass

    async def abort_orphans(self, keep: Sequence[list[object]]) -> None:
        pass


WRONG: dict[type[TransactionalFileSink], list[str]] = {
    CommitsEarly: ["shows_a_checkpoint_when_it_is_complete"],
    ForgetsToCommit: ["survives_a_kill_between_any_two_calls"],
    LeavesOrphans: ["survives_a_kill_between_any_two_calls"],
    AbortsOthers: ["goes_on_with_fewer_or_more_tasks"],
}


@pytest.mark.asyncio
@pytest.mark.parametrize("wrong", WRONG)
async def test_the_rules_notice_a_wrong_file_sink(tmp_path: Path, wrong: type[TransactionalFileSink]) -> None:
    folder = tmp_path / "out"
    case = files_case(folder, lambda: wrong(path=folder, format="jsonl"))
    noticed: list[str] = []
    for rule in EXACTLY_ONCE_RULES:
        try:
            await rule(case)
        except AssertionError:
            noticed.append(rule_name(rule))
    assert set(WRONG[wrong]) <= set(noticed)


@pytest.mark.asyncio
async def test_the_rules_notice_a_commit_that_is_not_idempotent() -> None:
    case: ExactlyOnceCase[object] = ExactlyOnceCase(AppendsOnCommit, AppendsOnCommit.shown.clear, BATCHES, lambda: AppendsOnCommit.shown)
    with pytest.raises(AssertionError, match="again and again"):
        await next(rule for rule in EXACTLY_ONCE_RULES if rule_name(rule).startswith("commits_once"))(case)
