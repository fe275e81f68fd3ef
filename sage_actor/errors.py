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
    │   ├── MailboxClosed
    │   ├── ActorFailed       the handler of an ask raised, or an actor could not start
    │   ├── ActorStopped      the actor has ended, or ends, and takes no messages
    │   │   └── ActorLost     the worker that it lived on was lost
    │   ├── AskTimeout        no answer within the time given
    │   ├── AskCycle          the ask would wait for itself
    │   ├── AskAbandoned      the request on whose behalf an ask was made has ended
    │   ├── BadCall           the message does not fit the actor
    │   ├── NameTaken         an actor of that name lives already
    │   └── ActorEnded        a watched or linked actor ended, and nobody handled that
    ├── JournalError          the journal that durable actors write, used wrongly
    │   ├── JournalConflict   somebody else wrote to this entity meanwhile
    │   ├── JournalCorrupt    what was stored is damaged or missing
    │   └── JournalUnavailable  closed, locked, full, or not a journal
    ├── StateError            keyed or operator state cannot be kept, read or restored
    │   └── StateMismatch     what was saved does not fit what is to run
    ├── CheckpointError       checkpoints cannot be written, found or taken
    │   ├── CheckpointDamaged a file of a checkpoint is missing, torn or changed
    │   ├── Fenced            a newer attempt has taken over
    │   └── SavepointNotFound nothing to restore at that place
    ├── CommitFailed          a sink could not commit what belongs to a complete checkpoint
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
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "ActorEnded",
    "ActorError",
    "ActorFailed",
    "ActorLost",
    "ActorStopped",
    "AskAbandoned",
    "AskCycle",
    "AskTimeout",
    "BackendError",
    "BackendUnavailable",
    "BadCall",
    "CheckpointDamaged",
    "CheckpointError",
    "CommitFailed",
    "ConfigError",
    "ConnectorError",
    "Fenced",
    "FrameError",
    "GraphError",
    "JobCancelled",
    "JobError",
    "JobFailed",
    "JobNotFound",
    "JournalConflict",
    "JournalCorrupt",
    "JournalError",
    "JournalUnavailable",
    "MailboxClosed",
    "MailboxFull",
    "NameTaken",
    "NeverStarted",
    "NotFinished",
    "OperatorError",
    "PoolError",
    "PoolFull",
    "RequestError",
    "SageError",
    "SavepointNotFound",
    "SerializationError",
    "ServerError",
    "ServerUnreachable",
    "StateError",
    "StateMismatch",
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


class ActorFailed(ActorError):
    """A handler raised while it served an ask, or an actor could not start; the user's own exception is ``__cause__``.

    That an ask failed does not mean that nothing was done: the handler may have acted before it raised.

    Attributes:
        actor: path of the actor.
        message: type and text of the original exception.
        doing: what it was doing: the handler's name, or "start".
    """

    if TYPE_CHECKING:
        __cause__: Any  # the user's own exception; Any, so that a chain of causes is walked without casts

    def __init__(self, actor: str, message: str, doing: str = "") -> None:
        super().__init__(actor, message, doing)
        self.actor = actor
        self.message = message
        self.doing = doing

    def __str__(self) -> str:
        place = f"actor {self.actor!r}" + (f", {self.doing}" if self.doing else "")
        return f"{place}: {self.message}"


class ActorStopped(ActorError):
    """The actor has ended, or takes no new messages because it ends; the ask was not answered.

    Attributes:
        actor: path of the actor.
        reason: why it ended, in words.
    """

    def __init__(self, actor: str, reason: str = "") -> None:
        super().__init__(actor, reason)
        self.actor = actor
        self.reason = reason

    def __str__(self) -> str:
        why = f" ({self.reason})" if self.reason else ""
        return f"actor {self.actor!r} has stopped{why}; spawn it again, or watch it to learn of its end earlier"


class ActorLost(ActorStopped):
    """The worker that the actor lived on was lost (the ``__cause__``): what it had handled by then is not known (rule A22).

    Attributes:
        worker: the worker's number in its actor system; -1 for the owner.
    """

    def __init__(self, actor: str, worker: int, reason: str) -> None:
        super().__init__(actor, reason)
        self.args = (actor, worker, reason)
        self.worker = worker

    def __str__(self) -> str:
        return f"actor {self.actor!r} is lost with its worker ({self.reason}); spawn it again on another, and ask what had been done"


class AskTimeout(ActorError, TimeoutError):
    """No answer came within the time given. The handler may run, have run, or never run.

    Attributes:
        actor: path of the actor that was asked.
        seconds: the time that had been given.
        doing: the handler that was asked for.
    """

    def __init__(self, actor: str, seconds: float, doing: str = "") -> None:
        super().__init__(actor, seconds, doing)
        self.actor = actor
        self.seconds = seconds
        self.doing = doing

    def __str__(self) -> str:
        asked = f" ({self.doing})" if self.doing else ""
        return f"actor {self.actor!r} gave no answer within {self.seconds:g} s{asked}; it may still act on the message"


