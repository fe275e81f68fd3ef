"""Ray: its workers keep the rules of a backend, and what is Ray's own: clusters, resources, nodes, versions."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import sage_actor as sage
from sage_actor.actor.backend import WorkerResources
from sage_actor.actor.open_backend import open_backend
from sage_actor.backends import ray_group
from sage_actor.backends.ray import create
from sage_actor.errors import BackendError, BackendUnavailable, WorkerLost
from sage_actor.testing.conformance import BackendCase, Rule, backend_rules, rule_name

ECHO = "sage_actor.testing.conformance_worker:echo"

# Starting an actor takes a second of a processor: of the rules, those that Ray itself could break, and the rest as slow ones.
QUICK = {
    "big_frames_arrive_whole",
    "many_small_frames_all_arrive",
    "order_holds_between_workers",
    "frames_before_start_are_kept",
    "a_killed_worker_is_told",
    "an_entry_that_raises_is_told",
    "an_entry_that_returns_is_no_loss",
    "closing_leaves_nothing",
    "resources_that_nobody_has_are_refused",
}
RULES = [pytest.param(rule, id=rule_name(rule), marks=[] if rule_name(rule) in QUICK else pytest.mark.slow) for rule in backend_rules()]


@pytest.mark.timeout(180)
@pytest.mark.blocks_loop("Ray copies a large frame into its object store in the call that sends it, and may wait there for room")
@pytest.mark.parametrize("rule", RULES)
def test_rules(rule: Rule, ray_address: str) -> None:
    asyncio.run(rule(BackendCase(ray_address, exit_codes=False, client_stays=True)))


# -- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["ray", "ray://auto", "ray://head:10001"])
def test_it_is_found_by_name_and_nothing_is_started(address: str) -> None:
    backend = open_backend(address)
    assert backend.name == address
    assert not backend.hosts_in_owner


@pytest.mark.parametrize("address", ["ray://", "ray://head", "ray://head:port", "ray://:1"])
def test_an_ill_formed_address_says_how_to_write_it(address: str) -> None:
    with pytest.raises(BackendUnavailable, match=r"'ray', 'ray://auto' or 'ray://host:10001'"):
        open_backend(address)


@pytest.mark.asyncio
async def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BackendUnavailable, match=r'pip install "sage-actor\[ray\]"'):
        await create("ray").start(1, group="g", entry=ECHO)


@pytest.mark.asyncio
async def test_a_second_connection_is_refused_with_the_way_out(ray_address: str) -> None:
    with pytest.raises(BackendUnavailable, match=r"has called ray\.init itself.* write backend='ray'"):
        await create("ray://elsewhere:10001").start(1, group="g", entry=ECHO)


# -- workers ----------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("resources", "named"),
    [
        ([WorkerResources(num_cpus=64)], "64 of 'CPU' together, and the cluster has 4"),
        ([WorkerResources(num_gpus=1)], "1 of 'GPU' together, and the cluster has 0"),
        ([WorkerResources(memory=1 << 60)], "of 'memory' together"),
        (
            [WorkerResources(custom={"licence": 2}), WorkerResources(custom={"licence": 2})],
            "4 of 'licence' together, and the cluster has 3",
        ),
        ([WorkerResources(), WorkerResources(), WorkerResources()], "resources of 3 workers were given for"),
    ],
    ids=["cpus", "gpus", "memory", "custom", "number"],
)
async def test_what_the_cluster_has_not_is_refused_by_name(ray_address: str, resources: list[WorkerResources], named: str) -> None:
    with pytest.raises(BackendUnavailable, match=named):
        await create(ray_address).start(min(len(resources), 2), group="g", entry=ECHO, resources=resources)


@pytest.mark.asyncio
async def test_another_version_of_the_code_is_refused_by_name(ray_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own = ray_group.code_version()
    monkeypatch.setattr(ray_group, "code_version", lambda: "sage_actor 9.9 on Python 3.99")
    with pytest.raises(BackendUnavailable, match=rf"worker 1 of group 'g' .*\sit has {own}, the owner has sage_actor 9\.9 on Python 3\.99"):
        await create(ray_address).start(1, group="g", entry=ECHO)


ENTRIES = """
import asyncio, os

async def swell(endpoint):
    endpoint.send(0, [str(os.getpid()).encode()])
    await endpoint.flush()
    held = b"x" * 900_000_000
    await asyncio.Event().wait()
