"""The worker's side of a process pool, and what travels between the two.

A call is a frame of the function's number, the function itself (only in the first call that a worker makes of it) and the
pickled arguments; an answer is one byte that says how it went, then the pickled result or failure.
"""

from __future__ import annotations

import asyncio
import pickle
import struct
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NoReturn

from sage_actor.actor.portable import dump, portable_error
from sage_actor.errors import ActorError, BackendError
from sage_actor.ports import offload

if TYPE_CHECKING:
    from sage_actor.actor.backend import Endpoint

__all__ = ["ENTRY", "Absent", "PackedCall", "answer_of", "main", "result_of"]

ENTRY: Final = f"{__name__}:main"
"""What a worker process runs."""

HEADER: Final = struct.Struct("<QQ")  # number of the function, size of its pickle (0: the worker has it)
RETURNED: Final = b"\0"
FAILED: Final = b"\1"


@dataclass(frozen=True, slots=True)
class PackedCall:
    """A call that is fit to travel.

    Attributes:
        number: stands for the function within its pool.
        name: of the function, for messages.
        function: it, pickled.
        arguments: the pickled pair of arguments and keyword arguments.
    """

    number: int
    name: str
    function: bytes
    arguments: bytes

    def parts(self, *, known: bool) -> list[bytes]:
        """The frame, in parts; without the function for a worker to which it is known."""
        function = b"" if known else self.function
        return [HEADER.pack(self.number, len(function)), function, self.arguments]


class Absent:
    """Stands for `self` in a worker process: whatever is read from it or written to it raises, and says why."""

    __slots__ = ("_method",)

    def __init__(self, method: str) -> None:
        object.__setattr__(self, "_method", method)

    def __repr__(self) -> str:
        return "<an actor in another process>"

    def __getattribute__(self, name: str) -> NoReturn:
        raise _absent(self, name)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise _absent(self, name)

    def __delattr__(self, name: str) -> NoReturn:
        raise _absent(self, name)


def _absent(absent: Absent, name: str) -> ActorError:
    method: str = object.__getattribute__(absent, "_method")
    return ActorError(
        f"self.{name}: method {method!r} is declared blocking(pool='process'), so it runs in another process, and the actor's state is "
        "not there; pass the values that it needs as arguments, and return what it found"
    )


Functions = dict[int, tuple[Callable[..., object], str]]


async def main(endpoint: Endpoint) -> None:
    """A worker's life: one call after the other, until the owner ends it.

    Functions run in a thread beside the loop, so that they may have an event loop of their own, and the end is heard meanwhile.
    """
    calls: asyncio.Queue[bytes] = asyncio.Queue()
    functions: Functions = {}
    endpoint.start(lambda sender, frame: calls.put_nowait(bytes(frame)), _ignore)
    while True:
        frame = await calls.get()
        endpoint.send(0, [await offload(partial(answer_of, frame, functions))])


def _ignore(error: BackendError) -> None:
    """Whatever broke, the owner sees it too; the worker's entry is cancelled."""


def answer_of(frame: bytes, functions: Functions) -> bytes:
    """Make a call and pack what came of it; never raises. `functions` are those that this worker has, by their numbers."""
    name, problem = "", "it cannot be loaded in a worker process; its module must be importable there: "
    try:
        number, size = HEADER.unpack_from(frame)
        start = HEADER.size + size
        if size:
            functions[number] = pickle.loads(memoryview(frame)[HEADER.size : start])
        function, name = functions[number]
        problem = "its arguments cannot be unpickled in a worker process: "
        arguments, options = pickle.loads(memoryview(frame)[start:])
        problem = ""  # what goes wrong now is the method's own
        result = function(Absent(name), *arguments, **options)
        problem = f"its result ({type(result).__name__}) cannot travel back: "
        return RETURNED + dump(result)
    except BaseException as error:  # noqa: BLE001 - user code and user pickles; the owner gets what they raise
        return FAILED + _pack_failure(error, problem)


def _pack_failure(error: BaseException, problem: str) -> bytes:
    trace = error.__traceback__
    lines = traceback.format_exception(type(error), error, None if trace is None else trace.tb_next)
    original = None
    # SystemExit and its like would end the owner, were they raised there as themselves.
    if not problem and isinstance(error, Exception) and portable_error(error) is error:
        cause = error.__cause__
        original = dump((error, None if cause is None else portable_error(cause)))
    return dump((f"{problem}{type(error).__name__}: {error}", "".join(lines), original))


def result_of(answer: bytes, name: str) -> object:
    """Give what a call returned, or raise what it raised.

    Raises:
        Exception: the method's own, with its cause; a note holds the worker's traceback.
        ActorError: the same as text, where it cannot travel; or something could not be unpickled on one of the two sides.
    """
    content = memoryview(answer)[1:]
    if answer[:1] == RETURNED:
        try:
            return pickle.loads(content)
        except Exception as error:
            raise ActorError(f"method {name!r}: its result cannot be unpickled in its owner: {type(error).__name__}: {error}") from error
    text, trace, original = pickle.loads(content)
    told = f"--- in the worker process ---\n{str(trace).rstrip()}"
    raised = None if original is None else _rebuilt(original)
    if raised is None:
        raise ActorError(f"method {name!r}: {text}\n{told}")
    raised.add_note(told)
    raise raised


def _rebuilt(packed: bytes) -> Exception | None:
    try:
        loaded: Any = pickle.loads(packed)
        error: Exception = loaded[0]
        error.__cause__ = loaded[1]
        return error
    except Exception:  # noqa: BLE001 - a user's exception class may raise anything while it is rebuilt; its text is there
        return None
