"""What is written down about a checkpoint, and in which form: one JSON document with its own checksum."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec

from sage_actor.errors import CheckpointDamaged, CheckpointError
from sage_actor.state.parts import FileRef, OperatorPart

__all__ = [
    "FORMAT_VERSION",
    "AttemptEntry",
    "CheckpointEntry",
    "EndEntry",
    "Entry",
    "Manifest",
    "Mode",
    "OperatorManifest",
    "decode_entry",
    "encode_entry",
]

FORMAT_VERSION: Final = 1
_MAGIC: Final = b"sage_actor checkpoint "

Mode = Literal["exactly_once", "at_least_once"]


@dataclass(frozen=True, slots=True)
class OperatorManifest:
    """One operator in a checkpoint.

    Attributes:
        name: shown to people; the uid under which it is found is the key in `Manifest.operators`.
        kind: of the operator, as in the graph.
        parallelism: tasks it had.
        groups: number of key groups (maximal parallelism).
        parts: what its tasks saved, by index; a finished task may have none.
        finished: indices of the tasks whose input had ended.
        table: which task owned which key group; None, as in manifests that do not know of it: the default ranges (F14).
    """

    name: str
    kind: str
    parallelism: int
    groups: int
    parts: list[OperatorPart] = field(default_factory=list[OperatorPart])
    finished: list[int] = field(default_factory=list[int])
    table: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """A complete checkpoint: everything that is needed to go on from it.

    Attributes:
        job: name of the job.
        checkpoint: its id; ids increase over all attempts.
        attempt: who took it.
        time_ms: when it was complete.
        mode: of the checkpoint.
        format_version: of manifest and parts.
        operators: by uid.
    """

    job: str
    checkpoint: int
    attempt: int
    time_ms: int
    mode: Mode = "exactly_once"
    format_version: int = FORMAT_VERSION
    operators: dict[str, OperatorManifest] = field(default_factory=dict[str, OperatorManifest])

    def files(self) -> dict[str, FileRef]:
        """Every file it needs, by name."""
        return {ref.name: ref for operator in self.operators.values() for part in operator.parts for ref in part.files}

    @property
    def size(self) -> int:
        """Bytes of all files together, a file that earlier checkpoints share included."""
        return sum(ref.size for ref in self.files().values())


class AttemptEntry(msgspec.Struct, frozen=True, tag="attempt", tag_field="entry"):
    """An attempt has taken over: whatever older ones write from here on does not count.

    Attributes:
        job, slot: where it belongs; a file that was moved or copied is not believed.
        attempt: its number.
        token: tells it from one of the same number in a log that was since discarded.
        generation: number of the run it belongs to; a run that was not asked to resume begins a new one.
        next_checkpoint: the first checkpoint id it may use.
        time_ms: when.
        restored: where the run's first state came from, "" if it began empty.
    """

    job: str
    slot: int
    attempt: int
    token: str
    generation: int
    next_checkpoint: int
    time_ms: int
    restored: str = ""


class CheckpointEntry(msgspec.Struct, frozen=True, tag="checkpoint", tag_field="entry"):
    """A checkpoint is complete. Counts only while the entry of its attempt, with the same token, is the last one before it.

    In a savepoint, which stands for itself, `slot` is 0 and `token` empty.
    """

    job: str
    slot: int
    token: str
    manifest: Manifest


class EndEntry(msgspec.Struct, frozen=True, tag="end", tag_field="entry"):
    """The run of that attempt's generation has ended for good: nothing of it is to be resumed."""

    job: str
    slot: int
    attempt: int
    token: str
    generation: int
    time_ms: int


Entry = AttemptEntry | CheckpointEntry | EndEntry


def encode_entry(entry: Entry) -> bytes:
    """The content of its file: a line about the document, the document."""
    body = msgspec.json.encode(entry)
    head = b"%sversion=%d size=%d crc32=%08x\n" % (_MAGIC, FORMAT_VERSION, len(body), zlib.crc32(body))
    return head + body + b"\n"


def decode_entry(content: bytes, job: str, file: str) -> Entry:
    """The reverse of `encode_entry`.

    Raises:
        CheckpointDamaged: torn, changed, or not such a file.
        CheckpointError: written by a version that this one cannot read.
    """
    head, _, rest = content.partition(b"\n")
    try:
        if not head.startswith(_MAGIC):
            raise ValueError("no such file begins like this")
        fields = dict(word.split("=", 1) for word in head[len(_MAGIC) :].decode("ascii").split())
        version, size, checksum = int(fields["version"]), int(fields["size"]), int(fields["crc32"], 16)
    except (ValueError, KeyError) as error:
        raise CheckpointDamaged(job, file, "its first line is damaged, or it is not a file of ours") from error
    if version != FORMAT_VERSION:
        raise CheckpointError(
            job,
            f"it was written in format {version}, this version reads format {FORMAT_VERSION}; use the version that wrote it, "
            "or choose another checkpoint.dir",
            file,
        )
    if len(rest) != size + 1 or zlib.crc32(rest[:size]) != checksum:
        raise CheckpointDamaged(job, file, f"it is torn or changed: {len(rest)} of {size + 1} bytes, or another checksum than was written")
    try:
        return _DECODER.decode(rest[:size])
    except msgspec.DecodeError as error:
        raise CheckpointDamaged(job, file, f"its content is not what format {version} says: {error}") from error


_DECODER: Final[msgspec.json.Decoder[Entry]] = msgspec.json.Decoder(Entry)