"""


@pytest.mark.asyncio
async def test_a_worker_over_its_memory_is_ended_and_the_limit_named(
    ray_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "swelling_entries.py").write_text(ENTRIES)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    resources = [WorkerResources(num_cpus=0.5, memory=800_000_000, custom={"licence": 1})]
    group = await create(ray_address).start(1, group="g", entry="swelling_entries:swell", resources=resources)
    try:
        lost: asyncio.Future[BackendError] = asyncio.get_running_loop().create_future()
        group.endpoint.start(lambda sender, frame: None, lost.set_result)
        error = await lost
    finally:
        await group.aclose()
    assert isinstance(error, WorkerLost)
    assert error.exit_code is None
    assert "its resources allow memory=800000000" in error.last_words


# -- dataflows --------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_dataflow_runs_in_actors_with_their_resources(ray_address: str) -> None:
    async with asyncio.timeout(50), sage.Environment("ray", backend=ray_address, parallelism=2) as env:
        numbers = env.from_collection(range(1000)).rebalance()
        out = numbers.map(lambda x: (os.getpid(), x * x), resources={"num_cpus": 0.5, "licence": 1}).collect()
        await env.execute()
    assert sorted(x for _, x in out) == [x * x for x in range(1000)]
    assert len({pid for pid, _ in out} - {os.getpid()}) == 2


@pytest.mark.asyncio
async def test_what_cannot_be_pickled_is_named(ray_address: str) -> None:
    guard = threading.Lock()

    def locked(value: int) -> int:
        with guard:
            return value

    async with asyncio.timeout(50), sage.Environment("pickle", backend=ray_address) as env:
        env.from_collection([1]).rebalance().map(locked, name="step").collect()
        with pytest.raises(sage.SerializationError, match=r"'step'.*variable 'guard'"):
            await env.execute()


# -- clusters of our own ----------------------------------------------------------------------------------------------


def run(program: str, **environment: str) -> dict[str, object]:
    """What a program prints as JSON in its last line; in a process of its own, since a process knows one cluster."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=170, check=False, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return answer


COMMON = f"""
import asyncio, json, os, signal, subprocess, sys, threading
sys.path[:] = {sys.path!r}
from sage_actor.backends.ray import create
from sage_actor.errors import BackendError

def children(name):
    listed = [open(f"/proc/{{pid}}/stat").read() for pid in os.listdir("/proc") if pid.isdigit() and os.path.exists(f"/proc/{{pid}}/stat")]
    parts = [(line.split(" ", 1)[0], line[line.index("(") + 1 : line.rindex(")")], line[line.rindex(")") + 2 :].split()) for line in listed]
    return [int(pid) for pid, command, (state, parent, *_) in parts if name in command and int(parent) == os.getpid() and state != "Z"]

async def echoed(group, lost):
    came = asyncio.Event()
    group.endpoint.start(lambda sender, frame: came.set(), lost)
    group.endpoint.send(1, [b"x"])
    await came.wait()
"""


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_cluster_is_started_and_ends_with_the_process() -> None:
    pytest.importorskip("ray")
    answer = run(
        COMMON
        + f"""
async def main():
    group = await create("ray").start(1, group="g", entry={ECHO!r})
    await echoed(group, print)
    started = children("raylet") + children("gcs_server")
    await group.aclose()
    return started

before = signal.getsignal(signal.SIGTERM)
started = asyncio.run(main())
print(json.dumps({{"started": started, "handler": signal.getsignal(signal.SIGTERM) is before}}))
"""
    )
    started = answer["started"]
    assert isinstance(started, list)
    assert len(started) == 2
    assert answer["handler"], "Ray took over SIGTERM"
    assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_node_that_ends_is_told_in_time_and_the_next_group_starts_anew() -> None:
    pytest.importorskip("ray")
    answer = run(
        COMMON
        + f"""
async def main():
    group = await create("ray").start(1, group="g", entry={ECHO!r})
    lost = asyncio.get_running_loop().create_future()
    await echoed(group, lost.set_result)
    os.kill(children("raylet")[0], signal.SIGKILL)
    async with asyncio.timeout(3):
        error = await lost
    await group.aclose()
    again = await create("ray").start(1, group="g", entry={ECHO!r})
    await echoed(again, print)
    await again.aclose()
    return type(error).__name__, str(error)

name, text = asyncio.run(main())
print(json.dumps({{"name": name, "text": text}}))
"""
    )
    assert answer["name"] == "WorkerLost"
    assert "Its Ray node on this machine has ended" in str(answer["text"])


def test_an_address_that_nobody_answers_at_is_told_at_once() -> None:
    pytest.importorskip("ray")
    program = f"""
try:
    asyncio.run(create("ray").start(1, group="g", entry={ECHO!r}))
except BackendError as error:
    print(json.dumps({{"text": str(error)}}))
"""
    answer = run(COMMON + program, RAY_ADDRESS="127.0.0.1:1")
    assert "nothing answers at" in str(answer["text"])
    assert "`ray start --head`" in str(answer["text"])
