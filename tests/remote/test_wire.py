"""What travels between workers, in both forms, and what does not."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sage_actor as sage
from sage_actor.errors import ConfigError, SerializationError
from sage_actor.remote.allowed import AllowList
from sage_actor.remote.wire import ALLOWED, PICKLE, PLAIN, Wire

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Nobody:
    """A table without refs."""

    def address_of(self, ref: Any) -> Any:
        raise AssertionError(ref)

    def ref_at(self, address: Any) -> Any:
        raise AssertionError(address)


class Ends:
    """Two processes in one: what one of them says arrives at the other."""

    def __init__(self) -> None:
        self.one = Wire(Nobody(), 1, lambda numbers, data: self.two.take_classes(numbers, data))
        self.two = Wire(Nobody(), 2, lambda numbers, data: self.one.take_classes(numbers, data))

    def send(self, value: object) -> Any:
        form, parts = self.one.encode(value, "it")
        return self.two.decode(form, [bytearray(part) for part in parts])


PLAIN_VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
VALUES = st.recursive(
    PLAIN_VALUES,
    lambda values: st.lists(values) | st.tuples(values, values) | st.dictionaries(PLAIN_VALUES, values) | st.frozensets(PLAIN_VALUES),
    max_leaves=8,
)


def same(one: object, other: object) -> bool:
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


@given(value=VALUES)
def test_every_plain_value_comes_back_as_it_was(value: object) -> None:
    assert same(Ends().send(value), value)
    allowed = AllowList(())
    assert same(allowed.decode(allowed.encode(value, "it")), value)


@given(arguments=st.lists(VALUES, max_size=4).map(tuple), options=st.none() | st.dictionaries(st.text(), VALUES, max_size=3))
def test_every_call_comes_back_as_it_was(arguments: tuple[object, ...], options: dict[str, object] | None) -> None:
    ends = Ends()
    form, parts = ends.one.encode_call(arguments, options, "it")
    assert same(ends.two.decode_call(form, [bytearray(part) for part in parts]), (arguments, options or {}))


def test_few_scalars_take_the_short_way() -> None:
    wire = Ends().one
    assert wire.encode_call((1, "a", None, b"x"), None, "it")[0] == PLAIN
    assert wire.encode_call(([1],), None, "it")[0] == PICKLE
    assert wire.encode(2**70, "it")[0] == PICKLE
    assert Wire(Nobody(), 1, lambda numbers, data: None, AllowList(())).encode([1], "it")[0] == ALLOWED


def test_arrays_are_not_copied_on_the_way_out_and_are_writable_on_the_other_side() -> None:
    array = np.arange(1000)
    ends = Ends()
    form, parts = ends.one.encode({"array": array}, "it")
    assert np.shares_memory(np.frombuffer(parts[1], dtype=array.dtype), array)
    received = ends.two.decode(form, [bytearray(part) for part in parts])["array"]
    received += 1
    assert received[0] == 1 + array[0]


class Echo(sage.Actor):
    """Gives back what it gets, and says what it was."""

    def echo(self, value: Any) -> Any:
        return value

    def twice(self, value: Any) -> Any:
        return type(value) is type(value.again()), value.again()

    def named_in_main(self, name: str) -> bool:
        return hasattr(sys.modules["__main__"], name)


@pytest.mark.asyncio
async def test_a_class_that_cannot_be_imported_is_one_class_on_each_side_and_comes_home() -> None:
    class Base:
        def name(self) -> str:
            return type(self).__name__

    class Thing(Base):
        def __init__(self, other: Any = None) -> None:
            self.other = other

        def again(self) -> Thing:
            return Thing(self)

    method = Thing.again
    made = types.new_class("MadeInMain", (), {}, lambda body: body.update({"__module__": "__main__"}))
    async with sage.ActorSystem("far", backend="process", workers=2) as system:
        one, two = [await system.spawn(Echo, worker=i) for i in range(2)]
        alike, thing = await one.ask(Echo.twice, Thing())
        assert alike
        assert type(thing) is type(thing.other) is Thing
        assert type(await two.ask(Echo.echo, thing)) is Thing
        assert await one.ask(Echo.echo, [Base, Thing]) == [Base, Thing]
        assert Thing.again is method
        assert not await two.ask(Echo.named_in_main, "MadeInMain")
        assert await one.ask(Echo.echo, made) is made
        assert await two.ask(Echo.named_in_main, "MadeInMain")


def test_what_cannot_be_pickled_is_named() -> None:
    wire = Ends().one
    with pytest.raises(SerializationError, match=r"a message: argument 2 \(generator\)"):
        wire.encode_call((1, (x for x in "ab")), None, "a message")
    with pytest.raises(SerializationError, match="argument 'by'"):
        wire.encode_call((), {"by": asyncio.Future.__new__(asyncio.Future)}, "a message")


# -- the allow-list --

MODULE = """
import dataclasses, enum, os
import msgspec
import sage_actor as sage

