"""Whether a checkpoint fits the dataflow that is about to start from it; said operator by operator, before anything runs."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Protocol

from sage_actor.checkpoint.manifest import Manifest, OperatorManifest
from sage_actor.errors import StateMismatch

__all__ = ["validate"]


# What is asked of a plan and of settings. Their classes belong to the layers above.


class _Operator(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def uid(self) -> str | None: ...


class _Chain(Protocol):
    @property
    def operators(self) -> Sequence[_Operator]: ...
    @property
    def parallelism(self) -> int: ...


class _Plan(Protocol):
    @property
    def chains(self) -> Sequence[_Chain]: ...


class _Settings(Protocol):
    @property
    def allow_unmatched(self) -> bool: ...
    @property
    def max_parallelism(self) -> int | None: ...


def validate(manifest: Manifest, plan: _Plan, settings: _Settings) -> None:
    """Compare what was saved with what is to run. Operators that have saved nothing may come, go and change as they like.

    Args:
        manifest: what is to be restored.
        plan: what is to run; an operator is found by its uid, else by its name.
        settings: ``allow_unmatched`` lets saved state go to which no operator belongs; ``max_parallelism`` must be what it was.

    Raises:
        StateMismatch: everything that differs, and how to allow it. Nothing has been touched.
    """
    planned = {operator.uid or operator.name: (operator, chain.parallelism) for chain in plan.chains for operator in chain.operators}
    problems: list[StateMismatch] = []
    for uid, saved in manifest.operators.items():
        if not has_state(saved):
            continue
        if uid in planned:
            operator, parallelism = planned[uid]
            problems.extend(_differences(uid, saved, operator, parallelism, settings))
        elif not settings.allow_unmatched:
            problems.append(_unmatched(uid, saved, {name: operator for name, (operator, _) in planned.items()}, manifest))
    if len(problems) == 1:
        raise problems[0]
    if problems:
        texts = [f"\n  {problem}" for problem in problems]
        raise StateMismatch(manifest.job, f"checkpoint {manifest.checkpoint} does not fit the dataflow:{''.join(texts)}")


def has_state(saved: OperatorManifest) -> bool:
    """Whether there is anything to restore for an operator."""
    return any(part.files for part in saved.parts)


def _differences(uid: str, saved: OperatorManifest, operator: _Operator, parallelism: int, settings: _Settings) -> Iterator[StateMismatch]:
    if operator.kind != saved.kind:
        yield StateMismatch(
            operator.name,
            f"uid {uid!r} was saved by an operator of kind {saved.kind!r}, and is now of kind {operator.kind!r}",
            "give the new operator a uid of its own, and set 'checkpoint.allow_unmatched': True to let the old state go",
        )
        return
    kinds = {name: table.kind for part in saved.parts for name, table in part.tables.items()}
    if "keyed" in kinds.values():
        yield from _other_groups(saved, operator, parallelism, settings)
    for name, kind in kinds.items():
        if kind == "own" and parallelism != saved.parallelism:
            yield StateMismatch(
                operator.name,
                f"its state {name!r} belongs to each of {saved.parallelism} tasks and cannot be dealt to {parallelism}",
                f"set its parallelism to {saved.parallelism}",
            )


def _other_groups(saved: OperatorManifest, operator: _Operator, parallelism: int, settings: _Settings) -> Iterator[StateMismatch]:
    wanted = settings.max_parallelism
    if wanted is not None and wanted != saved.groups:
        yield StateMismatch(
            operator.name,
            f"its state is dealt over max_parallelism={saved.groups}, and max_parallelism={wanted} was asked for; the first run fixes it",
            f"set max_parallelism={saved.groups}, or leave it out",
        )
    elif parallelism > saved.groups:
        yield StateMismatch(
            operator.name,
            f"its state is dealt over {saved.groups} key groups, too few for parallelism {parallelism}",
            f"set its parallelism to {saved.groups} or less, or begin without the state",
        )


def _unmatched(uid: str, saved: OperatorManifest, planned: dict[str, _Operator], manifest: Manifest) -> StateMismatch:
    new = [name for name in planned if name not in manifest.operators]
    near = difflib.get_close_matches(uid, new, n=1, cutoff=0.5) or [name for name in new if planned[name].kind == saved.kind]
    hint = f"if it is {planned[near[0]].name!r} now, give that uid={uid!r}; " if near else ""
    return StateMismatch(
        saved.name,
        f"the checkpoint holds state of {uid!r} ({saved.kind}), and no operator of the dataflow has this uid or name",
        f"{hint}set 'checkpoint.allow_unmatched': True to let the state go",
    )
