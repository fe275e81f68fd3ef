"""A backend of somebody else's, installed from a package of its own, keeps the rules and is found by its address."""

from __future__ import annotations

import ast
import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conformance_cases import Missing, plugin_case

from sage_actor.actor.open_backend import open_backend
from sage_actor.testing.conformance import BackendCase, Rule, backend_rules, rule_name

PACKAGE = Path(__file__).with_name("plugin") / "tidal_backend"

# Those that take seconds, or big frames, by design: once for our own backends is what they cost in every run.
HEAVY = {
    "a_busy_worker_is_not_taken_for_dead",
    "big_frames_arrive_whole",
    "a_worker_that_blocks_is_killed_on_close",
    "frames_of_every_size_arrive_whole",
    "nothing_grows_when_a_receiver_stops",
}
RULES = [pytest.param(rule, id=rule_name(rule), marks=[pytest.mark.slow] if rule_name(rule) in HEAVY else []) for rule in backend_rules()]


@pytest.fixture(scope="module")
def case() -> Iterator[BackendCase]:
    """Installed without a network, into a folder that goes again."""
    try:
        with plugin_case() as found:
            yield found
    except Missing as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("rule", RULES)
def test_the_plugin_keeps_the_rule(rule: Rule, case: BackendCase) -> None:
    async def main() -> None:
        await rule(case)

    asyncio.run(main())


def test_it_is_found_by_its_entry_point_alone(case: BackendCase) -> None:
    backend = open_backend("tidal://")
    assert type(backend).__module__ == "tidal_backend"
    assert str(PACKAGE.parent) not in sys.path
    assert not Path(sys.modules["tidal_backend"].__file__ or "").is_relative_to(PACKAGE.parent)


@pytest.mark.parametrize("file", sorted(PACKAGE.glob("*.py")), ids=lambda file: file.name)
def test_it_uses_what_is_public_only(file: Path) -> None:
    imported: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            imported.add(node.module or "")
        elif isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
    ours = {name for name in imported if name.split(".")[0] == "sage_actor"}
    assert ours <= {"sage_actor", "sage_actor.actor.backend"}
