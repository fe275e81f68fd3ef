"""What the workers of an actor system say to each other: one struct a kind, msgpack arrays with the kind first.

A frame is the header of `_core.frame` (group, sequence within its link), then one of these, then its payload, if it has one:
what `wire.Wire` made of a value, in the form that the struct names.
"""

from __future__ import annotations

import msgspec

__all__ = [
    "Answer",
    "Cancel",
    "Credit",
    "Define",
    "Demand",
    "End",
    "Head",
    "Link",
    "Load",
    "Lost",
    "Message",
    "Offer",
    "Part",
    "Ready",
    "Setup",
    "Spawn",
    "Stop",
    "StopAll",
    "Stopped",
    "Stopping",
    "Tie",
    "Watch",
    "decode_head",
    "encode_head",
]

Link = tuple[int, int, str]
"""One actor of a chain of requests: worker, number, path."""


class Setup(msgspec.Struct, array_like=True, tag=1):
    """The owner's first word to a worker. Payload: the defaults for restarts, mailboxes and supervision."""

    name: str
    workers: int
    stop_timeout: float
    dead_letters: int
    inline_asks: bool
    serialization: str
    allow: list[str]
    form: int


class Ready(msgspec.Struct, array_like=True, tag=2):
    """The worker takes actors. Empty, or why it never will."""

    problem: str


class Define(msgspec.Struct, array_like=True, tag=3):
    """Classes that cannot be imported, by the numbers that stand for them from now on. Payload: their pickle."""

    numbers: list[int]


class Message(msgspec.Struct, array_like=True, tag=4):
    """A message to an actor of the receiver. Payload: arguments, or the message itself where `method` is empty."""

    target: int
    request: int  # 0 for a tell
    method: str
    timeout: float | None
    chain: list[Link]  # who waits for it, innermost first
    demand: int  # above 0: the answer comes in parts
    form: int


class Answer(msgspec.Struct, array_like=True, tag=5):
    """What came of a request. Payload: the value, or the error."""

    request: int
    failed: bool
    form: int


class Cancel(msgspec.Struct, array_like=True, tag=6):
    """Nobody waits for that request any more. Said once."""

    request: int


class Credit(msgspec.Struct, array_like=True, tag=7):
    """So much of what was sent to an actor has been taken into its mailbox."""

    target: int
    messages: int
    nbytes: int


class Watch(msgspec.Struct, array_like=True, tag=8):
    """The sender has a ref of that actor: its end concerns it."""

    target: int


class End(msgspec.Struct, array_like=True, tag=9):
    """An actor of the sender has ended. Payload: the error that ended it, or None."""

    target: int
    form: int


class Spawn(msgspec.Struct, array_like=True, tag=10):
    """Make an actor. Payload: class, arguments, options."""

    request: int
    form: int


class Stop(msgspec.Struct, array_like=True, tag=11):
    """End an actor of the receiver."""

    target: int
    drain: bool
    timeout: float
    at_once: bool


class Tie(msgspec.Struct, array_like=True, tag=12):
    """Link an actor of the receiver to one of the sender, or undo that. Payload: the ref of the latter."""

    target: int
    tied: bool
    form: int


class Offer(msgspec.Struct, array_like=True, tag=13):
    """Somebody offers an actor under a key, or does not any more. Payload: its ref."""

    key: str
    offered: bool
    form: int


class Load(msgspec.Struct, array_like=True, tag=14):
    """How much is there to do at yours?"""

    request: int


class StopAll(msgspec.Struct, array_like=True, tag=15):
    """End all your actors."""

    drain: bool


class Stopping(msgspec.Struct, array_like=True, tag=16):
    """Still at it."""


class Stopped(msgspec.Struct, array_like=True, tag=17):
    """All of them have ended."""


class Lost(msgspec.Struct, array_like=True, tag=18):
    """From the owner: a worker is gone, or no longer trusted. Payload: the error."""

    worker: int
    form: int


class Demand(msgspec.Struct, array_like=True, tag=19):
    """So many more parts of an answer are wanted."""

    request: int
    parts: int


class Part(msgspec.Struct, array_like=True, tag=20):
    """One part of an answer. Payload: it."""

    request: int
    form: int


Head = (
    Setup
    | Ready
    | Define
    | Message
    | Answer
    | Cancel
    | Credit
    | Watch
    | End
    | Spawn
    | Stop
    | Tie
    | Offer
    | Load
    | StopAll
    | Stopping
    | Stopped
    | Lost
    | Demand
    | Part
)

encode_head = msgspec.msgpack.Encoder().encode
decode_head = msgspec.msgpack.Decoder(Head).decode
