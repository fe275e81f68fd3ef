"""State of operators: a model under random changes, crashes and rescaling; damage; versions; what may be refused."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_actor._core.keyed import KeyedFold
from sage_actor._core.stable_hash import key_group
from sage_actor.errors import CheckpointDamaged, ConfigError, StateError, StateMismatch
from sage_actor.state.memory_nested import MemoryNested
from sage_actor.state.memory_table import MemoryTable
from sage_actor.state.operator_state import OperatorState
from sage_actor.state.parts import FileRef, OperatorPart
from sage_actor.state.store import DELETED, Entries
from sage_actor.testing import ManualClock
from sage_actor.testing.memory_parts import MemoryParts

GROUPS = 8

changes = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 12), st.integers(0, 3)),
    st.tuples(st.just("put"), st.integers(0, 12), st.integers(0, 3)),
    st.tuples(st.just("mutate"), st.integers(0, 12), st.integers(0, 3)),
    st.tuples(st.just("delete"), st.integers(0, 12), st.integers(0, 3)),
    st.tuples(st.just("clear"), st.integers(0, 12), st.just(0)),
)
steps = st.one_of(
    changes,
    changes,
    changes,
    st.tuples(st.just("freeze"), st.integers(0, 3), st.just(0)),
    st.tuples(st.just("write"), st.integers(0, 3), st.just(0)),
    st.tuples(st.just("restore"), st.integers(1, 4), st.just(0)),
)


class Harness:
    """Some tasks of one operator, the dicts they should equal, and what was saved last."""

    def __init__(self) -> None:
        self.storage = MemoryParts()
        self.states: list[OperatorState] = []
        self.plain: dict[int, list[int]] = {}
        self.nested: dict[int, dict[int, list[int]]] = {}
        self.saved: tuple[list[OperatorPart], bytes] = ([], pickle.dumps(({}, {})))
        self.frozen: list[Any] = []
        self.content = b""
        self.number = 0

    async def open(self, parallelism: int) -> None:
        parts, content = self.saved
        self.states = [
            await OperatorState.restore(parts, self.storage, uid="op", index=index, parallelism=parallelism, groups=GROUPS)
            for index in range(parallelism)
        ]
        for state in self.states:
            state.table("t")
            state.nested("n")
        self.plain, self.nested = pickle.loads(content)
        self.frozen = []

    def state(self, key: int) -> OperatorState:
        return next(state for state in self.states if state.first <= key_group(key, GROUPS) <= state.last)

    def change(self, kind: str, key: int, sub: int) -> None:
        self.number += 1
        table, nested = self.state(key).table("t"), self.state(key).nested("n")
        inner = self.nested.setdefault(key, {})
        if kind == "put":
            table.put(key, [self.number])
            self.plain[key] = [self.number]
            nested.put(key, sub, [self.number])
            inner[sub] = [self.number]
        elif kind == "mutate":
            if key in self.plain:
                value = table.get(key)
                value.append(self.number)
                table.put(key, value)
                self.plain[key].append(self.number)
            if sub in inner:
                value = nested.get(key, sub)
                value.append(self.number)
                nested.put(key, sub, value)
                inner[sub].append(self.number)
        elif kind == "delete":
            table.delete(key)
            self.plain.pop(key, None)
            nested.delete(key, sub)
            inner.pop(sub, None)
        else:
            table.delete(key)
            self.plain.pop(key, None)
            nested.clear(key)
            inner.clear()
        if not inner:
            del self.nested[key]

    async def act(self, kind: str, amount: int) -> None:
        self.number += 1
        if kind == "freeze":
            self.frozen = [(state, state.freeze(self.number)) for state in self.states]
            self.content = pickle.dumps((self.plain, self.nested))
        elif kind == "restore":
            await self.open(amount)
        elif self.frozen:
            if amount == 0:
                self.storage.full = True
                for state, frozen in self.frozen:
                    with pytest.raises(Exception, match="no space left"):
                        await state.write(frozen, self.storage, f"failed {self.number}")
                self.storage.full = False
            else:
                parts = [await state.write(frozen, self.storage, f"{self.number} {state.index}") for state, frozen in self.frozen]
                self.saved = (parts, self.content)
            self.frozen = []

    def check(self) -> None:
        plain: dict[Any, Any] = {}
        nested: dict[Any, Any] = {}
        for state in self.states:
            plain.update(state.table("t").items())
            assert len(state.table("t")) == sum(1 for _ in state.table("t").items())
            for key in state.nested("n").keys():  # noqa: SIM118 - a table is no dict
                assert state.first <= key_group(key, GROUPS) <= state.last
                nested[key] = list(state.nested("n").scan(key))
                assert state.nested("n").count(key) == len(nested[key])
        assert plain == self.plain
        assert nested == {key: list(inner.items()) for key, inner in self.nested.items()}


@pytest.mark.rule("F14")
@pytest.mark.rule("F15")
@settings(max_examples=150, deadline=None)
@given(st.lists(steps, max_size=60))
def test_any_history_equals_a_dict(history: list[tuple[str, int, int]]) -> None:
    async def run() -> None:
        harness = Harness()
        await harness.open(2)
        for kind, first, second in history:
            if kind in ("freeze", "write", "restore"):
                await harness.act(kind, first)
            else:
                harness.change(kind, first, second)
            harness.check()
        await harness.open(1)
        harness.check()

    asyncio.run(run())


@pytest.mark.parametrize("make", [MemoryTable, MemoryNested])
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_table_shows_the_freeze_however_slowly_it_is_drained(make: Any, data: st.DataObject) -> None:
    """Changes between any two slices, walks over the table that outlast the draining, freezes before the last was drained."""
    nested = make is MemoryNested
    table, copy = make(), make()
    model: dict[Any, int] = {}
    draining: Iterator[Entries] | None = None
    shown: dict[Any, int] = {}
    complete = True

    def drain(count: int) -> None:
        nonlocal draining
        for _ in range(count):
            if draining is None:
                return
            draining.limit = 1  # type: ignore[attr-defined]
            entries = next(draining, None)
            if entries is None:
                draining = None
                assert content(copy) == list(shown.items()) or (not nested and dict(content(copy)) == shown)
            else:
                copy.load(entries)

    def content(one: Any) -> list[Any]:
        return sorted(one.entries(), key=lambda entry: entry[0][0]) if nested else list(one.items())

    def change(key: int, value: int | None) -> None:
        place = (0, key) if nested else key
        if value is None:
            model.pop(place, None)
            table.delete(*((0, key) if nested else (key,)))
        else:
            model[place] = value
            table.put(*((0, key) if nested else (key,)), value)

    for kind, key, amount in data.draw(
        st.lists(st.tuples(st.sampled_from("ppdfswww"), st.integers(0, 4), st.integers(0, 9)), max_size=40), label="history"
    ):
        if kind == "p":
            change(key, amount)
        elif kind == "d":
            change(key, None)
        elif kind == "f":
            if draining is not None:
                complete = False
            if not complete:
                copy = make()
            draining, shown = table.freeze(full=not complete), dict(model)
            complete = True
        elif kind == "s":
            drain(amount)
        else:
            walk = iter(table.entries() if nested else table.items())
            seen = [entry for entry in [next(walk, None)] if entry is not None]
            drain(amount)
            seen += walk
            assert dict(seen) == model
        assert dict(content(table)) == model
    drain(99)


@pytest.mark.asyncio
async def test_a_freeze_costs_what_changed() -> None:
    """What is written after a change of one entry does not grow with the table; deltas that outweigh the base make a new one."""
    storage = MemoryParts()
    state = await OperatorState.restore((), None, uid="op")
    table = state.table("t")
    for key in range(5_000):
        table.put(key, key)
    sizes: list[int] = []
    lengths: list[int] = []
    for checkpoint in range(40):
        table.put(checkpoint, 0)
        part = await state.write(state.freeze(checkpoint), storage, f"{checkpoint}")
        sizes.append(part.files[-1].size)
        lengths.append(len(part.files))
    assert max(lengths) == 17
    assert sorted(sizes)[-3] > 20 * sorted(sizes)[-4]  # three bases, else deltas
    for key in range(5_000):
        table.put(key, key + 1)
    for checkpoint in (50, 51, 52):
        for key in range(5_000):
            table.put(key, checkpoint)
        part = await state.write(state.freeze(checkpoint), storage, f"{checkpoint}")
        lengths.append(len(part.files))
    assert lengths[-1] == 1


class Buffer:
    """A stage's own table: entries (key, n) -> value."""

    def __init__(self) -> None:
        self.entries: dict[tuple[str, int], object] = {}
        self.frozen_full: list[bool] = []

    def freeze(self, *, full: bool) -> Iterator[Entries]:
        self.frozen_full.append(full)
        return iter([list(self.entries.items())])

    def load(self, entries: Entries) -> None:
        for key, value in entries:
            if value is DELETED:
                self.entries.pop(key, None)
            else:
                self.entries[key] = value