class AskCycle(ActorError):
    """The ask would wait for itself: the actor asked is waiting, through others, for the one who asks.

    Attributes:
        actors: paths of the actors around the cycle, first and last the same.
    """

    def __init__(self, actors: Sequence[str]) -> None:
        super().__init__(tuple(actors))
        self.actors = tuple(actors)

    def __str__(self) -> str:
        return (
            f"ask cycle {' -> '.join(self.actors)}: each waits for the next one's answer; "
            "use tell for one of them, or spawn the first with reentrant=True"
        )


class AskAbandoned(ActorError):
    """The request on whose behalf this ask was made has been cancelled or has passed its deadline; nothing was sent.

    Attributes:
        actor: path of the actor that was to be asked.
    """

    def __init__(self, actor: str) -> None:
        super().__init__(actor)
        self.actor = actor

    def __str__(self) -> str:
        return f"actor {self.actor!r} was not asked: nobody waits any more for the request that this ask belongs to"


class BadCall(ActorError, TypeError):
    """The message does not fit the actor: no such method, wrong arguments, or no `receive`. The actor goes on unharmed.

    Attributes:
        actor: path of the actor.
        problem: what does not fit.
    """

    def __init__(self, actor: str, problem: str) -> None:
        super().__init__(actor, problem)
        self.actor = actor
        self.problem = problem

    def __str__(self) -> str:
        return f"actor {self.actor!r} cannot take this message: {self.problem}"


