"""What people see of a job: the plan as text and picture, and numbers that are true."""

from __future__ import annotations

import asyncio
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sage_actor as sage


def build(backend: str = "local") -> sage.Environment:
    env = sage.Environment("see <this> & that", parallelism=2, backend=backend)
    words = env.from_collection(["a b"], name="text").flat_map(str.split, name='split "quoted" <x>')
    words.key_by(lambda w: w).count(name="tally").collect(name="out")
    words.map(str.upper, name="shout", on_error="dead_letter").sink(print, name="printed")
    return env


def test_the_plan_as_text() -> None:
    env = build()
    text = env.explain()
    lines = text.splitlines()
    assert "see <this> & that" in lines[0]
    assert "local" in lines[0]
    assert any(line.startswith("chain 0  x1  here") for line in lines)
    for name in ("text", "split", "tally", "out", "shout", "printed"):
        assert any(line.strip().startswith(name) for line in lines), name
    tally = next(line for line in lines if line.strip().startswith("tally"))
    assert "hash" in tally
    assert 'split "quoted" <x>' in tally
    assert "on_error=dead_letter" in next(line for line in lines if line.strip().startswith("shout"))
    assert "x2" in text
    assert not env.jobs
    assert "worker 1, 2" in build("process").explain()
    assert env.from_collection([1]).explain().startswith("job")


@pytest.mark.parametrize("backend", ["local", "process"])
def test_the_plan_as_a_picture(backend: str) -> None:
    env = build(backend)
    for picture in (env.explain(format="svg"), env._repr_svg_(), env.from_collection([1])._repr_svg_()):
        root = ET.fromstring(picture)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        texts = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]
        assert any("see <this> & that" in text for text in texts)
        for name in ("text", "tally", "shout", "hash"):
            assert name in texts
        width, height = float(root.get("width", "0")), float(root.get("height", "0"))
        for box in root.iter("{http://www.w3.org/2000/svg}rect"):
            assert float(box.get("x", "0")) + float(box.get("width", "0")) <= width
            assert float(box.get("y", "0")) + float(box.get("height", "0")) <= height


def test_an_empty_environment_can_be_drawn() -> None:
    env = sage.Environment("empty")
    assert "empty" in env.explain()
    ET.fromstring(env.explain(format="svg"))


@pytest.mark.parametrize("format", ["png", "", None])
def test_an_unknown_format_is_refused(format: Any) -> None:
    with pytest.raises(sage.GraphError, match=r"text.*svg"):
        build().explain(format=format)


@pytest.mark.asyncio
async def test_a_thousand_operators_compile_and_run() -> None:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with asyncio.timeout(30), sage.Environment("long") as env:
        stream: sage.DataStream[int] = env.from_collection(range(10))
        for i in range(1000):
            stream = stream.map(lambda x: x + 1) if i % 10 else stream.filter(lambda x: x >= 0)
        out = stream.collect()
        job = await env.submit()
        compiled = loop.time() - begun
        await job.wait()
        assert len(job.metrics()["tasks"]) == 1
        assert len(job.metrics()["operators"]) == 1002
    assert list(out) == [x + 900 for x in range(10)]
    assert compiled < 5  # a second is the promise; this allows for a crowded machine


@pytest.mark.asyncio
async def test_a_thousand_tasks_compile_and_run() -> None:
    async with asyncio.timeout(40), sage.Environment("wide", parallelism=10) as env:
        stream: sage.DataStream[int] = env.from_collection(range(50))
        for _ in range(20):
            stream = stream.rebalance().map(lambda x: x + 1)
        out = stream.collect()
        job = await env.execute()
    assert sorted(out) == [x + 20 for x in range(50)]
    assert len(job.metrics()["tasks"]) == 202


def picky(value: int) -> int:
    if value % 7 == 0:
        raise ValueError(value)
    return value


