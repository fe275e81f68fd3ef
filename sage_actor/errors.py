"""Every error sage_actor raises, in one tree.

    SageError
    ├── GraphError            the dataflow as written cannot run
    │   └── NeverStarted      a dataflow was described but nothing started it
    ├── NotFinished           results were read before the job ended
    ├── JobError              a job failed, was cancelled, or is unknown
    │   ├── OperatorError     a user function, source or sink raised
    │   ├── JobFailed         a job failed elsewhere (another process, a supervisor)
    │   ├── JobCancelled      somebody cancelled the job
    │   └── JobNotFound       no job of that id
    ├── RequestError          a served request got no answer
    ├── ActorError            mailboxes and actors
    │   ├── MailboxFull
    │   └── MailboxClosed
    ├── BackendError          workers and the links between them
    │   ├── UnknownBackend
    │   ├── BackendUnavailable
    │   ├── WorkerLost
    │   └── FrameError        a damaged, forged or out-of-sequence frame
    ├── SerializationError    something cannot travel to another process
    ├── UnstableKey           a key has no stable encoding
    ├── ConfigError           a setting is unknown or ill-typed
    ├── ConnectorError        a file, server or format outside refused
    └── ServerError           talking to the supervisor process
        ├── Unauthorized
        └── ServerUnreachable

Each error carries fields and composes its own message: where it happened, then what to do next.
All of them survive pickling (they cross process borders), fields and ``__cause__`` text included.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "ActorError",
    "BackendError",
    "BackendUnavailable",
    "ConfigError",
    "ConnectorError",
    "FrameError",
    "GraphError",
    "JobCancelled",
    "JobError",
    "JobFailed",
    "JobNotFound",
    "MailboxClosed",
    "MailboxFull",
    "NeverStarted",
    "NotFinished",
    "OperatorError",
    "RequestError",
    "SageError",
    "SerializationError",
    "ServerError",
    "ServerUnreachable",
    "Unauthorized",
    "UnknownBackend",
    "UnstableKey",
    "WorkerLost",
]


class SageError(Exception):
    """Root of everything this library raises on purpose."""


class GraphError(SageError):
    """The dataflow as written cannot run; raised while it is built or compiled, before any record moves."""


class NeverStarted(GraphError):
    """A dataflow was described, but nothing started it (a forgotten ``await env.execute()``)."""

    def __init__(self, job: str, operators: Sequence[str]) -> None:
        super().__init__(job, tuple(operators))
        self.job = job
        self.operators = tuple(operators)

    def __str__(self) -> str:
        return (
            f"job {self.job!r}: {', '.join(self.operators)} was described but never started; "
            "call `await env.execute()` or `await env.submit()` before leaving the environment"
        )


class NotFinished(SageError):
    """Results of ``collect()`` were read while the job had not finished."""

    def __init__(self, job: str, operator: str, status: str) -> None:
        super().__init__(job, operator, status)
        self.job = job
        self.operator = operator
        self.status = status

    def __str__(self) -> str:
        return (
            f"job {self.job!r}: the results of {self.operator!r} are not complete (status: {self.status}); "
            "wait with `await job.wait()` or `env.execute()` first, or iterate with `async for`"
        )


class JobError(SageError):
    """A job failed, was cancelled, or is unknown."""


class OperatorError(JobError):
    """A user function, a source or a sink raised; the user's own exception is ``__cause__``.

    Attributes:
        job: name of the job.
        operator: name of the operator.
        message: type and text of the original exception (also when that one cannot cross a process border).
        key: the record's key, or None outside keyed operators.
        position: the record's position in its source (0 is the first), or None where it is not known.
        value: a shortened ``repr`` of the record, or None.
        task: index of the parallel instance.
        traceback: the original traceback as text, when it happened in another process, else "".
    """

    def __init__(
        self,
        job: str,
        operator: str,
        message: str,
        key: object = None,
        position: int | None = None,
        value: str | None = None,
        task: int = 0,
        traceback: str = "",
    ) -> None:
        super().__init__(job, operator, message, key, position, value, task, traceback)
        self.job = job
        self.operator = operator
        self.message = message
        self.key = key
        self.position = position
        self.value = value
        self.task = task
        self.traceback = traceback

    def __str__(self) -> str:
        place = f"job {self.job!r}, operator {self.operator!r}"
        if self.task:
            place += f" (task {self.task})"
        if self.key is not None:
            place += f", key {self.key!r}"
        if self.position is not None:
            place += f", source position {self.position}"
        text = f"{place}: {self.message}"
        if self.value is not None:
            text += f"; record: {self.value}"
        if self.traceback:
            text += f"\n--- where it happened ---\n{self.traceback.rstrip()}"
        return text


class JobFailed(JobError):
    """A job failed in another process; ``reason`` is its error as text."""

    def __init__(self, job: str, reason: str) -> None:
        super().__init__(job, reason)
        self.job = job
        self.reason = reason

    def __str__(self) -> str:
        return f"job {self.job!r} failed: {self.reason}"


class JobCancelled(JobError):
    """Somebody cancelled the job while it was awaited."""

    def __init__(self, job: str, reason: str = "") -> None:
        super().__init__(job, reason)
        self.job = job
        self.reason = reason

    def __str__(self) -> str:
        return f"job {self.job!r} was cancelled" + (f": {self.reason}" if self.reason else "")


class JobNotFound(JobError):
    """No job of that id or name is known."""

    def __init__(self, job: str, known: Sequence[str] = ()) -> None:
        super().__init__(job, tuple(known))
        self.job = job
        self.known = tuple(known)

    def __str__(self) -> str:
        hint = f"known: {', '.join(self.known)}" if self.known else "no jobs are known here"
        return f"no job {self.job!r}; {hint}"


class RequestError(SageError):
    """A served request got no answer: the flow ended, or the deadline passed."""

    def __init__(self, job: str, reason: str) -> None:
        super().__init__(job, reason)
        self.job = job
        self.reason = reason

    def __str__(self) -> str:
        return f"request to served job {self.job!r} got no answer: {self.reason}"


class ActorError(SageError):
    """Mailboxes and actors."""


class MailboxFull(ActorError):
    """A bounded mailbox with ``overflow="fail"`` has no room."""

    def __init__(self, name: str, capacity: int) -> None:
        super().__init__(name, capacity)
        self.name = name
        self.capacity = capacity

    def __str__(self) -> str:
        return (
            f"mailbox {self.name!r} is full ({self.capacity} messages); await the put, raise its capacity, "
            "or choose overflow='wait', 'drop_new' or 'drop_old'"
        )


class MailboxClosed(ActorError):
    """The mailbox no longer accepts messages."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"mailbox {self.name!r} is closed: its owner has stopped"