class NameTaken(ActorError):
    """An actor of that name lives already.

    Attributes:
        name: path that was wanted.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"an actor {self.name!r} lives already; choose another name, leave the name out, or wait for its end with watch()"


class ActorEnded(ActorError):
    """A watched or linked actor has ended, and `on_terminated` did not handle it; so the watcher fails.

    Attributes:
        actor: path of the actor that ended.
        reason: why, in words; "" for an orderly stop.
    """

    def __init__(self, actor: str, reason: str = "") -> None:
        super().__init__(actor, reason)
        self.actor = actor
        self.reason = reason

    def __str__(self) -> str:
        why = self.reason or "it was stopped"
        return f"actor {self.actor!r}, which this one watches or is linked to, has ended: {why}; override on_terminated to handle it"


class JournalError(SageError):
    """The journal of durable actors was used wrongly; the branches below say what else can happen.

    Attributes:
        journal: its file, or "memory".
    """

    def __init__(self, journal: str, reason: str, hint: str = "") -> None:
        super().__init__(journal, reason, hint)
        self.journal = journal
        self.reason = reason
        self.hint = hint

    def __str__(self) -> str:
        return f"journal {self.journal!r}: {self.reason}" + (f"; {self.hint}" if self.hint else "")


class JournalUnavailable(JournalError):
    """The journal cannot be reached or written: not open, locked by another process, disk full, read-only, not a journal.

    Nothing that was stored is harmed. Whether an append that ended so was stored is not known: read the last sequence.
    """


class JournalConflict(JournalError):
    """An append was refused: the last stored entry is not the one that the writer had seen.

    Attributes:
        id: the entity.
        expected: the sequence that the writer took for the last.
        stored: the sequence that is the last.
    """

    def __init__(self, journal: str, id: str, expected: int, stored: int) -> None:
        SageError.__init__(self, journal, id, expected, stored)
        self.journal = journal
        self.id = id
        self.expected = expected
        self.stored = stored
        self.reason = f"entity {id!r}: the append expected {expected} to be the last sequence, and {stored} is"
        self.hint = "another instance writes to this id: stop one of them; then load the entity anew, which reads what the other one wrote"


class JournalCorrupt(JournalError):
    """Something stored fails its checksum or is missing. Nothing is skipped: what was read before it is sound.

    Attributes:
        id: the entity, or "" if the file as a whole is damaged.
        sequence: the damaged or missing entry, or 0 if it is not a matter of one entry.
    """

    def __init__(self, journal: str, id: str, sequence: int, damage: str) -> None:
        SageError.__init__(self, journal, id, sequence, damage)
        self.journal = journal
        self.id = id
        self.sequence = sequence
        self.damage = damage
        place = (f"entity {id!r}: " if id else "") + (f"entry {sequence}: " if sequence else "")
        self.reason = f"{place}{damage}"
        self.hint = "stop its writers, copy the file away as it is, and restore it from a backup; entries before the named one are sound"


class StateError(SageError):
    """State of an operator could not be kept or read.

    Attributes:
        operator, state: whose it is, and its name ("" if it concerns all of the operator's state).
        problem: what is wrong, and what to do.
    """

    def __init__(self, operator: str, state: str, problem: str) -> None:
        super().__init__(operator, state, problem)
        self.operator = operator
        self.state = state
        self.problem = problem

    def __str__(self) -> str:
        place = f"operator {self.operator!r}" + (f", state {self.state!r}" if self.state else "")
        return f"{place}: {self.problem}"


class StateMismatch(StateError):
    """Saved state does not fit what is to run. Nothing was changed.

    Attributes:
        operator: name or uid of the operator, or the job's name where the graph as a whole differs.
        problem: what differs.
        remedy: how to allow it, or what to change.
    """

    def __init__(self, operator: str, problem: str, remedy: str = "") -> None:
        super().__init__(operator, "", problem)
        self.args = (operator, problem, remedy)
        self.remedy = remedy

    def __str__(self) -> str:
        return f"operator {self.operator!r}: {self.problem}" + (f"; {self.remedy}" if self.remedy else "")


class CheckpointError(SageError):
    """A checkpoint or savepoint could not be written, found or taken.

    Attributes:
        job: name of the job.
        problem: what went wrong, and what to do.
        place: folder or file, or "".
    """

    def __init__(self, job: str, problem: str, place: str = "") -> None:
        super().__init__(job, problem, place)
        self.job = job
        self.problem = problem
        self.place = place

    def __str__(self) -> str:
        return f"job {self.job!r}: {self.problem}" + (f" ({self.place})" if self.place else "")


class CheckpointDamaged(CheckpointError):
    """A file of a checkpoint is missing, torn or changed; an older checkpoint may still be whole.

    Attributes:
        file: name of the file within the checkpoint folder.
    """

    def __init__(self, job: str, file: str, problem: str) -> None:
        super().__init__(job, problem, file)
        self.args = (job, file, problem)
        self.file = file


class Fenced(CheckpointError):
    """This attempt has been replaced by a newer one and may not write any more (rule F42).

    Attributes:
        attempt: the one that was refused.
        by: the one that has taken over.
    """

    def __init__(self, job: str, attempt: int, by: int) -> None:
        super().__init__(job, f"attempt {attempt} was replaced by attempt {by} and may write no more; another process runs this job now")
        self.args = (job, attempt, by)
        self.attempt = attempt
        self.by = by


class SavepointNotFound(CheckpointError):
    """There is no savepoint or checkpoint at that place."""

    def __init__(self, path: str) -> None:
        super().__init__("", "there is no savepoint or checkpoint to restore from; `sage checkpoints FOLDER` lists what is there", path)
        self.args = (path,)
        self.path = path

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


class CommitFailed(SageError):
    """A sink could not commit what belongs to a complete checkpoint. It is kept, and tried again by the next attempt (rule F26).

    Attributes:
        operator: name of the sink.
        transaction: what was to be committed.
        problem: what the target said.
    """

    def __init__(self, operator: str, transaction: str, problem: str) -> None:
        super().__init__(operator, transaction, problem)
        self.operator = operator
        self.transaction = transaction
        self.problem = problem

    def __str__(self) -> str:
        told = f"sink {self.operator!r} could not commit {self.transaction}: {self.problem}"
        return f"{told}; it stays prepared and is tried again after a restart"


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
        exit_code: exit status; negative is minus the signal number; None if it fell silent, or if nobody was told (a Ray actor).
        last_words: the end of what it wrote to stderr.
        place: name of the place that it belonged to, or "".
    """

    def __init__(self, worker: int, pid: int | None, exit_code: int | None, last_words: str = "", place: str = "") -> None:
        super().__init__(worker, pid, exit_code, last_words, place)
        self.worker = worker
        self.pid = pid
        self.exit_code = exit_code
        self.last_words = last_words
        self.place = place

    def __str__(self) -> str:
        if self.exit_code is None:
            how = "ended or fell silent"
        elif self.exit_code < 0:
            how = f"was killed by signal {-self.exit_code} (exit code {self.exit_code})"
        else:
            how = f"exited with code {self.exit_code}"
        where = f" of place {self.place!r}" if self.place else ""
        text = f"worker {self.worker}{where} (process {self.pid}) {how}"
        if self.last_words.strip():
            return f"{text}; its last words:\n{self.last_words.rstrip()}"
        return f"{text}; it wrote nothing to stderr"


class PoolError(SageError):
    """A pool of threads, processes or memory cannot do what it was asked for."""


class PoolFull(PoolError):
    """No room, and the caller did not want to wait; the message says in what, how much it holds, and what to do."""


class FrameError(BackendError):
    """A frame between workers is damaged, forged, out of sequence, or of another attempt."""


class SerializationError(SageError):
    """Something must travel to another process and cannot be pickled, or may not travel there."""

    def __init__(
        self, what: str, reason: str, hint: str = "create it in `open(context)` of a function class, or run with backend='local'"
    ) -> None:
        super().__init__(what, reason, hint)
        self.what = what
        self.reason = reason
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what} cannot travel to a worker process: {self.reason}" + (f"; {self.hint}" if self.hint else "")


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
