"""Cases on Ray: owners and the processes of Ray actors are killed, and a node of a cluster."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from courses import Zombie
from scenario import Case, Kill, Outcome, Scenario, run_case

__all__ = ["ray_cases"]

STORE = 100_000_000
"""Bytes of each node's object store."""


def ray_cases(seed: int) -> Iterator[tuple[Case, Callable[[Path], Outcome]]]:
    """Everything, in a fixed order. Each run of the first ones starts a cluster of its own, which must end with it."""
    cases = (
        Case("ray: at random times", "ray", "memory", (2,), [Kill()] * 2, length=900),
        Case("ray: after the manifest", "ray", "memory", (2,), [Kill("after the manifest", 3)]),
        Case("ray: a worker only, at random", "ray", "memory", (2,), [Kill(victim="worker")], length=1500),
    )
    for case in cases:
        yield case, partial(where_ray_is, case, partial(run_case, case, seed=seed))
    case = Case("ray: a node of the cluster", "ray", "memory", (2,), length=2500)
    yield case, partial(where_ray_is, case, partial(run_lost_node, case, seed))


def where_ray_is(case: Case, run: Callable[[Path], Outcome], folder: Path) -> Outcome:
    """The case, or why this machine cannot run it."""
    if importlib.util.find_spec("ray") is not None:
        return run(folder)
    outcome = Outcome(case)
    outcome.notes.append("not here: Ray is not installed")
    return outcome


def run_lost_node(case: Case, seed: int, folder: Path) -> Outcome:
    """Three nodes on this machine, the first without room for workers; one of the others is killed under a running job."""
    from ray.cluster_utils import Cluster

    folder.mkdir(parents=True)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": STORE})
    before = os.environ.get("RAY_ADDRESS")
    try:
        nodes = [cluster.add_node(num_cpus=2, object_store_memory=STORE) for _ in range(2)]
        os.environ["RAY_ADDRESS"] = cluster.address  # for the run; it joins what is there instead of starting its own

        def course(scenario: Scenario) -> None:
            run = scenario.start()
            run.until(lambda: len(run.named("complete")) >= 3, "three checkpoints")
            for node in nodes:
                if len(run.named("attempt")) < 2:  # the first may have had no worker
                    cluster.remove_node(node, allow_graceful=False)
                    scenario.outcome.kills += 1
                    if node is nodes[0]:
                        cluster.add_node(num_cpus=2, object_store_memory=STORE)
                    run.process_wait(5.0)
            code = run.wait()
            if code:
                scenario.problem(f"it ended with {code}: {run.said[-1500:]}")
            if len(run.named("attempt")) < 2:
                scenario.problem("no worker was lost with two nodes")
            scenario.close(run)

        return Zombie(case, folder, seed, course, "ray://auto")()
    finally:
        if before is None:
            os.environ.pop("RAY_ADDRESS", None)
        else:
            os.environ["RAY_ADDRESS"] = before
        cluster.shutdown()