@pytest.mark.rule("F15")
@pytest.mark.asyncio
async def test_an_attached_table_goes_to_the_task_that_owns_the_records_key() -> None:
    storage = MemoryParts()
    everything = {(f"k{n}", m): n * m for n in range(30) for m in range(3)}
    state = await OperatorState.restore((), None, uid="op", groups=GROUPS)
    buffer = Buffer()
    state.attach("buffer", buffer, key=itemgetter(0))
    buffer.entries = dict(everything)
    part = await state.write(state.freeze(1), storage, "1")
    part = await state.write(state.freeze(2), storage, "2")
    assert buffer.frozen_full == [True, False]
    found: dict[tuple[str, int], object] = {}
    for index in range(3):
        task = await OperatorState.restore([part], storage, uid="op", index=index, parallelism=3, groups=GROUPS)
        own = Buffer()
        task.attach("buffer", own, key=itemgetter(0))
        assert all(task.first <= key_group(key, GROUPS) <= task.last for key, _ in own.entries)
        assert own.entries
        assert not found.keys() & own.entries.keys()
        found |= own.entries
        with pytest.raises(StateError, match="two tables of that name"):
            task.attach("buffer", Buffer())
    assert found == everything


@pytest.mark.asyncio
async def test_an_attached_fold_keeps_the_order_of_first_appearance() -> None:
    class Fold:
        def __init__(self) -> None:
            self.fold = KeyedFold("sum")

        def freeze(self, *, full: bool) -> Iterator[Entries]:
            return iter([self.fold.items()])

        def load(self, entries: Entries) -> None:
            self.fold.load(entries)

    storage, first, second = MemoryParts(), Fold(), Fold()
    state = await OperatorState.restore((), None, uid="op")
    state.attach("fold", first)
    first.fold.run(["b", "a", "c", "a"], [1, 2, 3, 4], 0, None)
    part = await state.write(state.freeze(1), storage, "1")
    again = await OperatorState.restore([part], storage, uid="op")
    again.attach("fold", second)
    assert second.fold.items() == [("b", 1), ("a", 6), ("c", 3)]


