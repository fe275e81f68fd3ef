"""What the base classes of sinks do by themselves: order of calls, time limits, keys."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_actor.dataflow.context import FunctionContext
from sage_actor.dataflow.idempotent import IdempotentSink
from sage_actor.dataflow.sink import Sink, SinkRecovery
from sage_actor.dataflow.source import Source
from sage_actor.dataflow.two_phase_commit import TwoPhaseCommitSink
from sage_actor.errors import CommitFailed, ConfigError, ConnectorError


class Calls(TwoPhaseCommitSink[str, int]):
    """Writes down what it is asked for."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.calls: list[object] = []
        self.begun = 0
        self.refuses = refuses

    async def begin(self) -> int:
        self.begun += 1
        self.calls.append(("begin", self.begun))
        return self.begun

    async def write_to(self, transaction: int, batch: Sequence[str]) -> None:
        self.calls.append((transaction, *batch))

    async def pre_commit(self, transaction: int) -> None:
        self.calls.append(("pre-commit", transaction))

    async def commit_transaction(self, transaction: int) -> None:
        if self.refuses:
            raise OSError("no route")
        self.calls.append(("commit", transaction))

    async def abort(self, transaction: int) -> None:
        self.calls.append(("abort", transaction))

    async def abort_orphans(self, keep: Sequence[int]) -> None:
        self.calls.append(("orphans", *keep))


def context(**settings: object) -> FunctionContext:
    return FunctionContext("job", "sink", settings=settings)


@pytest.mark.rule("F23")
@pytest.mark.asyncio
async def test_a_transaction_begins_with_the_first_record_after_a_barrier() -> None:
    sink = Calls()
    await sink.open(context())
    await sink.recover([], SinkRecovery(context()))
    assert await sink.prepare(1) is None
    await sink.write(["a"])
    await sink.write(["b"])
    assert await sink.prepare(2) == 1
    assert await sink.prepare(3) is None
    await sink.write(["c"])
    await sink.commit(2, 1)
    await sink.flush()  # with checkpoints it is not for flush to commit
    await sink.close()
    assert sink.calls == [
        ("orphans",),
        ("begin", 1),
        (1, "a"),
        (1, "b"),
        ("pre-commit", 1),
        ("begin", 2),
        (2, "c"),
        ("commit", 1),
        ("abort", 2),
    ]


@pytest.mark.rule("F24")
@pytest.mark.rule("F25")
@pytest.mark.asyncio
async def test_recovery_commits_in_order_of_the_checkpoints_then_aborts_the_rest() -> None:
    sink = Calls()
    await sink.open(context())
    await sink.recover([(5, 50), (3, 30), (4, 40)], SinkRecovery(context(), 7, 5, [(4, 41)]))
    assert sink.attempt == 7
    assert sink.calls == [("commit", 30), ("commit", 40), ("commit", 50), ("orphans", 50, 30, 40, 41)]


@pytest.mark.rule("F26")
@pytest.mark.asyncio
async def test_a_commit_that_fails_says_what_was_not_committed() -> None:
    sink = Calls(refuses=True)
    await sink.open(context())
    with pytest.raises(CommitFailed, match=r"sink 'sink' could not commit 30 of checkpoint 3: OSError: no route"):
        await sink.recover([(3, 30)], SinkRecovery(context(), 2, 3))
    assert ("orphans", 30) not in sink.calls


@pytest.mark.rule("F26")
@pytest.mark.asyncio
async def test_transactions_must_outlast_an_interval_and_an_outage() -> None:
    class Limited(Calls):
        transaction_timeout = "15m"
        longest_outage = "14m"

    await Limited().open(context(**{"checkpoint.interval": 59.9}))
    await Limited().open(context())  # no checkpoints
    with pytest.raises(ConfigError, match=r"900 s are too short: .* 900 s together"):
        await Limited().open(context(**{"checkpoint.interval": "60s"}))
    Limited.longest_outage = "14m 30s"
    with pytest.raises(ConfigError, match="900 s together"):
        await Limited().open(context(checkpointing="exactly_once"))


@pytest.mark.asyncio
async def test_without_checkpoints_flush_commits() -> None:
    sink = Calls()
    await sink.open(context())
    await sink.flush()
    await sink.write(["a"])
    await sink.flush()
    await sink.close()
    assert sink.calls == [("begin", 1), (1, "a"), ("pre-commit", 1), ("commit", 1)]


class Table(IdempotentSink[tuple[str, int]]):
    def __init__(self) -> None:
        self.rows: dict[Hashable, tuple[str, int]] = {}

    def key_of(self, record: tuple[str, int]) -> Hashable:
        return record[0]

    async def upsert(self, records: Mapping[Hashable, tuple[str, int]]) -> None:
        self.rows.update(records)


@given(st.lists(st.lists(st.tuples(st.sampled_from("abc"), st.integers()), max_size=5), max_size=5), st.data())
@pytest.mark.asyncio
async def test_a_replay_changes_nothing_in_the_end(batches: list[list[tuple[str, int]]], data: st.DataObject) -> None:
    sink = Table()
    await sink.open(context())
    for batch in batches:
        await sink.write(batch)
    for batch in batches[data.draw(st.integers(0, len(batches))) :]:
        await sink.write(batch)
    assert sink.rows == {key: (key, value) for batch in batches for key, value in batch}


@pytest.mark.asyncio
async def test_plain_sinks_and_sources_keep_to_the_simple_contract() -> None:
    class Plain(Sink[int]):
        flushed = 0

        async def flush(self) -> None:
            self.flushed += 1

    sink = Plain()
    assert await sink.prepare(1) is None
    assert sink.flushed == 1
    await sink.recover([], SinkRecovery(context()))

    class Counter(Source[int]):
        at = 3

        def position(self) -> object:
            return self.at

        async def seek(self, position: object) -> None:
            assert isinstance(position, int)
            self.at = position

    source = Counter()
    assert source.splits() == [3]
    await source.assign([9])
    assert source.position() == 9
    for splits in ([], [1, 2]):
        with pytest.raises(ConnectorError, match=f"{len(splits)} positions fell to one task"):
            await source.assign(splits)
