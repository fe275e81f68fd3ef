"""The keyed store on RocksDB, held against dicts: what is in memory, on disk, frozen, restored and dealt out anew."""

from __future__ import annotations

import asyncio
import itertools
import random
import tempfile
import zlib
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_actor._core.stable_hash import group_range, key_group
from sage_actor.errors import CheckpointDamaged, ConfigError, StateError, UnstableKey
from sage_actor.state.parts import FileRef, OperatorPart
from sage_actor.state.store import DELETED, StorePlace

pytest.importorskip("rocksdict")

from sage_actor.state.rocksdb_database import Database, RocksSettings
from sage_actor.state.rocksdb_store import RocksStore, open_store

GROUPS = 16
TINY = {"cache": 12_000, "blocks": 1 << 20, "writes": 1 << 16}


class MemoryStorage:
    """Files of checkpoints as bytes."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.adoptions = 0

    async def write(self, name: str, blocks: AsyncIterable[bytes]) -> FileRef:
        return self.keep(name, b"".join([block async for block in blocks]))

    def keep(self, name: str, data: bytes) -> FileRef:
        assert name not in self.files
        self.files[name] = data
        return FileRef(name, len(data), zlib.crc32(data))

    async def read(self, ref: FileRef) -> AsyncIterator[bytes]:
        data = self.files.get(ref.name)
        if data is None or len(data) != ref.size or zlib.crc32(data) != ref.checksum:
            raise CheckpointDamaged("job", ref.name, "missing or changed")
        yield data

    async def adopt(self, path: str, name: str) -> FileRef:
        self.adoptions += 1
        return self.keep(name, Path(path).read_bytes())

    async def fetch(self, ref: FileRef, path: str) -> None:
        async for block in self.read(ref):
            Path(path).write_bytes(block)


class Places:
    """Stores in temporary folders, closed at the end."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.count = 0
        self.open: list[RocksStore] = []

    async def store(self, index: int = 0, parallelism: int = 1, options: dict[str, object] = TINY) -> RocksStore:
        self.count += 1
        first, last = group_range(index, GROUPS, parallelism)
        folder = str(Path(self.folder.name) / str(self.count))
        store = await open_store(StorePlace("job", "sums", index, parallelism, GROUPS, first, last, folder, options))
        self.open.append(store)
        return store

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for store in self.open:
            await store.close()
        left = list(Path(self.folder.name).iterdir())
        self.folder.cleanup()
        assert left == []


async def save(store: RocksStore, storage: MemoryStorage, checkpoint: int) -> OperatorPart:
    frozen = store.freeze(checkpoint)
    try:
        return part_of(store, await frozen.write(storage, f"parts/{checkpoint}-{store.place.index}of{store.place.parallelism}"))
    finally:
        frozen.close()


def part_of(store: RocksStore, files: list[FileRef]) -> OperatorPart:
    place = store.place
    return OperatorPart(place.uid, place.index, place.parallelism, place.groups, place.first, place.last, "rocksdb", {}, files)


KEYS = st.sampled_from([0, 1, 1.0, True, 2.5, "a", "", b"a", ("a", 1), -(2**70)])
SUBS = st.sampled_from([0, 1, 2, None, "x", frozenset({1}), (1, None)])
VALUES = st.one_of(st.integers(), st.binary(max_size=300), st.lists(st.integers(), max_size=3), st.none())
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, VALUES),
        st.tuples(st.just("grow"), KEYS),
        st.tuples(st.just("delete"), KEYS),
        st.tuples(st.just("nest"), KEYS, SUBS, VALUES),
        st.tuples(st.just("prune"), KEYS, SUBS),
        st.tuples(st.just("wipe"), KEYS),
        st.tuples(st.just("read"), KEYS, SUBS),
        st.tuples(st.just("fill"), st.integers(0, 300)),
        st.tuples(st.just("freeze")),
        st.tuples(st.just("freeze")),
        st.tuples(st.just("write")),
        st.tuples(st.just("save")),
        st.tuples(st.just("abandon")),
        st.tuples(st.just("crash"), st.integers(1, 3)),
        st.tuples(st.just("clear")),
    ),
    min_size=10,
    max_size=50,
)


