"""Plans with places: every task is where it was told to be, workers are numbered place by place, resources add up."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sage_actor as sage
from sage_actor.dataflow.plan import Plan, make_plan
from sage_actor.dataflow.resources import parse_resources

PLACES: dict[str, str | dict[str, Any]] = {"edge": "local", "heavy": "process", "gpu": {"backend": "process", "workers": 2}}
IN_OWNER = ["edge"]

steps = st.lists(
    st.fixed_dictionaries(
        {
            "place": st.sampled_from([None, *PLACES]),
            "parallelism": st.none() | st.integers(1, 4),
            "exchange": st.sampled_from(["", "rebalance", "key_by", "shuffle"]),
            "chaining": st.booleans(),
            "num_cpus": st.sampled_from([None, 0.5, 1.0]),
        }
    ),
    min_size=1,
    max_size=6,
)


class Numbers(sage.Source[int]):
    """A source that is not bound to the owner."""

    async def read(self, limit: int) -> list[int]:
        return []


def describe(env: sage.LocalEnvironment, steps: list[dict[str, Any]], *, collection: bool) -> Any:
    stream: Any = env.from_collection(range(10)) if collection else env.from_source(Numbers)
    for step in steps:
        if step["exchange"] == "key_by":
            stream = stream.key_by(lambda n: n)
        elif step["exchange"]:
            stream = getattr(stream, step["exchange"])()
        resources = None if step["num_cpus"] is None else {"num_cpus": step["num_cpus"]}
        stream = stream.map(lambda n: n, parallelism=step["parallelism"], resources=resources)
        if step["place"] is not None:
            stream = stream.place(step["place"])
        if not step["chaining"]:
            stream = stream.disable_chaining()
    return stream.collect()


def planned(env: sage.LocalEnvironment, *, hosts_in_owner: bool) -> Plan:
    ends = [operator.id for operator in (*env.graph.sinks(), *env.graph.loose_ends())]
    return make_plan(env.graph, ends, env.settings, hosts_in_owner=hosts_in_owner, places_in_owner=IN_OWNER)


@settings(deadline=None)
@given(steps, st.booleans(), st.booleans(), st.integers(1, 3))
def test_every_task_is_at_its_place(steps: list[dict[str, Any]], collection: bool, hosts_in_owner: bool, parallelism: int) -> None:
    env = sage.LocalEnvironment("plan", places=PLACES, parallelism=parallelism)
    describe(env, steps, collection=collection)
    plan = planned(env, hosts_in_owner=hosts_in_owner)
    ranges = {group.place: range(group.first, group.first + group.count) for group in plan.groups}
    assert [number for numbers in ranges.values() for number in numbers] == list(range(1, plan.workers + 1))
    for chain in plan.chains:
        places = {operator.place for operator in chain.operators if operator.place is not None}
        assert places <= {chain.place}, "a chain has operators of two places"
        here = chain.place in IN_OWNER or (chain.place is None and hosts_in_owner) or chain.operators[0].in_owner
        assert chain.in_owner == here
        for task in plan.tasks:
            if task.chain == chain.id:
                assert task.worker in ((0,) if here else ranges[chain.place])
        for operator in chain.operators:
            assert here or not operator.in_owner, "what lives in the owner was sent away"
    chain_of = {operator.id: chain for chain in plan.chains for operator in chain.operators}
    for chain in plan.chains:
        first = chain.operators[0]
        if first.place is None:
            assert chain.place is None or chain.operators[0].in_owner, "only a step in the middle of a chain inherits a place"
        assert all(chain_of[operator.id] is chain for operator in chain.operators)
    if "gpu" in ranges:
        assert len(ranges["gpu"]) == 2


@settings(deadline=None)
@given(steps, st.booleans())
def test_what_workers_are_to_have_is_the_sum_of_what_their_tasks_ask_for(steps: list[dict[str, Any]], hosts_in_owner: bool) -> None:
    env = sage.LocalEnvironment("plan", places=PLACES, parallelism=2)
    describe(env, steps, collection=True)
    plan = planned(env, hosts_in_owner=hosts_in_owner)
    expected = [0.0] * (plan.workers + 1)
    for task in plan.tasks:
        for operator in task.operators:
            if operator.resources is not None:
                expected[task.worker] += operator.resources.num_cpus or 0
    if plan.resources:
        assert [resources.num_cpus or 0 for resources in plan.resources] == expected[1:]
    else:
        assert not any(expected[1:])


def test_without_places_numbers_are_as_they_were() -> None:
    env = sage.LocalEnvironment("plain", parallelism=3)
    env.from_collection(range(3)).rebalance().map(lambda n: n).collect()
    plan = planned(env, hosts_in_owner=False)
    assert [(group.place, group.first, group.count) for group in plan.groups] == [(None, 1, 3)]
    assert [task.worker for task in plan.tasks] == [0, 1, 2, 3, 0]
    assert plan.resources == []


def test_each_worker_has_what_its_place_gives() -> None:
    env = sage.LocalEnvironment(
        "given",
        places={"heavy": {"backend": "process", "workers": 2, "resources": {"memory": "1gb"}}},
        config={"taskmanager.memory.process.size": "4gb", "taskmanager.cpu.cores": 2},
    )
    numbers = env.from_collection(range(3)).rebalance().map(lambda n: n, resources={"tpu": 1}).rebalance()
    numbers.map(lambda n: n, parallelism=2, resources={"num_cpus": 2, "memory": "1gb"}).place("heavy").collect()
    plan = planned(env, hosts_in_owner=False)
    own = parse_resources({"num_cpus": 2, "memory": "4gb", "tpu": 1}, "")
    assert plan.resources == [own, *[parse_resources({"num_cpus": 2, "memory": "1gb"}, "")] * 2]


def test_tasks_that_ask_for_more_than_their_worker_has_are_refused_by_name() -> None:
    env = sage.LocalEnvironment("much", config={"taskmanager.memory.process.size": "1gb"}, backend="process")
    env.from_collection(range(3)).rebalance().map(lambda n: n, name="big", resources={"memory": "2gb"}).collect()
    with pytest.raises(sage.GraphError, match=r"worker 1 cannot host the tasks of 'big': .*memory 2 GB, where each worker has 1 GB"):
        planned(env, hosts_in_owner=False)


def test_what_lives_in_the_owner_cannot_be_sent_away() -> None:
    env = sage.LocalEnvironment("away", places=PLACES)
    env.from_collection(range(3)).place("heavy").collect()
    with pytest.raises(sage.GraphError, match=r"'collection' lives in the submitting process.*'heavy'"):
        planned(env, hosts_in_owner=True)


@pytest.mark.parametrize("resources", [{"num_gpus": 1}, {"memory": "1gb"}, {"tpu": 1}])
def test_nothing_is_set_aside_in_the_owner(resources: dict[str, Any]) -> None:
    env = sage.LocalEnvironment("here", places=PLACES)
    env.from_collection(range(3)).map(lambda n: n, name="asks", resources=resources).place("edge").collect()
    with pytest.raises(sage.GraphError, match=rf"'asks' asks for {next(iter(resources))}, .*submitting process"):
        planned(env, hosts_in_owner=False)
    wish = sage.LocalEnvironment("wish", places=PLACES)
    wish.from_collection(range(3)).map(lambda n: n, resources={"num_cpus": 1}).place("edge").collect()
    assert planned(wish, hosts_in_owner=False).workers == 0


def test_an_unknown_place_names_the_step_and_the_places_there_are() -> None:
    env = sage.LocalEnvironment("unknown", places=PLACES)
    with pytest.raises(sage.GraphError, match=r"operator 'work': there is no place 'gpus'.*'edge', 'heavy', 'gpu'"):
        env.from_collection(range(3)).map(lambda n: n, name="work").place("gpus")
    with pytest.raises(sage.GraphError, match=r"no place 'gpu'.*none: give the environment places"):
        sage.LocalEnvironment("none").from_collection(range(3)).place("gpu")
    with pytest.raises(sage.GraphError, match="run nowhere"):
        env.from_collection(range(3)).key_by(lambda n: n).place("gpu")


def test_explain_says_where_and_with_what() -> None:
    env = sage.LocalEnvironment("seen", places=PLACES, parallelism=2)
    numbers = env.from_collection(range(3)).map(lambda n: n).place("edge").rebalance()
    numbers.map(lambda n: n, resources={"num_gpus": 1, "memory": "2gb"}).place("gpu").collect()
    text = env.explain()
    assert "x1  edge: here" in text
    assert "x2  gpu: worker 1, 2  num_gpus 1, memory 2 GB" in text
    assert "gpu: worker 1, 2 · num_gpus 1, memory 2 GB" in env.explain(format="svg")
