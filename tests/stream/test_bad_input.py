"""What cannot work is refused where it is written, in words that name the place and the next step."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import sage_actor as sage


def environment() -> sage.Environment:
    return sage.Environment("bad")


def numbers(text: str = "x") -> sage.DataStream[int]:
    return environment().from_collection([1, 2])


# -- settings -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"bufer": {"records": 5}}, r"'bufer\.records'.*did you mean 'buffer\.records'"),
        ({"paralelism": 2}, "did you mean 'parallelism'"),
        ({"zzz": 1}, "'zzz'.*is not a setting"),
        ({"parallelism": 0}, "'parallelism'.*at least 1"),
        ({"parallelism": -3}, "at least 1"),
        ({"parallelism": "2"}, "whole number, not '2'"),
        ({"parallelism": True}, "whole number"),
        ({"parallelism": 2.0}, "whole number"),
        ({"buffer.records": 0}, r"'buffer\.records'.*at least 1"),
        ({"buffer": {"records": 0}}, r"'buffer\.records'.*at least 1"),
        ({"batch.records": 0}, r"'batch\.records'.*at least 1"),
        ({"workers": 0}, "'workers'"),
        ({"max_parallelism": 0}, "'max_parallelism'"),
        ({"object.reuse": "yes"}, "true or false"),
        ({"object.reuse": 1}, "true or false"),
        ({"backend": 5}, "'backend'.*text"),
        ({"backend": ""}, "'backend'.*text"),
        ({"stop_timeout": "soon"}, "soon"),
        ({"stop_timeout": -1}, "-1"),
        ({"stop_timeout": True}, "True"),
        ({"buffer.bytes": "many"}, "many"),
        ({"buffer.timeout": None}, "None"),
        ({"parallelism": 2, "execution.parallelism": 3}, "contradicts"),
        ({"parallelism": 2, "execution": {"parallelism": 3}}, "contradicts"),
        ({"checkpointing": True}, "must be one of exactly_once, at_least_once"),
        ({"checkpoint.interval": "often"}, "often"),
        ({"checkpoint.retained": 0}, "at least 1"),
        ({"restart": {"strategy": "sometimes"}}, "must be one of exponential-delay"),
        ({"state": {"backend": "disk"}}, "must be one of memory, rocksdb"),
        ({"incremental": False}, "always incremental"),
        ({"checkpoint.interval": "1s", "state.checkpoint.interval": "2s"}, "contradicts"),
    ],
)
def test_settings(config: dict[str, Any], text: str) -> None:
    with pytest.raises(sage.ConfigError, match=text) as caught:
        sage.Environment("bad", config=config)
    assert "setting" in str(caught.value)


@pytest.mark.parametrize("config", [5, "text", [("a", 1)], {1: 2}])
def test_a_configuration_that_is_none(config: Any) -> None:
    with pytest.raises(sage.ConfigError):
        sage.Environment("bad", config=config)


@pytest.mark.parametrize(
    "options",
    [
        {"backend": "process", "config": {"backend": "local"}},
        {"parallelism": 2, "config": {"parallelism": 3}},
        {"parallelism": 2, "config": {"execution.parallelism": 3}},
    ],
)
def test_keywords_and_configuration_must_agree(options: dict[str, Any]) -> None:
    with pytest.raises(sage.ConfigError, match="contradicts"):
        sage.Environment("bad", **options)


def test_settings_in_all_spellings() -> None:
    env = sage.Environment(
        "good", parallelism=2, config={"execution": {"parallelism": 2, "buffer": {"timeout": 50}}, "buffer.bytes": "1MB"}
    )
    assert env.settings.parallelism == 2
    assert env.settings.buffer_timeout == 0.05
    assert env.settings.buffer_bytes == 1 << 20
    assert sage.Environment("good", config={"buffer.timeout": "2s", "stop_timeout": 3}).settings.buffer_timeout == 2
    assert sage.Environment("good").set_parallelism(4).settings.parallelism == 4
    assert sage.Environment().name == "dataflow"


@pytest.mark.parametrize("name", ["", "  ", 5, b"x"])
def test_names_of_environments(name: Any) -> None:
    with pytest.raises(sage.GraphError, match="name"):
        sage.Environment(name)


@pytest.mark.parametrize("value", [0, -1, 1.0, "2", True, None])
def test_parallelism_everywhere(value: Any) -> None:
    places: list[Any] = [
        lambda: environment().set_parallelism(value),
        lambda: numbers().map(str).set_parallelism(value),
        lambda: numbers().partition(value),
        lambda: numbers().sink(str).set_parallelism(value),
    ]
    if value is not None:
        places += [
            lambda: sage.Environment("bad", parallelism=value),
            lambda: numbers().map(str, parallelism=value),
            lambda: numbers().key_by(str).count(parallelism=value),
            lambda: numbers().sink(str, parallelism=value),
            lambda: environment().from_source(Given, parallelism=value),
        ]
    for place in places:
        with pytest.raises(sage.GraphError, match="parallelism must be a whole number of at least 1"):
            place()


class Given(sage.Source[int]):
    async def read(self, limit: int) -> list[int] | None:
        return None


# -- sources ------------------------------------------------------------------------------------------------------------


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("describe", "text"),
    [
        (lambda e: e.from_collection(5), "collection"),
        (lambda e: e.from_collection(None), "collection"),
        (lambda e: e.from_collection(async_generator()), "from_source"),
        (lambda e: e.from_collection(generator), r"generator\(\)"),
        (lambda e: e.from_source(5), "neither a Source nor"),
        (lambda e: e.from_source(generator), r"from_source\(generator\(\)\)"),
        (lambda e: e.from_source(async_generator), r"from_source\(async_generator\(\)\)"),
        (lambda e: e.from_source(list), "'list' is not a Source"),
        (lambda e: e.from_source(Given(), {"a": 1}), "configuration goes with a class"),
        (lambda e: e.from_source([1], wrong=1), "configuration goes with a class"),
        (lambda e: e.from_source([1], parallelism=2), "one task"),
        (lambda e: e.from_source(Given(), parallelism=2), "one task"),
        (lambda e: e.from_requests(capacity=0), "capacity must be at least 1"),
        (lambda e: e.from_requests(capacity="9"), "capacity"),
    ],
)
def test_sources(describe: Any, text: str) -> None:
    with pytest.raises(sage.GraphError, match=text):
        describe(environment())


@pytest.mark.asyncio
async def test_a_source_class_that_takes_no_such_keyword_is_named() -> None:
    async with sage.Environment("bad") as env:
        env.from_source(Given, wrong=1).collect()
        with pytest.raises(sage.SageError, match=r"(?s)operator 'Given'.*argument"):
            await env.execute()


# -- steps --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("describe", "text"),
    [
        (lambda s: s.map(str, wrong=1), "unknown option wrong"),
        (lambda s: s.map(str, {"a": 1}), "a configuration for 'str'"),
        (lambda s: s.map(abs, {"a": 1}), "configuration goes with a class"),
        (lambda s: s.map(str, on_error="ignore"), r"'str'.*'fail', 'skip', 'dead_letter'"),
        (lambda s: s.map(str, on_error=5), "on_error"),
        (lambda s: s.map(str).on_error("explode"), "'str'.*'explode'"),
        (lambda s: s.map(str, on_error=sage.Retry(attempts=0)), "attempts must be at least 1"),
        (lambda s: s.map(str, on_error=sage.Retry(then="ignore")), "then must be"),
        (lambda s: s.map(str, name=""), "non-empty"),
        (lambda s: s.map(str, name="a").map(str, name="a"), "two operators are named 'a'"),
        (lambda s: s.map(str).name("collection"), "two operators are named 'collection'"),
        (lambda s: s.map(str).uid("u").map(str).uid("u"), "same uid 'u'"),
        (lambda s: s.map(str).dead_letters(), "on_error='dead_letter'"),
        (lambda s: s.union(s).name("x"), "union has no last operator"),
        (lambda s: s.union([1]), "union takes streams"),
        (lambda s: s.union(5), "union takes streams"),
        (lambda s: s.key_by("name"), r"key_by\(lambda r: r\['name'\]\)"),
        (lambda s: s.key_by(None), "key_by"),
        (lambda s: s.key_by(str).reduce(None), "reduce needs a function"),
        (lambda s: s.key_by(str).fold(0, None), "fold needs a function"),
        (lambda s: s.key_by(str).aggregate(str), "AggregateFunction"),
        (lambda s: s.key_by(str).count(emit="sometimes"), "'update' or 'final'"),
        (lambda s: s.map_batch(list, max_batch=0), "max_batch"),
        (lambda s: s.map_batch(list, max_batch="8"), "max_batch"),
        (lambda s: s.iterate(abs, until=bool, max_rounds=0), "max_rounds"),
        (lambda s: s.iterate(abs, until=bool, limit=0), "limit"),
        (lambda s: s.iterate(abs, until=5), "until"),
        (lambda s: s.partition_custom(5, str), "partition_custom"),
        (lambda s: s.sink(Write(), {"a": 1}), "configuration goes with a class"),
        (lambda s: s.print().set_parallelism(2), "exactly one task"),
    ],
)
def test_steps(describe: Any, text: str) -> None:
    with pytest.raises(sage.GraphError, match=text):
        describe(numbers())


@pytest.mark.parametrize("timeout", ["soon", -1, True, "5 parsecs"])
def test_timeouts_that_are_none(timeout: Any) -> None:
    with pytest.raises((sage.ConfigError, sage.GraphError), match=re.escape(str(timeout))):
        numbers().map_async(abs, timeout=timeout)


class Write(sage.Sink[int]):
    async def write(self, batch: Any) -> None:
        pass


@pytest.mark.asyncio
async def test_more_tasks_than_key_groups_is_refused_at_the_start() -> None:
    async with sage.Environment("groups", parallelism=4, config={"max_parallelism": 3}) as env:
        env.from_collection([1]).key_by(str).count(name="tally").collect()
        with pytest.raises(sage.GraphError, match=r"'tally'.*max_parallelism 3"):
            await env.submit()
        env.set_parallelism(3)
        await env.execute()


# -- annotations --------------------------------------------------------------------------------------------------------


def to_text(value: int) -> str:
    return str(value)


def from_text(value: str) -> int:
    return len(value)


def from_number(value: float) -> float:
    return value


def to_list(value: int) -> list[str]:
    return [str(value)]


def of_lists(values: list[str]) -> list[int]:
    return [len(v) for v in values]


def of_wrong_lists(values: list[int]) -> list[int]:
    return values


def optional(value: str | None) -> int | None:
    return None


def anything(value: object) -> Any:
    return value


def write_text(value: str) -> None:
    pass


class TextMap(sage.MapFunction[str, int]):
    def map(self, value: str, /) -> int:
        return len(value)


async def async_text(value: str) -> int:
    return len(value)


@pytest.mark.parametrize(
    "describe",
    [
        lambda s: s.map(to_text).map(to_text, name="second"),
        lambda s: s.map(to_text).map(from_text).map(from_text, name="second"),
        lambda s: s.map(to_text).filter(to_text, name="second"),
        lambda s: s.flat_map(to_list).map(to_text, name="second"),
        lambda s: s.map(from_number).map(TextMap, name="second"),
        lambda s: s.map(from_number).map(TextMap(), name="second"),
        lambda s: s.map(from_number).map(async_text, name="second"),
        lambda s: s.map(from_number).sink(write_text, name="second"),
        lambda s: s.map(from_number).filter(bool).map(from_text, name="second"),
        lambda s: s.map(from_number).rebalance().map(from_text, name="second"),
        lambda s: s.map(to_text).map_batch(of_wrong_lists, name="second"),
        lambda s: s.map(to_text).map_batch(of_lists, name="first").map(from_text, name="second"),
    ],
)
def test_annotations_that_cannot_fit_are_refused_naming_both(describe: Any) -> None:
    with pytest.raises(sage.GraphError, match="takes") as caught:
        describe(numbers())
    assert "'second'" in str(caught.value)
    assert str(caught.value).count("operator '") == 2


@pytest.mark.parametrize(
    "describe",
    [
        lambda s: s.map(to_text).map(from_text).map(from_number).map(anything).map(from_text),
        lambda s: s.map(to_text).map(optional).map(from_number),
        lambda s: s.map(to_text).map_batch(of_lists).map(to_text).map_batch(sorted),
        lambda s: s.flat_map(to_list).map(from_text),
        lambda s: s.map(lambda x: x).map(from_text),
        lambda s: s.map(to_text).map(str.upper).map(int),
        lambda s: s.map(to_text).key_by(len).count().map(anything),
    ],
)
def test_annotations_that_may_fit_are_accepted(describe: Any) -> None:
    describe(numbers())
