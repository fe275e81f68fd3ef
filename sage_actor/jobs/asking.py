"""What a running job can be asked for from outside, carried out in its process: a savepoint, or the state of a key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec

from sage_actor.errors import JobError, SageError, StateError
from sage_actor.jobs.watch import JobWatch
from sage_actor.runtime.job import Job

__all__ = ["Answer", "AskRefused", "Asked", "carry_out", "key_from_json", "plain_value"]

QUERY_TIMEOUT = 20.0
"""Seconds a query may take: its task may still be opening its state, or a function block it."""

Asked = Mapping[str, object]
"""``ask`` ("savepoint" or "query") and what belongs to it."""

Answer = dict[str, object]


class AskRefused(JobError):
    """A job could not do what it was asked for.

    Attributes:
        kind: name of the error in the job's process.
        reason: its text.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(kind, reason)
        self.kind = kind
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


def carry_out(watch: JobWatch, asked: Asked) -> Answer:
    """Do what was asked for; a failure is an answer too. Blocks, and not on the loop of a job.

    Returns:
        ``place`` for a savepoint, ``found`` and ``value`` for a query, or ``error`` and ``kind``.
    """
    try:
        if asked["ask"] == "savepoint":
            job = _only(watch, asked, lambda job: True)
            target = cast("str | None", asked["target"])
            return {"place": job.savepoint_in_thread(target, stop=bool(asked["stop"]))}
        return _query(watch, asked)
    except (SageError, TimeoutError, OSError) as error:
        return {"error": str(error), "kind": type(error).__name__}


def _query(watch: JobWatch, asked: Asked) -> Answer:
    operator, state = str(asked["operator"]), str(asked["state"])
    job = _only(watch, asked, lambda job: operator in job.operators())
    found = job.query_in_thread(operator, state, key_from_json(asked["key"]), _NOTHING, timeout=QUERY_TIMEOUT)
    return {"found": found is not _NOTHING, "value": None if found is _NOTHING else plain_value(found)}


def _only(watch: JobWatch, asked: Asked, suits: Callable[[Job], bool]) -> Job:
    """The dataflow meant: the one of that name, or the only one that suits."""
    name = asked.get("dataflow")
    live = [job for job in watch.live if name in (None, job.name)]
    if not live:
        raise JobError("no dataflow runs in it just now" if name is None else f"no dataflow named {name!r} runs in it just now")
    chosen = [job for job in live if suits(job)] if len(live) > 1 else live
    if len(chosen) > 1:
        names = ", ".join(sorted({repr(job.name) for job in chosen}))
        raise JobError(f"{len(chosen)} dataflows run in it ({names}); say which one is meant")
    if not chosen:
        raise StateError(str(asked["operator"]), str(asked["state"]), f"none of the {len(live)} dataflows that run in it has that operator")
    return chosen[0]


_NOTHING = object()


def key_from_json(key: object) -> Any:
    """A key as it came through JSON: arrays are tuples, since a list is no key."""
    return tuple(key_from_json(part) for part in cast("list[object]", key)) if isinstance(key, list) else key


def plain_value(value: object) -> object:
    """A value as JSON has it; what JSON knows nothing of becomes its text, keys of mappings too."""
    try:
        return msgspec.to_builtins(value, str_keys=True, enc_hook=repr)
    except Exception:  # noqa: BLE001 - values of user classes: their repr, or keys that no encoder takes
        return _by_hand(value)


def _by_hand(value: object) -> object:
    try:
        if issubclass(type(value), dict):
            return {str(key): plain_value(each) for key, each in cast("dict[object, object]", value).items()}
        return repr(value)
    except Exception as error:  # noqa: BLE001 - whatever the __str__ or __repr__ of a user's class raises
        return f"<{type(value).__name__}, whose repr raised {type(error).__name__}>"