@settings(max_examples=60, deadline=None)
@given(
    data=st.lists(st.integers(0, 50), max_size=50),
    batch=st.integers(1, 9),
    parallelism=st.integers(1, 2),
    alone=st.lists(st.booleans(), min_size=6, max_size=6),
    policy=st.sampled_from(["skip", "dead_letter", sage.Retry(attempts=2, delay=0, then="skip")]),
)
def test_numbers_are_true_for_every_fused_operator(data: list[int], batch: int, parallelism: int, alone: list[bool], policy: Any) -> None:
    """Filters and flat_maps in one loop, errors among them: in and out of each operator as if counted by hand."""
    ends: list[int] = []

    async def run() -> sage.Job:
        async with asyncio.timeout(20), sage.Environment("count", config={"batch.records": batch}) as env:
            stream: Any = env.from_collection(data, name="s")
            if parallelism > 1:
                stream = stream.rebalance()
            steps = [
                lambda s: s.map(picky, name="a", on_error=policy, parallelism=parallelism),
                lambda s: s.filter(lambda x: x % 2, name="b"),
                lambda s: s.flat_map(lambda x: [x] * (x % 4), name="c"),
                lambda s: s.filter(lambda x: picky(x + 4), name="d", on_error=policy),
                lambda s: s.flat_map(lambda x: (y for y in [x, x + 1]), name="e"),
                lambda s: s.map(lambda x: picky(x + 1), name="f", on_error=policy),
            ]
            for step, own in zip(steps, alone, strict=True):
                stream = step(stream)
                if own:
                    stream.disable_chaining()
            stream.sink(ends.append, name="z")
            return await env.execute()

    job = asyncio.run(run())
    expected: dict[str, tuple[int, int, int]] = {}

    def step(name: str, values: list[int], function: Any) -> list[int]:
        out: list[int] = []
        bad = 0
        for value in values:
            try:
                out.extend(function(value))
            except ValueError:
                bad += 1
        expected[name] = (len(values), len(out), bad)
        return out

    values = step("s", data, lambda x: [x])
    values = step("a", values, lambda x: [picky(x)])
    values = step("b", values, lambda x: [x] if x % 2 else [])
    values = step("c", values, lambda x: [x] * (x % 4))
    values = step("d", values, lambda x: [x] if picky(x + 4) else [])
    values = step("e", values, lambda x: [x, x + 1])
    values = step("f", values, lambda x: [picky(x + 1)])
    values = step("z", values, lambda x: [x])
    metrics = job.metrics()
    tries = getattr(policy, "attempts", 1)
    rows = metrics["operators"]
    assert {
        name: (rows[name]["records_in"], rows[name]["records_out"], rows[name]["skipped"] + rows[name]["dead_letters"]) for name in rows
    } == expected
    assert {name: rows[name]["errors"] for name in rows} == {name: bad * tries for name, (_, _, bad) in expected.items()}
    assert metrics["records_in"] == len(data)
    assert metrics["records_out"] == len(values) == len(ends)
    assert metrics["errors"] == sum(bad for _, _, bad in expected.values()) * tries
    for row in rows.values():
        assert 0 <= row["busy"] <= 1
        assert row["busy"] + row["idle"] + row["backpressured"] <= 1.0001


@pytest.mark.asyncio
async def test_metrics_while_running_and_after_a_failure() -> None:
    async with asyncio.timeout(20), sage.Environment("numbers") as env:
        env.from_collection([1, 2, 0, 4], name="s").map(lambda x: 1 // x, name="m").collect(name="c")
        job = await env.submit()
        assert job.metrics()["records_in"] >= 0
        with pytest.raises(sage.OperatorError):
            await job.wait()
    rows = job.metrics()["operators"]
    assert (rows["m"]["records_in"], rows["m"]["records_out"], rows["m"]["errors"]) == (3, 2, 1)
    assert rows["c"]["records_in"] == 2
    assert job.metrics()["seconds"] >= 0
