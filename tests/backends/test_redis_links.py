"""Whatever becomes of the server and of what was on its way: every frame arrives once, in order, and nothing is kept for ever."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sage_actor.backends.frame_reader import HEADER
from sage_actor.backends.redis_inbound import Inbound
from sage_actor.backends.redis_keys import RedisKeys
from sage_actor.backends.redis_line import Command
from sage_actor.backends.redis_outbound import Outbound
from sage_actor.errors import FrameError

KEYS = RedisKeys("redis://nowhere", "sage:model", 1, b"k" * 32)


@dataclass
class Server:
    """What the two commands of a link do in Redis, and no more."""

    stream: list[tuple[int, list[bytes]]] | None = None
    acknowledged: bytes | None = None
    clock: int = 0

    def carry_out(self, commands: Sequence[Command]) -> object:
        reply: object = None
        for name, *rest in commands:
            if name == "XADD":
                reply = self._add(rest)
            elif name == "XTRIM":
                at, _, number = str(rest[2]).partition("-")
                self.stream = None if self.stream is None else [entry for entry in self.stream if (entry[0], 0) >= (int(at), int(number))]
            elif name == "SET":
                self.acknowledged = str(rest[1]).encode()
        return reply

    def _add(self, rest: Sequence[bytes | str | int]) -> object:
        _, *content = rest
        if content[0] == "NOMKSTREAM":
            content.pop(0)
            if self.stream is None:
                return None
        self.clock += 1
        self.stream = self.stream or []
        self.stream.append((self.clock, [part.encode() if isinstance(part, str) else bytes(part) for part in content[1:]]))  # type: ignore[arg-type]
        return b"%d-0" % self.clock


class Links(RuleBasedStateMachine):
    """A writer, a reader, and a server between them that is not to be relied upon."""

    def __init__(self) -> None:
        super().__init__()
        self.server = Server()
        self.older: list[Server] = [Server()]
        self.sent: list[bytes] = []
        self.came: list[bytes] = []
        self.outbound = Outbound(KEYS, 0, 1)
        self.inbound = Inbound(KEYS, 0, 1, lambda frame: self.came.append(bytes(frame)))
        self.writer_cut = False
        self.reader_cut = False
        self.late: list[Command] = []  # on its way over a connection that its writer has given up

    @rule(sizes=st.lists(st.sampled_from([0, 1, 100, 600_000]), min_size=1, max_size=4), at_once=st.booleans())
    def send(self, sizes: list[int], at_once: bool) -> None:
        for size in sizes:
            frame = b"%d:" % len(self.sent) + bytes(size)
            self.sent.append(frame)
            self.outbound.add([HEADER.pack(len(frame)), frame])
            if at_once:
                self.write("done", asks=False)

    @rule(fate=st.sampled_from(["done", "done", "done", "lost", "reply lost", "late"]), asks=st.booleans())
    def write(self, fate: str, asks: bool) -> None:
        if self.writer_cut:
            self.outbound.rewind()
            self.writer_cut = False
            if asks:
                self.ask()
        if not self.outbound.waits:
            return
        number, commands, _ = self.outbound.next_entry()
        if fate in {"done", "reply lost"}:
            reply = self.server.carry_out(commands)
            if fate == "done":
                self.outbound.written(number, reply)
        elif fate == "late":
            self.late = list(commands)
        self.writer_cut = fate != "done"

    @rule()
    def what_was_late_arrives(self) -> None:
        self.server.carry_out(self.late)
        self.late = []

    @rule(count=st.integers(1, 4), fate=st.sampled_from(["done", "done", "done", "lost", "reply lost"]))
    def read(self, count: int, fate: str) -> None:
        if self.reader_cut:
            self.inbound.reconnected()
            self.reader_cut = False
        removal, said = self.inbound.removal(), self.inbound.acknowledgement()
        if fate != "lost":
            self.server.carry_out([*removal, *said])
        if fate == "done":
            if said:
                self.inbound.acknowledged()
            entries = (self.server.stream or [])[:count]
            self.inbound.take([[b"%d-0" % at, fields] for at, fields in entries])
        self.reader_cut = fate != "done"

    @rule()
    def ask(self) -> None:
        self.outbound.heard(self.server.acknowledged)

    @rule()
    def look(self) -> None:
        self.ask()
        if self.outbound.keeps:
            self.outbound.found(len(self.server.stream or []), self.outbound.sent)

    @rule(data=st.data(), clock_goes_back=st.booleans())
    def another_server_takes_over(self, data: st.DataObject, clock_goes_back: bool) -> None:
        """Empty, or with what was saved at some time; every server is saved as it ends."""
        clock = self.server.clock
        self.older.append(copy.deepcopy(self.server))
        self.server = copy.deepcopy(data.draw(st.sampled_from(self.older)))
        if not clock_goes_back:
            self.server.clock = clock
        self.writer_cut = self.reader_cut = True
        self.late = []

    @rule()
    def everything_is_deleted(self) -> None:
        self.server.stream = self.server.acknowledged = None
        self.late = []

    @invariant()
    def each_once_and_in_order(self) -> None:
        assert self.came == self.sent[: len(self.came)]

    def teardown(self) -> None:
        for _ in range(8 * len(self.sent) + 10):  # a server that holds, from here on
            self.write("done", asks=True)
            self.read(4, "done")
            self.look()
        assert self.came == self.sent
        assert not self.outbound.waits
        assert not self.outbound.keeps
        assert self.outbound.left == self.outbound.queued
        assert not self.server.stream


TestLinks = Links.TestCase
TestLinks.settings = settings(deadline=None, max_examples=200, stateful_step_count=30)
TestLinks = pytest.mark.rule("F41")(TestLinks)


def carried(count: int) -> Links:
    """So many frames that were sent, read and acknowledged; the writer has not asked."""
    links = Links()
    links.send([1] * count, at_once=True)
    links.read(4, "done")
    links.read(4, "done")
    return links


def test_what_was_deleted_unread_is_sent_again() -> None:
    links = Links()
    links.send([1, 1, 1], at_once=True)
    links.everything_is_deleted()
    links.teardown()


def test_what_was_sent_after_the_look_is_not_missed_by_it() -> None:
    links = Links()
    for _ in range(5):
        links.send([1], at_once=True)
        entries, sent = len(links.server.stream or []), links.outbound.sent
        links.send([1], at_once=True)  # while the answer is on its way
        assert not links.outbound.found(entries, sent)
    links.teardown()


def test_what_was_taken_is_said_again_where_that_was_deleted() -> None:
    links = carried(2)
    links.everything_is_deleted()
    links.teardown()


def test_an_empty_server_gets_what_was_not_read_and_hears_what_was() -> None:
    links = carried(2)
    links.send([1], at_once=True)
    links.server = Server()
    links.writer_cut = links.reader_cut = True
    links.teardown()


def test_an_older_server_whose_clock_is_behind_loses_nothing() -> None:
    links = Links()
    links.send([1, 1], at_once=True)
    older = copy.deepcopy(links.server)
    older.clock = older.stream[-1][0] if older.stream else 0
    links.server.clock = 1000
    links.send([1], at_once=True)
    links.read(4, "done")
    links.server = older
    links.writer_cut = links.reader_cut = True
    links.send([1, 1], at_once=True)
    links.teardown()


@pytest.mark.parametrize("said", [b"1", b"-1", b"many", b""])
def test_an_acknowledgement_that_cannot_be_is_refused(said: bytes) -> None:
    with pytest.raises(FrameError, match=r"0 entries were sent; does somebody else write"):
        Outbound(KEYS, 0, 1).heard(said)


def test_an_entry_of_another_form_is_refused() -> None:
    inbound = Inbound(KEYS, 0, 1, lambda frame: None)
    with pytest.raises(FrameError, match="holds an entry that is not ours"):
        inbound.take([[b"1-0", [b"f", b"x"]]])


def test_what_is_kept_is_bounded_by_what_is_not_taken() -> None:
    server, outbound = Server(), Outbound(KEYS, 0, 1)
    inbound = Inbound(KEYS, 0, 1, lambda frame: None)
    for turn in range(100):
        outbound.add([HEADER.pack(4), b"%4d" % turn])
        number, commands, size = outbound.next_entry()
        assert size < 40
        outbound.written(number, server.carry_out(commands))
        assert outbound.keeps
        inbound.take([[b"%d-0" % at, fields] for at, fields in server.stream or []])
        server.carry_out([*inbound.removal(), *inbound.acknowledgement()])
        assert not server.stream
        assert server.acknowledged == b"%d" % (turn + 1)
        outbound.heard(b"%d" % (turn + 1))
        assert not outbound.keeps
