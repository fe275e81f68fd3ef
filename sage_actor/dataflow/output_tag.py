"""Names of side outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from sage_actor.errors import GraphError

__all__ = ["OutputTag"]

T = TypeVar("T")


@dataclass(frozen=True)  # no slots: OutputTag[int]("late") could not set its attribute of the origin then
class OutputTag(Generic[T]):
    """A side output: where late records, or whatever a process function puts aside, are found.

    ``OutputTag[int]("late")`` says what its records are. Tags of one name are the same output of an operator.
    """

    name: str

    def __post_init__(self) -> None:
        if not self.name:
            raise GraphError("an OutputTag needs a non-empty name")

    @property
    def port(self) -> str:
        """The operator's port that carries it."""
        return f"side:{self.name}"