@pytest.mark.rule("F39")
@pytest.mark.asyncio
async def test_lists_are_dealt_as_their_mode_says() -> None:
    storage = MemoryParts()
    parts: list[OperatorPart] = []
    for index in range(2):
        state = await OperatorState.restore((), None, uid="op", index=index, parallelism=2)
        state.list("split").items = [f"{index}{n}" for n in range(3 + index)]
        state.list("union", mode="union").items = [index]
        state.list("own", mode="own").items = [index]
        with pytest.raises(StateError, match="'union'"):
            state.list("split", mode="union")
        parts.append(await state.write(state.freeze(1), storage, f"{index}"))
    same = await OperatorState.restore(parts, storage, uid="op", index=1, parallelism=2)
    assert same.list("split").items == ["10", "11", "12", "13"]
    assert same.list("own", mode="own").items == [1]
    assert same.list("union", mode="union").items == [0, 1]
    shares: list[list[str]] = []
    for index in range(3):
        other = await OperatorState.restore(parts, storage, uid="op", index=index, parallelism=3)
        shares.append(other.list("split").items)
        with pytest.raises(StateMismatch, match="start it with parallelism 2"):
            other.list("own", mode="own")
    assert shares == [["00", "01"], ["02", "10"], ["11", "12", "13"]]


@pytest.mark.asyncio
async def test_what_nobody_claims_is_saved_on_and_dealt_once() -> None:
    storage = MemoryParts()
    state = await OperatorState.restore((), None, uid="op")
    state.list("l").items = [1, 2]
    state.list("u", mode="union").items = [3]
    state.table("t").put("a", 1)
    parts = [await state.write(state.freeze(1), storage, "a")]
    for turn in range(3):
        states = [await OperatorState.restore(parts, storage, uid="op", index=index, parallelism=2) for index in range(2)]
        parts = [await one.write(one.freeze(2), storage, f"{turn} {one.index}") for one in states]
    last = await OperatorState.restore(parts, storage, uid="op")
    assert last.list("l").items == [1, 2]
    assert last.list("u", mode="union").items == [3]
    last.freeze(4)  # keeps what nobody has asked for; asking later is fine
    assert dict(last.table("t").items()) == {"a": 1}
    last.check_claimed()


