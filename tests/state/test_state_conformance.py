"""The backends of state against the public conformance rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from sage_actor.testing.state_conformance import STATE_RULES, StateCase, StateRule, rule_name


@pytest.mark.rule("F14")
@pytest.mark.rule("F15")
@pytest.mark.rule("F39")
@pytest.mark.asyncio
@pytest.mark.parametrize("rule", STATE_RULES, ids=rule_name)
async def test_memory(rule: StateRule, tmp_path: Path) -> None:
    await rule(StateCase("memory", tmp_path))


@pytest.mark.rule("F14")
@pytest.mark.rule("F15")
@pytest.mark.rule("F39")
@pytest.mark.asyncio
@pytest.mark.parametrize("rule", STATE_RULES, ids=rule_name)
async def test_rocksdb(rule: StateRule, tmp_path: Path) -> None:
    pytest.importorskip("rocksdict", reason="rocksdict is missing: pip install sage-actor[rocksdb]")
    await rule(StateCase("rocksdb", tmp_path))
