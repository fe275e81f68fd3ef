"""Our own backends keep the rules that decide what a backend is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from inspect import getmodule

import pytest
from conformance_cases import placed_case, redis_case

from sage_actor.testing import conformance_dataflows, conformance_frames
from sage_actor.testing.conformance import BackendCase, Rule, backend_rules, rule_name

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
try:
    import uvloop
except ImportError:
    pass
else:
    LOOPS["uvloop"] = uvloop.new_event_loop

# The same seconds on each loop, or the same work in the workers, whose loop is uvloop's anyway: once is enough.
ONCE = {
    "a_busy_worker_is_not_taken_for_dead",
    "a_cancelled_close_can_be_repeated",
    "a_killed_owner_leaves_no_orphan",
    "a_sleeper_that_wakes_reaches_nobody",
    "a_worker_that_blocks_is_killed_on_close",
    "frames_of_every_size_arrive_whole",
}

BIG = {"big_frames_arrive_whole", "frames_of_every_size_arrive_whole"}
COPYING = pytest.mark.blocks_loop("frames of many megabytes are made, copied and compared in one go")


def pairs(rules: list[Rule]) -> list[object]:
    """Each rule with each loop that it could depend on."""
    found: list[object] = []
    for rule in rules:
        once = rule_name(rule) in ONCE or getmodule(rule) is conformance_dataflows
        marks = [COPYING] if rule_name(rule) in BIG else []
        found += [pytest.param(rule, loop, id=f"{rule_name(rule)}-{loop}", marks=marks) for loop in LOOPS if loop == "asyncio" or not once]
    return found


def run(rule: Rule, case: BackendCase, loop: str) -> None:
    async def main() -> None:
        await rule(case)

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main())


@pytest.mark.parametrize(("rule", "loop"), pairs(backend_rules(hosts_in_owner=True)))
def test_local(rule: Rule, loop: str) -> None:
    run(rule, BackendCase("local"), loop)


@pytest.mark.parametrize(("rule", "loop"), pairs(backend_rules()))
def test_process(rule: Rule, loop: str) -> None:
    run(rule, BackendCase("process"), loop)


@pytest.mark.parametrize(("rule", "loop"), pairs(backend_rules()))
def test_redis(rule: Rule, loop: str, redis_address: str) -> None:
    run(rule, redis_case(redis_address), loop)


# Its parts have kept all rules above: here are those for what it adds, relaying and gathering; the table runs them all.
PLACED = [
    rule for rule in backend_rules() if getmodule(rule) in (conformance_frames, conformance_dataflows) and rule_name(rule) not in ONCE | BIG
]


@pytest.mark.parametrize("rule", PLACED, ids=rule_name)
def test_placed(rule: Rule, redis_address: str) -> None:
    run(rule, placed_case(redis_address), "asyncio")
