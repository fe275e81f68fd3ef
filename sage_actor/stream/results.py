"""What `collect()` gives: a sequence that is complete once the job has finished."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar, overload

from sage_actor.errors import NotFinished

if TYPE_CHECKING:
    from sage_actor.dataflow.graph import Operator
    from sage_actor.stream.environment import EnvironmentBase

__all__ = ["Collected"]

T = TypeVar("T")


class Collected(Sequence[T], Generic[T]):
    """Records gathered from a stream. Reading before the job has finished raises `NotFinished`."""

    def __init__(self) -> None:
        self._records: list[T] = []
        self._env: EnvironmentBase | None = None
        self._operator: Operator | None = None

    def bind(self, env: EnvironmentBase, operator: Operator) -> None:
        """Remember where the records come from."""
        self._env = env
        self._operator = operator

    def begin(self) -> list[T]:
        """Called by the runtime, for every attempt: the list to fill."""
        self._records = []
        return self._records

    def _finished(self) -> list[T]:
        env, operator = self._env, self._operator
        if env is None or operator is None:
            return self._records
        status = env.status_of(operator)
        if status != "finished":
            raise NotFinished(env.name, operator.name, status)
        return self._records

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        return self._finished()[index]

    def __len__(self) -> int:
        return len(self._finished())

    def __iter__(self) -> Iterator[T]:
        return iter(self._finished())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Collected):
            return self._finished() == other._finished()
        return self._finished() == other if isinstance(other, list) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        try:
            return repr(self._finished())
        except NotFinished as error:
            return f"<collected, {error.status}>"

    def __reduce__(self) -> tuple[type[Collected[T]], tuple[()]]:
        """The records stay in the submitting process; a shipped graph carries an empty holder."""
        return (Collected, ())
