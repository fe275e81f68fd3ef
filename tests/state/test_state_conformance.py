"""The backends of state against the public conformance rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sage_actor.state import operator_state
from sage_actor.state.memory_nested import MemoryNested
from sage_actor.state.memory_table import FrozenContent, MemoryTable
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


class Forgetful(MemoryTable):
    """Does not say that an entry is gone."""

    def delete(self, key: Any) -> None:
        changed, self._changed = self._changed, None
        super().delete(key)
        self._changed = changed


class Unordered(MemoryNested):
    """Puts what comes back where it was before."""

    def _put_above(self, key: Any, sub: Any, value: Any) -> None:
        assert self._upper is not None
        layer = self._upper.get(key)
        if layer is None or layer.whole:
            super()._put_above(key, sub, value)
        else:
            layer.entries[sub] = value


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("name", "broken", "rule"),
    [
        ("MemoryTable", Forgetful, "every_checkpoint_can_be_restored"),
        ("MemoryNested", Unordered, "keeps_the_order_of_sub_keys"),
        ("own_entries", lambda entries, place, key: entries, "rescales"),
    ],
)
async def test_the_rules_can_fail(name: str, broken: Any, rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sage_actor.state import restoring

    for module in (operator_state, restoring):
        monkeypatch.setattr(module, name, broken)
    (broken_rule,) = [candidate for candidate in STATE_RULES if rule_name(candidate) == rule]
    with pytest.raises(AssertionError):
        await broken_rule(StateCase("memory", tmp_path))


@pytest.mark.asyncio
async def test_a_value_that_is_changed_in_place_would_be_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FrozenContent, "keep", lambda self, key, value: None)
    (rule,) = [candidate for candidate in STATE_RULES if rule_name(candidate) == "shows_the_moment_of_the_barrier"]
    with pytest.raises(AssertionError, match="checkpoint"):
        await rule(StateCase("memory", tmp_path))
