"""What the state of an operator must hold to, whatever backend keeps it.

    @pytest.mark.asyncio
    @pytest.mark.parametrize("rule", STATE_RULES, ids=rule_name)
    async def test_my_backend(rule, tmp_path):
        await rule(StateCase(backend="rocksdb", folder=tmp_path))

A rule raises `AssertionError` that says what was expected and what came.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from sage_actor.errors import SageError, StateError, StateMismatch, UnstableKey
from sage_actor.ports import Clock
from sage_actor.state.operator_state import OperatorState
from sage_actor.state.parts import OperatorPart, PartStorage
from sage_actor.state.stamped import Stamping
from sage_actor.testing.manual_clock import ManualClock
from sage_actor.testing.memory_parts import MemoryParts

__all__ = ["STATE_RULES", "StateCase", "StateRule", "rule_name"]

_ODD_KEYS: Final = ("", "a", b"a", 0, -1, 2**80, 1.5, (1, "a"), ((), ("b", 2.5)), "\N{SNOWMAN}", "x" * 500, Decimal("1.25"))


@dataclass(slots=True)
class StateCase:
    """A backend under test.

    Attributes:
        backend: as the setting ``state.backend`` names it.
        folder: local scratch space; emptied as the rules like.
        options: settings of the backend.
    """

    backend: str
    folder: Path
    options: dict[str, object] = field(default_factory=dict[str, object])
    _numbers: Any = field(default_factory=itertools.count)

    async def open(
        self,
        parts: Sequence[OperatorPart] = (),
        storage: PartStorage | None = None,
        index: int = 0,
        parallelism: int = 1,
        *,
        groups: int = 16,
        clock: Clock | None = None,
    ) -> OperatorState:
        """A state under test, in a folder of its own."""
        return await OperatorState.restore(
            parts,
            storage,
            uid="op",
            index=index,
            parallelism=parallelism,
            groups=groups,
            backend=self.backend,
            folder=os.fspath(self.folder / f"state {next(self._numbers)}"),
            clock=clock,
            options=self.options,
        )

    async def save(self, state: OperatorState, storage: PartStorage, checkpoint: int) -> OperatorPart:
        """Freeze and write."""
        return await state.write(state.freeze(checkpoint), storage, self.prefix())

    def prefix(self) -> str:
        """A prefix that was never used."""
        return f"parts/{next(self._numbers)}"


StateRule = Callable[[StateCase], Awaitable[None]]


def rule_name(rule: Callable[..., object]) -> str:
    """For the ids of parametrised tests."""
    return rule.__name__


def _holds(condition: object, what: str) -> None:
    if not condition:
        raise AssertionError(what)


def _same(found: object, expected: object, what: str) -> None:
    if found != expected:
        raise AssertionError(f"{what}: {repr(found)[:500]} instead of {repr(expected)[:500]}")


async def _reopened(case: StateCase, parts: Sequence[OperatorPart], storage: MemoryParts, parallelism: int = 1) -> list[OperatorState]:
    return [await case.open(parts, storage, index, parallelism) for index in range(parallelism)]


async def _closed(*states: OperatorState) -> None:
    for state in states:
        await state.close()


def _nested(state: OperatorState, name: str) -> dict[Any, list[tuple[Any, Any]]]:
    table = state.nested(name)
    return {key: list(table.scan(key)) for key in table.keys()}  # noqa: SIM118 - a table is no dict


async def few_entries(case: StateCase) -> None:
    """0, 1 and 2 entries come back, from a base, and from changes that add or remove the last ones."""
    for first, second in itertools.product(range(3), range(3)):
        storage = MemoryParts()
        state = await case.open()
        table, nested = state.table("t"), state.nested("n")
        for size in (first, second):
            for key in range(3):
                if key < size:
                    table.put(key, f"{size} {key}")
                    nested.put("k", key, f"{size} {key}")
                else:
                    table.delete(key)
                    nested.delete("k", key)
            part = await case.save(state, storage, 1)
            (again,) = await _reopened(case, [part], storage)
            expected = {key: f"{size} {key}" for key in range(size)}
            _same(dict(again.table("t").items()), expected, f"{first} entries, then {second}")
            _same(dict(again.nested("n").scan("k")), expected, f"{first} nested entries, then {second}")
            _same((len(again.table("t")), len(again.nested("n"))), (size, size), "number of entries")
            await again.close()
        await state.close()


async def keys_of_all_kinds(case: StateCase) -> None:
    """Every stable key finds its value again; equal keys of different types share an entry; others are refused."""
    storage = MemoryParts()
    state = await case.open()
    table, nested = state.table("t"), state.nested("n")
    for number, key in enumerate(_ODD_KEYS):
        table.put(key, number)
        nested.put(key, "sub", number)
    table.put(7, "int")
    table.put(7.0, "float")
    table.put(True, "true")
    for bad in (None, [1], object()):
        try:
            table.put(bad, 1)
        except (UnstableKey, TypeError):
            continue
        raise AssertionError(f"the key {bad!r} was accepted")
    (again,) = await _reopened(case, [await case.save(state, storage, 1)], storage)
    for one in (state, again):
        found = one.table("t")
        _same([found.get(key) for key in _ODD_KEYS], list(range(len(_ODD_KEYS))), "values of odd keys")
        _same([one.nested("n").get(key, "sub") for key in _ODD_KEYS], list(range(len(_ODD_KEYS))), "nested values of odd keys")
        _same((found.get(Decimal(7)), found.get(1), found.get(1.0)), ("float", "true", "true"), "equal keys")
        _same(len(found), len(_ODD_KEYS) + 2, "number of entries")
        _holds("nothing" not in found and found.get("nothing", 5) == 5, "an unknown key has an entry")
    await _closed(state, again)


async def keeps_the_order_of_sub_keys(case: StateCase) -> None:
    """Sub-keys come in the order in which they were added, also while a snapshot is written, and after any restore."""
    storage = MemoryParts()
    state = await case.open()
    table = state.nested("n")
    model: dict[int, int] = {}
    chance = random.Random(5)
    for checkpoint in range(1, 8):
        for busy in (False, True):
            frozen = state.freeze(checkpoint) if busy else None
            expected = list(model.items())
            for _ in range(12):
                sub = chance.randrange(8)
                if chance.random() < 0.4:
                    model.pop(sub, None)
                    table.delete("k", sub)
                else:
                    model[sub] = chance.randrange(99)
                    table.put("k", sub, model[sub])
                _same(list(table.scan("k")), list(model.items()), "order of sub-keys")
                _same(table.count("k"), len(model), "count of sub-keys")
            if frozen is not None:
                part = await state.write(frozen, storage, case.prefix())
                (again,) = await _reopened(case, [part], storage)
                _same(list(again.nested("n").scan("k")), expected, "order of sub-keys when restored")
                await again.close()
    await state.close()


async def shows_the_moment_of_the_barrier(case: StateCase) -> None:
    """What changes after `freeze`, in place too, is not in that snapshot, and is in the next."""
    storage = MemoryParts()
    state = await case.open()
    table, nested, items = state.table("t"), state.nested("n"), state.list("l")
    for key in range(2500):
        table.put(key, [key])
        nested.put(key % 7, key, [key])
    items.items = [[1]]
    for checkpoint in (1, 2, 3):
        mark = -checkpoint
        frozen = state.freeze(checkpoint)
        before = {key: [key, *range(-1, mark, -1)] for key in range(2500)}
        writing = asyncio.ensure_future(state.write(frozen, storage, case.prefix()))
        items.items[0].append(mark)
        for key in range(2500):
            value = table.get(key)
            value.append(mark)
            table.put(key, value)
            deeper = nested.get(key % 7, key)
            deeper.append(mark)
            nested.put(key % 7, key, deeper)
            if key % 500 == 0:
                await asyncio.sleep(0)
        (again,) = await _reopened(case, [await writing], storage)
        _same(dict(again.table("t").items()), before, f"checkpoint {checkpoint}")
        for key in range(7):
            _same(dict(again.nested("n").scan(key)), {k: v for k, v in before.items() if k % 7 == key}, f"nested, checkpoint {checkpoint}")
        _same(again.list("l").items, [[1, *range(-1, mark, -1)]], f"list, checkpoint {checkpoint}")
        await again.close()
    await state.close()


async def every_checkpoint_can_be_restored(case: StateCase) -> None:
    """Forty checkpoints of random changes: each part gives what was there, also long after; a restored state goes on."""
    storage = MemoryParts()
    chance = random.Random(3)
    state = await case.open()
    model: dict[int, int] = {}
    saved: list[tuple[OperatorPart, dict[int, int]]] = []
    for checkpoint in range(1, 41):
        table = state.table("t")
        for _ in range(chance.randrange(30)):
            key = chance.randrange(60)
            if chance.random() < 0.3:
                table.delete(key)
                model.pop(key, None)
            else:
                table.put(key, checkpoint)
                model[key] = checkpoint
        saved.append((await case.save(state, storage, checkpoint), dict(model)))
        if checkpoint % 13 == 0:
            await state.close()
            (state,) = await _reopened(case, [saved[-1][0]], storage)
            _same(dict(state.table("t").items()), model, f"going on from checkpoint {checkpoint}")
    for number, (part, expected) in enumerate(saved, 1):
        (again,) = await _reopened(case, [part], storage)
        _same(dict(again.table("t").items()), expected, f"checkpoint {number}")
        await again.close()
    await state.close()


async def rescales(case: StateCase) -> None:
    """Restored at any parallelism every key is in exactly the task that owns its group, every item of a list in one task."""
    from sage_actor._core.stable_hash import key_group

    storage = MemoryParts()
    states = await _reopened(case, (), storage, 2)
    keys = [f"key {n}" for n in range(300)]
    for state in states:
        for key in keys:
            if state.first <= key_group(key, 16) <= state.last:
                state.table("t").put(key, key.upper())
                for sub in range(3):
                    state.nested("n").put(key, sub, [key, sub])
        state.list("l").items = [(state.index, n) for n in range(5)]
        state.list("u", mode="union").items = [state.index]
    before = 2
    for parallelism in (3, 1, 4, 4, 16, 2):
        parts = [await case.save(state, storage, 1) for state in states]
        await _closed(*states)
        states = await _reopened(case, parts, storage, parallelism)
        for state in states:
            own = sorted(key for key in keys if state.first <= key_group(key, 16) <= state.last)
            _same(sorted(state.table("t").items()), [(key, key.upper()) for key in own], f"keys of task {state.index} of {parallelism}")
            _same(
                _nested(state, "n"), {key: [(sub, [key, sub]) for sub in range(3)] for key in own}, f"nested, {state.index}/{parallelism}"
            )
            _same(sorted(state.list("u", mode="union").items), list(range(before)), "union list")
            state.list("u", mode="union").items = [state.index]
        dealt = [item for state in states for item in state.list("l").items]
        _same(dealt, [(index, n) for index in range(2) for n in range(5)], f"split list at parallelism {parallelism}")
        before = parallelism
    await _closed(*states)


async def a_lost_write_loses_nothing(case: StateCase) -> None:
    """After a write that failed, was cancelled or never began, the next checkpoint holds everything."""
    storage = MemoryParts()
    state = await case.open()
    table, model = state.table("t"), dict[int, int]()

    def change(mark: int) -> None:
        for key in range(mark, mark + 300):
            table.put(key, mark)
            model[key] = mark
        table.delete(mark)
        del model[mark]

    change(0)
    await case.save(state, storage, 1)
    for turn in range(1, 9):
        change(turn * 10)
        frozen = state.freeze(turn * 2)
        change(turn * 10 + 5)
        if turn % 3 == 0:
            storage.full = True
            try:
                await state.write(frozen, storage, case.prefix())
            except SageError:
                storage.full = False
            _holds(not storage.full, "a write into a full storage succeeded")
        elif turn % 3 == 1:
            writing = asyncio.ensure_future(state.write(frozen, storage, case.prefix()))
            for _ in range(turn % 2):
                await asyncio.sleep(0)
            writing.cancel()
            next_frozen = state.freeze(turn * 2 + 1)
            expected = dict(model)
            change(turn * 10 + 7)
            await asyncio.wait((writing,))
            (again,) = await _reopened(case, [await state.write(next_frozen, storage, case.prefix())], storage)
            _same(dict(again.table("t").items()), expected, f"after a cancelled write, turn {turn}")
            await again.close()
        part = await case.save(state, storage, turn * 2 + 1)
        (again,) = await _reopened(case, [part], storage)
        _same(dict(again.table("t").items()), model, f"after a lost write, turn {turn}")
        await again.close()
        if turn % 3 == 2:
            try:
                await state.write(frozen, storage, case.prefix())
            except StateError:
                continue
            raise AssertionError("what had been frozen before another freeze was written")
    await state.close()


async def refuses_what_does_not_fit(case: StateCase) -> None:
    """Another kind under the same name, another number of key groups, state nobody asks for: refused, each by its name."""
    storage = MemoryParts()
    state = await case.open()
    state.table("t").put(1, 1)
    state.nested("n").put(1, 1, 1)
    state.list("l").items = [1]
    state.list("o", mode="own").items = [1]
    handles = state.access()
    handles.key = "k"
    handles.value("v").set(1)
    part = await case.save(state, storage, 1)
    await state.close()

    def expect(what: str, call: Callable[[], object], name: str) -> None:
        try:
            call()
        except StateMismatch as error:
            _holds(name in str(error), f"{what}: the error does not say {name!r}: {error}")
            return
        raise AssertionError(f"{what} was accepted")

    again = await case.open([part], storage)
    expect("a table as nested", lambda: again.nested("t"), "'t'")
    expect("nested as a table", lambda: again.table("n"), "'n'")
    expect("a split list as union", lambda: again.list("l", mode="union"), "'l'")
    expect("a value as a map", lambda: again.access().map("v"), "'v'")
    expect("unclaimed state", again.check_claimed, "'v'")
    _same(again.table("t").get(1), 1, "after refusals")
    part = await case.save(again, storage, 2)
    await again.close()
    later = await case.open([part], storage)
    handles = later.access()
    handles.key = "k"
    _same(handles.value("v").get(), 1, "what nobody asked for in between")
    later.check_claimed(allow_unmatched=True)
    part = await case.save(later, storage, 3)
    await later.close()
    last = await case.open([part], storage)
    _same(dict(last.table("t").items()), {}, "a dropped table")
    await last.close()
    wider = await case.open([part], storage, 1, 2)
    await wider.close()
    try:
        await case.open([part], storage, groups=32)
    except StateMismatch:
        pass
    else:
        raise AssertionError("another number of key groups was accepted")


def _larger(first: int, second: int) -> int:
    return max(first, second)


async def handles_keep_their_state(case: StateCase) -> None:
    """Value, list, map, reducing and aggregating state are per key, and come back."""
    storage, nothing = MemoryParts(), dict[Any, Any]()
    state = await case.open()
    for turn in range(1, 4):
        access = state.access()
        value, items, entries = access.value("value", default=0), access.list("list"), access.map("map")
        largest = access.reducing("largest", _larger)
        for key in ("a", "b"):
            access.key = key
            for number in range(3):
                value.set(value.get() + 1)
                items.append(number)
                entries[number] = (key, turn)
                largest.add(turn * number)
            items.extend([])
            items.extend([9])
            entries.pop(1)
            _same((value.get(), list(items)), (turn * 3, [0, 1, 2, 9] * turn), f"key {key}, turn {turn}")
            _same((dict(entries), len(entries), largest.get()), ({0: (key, turn), 2: (key, turn)}, 2, turn * 2), f"key {key}, turn {turn}")
        access.key = "c"
        _same((value.get(), len(items), dict(entries), largest.get()), (0, 0, nothing, None), "a key that was never set")
        part = await case.save(state, storage, turn)
        access.key = "a"
        for handle in (value, items, entries, largest):
            handle.clear()
        _same((value.get(), len(items), len(entries), largest.get()), (0, 0, 0, None), "a cleared key")
        access.key = "b"
        _same(value.get(), turn * 3, "the other key")
        await state.close()
        (state,) = await _reopened(case, [part], storage)
    await state.close()


async def expired_values_are_never_seen(case: StateCase) -> None:
    """A value past its time is not returned, counted or saved in the end; a write begins its time anew; a restore does not (F39)."""
    clock, storage, nothing = ManualClock(), MemoryParts(), dict[Any, Any]()
    state = await case.open(clock=clock)
    access = state.access()
    value, entries = access.value("value", ttl="10s"), access.map("map", ttl=10)
    for key in range(50):
        access.key = key
        value.set(key)
        entries["old"] = key
    await clock.advance(6)
    access.key = 1
    value.set("renewed")
    entries["new"] = 1
    part = await case.save(state, storage, 1)
    await clock.advance(4)
    (again,) = [await case.open([part], storage, clock=clock)]
    for one in (state, again):
        handles = one.access() if one is again else access
        value, entries = handles.value("value", ttl="10s"), handles.map("map", ttl=10)
        handles.key = 0
        _same((value.get(), dict(entries), len(entries), "old" in entries), (None, nothing, 0, False), "past its time")
        handles.key = 1
        _same((value.get(), dict(entries), len(entries)), ("renewed", {"new": 1}, 1), "renewed in time")
    await clock.advance(6)
    for one in (state, again):
        handles = one.access() if one is again else access
        value = handles.value("value", ttl="10s")
        for key in range(100, 300):
            handles.key = key
            value.set(key)
        part = await case.save(one, storage, 2)
        later = await case.open([part], storage, clock=clock)
        later.access().value("value", ttl="10s")
        for checkpoint in (3, 4):
            part = await case.save(later, storage, checkpoint)
        await later.close()
        late = await case.open([part], storage)
        saved = late.declare("value", "value state", Stamping("op", "value", clock, None, 1, None))
        _holds(len(saved) <= 200, f"{len(saved) - 200} expired values are saved still")
        await late.close()
    await _closed(state, again)


STATE_RULES: Final[Sequence[StateRule]] = (
    few_entries,
    keys_of_all_kinds,
    keeps_the_order_of_sub_keys,
    shows_the_moment_of_the_barrier,
    every_checkpoint_can_be_restored,
    rescales,
    a_lost_write_loses_nothing,
    refuses_what_does_not_fit,
    handles_keep_their_state,
    expired_values_are_never_seen,
)
