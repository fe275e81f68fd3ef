"""What steps ask for: read, added up, held against what workers have, and put into words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sage_actor as sage
from sage_actor.actor.backend import WorkerResources
from sage_actor.dataflow.resources import describe_resources, parse_resources, sum_of_resources, within
from sage_actor.dataflow.settings import JobSettings


def test_a_mapping_is_read() -> None:
    asked = parse_resources({"num_cpus": 0.5, "num_gpus": 1, "memory": "2gb", "tpu": 4}, "operator 'map'")
    assert asked == WorkerResources(0.5, 1, 2 << 30, {"tpu": 4})
    assert parse_resources(None, "operator 'map'") is None
    assert parse_resources(WorkerResources(num_cpus=1), "operator 'map'") == WorkerResources(num_cpus=1)
    assert describe_resources(asked) == "num_cpus 0.5, num_gpus 1, memory 2 GB, tpu 4"


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ({"num_cpu": 1}, "did you mean 'num_cpus'"),
        ({"GPUs": 1}, "did you mean 'num_gpus'"),
        ({"mem": "1gb"}, "did you mean 'memory'"),
        ({"num_cpus": -1}, "at least 0"),
        ({"num_cpus": "two"}, "a number"),
        ({"num_gpus": True}, "a number"),
        ({"memory": "much"}, "not a size"),
        ({"memory": 0}, "room for nothing"),
        ({1: 1}, "a text"),
        (WorkerResources(num_cpus=-1), "at least 0"),
        (WorkerResources(memory=0), "room for nothing"),
        (WorkerResources(custom={"gpu": 1}), "did you mean 'num_gpus'"),
        ("2gb", "a mapping"),
    ],
)
def test_what_is_no_resource_is_refused_by_name(given_: Any, words: str) -> None:
    with pytest.raises(sage.GraphError, match=f"operator 'map'.*{words}"):
        parse_resources(given_, "operator 'map'")


amounts = st.none() | st.sampled_from([0.25, 0.5, 1.0, 2.0])
resources = st.builds(
    WorkerResources,
    num_cpus=amounts,
    num_gpus=amounts,
    memory=st.none() | st.integers(1, 1 << 40),
    custom=st.dictionaries(st.sampled_from(["tpu", "disk"]), st.sampled_from([0.5, 1.0]), max_size=2),
)


def as_numbers(asked: WorkerResources | None) -> dict[str, float]:
    if asked is None:
        return {}
    named = {"num_cpus": asked.num_cpus, "num_gpus": asked.num_gpus, "memory": asked.memory, **asked.custom}
    return {name: amount for name, amount in named.items() if amount is not None}


@settings(deadline=None)
@given(st.lists(st.none() | resources, max_size=6))
def test_a_sum_is_that_of_each_resource(parts: list[WorkerResources | None]) -> None:
    total: dict[str, float] = {}
    for part in parts:
        for name, amount in as_numbers(part).items():
            total[name] = total.get(name, 0) + amount
    assert as_numbers(sum_of_resources(parts)) == total


@settings(deadline=None)
@given(st.none() | resources, st.none() | resources)
def test_a_worker_has_what_it_is_given_and_what_is_asked_for_beside_it(
    asked: WorkerResources | None, there: WorkerResources | None
) -> None:
    wanted, has = as_numbers(asked), as_numbers(there)
    too_much = [name for name in wanted if name in has and wanted[name] > has[name]]
    if too_much:
        with pytest.raises(ValueError, match="|".join(too_much)):
            within(asked, there)
    else:
        assert as_numbers(within(asked, there)) == {**wanted, **has}


def test_fractions_add_up_to_what_people_mean() -> None:
    three = sum_of_resources([WorkerResources(num_cpus=0.1, custom={"tpu": 0.1})] * 3)
    assert three == WorkerResources(num_cpus=0.3, custom={"tpu": 0.3})
    assert within(three, WorkerResources(num_cpus=0.3)).num_cpus == 0.3


def test_the_keys_of_the_task_manager_are_read() -> None:
    for prefix in ("", "resources."):
        settings = JobSettings().merged({f"{prefix}taskmanager.memory.process.size": "4gb", f"{prefix}taskmanager.cpu.cores": "4"})
        assert settings.worker_resources == WorkerResources(num_cpus=4.0, memory=4 << 30)
    assert JobSettings().worker_resources is None
    with pytest.raises(sage.ConfigError, match="contradicts"):
        JobSettings().merged({"taskmanager.cpu.cores": 2, "resources": {"taskmanager.cpu.cores": 3}})


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"taskmanager.cpu.cores": "many"}, "number of cores"),
        ({"taskmanager.cpu.cores": 0}, "number of cores"),
        ({"taskmanager.memory.process.size": "0"}, "more than nothing"),
        ({"taskmanager.memory.process.size": "lots"}, "not a size"),
        ({"taskmanager.cpu.core": 1}, "did you mean 'taskmanager.cpu.cores'"),
    ],
)
def test_wrong_limits_are_refused(config: dict[str, Any], words: str) -> None:
    with pytest.raises(sage.ConfigError, match=words):
        JobSettings().merged(config)


def test_places_are_read_nested_and_dotted() -> None:
    nested = JobSettings().merged(
        {"places": {"edge": "local", "heavy": {"backend": "process", "workers": 2, "resources": {"num_cpus": 1, "memory": "1gb"}}}}
    )
    dotted = JobSettings().merged(
        {
            "places.edge": "local",
            "places.heavy.backend": "process",
            "places.heavy.workers": 2,
            "places.heavy.resources.num_cpus": 1,
            "places.heavy.resources.memory": "1gb",
        }
    )
    assert nested.places == dotted.places
    heavy = nested.places["heavy"]
    assert (heavy.backend, heavy.workers, heavy.resources) == ("process", 2, WorkerResources(num_cpus=1, memory=1 << 30))
    assert set(nested.merged({"places": {"third": "process"}}).places) == {"edge", "heavy", "third"}


@pytest.mark.parametrize(
    ("places", "words"),
    [
        ({"a": {"workers": 2}}, "needs a backend"),
        ({"a": 7}, "needs a backend"),
        ({"a": {"backend": "process", "workers": 0}}, "at least 1"),
        ({"a": {"backend": "process", "worker": 1}}, "backend, workers and resources"),
        ({"a": {"backend": "process", "resources": {"cpu": 1}}}, "did you mean 'num_cpus'"),
        ("process", "mapping"),
        ({"a place": "process"}, "letters"),
        ({"": "process"}, "letters"),
    ],
)
def test_wrong_places_are_refused(places: Any, words: str) -> None:
    with pytest.raises(sage.ConfigError, match=words):
        JobSettings().merged({"places": places})
