"""A checkpoint that does not fit the dataflow is refused with what differs and how to allow it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from sage_actor.checkpoint.manifest import Manifest, OperatorManifest
from sage_actor.checkpoint.validation import validate
from sage_actor.errors import StateMismatch
from sage_actor.state.parts import FileRef, OperatorPart, TableInfo


@dataclass
class Operator:
    name: str
    kind: str
    uid: str | None = None


@dataclass
class Chain:
    operators: list[Operator]
    parallelism: int = 2


@dataclass
class Plan:
    chains: list[Chain] = field(default_factory=list[Chain])


@dataclass
class Settings:
    allow_unmatched: bool = False
    max_parallelism: int | None = None


def saved(name: str, kind: str, tables: dict[str, TableInfo] | None = None, *, state: bool = True) -> OperatorManifest:
    files = [FileRef("parts/x", 1, 2)] if state else []
    part = OperatorPart(name, 0, 2, 128, 0, 63, "memory", tables or {"t": TableInfo("keyed")}, files)
    return OperatorManifest(name, kind, 2, 128, [part])


MANIFEST = Manifest(
    "job", 7, 1, 0, operators={"total": saved("sum", "fold"), "map": saved("map", "map", state=False), "read": saved("read", "source")}
)


def plan(parallelism: int = 2, **operators: tuple[str, str | None]) -> Plan:
    return Plan([Chain([Operator(name, kind, uid)], parallelism) for name, (kind, uid) in operators.items()])


@pytest.mark.rule("F10")
def test_what_fits_passes() -> None:
    validate(MANIFEST, plan(anything=("fold", "total"), read=("source", None), more=("filter", None)), Settings())
    validate(MANIFEST, plan(128, anything=("fold", "total"), read=("source", None)), Settings(max_parallelism=128))


@pytest.mark.rule("F10")
def test_state_without_operator_is_refused_unless_allowed() -> None:
    changed = plan(sum=("fold", "totals"), read=("source", None))
    with pytest.raises(StateMismatch, match=r"'total'.*no operator.*'sum'.*uid='total'.*allow_unmatched': True") as refusal:
        validate(MANIFEST, changed, Settings())
    assert refusal.value.operator == "sum"
    validate(MANIFEST, changed, Settings(allow_unmatched=True))


def test_another_kind_under_the_same_uid_is_refused() -> None:
    with pytest.raises(StateMismatch, match=r"kind 'fold', and is now of kind 'window'"):
        validate(MANIFEST, plan(sum=("window", "total"), read=("source", None)), Settings(allow_unmatched=True))


@pytest.mark.rule("F15")
def test_other_key_groups_are_refused() -> None:
    fits = {"sum": ("fold", "total"), "read": ("source", None)}
    with pytest.raises(StateMismatch, match=r"max_parallelism=128, and max_parallelism=64 .*set max_parallelism=128"):
        validate(replace(MANIFEST, operators={"total": MANIFEST.operators["total"]}), plan(**fits), Settings(max_parallelism=64))
    with pytest.raises(StateMismatch, match="too few for parallelism 129"):
        validate(replace(MANIFEST, operators={"total": MANIFEST.operators["total"]}), plan(129, **fits), Settings())


def test_own_state_is_not_dealt_to_other_tasks() -> None:
    manifest = replace(MANIFEST, operators={"read": saved("read", "source", {"positions": TableInfo("own")})})
    validate(manifest, plan(2, read=("source", None)), Settings(max_parallelism=64))
    with pytest.raises(StateMismatch, match="'positions' belongs to each of 2 tasks"):
        validate(manifest, plan(3, read=("source", None)), Settings())


def test_everything_that_differs_is_said_at_once() -> None:
    with pytest.raises(StateMismatch) as refusal:
        validate(MANIFEST, plan(sum=("window", "total")), Settings())
    assert refusal.value.operator == "job"
    text = str(refusal.value)
    assert "is now of kind 'window'" in text
    assert "state of 'read'" in text
    assert len(text.splitlines()) == 3