class Order(msgspec.Struct, frozen=True):
    id: int
    lines: tuple[str, ...] = ()

@dataclasses.dataclass
class Line:
    price: float
    order: Order

class Colour(enum.Enum):
    RED = 1

class Refused(Exception):
    pass

class Shop(sage.Actor):
    expected_errors = (Refused,)

    def __init__(self, name: str) -> None:
        self.name = name

    def echo(self, value: object) -> object:
        return value

    def kind(self, value: object) -> str:
        return type(value).__name__

    def refuse(self, why: str) -> None:
        raise Refused(why)

    def unlisted(self) -> object:
        return Unlisted()

    def other(self, ref: "sage.ActorRef[Shop]") -> object:
        return ref.ask(Shop.echo, self.name)

class Unlisted:
    ran = False

    def __reduce__(self):
        return os._exit, (3,)
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module that workers can import too."""
    (tmp_path / "shop_of_a_test.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    import importlib

    yield importlib.import_module("shop_of_a_test")
    del sys.modules["shop_of_a_test"]


@pytest.mark.asyncio
async def test_listed_classes_travel_and_nothing_else_does(shop: Any, backend: str) -> None:
    allow = [shop.Order, shop.Line, shop.Colour, shop.Refused, shop.Shop]
    async with sage.ActorSystem("strict", backend=backend, workers=2, serialization="msgspec", allow=allow) as system:
        one, two = [await system.spawn(shop.Shop, f"shop {i}", worker=i, restart=sage.FixedDelay(delay=0)) for i in range(2)]
        line = shop.Line(2.5, shop.Order(7, ("a", "b")))
        for value in (line, [line, {"by": line}], shop.Colour.RED, (1, {2}), {3: "three"}, 2**80, None, one):
            assert await one.ask(shop.Shop.echo, value) == value
        assert await one.ask(shop.Shop.kind, line) == "Line"
        echoed = await two.ask(shop.Shop.echo, np.arange(6.0).reshape(2, 3))
        assert echoed.tolist() == [[0, 1, 2], [3, 4, 5]]
        with pytest.raises(shop.Refused, match="sold out"):
            await one.ask(shop.Shop.refuse, "sold out")
        with pytest.raises(SerializationError, match=r"a Unlisted.*allow=\[Unlisted\]"):
            await one.ask(shop.Shop.echo, shop.Unlisted())
        with pytest.raises(SerializationError, match="a function"):
            await one.ask(shop.Shop.echo, lambda: 1)
        with pytest.raises(SerializationError, match="Unlisted"):
            await one.ask(shop.Shop.unlisted)
        with pytest.raises(SerializationError, match="the class Unlisted"):
            await system.spawn(shop.Unlisted, worker=0)
        assert await one.ask(shop.Shop.echo, 1) == 1


@pytest.mark.asyncio
async def test_a_class_that_a_worker_cannot_import_ends_the_start() -> None:
    module = types.ModuleType("here_alone")
    exec("class Order: pass", vars(module))
    sys.modules["here_alone"] = module
    try:
        with pytest.raises(sage.ActorError, match=r"worker 0 cannot host actors.*here_alone"):
            await sage.ActorSystem("strict", backend="process", workers=1, serialization="msgspec", allow=[module.Order]).__aenter__()
    finally:
        del sys.modules["here_alone"]


def test_a_pickle_is_refused_where_only_listed_classes_may_come() -> None:
    def exit_at_once() -> Any:
        return os._exit

    strict = Wire(Nobody(), 1, lambda numbers, data: None, AllowList(()))
    form, parts = Ends().one.encode([exit_at_once], "it")
    with pytest.raises(SerializationError, match="takes none"):
        strict.decode(form, parts)
    with pytest.raises(SerializationError, match="takes none"):
        strict.take_classes([1], parts[0])


def test_classes_that_workers_cannot_import_cannot_be_listed() -> None:
    @dataclasses.dataclass
    class Inner:
        x: int

    with pytest.raises(ConfigError, match=r"Inner.*cannot be imported"):
        AllowList((Inner,))


@given(data=st.binary(max_size=200))
def test_whatever_comes_is_a_value_or_refused(data: bytes) -> None:
    allowed = AllowList((collections.OrderedDict,))
    try:
        allowed.decode([data])
    except SerializationError:
        pass