class BackendError(SageError):
    """Workers and the links between them."""


class UnknownBackend(BackendError):
    """No backend of that name is installed."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(name, tuple(known))
        self.name = name
        self.known = tuple(known)

    def __str__(self) -> str:
        import difflib  # only when somebody reads the message

        near = difflib.get_close_matches(self.name, self.known, n=1)
        suggestion = f"did you mean {near[0]!r}? " if near else ""
        return (
            f"no backend {self.name!r}; {suggestion}installed: {', '.join(self.known) or 'none'} "
            "(backends are found through the entry-point group 'sage_actor.backends')"
        )


class BackendUnavailable(BackendError):
    """What the backend needs is not there (a Redis server, a free port, a package)."""

    def __init__(self, backend: str, reason: str, hint: str = "") -> None:
        super().__init__(backend, reason, hint)
        self.backend = backend
        self.reason = reason
        self.hint = hint

    def __str__(self) -> str:
        return f"backend {self.backend!r} is not available: {self.reason}" + (f"; {self.hint}" if self.hint else "")


class WorkerLost(BackendError):
    """A worker process ended or fell silent while its job was running.

    Attributes:
        worker: the worker's number.
        pid: its process id, or None if unknown.
        exit_code: exit status; negative is minus the signal number; None if it fell silent.
        last_words: the end of what it wrote to stderr.
    """

    def __init__(self, worker: int, pid: int | None, exit_code: int | None, last_words: str = "") -> None:
        super().__init__(worker, pid, exit_code, last_words)
        self.worker = worker
        self.pid = pid
        self.exit_code = exit_code
        self.last_words = last_words

    def __str__(self) -> str:
        if self.exit_code is None:
            how = "fell silent"
        elif self.exit_code < 0:
            how = f"was killed by signal {-self.exit_code} (exit code {self.exit_code})"
        else:
            how = f"exited with code {self.exit_code}"
        text = f"worker {self.worker} (process {self.pid}) {how}"
        if self.last_words.strip():
            return f"{text}; its last words:\n{self.last_words.rstrip()}"
        return f"{text}; it wrote nothing to stderr"


class FrameError(BackendError):
    """A frame between workers is damaged, forged, out of sequence, or of another attempt."""


class SerializationError(SageError):
    """Something must travel to another process and cannot be pickled."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(what, reason)
        self.what = what
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"{self.what} cannot travel to a worker process: {self.reason}; create such resources in `open(context)` "
            "of a function class, or run with backend='local'"
        )


class UnstableKey(SageError):
    """A key has no encoding that is equal in every process for equal keys."""

    def __init__(self, key_type: str, reason: str = "") -> None:
        super().__init__(key_type, reason)
        self.key_type = key_type
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"a key of type {self.key_type!r} cannot be used{': ' + self.reason if self.reason else ''}; allowed are str, bytes, bool, "
            "int, finite float, Decimal, UUID, date, datetime, Enum, and tuples, frozen dataclasses and frozen structs "
            "of these; or give the type a method `__stable_key__` that returns one of them"
        )


class ConfigError(SageError):
    """A setting is unknown, ill-typed or contradicts another.

    Attributes:
        key: the dotted key.
        where: file and line, environment variable, or "code".
    """

    def __init__(self, key: str, reason: str, where: str = "code", suggestion: str = "") -> None:
        super().__init__(key, reason, where, suggestion)
        self.key = key
        self.reason = reason
        self.where = where
        self.suggestion = suggestion

    def __str__(self) -> str:
        text = f"setting {self.key!r} ({self.where}): {self.reason}"
        return f"{text}; did you mean {self.suggestion!r}?" if self.suggestion else text


class ConnectorError(SageError):
    """A file, server or format outside this program refused.

    Attributes:
        place: path with line, address, or query.
    """

    def __init__(self, place: str, reason: str, hint: str = "") -> None:
        super().__init__(place, reason, hint)
        self.place = place
        self.reason = reason
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}" + (f"; {self.hint}" if self.hint else "")


class ServerError(SageError):
    """The supervisor process answered with an error, or not at all."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(address, reason)
        self.address = address
        self.reason = reason

    def __str__(self) -> str:
        return f"supervisor at {self.address}: {self.reason}"


class Unauthorized(ServerError):
    """The token is missing or wrong."""

    def __str__(self) -> str:
        return (
            f"supervisor at {self.address} refused the token ({self.reason}); the token of a supervisor of the same account "
            "is found by itself when SAGE_ACTOR_HOME is the same; otherwise pass `token=`"
        )


class ServerUnreachable(ServerError):
    """Nothing listens at that address."""

    def __str__(self) -> str:
        return f"no supervisor at {self.address} ({self.reason}); start one with `python -m sage_actor`"