@pytest.mark.asyncio
async def test_damage_is_found_wherever_it_is() -> None:
    storage = MemoryParts()
    state = await OperatorState.restore((), None, uid="op")
    state.list("l").items = [1]
    for key in range(300):
        state.table("t").put(key, str(key))
    part = await state.write(state.freeze(1), storage, "a")
    (ref,) = part.files
    whole = storage.files[ref.name]

    async def reads(content: bytes) -> None:
        storage.files[ref.name] = content
        await OperatorState.restore([part], storage, uid="op")

    await reads(whole)
    places = [*range(0, len(whole), max(1, len(whole) // 60)), *range(40), *range(len(whole) - 14, len(whole))]
    for place in places:
        changed = bytearray(whole)
        changed[place] ^= 0x55
        with pytest.raises(CheckpointDamaged, match=r"a\.entries"):
            await reads(bytes(changed))
    for length in places:
        with pytest.raises(CheckpointDamaged, match=r"a\.entries"):
            await reads(whole[:length])
    with pytest.raises(CheckpointDamaged):
        await reads(whole + b"x")
    missing = OperatorPart("op", 0, 1, 128, 0, 127, "memory", part.tables, [FileRef("nowhere.entries", 1, 1)])
    with pytest.raises(CheckpointDamaged, match="nowhere"):
        await OperatorState.restore([missing], storage, uid="op")


class Unpicklable:
    """Refuses to be pickled."""

    def __reduce__(self) -> str:
        raise TypeError("never")


@pytest.mark.asyncio
async def test_what_cannot_be_saved_is_named() -> None:
    storage = MemoryParts()
    state = await OperatorState.restore((), None, uid="op", operator="the sums")
    state.table("t").put("good", 1)
    state.table("t").put("bad", Unpicklable())
    with pytest.raises(StateError, match=r"'the sums', state 't': the value of key 'bad' cannot be saved: TypeError: never"):
        await state.write(state.freeze(1), storage, "a")
    state.table("t").put("bad", lambda: 7)
    part = await state.write(state.freeze(2), storage, "b")
    again = await OperatorState.restore([part], storage, uid="op")
    assert again.table("t").get("bad")() == 7
    state.list("l").items = [Unpicklable()]
    with pytest.raises(StateError, match="state 'l': its items cannot be saved"):
        state.freeze(3)


@pytest.mark.asyncio
async def test_backends_that_are_not_there() -> None:
    with pytest.raises(ConfigError, match="'memory' and 'rocksdb'"):
        await OperatorState.restore((), None, uid="op", backend="paper")
    part = OperatorPart("op", 0, 1, 128, 0, 127, "rocksdb", {}, [FileRef("x.sst", 1, 1)])
    with pytest.raises(StateMismatch, match=r"set state.backend to 'rocksdb'"):
        await OperatorState.restore([part], MemoryParts(), uid="op")


async def reopened(state: OperatorState, storage: MemoryParts, **place: Any) -> OperatorState:
    part = await state.write(state.freeze(1), storage, f"{len(storage.files)}")
    return await OperatorState.restore([part], storage, uid="op", **place)


@pytest.mark.asyncio
async def test_older_versions_are_migrated_as_they_are_read() -> None:
    storage = MemoryParts()
    state = await OperatorState.restore((), None, uid="op")
    access = state.access()
    for key in "abc":
        access.key = key
        access.value("v").set(1)
        access.map("m")["x"] = 1
    seen: list[int] = []

    def migrate(old: int, value: int) -> int:
        seen.append(old)
        return value * 10 if old == 1 else value + 1

    state = await reopened(state, storage)
    access = state.access()
    access.key = "a"
    with pytest.raises(StateMismatch, match=r"'op': state 'v' was written under version 1, and this program has version 2.*migrate="):
        access.value("v", version=2)
    assert access.value("v", version=2, migrate=migrate).get() == 10
    assert access.map("m", version=2, migrate=migrate)["x"] == 10
    access.value("v", version=2, migrate=migrate).set(11)
    state = await reopened(state, storage)
    access = state.access()
    access.key = "a"
    with pytest.raises(StateMismatch, match=r"version 2, and this program knows version 1; run the newer program"):
        access.value("v")
    value = access.value("v", version=3, migrate=migrate)
    assert value.get() == 12
    access.key = "b"
    assert value.get() == 10  # never read under version 2
    assert seen == [1, 1, 2, 1]
    state = await reopened(state, storage)
    access = state.access()
    access.key = "b"
    with pytest.raises(StateMismatch, match=r"written under version 1"):
        access.value("v", version=3).get()


@pytest.mark.rule("F39")
@pytest.mark.asyncio
async def test_a_time_to_live_given_later_begins_then() -> None:
    clock, storage = ManualClock(), MemoryParts()
    state = await OperatorState.restore((), None, uid="op", clock=clock)
    access = state.access()
    access.key = "a"
    access.value("v").set(1)
    access.map("m")["x"] = 1
    await clock.advance(100)
    state = await reopened(state, storage, clock=clock)
    access = state.access()
    access.key = "a"
    value, entries = access.value("v", ttl="5s"), access.map("m", ttl="5s")
    await clock.advance(4.999)
    assert (value.get(), dict(entries)) == (1, {"x": 1})
    await clock.advance(0.001)
    assert (value.get(), dict(entries), len(entries)) == (None, {}, 0)


@pytest.mark.rule("F39")
@pytest.mark.asyncio
async def test_a_full_snapshot_drops_what_has_expired() -> None:
    clock, storage = ManualClock(), MemoryParts()
    state = await OperatorState.restore((), None, uid="op", clock=clock)
    access = state.access()
    value = access.value("v", ttl="5s")
    for key in range(2_000):
        access.key = key
        value.set("x" * 50)
    await clock.advance(5)
    access.key = "young"
    value.set(1)
    part = await state.write(state.freeze(1), storage, "a")
    assert part.files[0].size < 1_000
    assert value.get() == 1


@pytest.mark.asyncio
async def test_handles_say_what_is_wrong() -> None:
    state = await OperatorState.restore((), None, uid="op")
    access = state.access()
    value = access.value("v", default=list[int]())
    with pytest.raises(StateError, match="no key is in work"):
        value.get()
    access.key = "a"
    value.get().append(1)
    assert value.get() == []  # the default is nobody's to change
    assert access.value("v", default=list[int]()) is value
    with pytest.raises(StateError, match="declared twice"):
        access.map("v")
    with pytest.raises(StateError, match="whole number from 1"):
        access.value("w", version=0)
    with pytest.raises(ConfigError, match="ttl of state 'w'"):
        access.value("w", ttl="soon")
    with pytest.raises(KeyError):
        del access.map("m")["x"]


class Mean:
    """An aggregation with a mutable accumulator."""

    def create(self) -> list[float]:
        return [0, 0]

    def add(self, accumulator: list[float], value: float, /) -> list[float]:
        accumulator[0] += value
        accumulator[1] += 1
        return accumulator

    def result(self, accumulator: list[float], /) -> float:
        return accumulator[0] / accumulator[1]


@pytest.mark.asyncio
async def test_aggregating_state() -> None:
    storage = MemoryParts()
    state = await OperatorState.restore((), None, uid="op")
    access = state.access()
    mean = access.aggregating("mean", Mean())
    access.key = "a"
    assert mean.get() is None
    mean.add(1)
    frozen = state.freeze(1)
    mean.add(3)
    assert mean.get() == 2
    part = await state.write(frozen, storage, "a")
    again = await OperatorState.restore([part], storage, uid="op")
    access = again.access()
    access.key = "a"
    assert access.aggregating("mean", Mean()).get() == 1


def test_parts_are_plain_data() -> None:
    import msgspec

    from sage_actor.state.parts import TableInfo

    part = OperatorPart("op", 0, 1, 128, 0, 127, "memory", {"t": TableInfo("keyed", 2, "value state", True)}, [FileRef("x", 1, 2)])
    assert msgspec.json.decode(msgspec.json.encode(part), type=OperatorPart) == part


@pytest.mark.asyncio
async def test_rocksdb_without_rocksdict_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "rocksdict", None)
    with pytest.raises(ConfigError, match=r"pip install .*sage-actor\[rocksdb\]"):
        await OperatorState.restore((), None, uid="op", backend="rocksdb", folder=f"{tmp_path}/db")
