"""Workers started by hand, as in two terminals, over Redis; one is killed in the middle, and the counts are right all the same.

`python examples/redis_workers.py` does it by itself: a private Redis server, two agents, a job, and `kill -9` for one of the agents.
`python examples/redis_workers.py --by-hand` prints the commands instead, for terminals, or machines, of your own; and
`python examples/redis_workers.py redis://host:6379/0` is the job alone, with whoever has registered there.

The killed agent takes its worker along. The job notices within seconds, goes back to its newest checkpoint, and starts its workers on
the agents that are left.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections import Counter
from collections.abc import Sequence

import sage_actor as sage
from sage_actor.errors import BackendUnavailable
from sage_actor.testing import AgentProcess, agent_processes, redis_server

RECORDS = 4_000
KEYS = 50
BY_HAND = """\
In one terminal or on one machine, as often as you like:

    python -m sage_actor worker --backend redis://localhost:6379/0 --slots 2

In another one (other machines need the file redis.secret of this account's data directory, or the same SAGE_ACTOR_SECRET):

    python -m sage_actor worker --backend redis://localhost:6379/0 --slots 2

In a third one the job; then press Ctrl-C in one of the first two, or kill -9 it:

    python -m sage_actor worker --list --backend redis://localhost:6379/0
    python examples/redis_workers.py redis://localhost:6379/0"""


def slowly(n: int) -> tuple[int, int]:
    time.sleep(0.001)
    return n % KEYS, os.getpid()


def describe(env: sage.LocalEnvironment) -> tuple[sage.Collected[tuple[int, int]], sage.Collected[int]]:
    rows = env.from_collection(range(RECORDS)).rebalance().map(slowly)
    counts = rows.key_by(lambda row: row[0]).count(emit="final").collect()
    return counts, rows.map(lambda row: row[1]).collect()


def environment(address: str) -> sage.LocalEnvironment:
    config = {"checkpoint.interval": "300ms", "buffer.records": 200, "batch.records": 50, "restart.delay": "100ms"}
    return sage.LocalEnvironment("redis workers", backend=address, parallelism=2, config=config)


def run(address: str, agents: Sequence[AgentProcess]) -> None:
    env = environment(address)
    counts, pids = describe(env)
    job = env.submit()
    if agents:
        while job.metrics()["checkpoints"]["completed"] < 2 and not job.done:
            time.sleep(0.05)
        agents[0].kill()
        print(f"killed agent {agents[0].name!r}, process {agents[0].pid}", flush=True)
    job.wait_in_thread()
    assert dict(counts) == Counter(n % KEYS for n in range(RECORDS))
    print(f"{RECORDS:,} records counted in {job.attempts} attempts by processes {sorted(set(pids))}: each exactly once")


def main() -> None:
    if "--by-hand" in sys.argv:
        print(BY_HAND)
        return
    if len(sys.argv) > 1:
        run(sys.argv[1], [])
        return
    # Both sides are ours; otherwise a file of the account, made at the first use, is the secret that they share.
    os.environ.setdefault("SAGE_ACTOR_SECRET", secrets.token_urlsafe(32))
    with redis_server() as address, agent_processes(address) as agents:
        run(address, agents)
        for agent in agents:
            print(f"\nthe terminal of {agent.name!r}:\n{agent.output}", end="")


try:
    main()
except BackendUnavailable as error:
    print(error)
    sys.exit(77)