class Model:
    """The stores of one operator, and the dicts that they must agree with."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.storage = MemoryStorage()
        self.stores: list[RocksStore] = []
        self.plain: dict[Any, Any] = {}
        self.nested: dict[Any, dict[Any, Any]] = {}
        self.frozen: list[tuple[RocksStore, Any]] = []
        self.frozen_content: Any = None
        self.saved: tuple[list[OperatorPart], Any] = ([], ({}, {}))
        self.checkpoint = 0

    def of(self, key: Any) -> RocksStore:
        group = key_group(key, GROUPS)
        return next(store for store in self.stores if store.first <= group <= store.last)

    def content(self) -> Any:
        plain = {key: list(value) if isinstance(value, list) else value for key, value in self.plain.items()}
        return plain, {key: list(entries.items()) for key, entries in self.nested.items() if entries}

    async def step(self, name: str, *arguments: Any) -> None:
        await getattr(self, name)(*arguments)

    async def put(self, key: Any, value: Any) -> None:
        self.plain[key] = value
        self.of(key).table("plain").put(key, list(value) if isinstance(value, list) else value)

    async def grow(self, key: Any) -> None:
        if isinstance(self.plain.get(key), list):
            self.plain[key] = [*self.plain[key], 7]
            table = self.of(key).table("plain")
            value = table.get(key)
            value.append(7)
            table.put(key, value)

    async def delete(self, key: Any) -> None:
        self.plain.pop(key, None)
        self.of(key).table("plain").delete(key)

    async def nest(self, key: Any, sub: Any, value: Any) -> None:
        self.nested.setdefault(key, {})[sub] = value
        self.of(key).nested("nested").put(key, sub, value)

    async def prune(self, key: Any, sub: Any) -> None:
        self.nested.get(key, {}).pop(sub, None)
        self.of(key).nested("nested").delete(key, sub)

    async def wipe(self, key: Any) -> None:
        self.nested.pop(key, None)
        self.of(key).nested("nested").clear(key)

    async def read(self, key: Any, sub: Any) -> None:
        store = self.of(key)
        assert store.table("plain").get(key, "none") == self.plain.get(key, "none")
        assert (key in store.table("plain")) == (key in self.plain)
        nested, entries = store.nested("nested"), self.nested.get(key, {})
        assert nested.get(key, sub, "none") == entries.get(sub, "none")
        assert list(nested.scan(key)) == list(entries.items())
        assert nested.count(key) == len(entries)

    async def fill(self, start: int) -> None:
        """Enough to push out of memory what is there."""
        for number in range(start, start + 60):
            await self.put(f"fill {number}", number)
            await self.nest(f"fill {number}", 1, number)

    async def clear(self) -> None:
        self.plain.clear()
        for store in self.stores:
            store.table("plain").clear()

    async def freeze(self) -> None:
        if not self.frozen:
            self.checkpoint += 1
            self.frozen = [(store, store.freeze(self.checkpoint)) for store in self.stores]
            self.frozen_content = self.content()

    async def write(self) -> None:
        parts: list[OperatorPart] = []
        for store, frozen in self.frozen:
            place = store.place
            parts.append(part_of(store, await frozen.write(self.storage, f"parts/{self.checkpoint}-{place.index}of{place.parallelism}")))
            frozen.close()
        if self.frozen:
            self.saved = parts, self.frozen_content
        self.frozen = []

    async def save(self) -> None:
        await self.write()
        await self.freeze()
        await self.write()

    async def abandon(self) -> None:
        for _, frozen in self.frozen:
            frozen.close()
        self.frozen = []

    async def crash(self, parallelism: int) -> None:
        await self.abandon()
        for store in self.stores:
            await store.close()
        parts, content = self.saved
        self.stores = [await self.places.store(index, parallelism) for index in range(parallelism)]
        for store in self.stores:
            await store.restore([part for part in parts if part.first <= store.last and part.last >= store.first], self.storage)
        plain, nested = content
        self.plain = {key: list(value) if isinstance(value, list) else value for key, value in plain.items()}
        self.nested = {key: dict(entries) for key, entries in nested.items()}
        await self.compare()

    async def compare(self) -> None:
        items = [entry for store in self.stores for entry in store.table("plain").items()]
        assert len(items) == len(self.plain) == sum(len(store.table("plain")) for store in self.stores)
        assert dict(items) == self.plain
        keys = list(itertools.chain.from_iterable(store.nested("nested").keys() for store in self.stores))
        assert sorted(map(repr, keys)) == sorted(map(repr, dict.fromkeys(keys)))
        found = {key: list(self.of(key).nested("nested").scan(key)) for key in keys}
        assert found == self.content()[1]


@pytest.mark.rule("F14", "F15")
@settings(max_examples=25, deadline=None)
@given(steps=STEPS)
def test_a_store_is_what_dicts_would_be_through_freezing_crashes_and_rescaling(steps: list[tuple[Any, ...]]) -> None:
    async def run() -> None:
        async with Places() as places:
            model = Model(places)
            model.stores = [await places.store()]
            for step in steps:
                await model.step(*step)
            await model.compare()
            await model.write()
            await model.crash(2)

    asyncio.run(run())


@pytest.mark.asyncio
async def test_a_frozen_value_that_is_changed_in_place_afterwards_is_saved_as_it_was() -> None:
    async with Places() as places:
        store, storage = await places.store(), MemoryStorage()
        for key in range(5):
            store.table("lists").put(key, [key])
            store.nested("rows").put(key, "a", [key])
        frozen = store.freeze(1)
        for key in range(5):
            value = store.table("lists").get(key)
            value.append("later")
            store.table("lists").put(key, value)
            inner = store.nested("rows").get(key, "a")
            inner.append("later")
            store.nested("rows").put(key, "a", inner)
            store.nested("rows").put(key, "b", 1)
        part = part_of(store, await frozen.write(storage, "parts/1"))
        frozen.close()
        again = await places.store()
        await again.restore([part], storage)
        assert sorted(again.table("lists").items()) == [(key, [key]) for key in range(5)]
        assert [list(again.nested("rows").scan(key)) for key in range(5)] == [[("a", [key])] for key in range(5)]
        assert store.table("lists").get(3) == [3, "later"]


def push_out(store: RocksStore) -> None:
    """Use so much else that what was used before is no longer in memory."""
    for number in range(200):
        store.table("other").put(number, number)
        store.nested("rows").put(f"other {number}", 1, number)
    assert not {1, 2, 3} & {*store.nested("rows").young, *store.nested("rows").old}


@pytest.mark.asyncio
async def test_the_order_of_sub_keys_survives_leaving_memory_and_changes_in_part() -> None:
    async with Places() as places:
        store = await places.store()
        rows = store.nested("rows")
        for sub in ("z", "a", "m"):
            rows.put(1, sub, 1)
        push_out(store)
        rows.put(1, "z", 2)
        rows.put(1, "b", 3)
        rows.delete(1, "a")
        rows.put(1, "a", 4)
        assert list(rows.scan(1)) == [("z", 2), ("m", 1), ("b", 3), ("a", 4)]
        push_out(store)
        assert list(rows.scan(1)) == [("z", 2), ("m", 1), ("b", 3), ("a", 4)]
        push_out(store)
        rows.clear(1)
        rows.put(1, "q", 5)
        push_out(store)
        assert list(rows.scan(1)) == [("q", 5)]


@pytest.mark.asyncio
async def test_a_change_to_an_entry_whose_load_fills_the_memory_is_not_lost() -> None:
    async with Places() as places:
        store = await places.store()
        rows = store.nested("rows")
        for sub in range(40):
            rows.put(1, sub, 0)
            rows.put(2, sub, 0)
        for sub in range(40):
            push_out(store)
            for part in range(sub + 1):
                for key in (1, 2):
                    rows.put(key, part, sub)
                assert (rows.get(1, part), rows.get(2, part)) == (sub, sub)
            push_out(store)
            assert dict(rows.scan(1)) == dict(rows.scan(2)) == {part: sub if part <= sub else 0 for part in range(40)}


@pytest.mark.asyncio
async def test_nothing_that_changes_before_the_files_are_made_gets_into_the_checkpoint() -> None:
    async with Places() as places:
        store, storage = await places.store(), MemoryStorage()
        for key in range(20):
            store.table("sums").put(key, "old")
        frozen = store.freeze(1)
        for key in range(20):
            store.table("sums").put(key, "new")
        for number in range(500):  # more than may wait in memory: the files are made here and now
            store.table("sums").put(f"other {number}", number)
        again = await places.store()
        await again.restore([part_of(store, await frozen.write(storage, "parts/1"))], storage)
        frozen.close()
        assert dict(again.table("sums").items()) == dict.fromkeys(range(20), "old")
        assert store.table("sums").get(7) == "new"


@pytest.mark.asyncio
@pytest.mark.rule("F15")
async def test_what_was_removed_elsewhere_does_not_come_back_when_tasks_become_fewer() -> None:
    async def rescaled(parts: list[OperatorPart], parallelism: int) -> list[RocksStore]:
        stores = [await places.store(index, parallelism) for index in range(parallelism)]
        for store in stores:
            await store.restore([part for part in parts if part.first <= store.last and part.last >= store.first], storage)
        return stores

    async with Places() as places:
        storage = MemoryStorage()
        stores = [await places.store()]
        for key in range(100):
            stores[0].table("sums").put(key, key)
            stores[0].nested("rows").put(key, "first", key)
        for checkpoint, parallelism in enumerate((3, 2, 1), 1):
            stores = await rescaled([await save(store, storage, checkpoint) for store in stores], parallelism)
            for key in range(100):
                store = next(each for each in stores if each.first <= key_group(key, GROUPS) <= each.last)
                assert store.table("sums").get(key) == (key if key >= (checkpoint - 1) * 10 else None)
                store.nested("rows").put(key, f"a{9 - checkpoint}", key)
                if key < checkpoint * 10:
                    store.table("sums").delete(key)
        assert sorted(stores[0].table("sums").keys()) == list(range(30, 100))
        for key in range(100):
            assert [sub for sub, _ in stores[0].nested("rows").scan(key)] == ["first", "a8", "a7", "a6"]


@pytest.mark.asyncio
async def test_sub_keys_added_after_tasks_became_fewer_come_last() -> None:
    async with Places() as places:
        storage = MemoryStorage()
        stores = [await places.store(index, 2) for index in range(2)]
        keys = [next(key for key in range(100) if store.first <= key_group(key, GROUPS) <= store.last) for store in stores]
        for store, key, size in zip(stores, keys, (1, 90), strict=True):
            for sub in range(size):
                store.nested("rows").put(key, sub, sub)
        parts = [await save(store, storage, 1) for store in stores]
        for order in (parts, parts[::-1]):
            only = await places.store()
            await only.restore(order, storage)
            for key, size in zip(keys, (1, 90), strict=True):
                only.nested("rows").put(key, -1, "last")
                assert [sub for sub, _ in only.nested("rows").scan(key)] == [*range(size), -1]


@pytest.mark.asyncio
async def test_an_unchanged_sorted_file_is_stored_once() -> None:
    async with Places() as places:
        store, storage = await places.store(), MemoryStorage()
        for key in range(500):
            store.table("sums").put(key, key)
        first = await save(store, storage, 1)
        adopted = storage.adoptions
        store.table("sums").put(1, 5)
        second = await save(store, storage, 2)
        assert storage.adoptions == adopted + 1
        assert set(first.files[1:]) < set(second.files[1:])

        again = await places.store()
        await again.restore([second], storage)
        assert again.table("sums").get(1) == 5
        again.table("sums").put(2, 6)
        third = await save(again, storage, 3)
        assert storage.adoptions <= adopted + 3
        assert set(second.files[1:]) & set(third.files[1:])


@pytest.mark.asyncio
async def test_files_of_a_savepoint_are_not_referred_to_by_later_checkpoints() -> None:
    async with Places() as places:
        store, storage = await places.store(), MemoryStorage()
        store.table("sums").put(1, 1)
        part = await save(store, storage, 1)
        moved = [replace(ref, name=f"savepoints/{ref.name}") for ref in part.files]
        storage.files = {f"savepoints/{name}": data for name, data in storage.files.items()}
        again = await places.store()
        await again.restore([replace(part, files=moved)], storage)
        later = await save(again, storage, 2)
        assert {ref.name.partition("/")[0] for ref in later.files} == {"parts"}


@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["missing", "torn", "flipped", "no index", "other format"])
async def test_a_damaged_file_is_named(how: str) -> None:
    async with Places() as places:
        store, storage = await places.store(), MemoryStorage()
        for key in range(500):
            store.table("sums").put(key, "x" * 50)
        part = await save(store, storage, 1)
        index, table = part.files[0], part.files[1]
        data = storage.files[table.name]
        if how == "missing":
            del storage.files[table.name]
        elif how == "torn":
            storage.files[table.name] = data[:100]
        elif how == "flipped":
            storage.files[table.name] = bytes([data[0] ^ 255]) + data[1:]
        else:
            raw = b"junk" if how == "no index" else storage.files[index.name][:30]
            del storage.files[index.name]
            part.files[0] = storage.keep(index.name, raw)
        again = await places.store()
        with pytest.raises(CheckpointDamaged) as caught:
            await again.restore([part], storage)
        assert caught.value.file in {index.name, table.name}


@pytest.mark.asyncio
async def test_damage_that_the_storage_did_not_see_is_a_state_error_not_an_early_end() -> None:
    class Blind(MemoryStorage):
        async def fetch(self, ref: FileRef, path: str) -> None:
            Path(path).write_bytes(self.files[ref.name])

    async with Places() as places:
        store, storage = await places.store(), Blind()
        for key in range(500):
            store.table("sums").put(key, "x" * 50)
        part = await save(store, storage, 1)
        for ref in part.files[1:]:
            data = storage.files[ref.name]
            storage.files[ref.name] = bytes([data[0] ^ 255, *data[1:200], data[200] ^ 255]) + data[201:]
        again = await places.store()
        await again.restore([part], storage)
        with pytest.raises(StateError, match=r"sums.*RocksDB could not read"):
            list(again.table("sums").items())


@pytest.mark.asyncio
async def test_what_cannot_be_a_key_is_refused_when_it_is_put() -> None:
    async with Places() as places:
        store = await places.store()
        for key in (None, float("nan"), object()):
            with pytest.raises(UnstableKey):
                store.table("sums").put(key, 1)
            with pytest.raises(UnstableKey):
                store.nested("rows").put(key, 1, 1)
        assert list(store.table("sums").items()) == []


@pytest.mark.asyncio
async def test_settings_are_checked() -> None:
    async with Places() as places:
        with pytest.raises(ConfigError, match=r"state\.rocksdb\.cash"):
            await places.store(options={"cash": 1})
        with pytest.raises(ConfigError, match=r"state\.rocksdb\.cache"):
            await places.store(options={"cache": 0})


@pytest.mark.asyncio
async def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StateError, match="file"):
        await open_store(StorePlace("job", "sums", 0, 1, 1, 0, 0, str(tmp_path / "file" / "state")))


@pytest.mark.asyncio
async def test_kinds_of_tables_are_kept_apart_and_a_dropped_one_is_empty_when_it_comes_back() -> None:
    async with Places() as places:
        store, storage = await places.store(), MemoryStorage()
        store.table("one").put(1, 1)
        store.nested("two").put(1, 1, 1)
        with pytest.raises(StateError, match="plain"):
            store.nested("one")
        with pytest.raises(StateError, match="nested"):
            store.table("two")
        await save(store, storage, 1)
        store.drop("one")
        store.drop("unknown")
        assert store.nested("one").count(1) == 0
        store.nested("one").put(1, 1, "new")
        again = await places.store()
        await again.restore([await save(store, storage, 2)], storage)
        assert list(again.nested("one").scan(1)) == [(1, "new")]
        assert list(again.nested("two").scan(1)) == [(1, 1)]


@pytest.mark.asyncio
@pytest.mark.rule("F39")
async def test_expired_entries_go() -> None:
    async with Places() as places:
        store, storage = await places.store(), MemoryStorage()
        table, nested = store.table("sums"), store.nested("rows")
        for key in range(300):
            table.put(key, key)
            nested.put(key % 3, key, key)
        await save(store, storage, 1)
        for name in (table, nested):
            name.drop_when(lambda value: value < 200)
        for checkpoint in range(2, 6):
            for key in range(1000, 1100):
                table.put(key, key)  # pushes the others out of memory
                nested.put(key, 1, key)
            await save(store, storage, checkpoint)
        again = await places.store()
        await again.restore([await save(store, storage, 9)], storage)
        assert sorted(key for key, _ in again.table("sums").items()) == [*range(200, 300), *range(1000, 1100)]
        assert sorted(value for key in range(3) for _, value in again.nested("rows").scan(key)) == list(range(200, 300))


@pytest.mark.asyncio
async def test_loading_entries_and_getting_many() -> None:
    async with Places() as places:
        store = await places.store()
        table = store.table("sums")
        table.load([(key, key) for key in range(1000)])
        table.load([(3, DELETED), (4, "four")])
        store.nested("rows").load([((1, "a"), 1), ((1, "b"), 2), ((1, "a"), DELETED)])
        assert table.get_many([3, 4, 5, 999, 5000], "none") == ["none", "four", 5, 999, "none"]
        assert len(table) == 999
        assert list(store.nested("rows").scan(1)) == [("b", 2)]
        assert len(store.nested("rows")) == 1


def test_files_that_are_linked_while_others_are_merged_are_the_whole_database(tmp_path: Path) -> None:
    chance = random.Random(4)
    settings = RocksSettings(writes=1 << 16)
    database = Database(str(tmp_path / "data"), "sums", settings)
    content: dict[bytes, bytes] = {}
    linked = 0
    for number in range(30):
        changes = [(chance.randrange(20_000).to_bytes(4, "big"), chance.randbytes(40)) for _ in range(1500)]
        content.update(changes)
        database.write(changes)
        folder = str(tmp_path / str(number))
        if database.link_checkpoint(folder):
            linked += 1
        else:
            assert not Path(folder).exists()
            database.checkpoint(folder)
        copy = Database(folder, "sums", settings)
        assert dict(copy.scan(b"", b"\xff" * 5)) == content
        copy.close()
    database.close()
    assert linked


@pytest.mark.asyncio
async def test_a_store_can_be_closed_while_it_is_saved() -> None:
    async with Places() as places:
        store, storage = await places.store(), MemoryStorage()
        for key in range(1000):
            store.table("sums").put(key, key)
        frozen = store.freeze(1)
        saving = asyncio.ensure_future(frozen.write(storage, "parts/1"))
        await asyncio.sleep(0)
        await store.close()
        with pytest.raises(StateError, match="closed"):
            await saving
        frozen.close()
        assert storage.files == {}


@pytest.mark.asyncio
async def test_memory_is_bounded_by_the_settings() -> None:
    async with Places() as places:
        store = await places.store(options={"cache": 400_000, "blocks": 1 << 20, "writes": 1 << 18})
        table = store.table("sums")
        for key in range(5000):
            table.put(key, "x" * 1000)
        held = len(table.young) + len(table.old)
        assert held * 1000 < 400_000
        assert len(table) == 5000
