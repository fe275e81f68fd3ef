"""Our own backends keep the rules that decide what a backend is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

import pytest

from sage_actor.backends import local, process, redis
from sage_actor.testing.conformance import BackendCase, Rule, a_worker_that_blocks_is_killed_on_close, backend_rules, rule_name

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
try:
    import uvloop
except ImportError:
    pass
else:
    LOOPS["uvloop"] = uvloop.new_event_loop


def run(rule: Rule, case: BackendCase, loop: str) -> None:
    async def main() -> None:
        await rule(case)

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main())


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("rule", backend_rules(hosts_in_owner=True), ids=rule_name)
def test_local(rule: Rule, loop: str) -> None:
    run(rule, BackendCase("local", local.create), loop)


# The same 5 seconds on each loop: one is enough.
once = {a_worker_that_blocks_is_killed_on_close}
PAIRS = [(rule, loop) for rule in backend_rules() for loop in LOOPS if rule not in once or loop == "asyncio"]
with_workers = pytest.mark.parametrize(("rule", "loop"), PAIRS, ids=[f"{rule_name(rule)}-{loop}" for rule, loop in PAIRS])


@with_workers
def test_process(rule: Rule, loop: str) -> None:
    run(rule, BackendCase("process", process.create), loop)


@with_workers
def test_redis(rule: Rule, loop: str, redis_address: str) -> None:
    async def keys() -> Collection[str]:
        from redis.asyncio import Redis

        async with Redis.from_url(redis_address) as client:  # pyright: ignore[reportUnknownMemberType]
            return list(map(str, await client.keys("sage:conformance:*")))  # pyright: ignore[reportUnknownMemberType]

    run(rule, BackendCase(redis_address, redis.create, keys), loop)
