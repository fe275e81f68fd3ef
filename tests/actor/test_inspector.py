"""The inspector: what other processes of the same account see of a running system, and what nobody sees."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

import sage_actor as sage
from sage_actor.actor import inspector, inspector_client
from sage_actor.actor.inspection import printable, shortened
from sage_actor.actor.inspector_client import RunningSystem, ask_inspector, list_systems
from sage_actor.actor.inspector_place import inspector_directory
from sage_actor.testing import ManualClock
from sage_actor.testing.simulation import Simulation

T = TypeVar("T")


class Odd:
    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        if not self.text:
            raise RuntimeError("no repr today")
        return self.text


@dataclass
class Order:
    number: int
    items: list[int]


class Worker(sage.Actor):
    def __init__(self, children: int = 0, depth: int = 0) -> None:
        self.children = children
        self.depth = depth
        self.gate = asyncio.Event()

    async def on_start(self) -> None:
        for _ in range(self.children):
            await self.context.spawn(Worker)
        if self.depth:
            await self.context.spawn(Worker, 0, self.depth - 1, name="below")

    async def hold(self) -> None:
        await self.gate.wait()

    def open(self) -> None:
        self.gate.set()

    def add(self, number: int, *, by: int = 1) -> int:
        return number + by

    def break_down(self, text: str) -> None:
        raise ValueError(text)

    def start_timers(self) -> None:
        self.context.timers.once("late", "1h", self.open)
        self.context.timers.every("beat", 7200, self.open)

    def watch(self, other: sage.ActorRef[Worker]) -> None:
        self.context.watch(other)

    def receive(self, message: object) -> object:
        return message


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place for temporary files of this test's own; its path is short, as those of sockets must be. Inspectors open at once."""
    own = Path(tempfile.mkdtemp(prefix="si", dir="/tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(own))
    monkeypatch.setattr(inspector, "OPENS_AFTER", 0.0)
    yield inspector_directory()
    shutil.rmtree(own)


async def until(condition: Callable[[], T | None]) -> T:
    async with asyncio.timeout(5):
        while not (found := condition()):  # noqa: ASYNC110 - the inspector tells nobody that it is open
            await asyncio.sleep(0)
    return found


async def opened(place: Path, number: int = 1) -> None:
    await until(lambda: place.is_dir() and len(list(place.iterdir())) == number)


async def look(call: Callable[[], T]) -> T:
    """The client's calls block, as they may in a process of their own."""
    return await asyncio.to_thread(call)


async def the_only_one() -> RunningSystem:
    (running,) = await look(list_systems)
    return running


async def say(address: Path, line: bytes) -> dict[str, object]:
    reader, writer = await asyncio.open_unix_connection(str(address))
    writer.write(line)
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return json.loads(answer) if answer else {}


@pytest.mark.asyncio
async def test_another_process_gets_what_the_system_itself_would_tell(place: Path) -> None:
    async with sage.ActorSystem("shop/überall", restart=sage.FixedDelay(attempts=None, delay=0)) as system:
        family = await system.spawn(Worker, 3, name="family")
        for number in range(200):
            await family.ask(Worker.add, number)
        await system.spawn(Worker, 150)
        deep = await system.spawn(Worker, 0, 30, name="deep")
        with pytest.raises(sage.ActorFailed):
            await deep.ask(Worker.break_down, "once")
        await system.wait_idle()
        await opened(place)
        running = await the_only_one()
        assert (running.name, running.pid) == ("shop/überall", os.getpid())
        assert await look(running.statistics) == system.statistics()
        found = system.statistics().actors
        assert (found[0].path, len(found[0].children), found[0].handled, found[2].failed) == ("family", 3, 200, 1)


@pytest.mark.asyncio
async def test_an_actor_from_close_by(place: Path) -> None:
    async with sage.ActorSystem("close", restart=sage.FixedDelay(attempts=None, delay=0)) as system:
        worker = await system.spawn(Worker, 2, name="worker")
        watcher = await system.spawn(Worker, name="watcher")
        await watcher.ask(Worker.watch, worker)
        outside = system.watch(worker)
        with pytest.raises(sage.ActorFailed):
            await worker.ask(Worker.break_down, "bad\x1b[31m luck")
        await system.wait_idle()
        await worker.ask(Worker.start_timers)
        worker.tell_nowait(Worker.hold)
        await asyncio.sleep(0)
        worker.tell_nowait(Order(7, list(range(1000))))
        worker.tell_nowait(Odd(""))
        worker.tell_nowait(Odd("x" * 100_000))
        worker.tell_nowait(Odd("\x1b[2J\nred"))
        asked = worker.ask(Worker.add, 1, by=5)
        await opened(place)
        running = await the_only_one()
        report = await look(lambda: running.actor("worker"))
        statistics = report.statistics
        assert (statistics.queued, statistics.in_hand, statistics.restarts, statistics.failed) == (5, 1, 1, 1)
        order, raising, huge, escaped, call = report.waiting
        assert order == "Order(number=7, items=[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ...])"
        assert raising.startswith("<Odd instance at")
        assert len(huge) <= 200
        assert escaped == "\\x1b[2J\\nred"
        assert call == "ask add(1, by=5)"
        assert [(timer.key, timer.every) for timer in report.timers] == [("late", None), ("beat", 7200.0)]
        assert all(seconds - 60 < timer.due_in <= seconds for timer, seconds in zip(report.timers, (3600, 7200), strict=True))
        assert (report.watchers, report.watchers_total) == (("watcher",), 2)
        assert (report.children, report.children_total) == (tuple(c.path for c in system.statistics().actors[0].children), 2)
        assert report.restart.startswith("FixedDelay(")
        assert len(report.failures) <= 1
        assert report.last_failure is not None
        assert report.last_failure.error == "ValueError: bad\\x1b[31m luck"
        assert "in break_down\n    raise ValueError(text)\n" in report.last_failure.traceback
        assert "\x1b" not in report.last_failure.traceback
        with pytest.raises(sage.ActorError, match=r"actor system 'close' .*: no actor lives at 'worker/nobody'"):
            await look(lambda: running.actor("worker/nobody"))
        outside.cancel()
        assert worker.cell.actor is not None
        worker.cell.actor.open()
        assert await asked == 6


@pytest.mark.asyncio
async def test_the_last_dead_letters(place: Path) -> None:
    async with sage.ActorSystem("dead") as system:
        worker = await system.spawn(Worker, name="worker")
        await system.stop(worker)
        for number in range(60):
            await worker.tell(number)
        await worker.tell(Worker.add, 5, by=2)
        with pytest.raises(sage.ActorStopped):
            await worker.ask("anybody?")
        await opened(place)
        told = await look((await the_only_one()).dead_letters)
    assert told.total == 61, "an ask that is refused at once has been told, and is no dead letter"
    assert len(told.last) == 50
    assert [letter.message for letter in told.last[-2:]] == ["59", "add(5)"]
    assert {(letter.actor, letter.reason, letter.asked) for letter in told.last} == {("worker", "it was stopped", False)}


@pytest.mark.asyncio
async def test_the_socket_is_this_accounts_alone_and_goes_with_the_system(place: Path) -> None:
    system = sage.ActorSystem("private")
    async with system, sage.ActorSystem("private"):
        await opened(place, 2)
        assert stat.S_IMODE(place.lstat().st_mode) == 0o700
        assert [stat.S_IMODE(address.lstat().st_mode) for address in place.iterdir()] == [0o600] * 2
        systems = await look(list_systems)
        assert [running.name for running in systems] == ["private", "private"], "two of one name are two"
    assert list(place.iterdir()) == []
    await system.aclose()


@pytest.mark.asyncio
async def test_nothing_is_opened_for_those_who_do_not_want_it_or_live_in_a_time_of_their_own(place: Path) -> None:
    async with sage.ActorSystem("no", inspect=False), sage.ActorSystem("manual", clock=ManualClock()), sage.ActorSystem("yes"):
        await opened(place, 1)
        assert [running.name for running in await look(list_systems)] == ["yes"]


def test_nothing_is_opened_in_a_simulation(place: Path) -> None:
    async def main() -> None:
        async with sage.ActorSystem("simulated") as system:
            worker = await system.spawn(Worker)
            await asyncio.sleep(10)
            assert await worker.ask(Worker.add, 1) == 2

    Simulation(3).run(main)
    assert not place.exists()


@pytest.mark.asyncio
async def test_a_system_that_is_over_soon_leaves_no_trace(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(tempfile, "tempdir", str(place.parent))
    async with sage.ActorSystem("brief") as system:
        await (await system.spawn(Worker)).ask(Worker.add, 1)
    assert not place.exists()


def test_the_end_of_the_loop_ends_the_inspector_too(place: Path) -> None:
    async def main() -> None:
        system = sage.ActorSystem("abandoned")
        await system.__aenter__()
        await opened(place)

    asyncio.run(main())
    assert list(place.iterdir()) == []


def test_it_works_on_uvloop(place: Path) -> None:
    async def main() -> None:
        async with sage.ActorSystem("fast") as system:
            await system.spawn(Worker, 300, name="many")
            await opened(place)
            running = await the_only_one()
            assert await look(running.statistics) == system.statistics()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


# -- what must not harm the system ------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["link", "open to others", "somebody else's", "file"])
async def test_a_directory_that_is_not_ours_alone_is_refused(place: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "link":
        place.symlink_to(place.parent, target_is_directory=True)
    elif kind == "file":
        place.touch()
    else:
        place.mkdir(mode=0o700)
        if kind == "open to others":
            place.chmod(0o755)
        else:
            other = os.geteuid() + 1
            monkeypatch.setattr(os, "geteuid", lambda: other)
            place = place.rename(inspector_directory())
    async with sage.ActorSystem("wary") as system:
        await until(lambda: not any("inspector" in task.get_name() for task in asyncio.all_tasks()))
        await asyncio.sleep(0.0)
        assert await (await system.spawn(Worker)).ask(Worker.add, 1) == 2
        with pytest.raises(sage.ActorError, match="cannot be listed"):
            list_systems()
    assert not place.is_dir() or kind == "link" or list(place.iterdir()) == []


@pytest.mark.asyncio
async def test_a_name_too_long_for_a_socket_is_told_at_debug_only(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG", logger="sage_actor"):
        async with sage.ActorSystem("n" * 120):
            await until(lambda: caplog.records)
    assert [(record.levelname, "path too long" in record.message) for record in caplog.records] == [("DEBUG", True)]


@pytest.mark.asyncio
async def test_requests_without_sense_get_an_error(place: Path) -> None:
    async with sage.ActorSystem("asked") as system:
        await system.spawn(Worker, name="worker")
        await opened(place)
        (address,) = place.iterdir()
        for line, words in (
            (b"hello\n", "not a request"),
            (b"[1, 2]\n", "not a request"),
            (b'{"command": 1}\n', "not a request"),
            (b'{"command": "stop"}\n', "no command 'stop'; there are statistics, actor (with a path) and dead_letters"),
            (b'{"command": "actor", "path": ""}\n', "no actor lives at ''"),
            (b"\xff\n", ""),
            (b"x" * 65_535 + b"\n", "not a request"),
        ):
            assert words in str((await say(address, line))["error"])
        try:
            assert await say(address, b"x" * 200_000) == {}
        except ConnectionError:
            pass  # cut off while it still writes
        assert "answer" in await say(address, b'{"command": "dead_letters"}\n')


@pytest.mark.asyncio
async def test_clients_that_say_nothing_are_cut_off_and_hold_nobody_up_for_long(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspector, "SECONDS", 0.05)
    async with sage.ActorSystem("patient") as system:
        await system.spawn(Worker)
        await opened(place)
        (address,) = place.iterdir()
        silent = [await asyncio.open_unix_connection(str(address)) for _ in range(inspector.CLIENTS)]
        running = await the_only_one()
        assert (await look(running.statistics)).living == 1
        for reader, writer in silent:
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()


@pytest.mark.asyncio
async def test_a_client_that_does_not_read_is_cut_off(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspector, "SECONDS", 1.0)
    async with sage.ActorSystem("big") as system:
        await system.spawn(Worker, 3000)
        await opened(place)
        (address,) = place.iterdir()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as slow:
            slow.setblocking(False)
            slow.connect(str(address))
            slow.send(b'{"command": "statistics"}\n')
            await until(lambda: any("_attend" in repr(task) for task in asyncio.all_tasks()))
            await until(lambda: not any("_attend" in repr(task) for task in asyncio.all_tasks()))
            received = b"".join(iter(lambda: slow.recv(1 << 20), b""))
        assert received
        assert not received.endswith(b"\n")
        running = await the_only_one()
        monkeypatch.setattr(inspector, "SECONDS", 5.0)
        assert (await look(running.statistics)).living == 3001


@pytest.mark.asyncio
async def test_the_end_of_the_system_cuts_clients_off(place: Path) -> None:
    async with sage.ActorSystem("ending"):
        await opened(place)
        (address,) = place.iterdir()
        reader, writer = await asyncio.open_unix_connection(str(address))
        await until(lambda: any("_attend" in repr(task) for task in asyncio.all_tasks()))
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


@pytest.mark.asyncio
@pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="the kernel does not tell who connects")
async def test_another_account_gets_nothing_even_with_the_socket_in_hand(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with sage.ActorSystem("discreet"):
        await opened(place)
        running = await the_only_one()
        other = os.geteuid() + 1
        monkeypatch.setattr(os, "geteuid", lambda: other)
        with pytest.raises(sage.ActorError, match=r"hung up without an answer|has ended"):
            await look(running.statistics)


@pytest.mark.asyncio
async def test_names_made_from_file_names_can_be_told(place: Path) -> None:
    async with sage.ActorSystem("files\udcff") as system:
        await system.spawn(Worker, name="caf\udce9")
        await opened(place)
        told = await look((await the_only_one()).statistics)
    assert (told.name, told.actors[0].path) == ("files\\udcff", "caf\\udce9")


# -- the client -------------------------------------------------------------------------------------------------------


def left_behind(place: Path, name: str, age: float) -> Path:
    address = place / name
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(address))
    born = address.lstat().st_mtime - age
    os.utime(address, (born, born))
    return address


def test_sockets_of_the_dead_are_removed(place: Path) -> None:
    assert list_systems() == ()
    place.mkdir(mode=0o700)
    dead, young, other = left_behind(place, "1-gone.sock", 60), left_behind(place, "2-opening.sock", 0), place / "note.txt"
    other.touch()
    assert list_systems() == ()
    assert (dead.exists(), young.exists(), other.exists()) == (False, True, True)


def test_a_process_that_does_not_answer_is_listed_and_says_so(place: Path) -> None:
    place.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as blocked:
        blocked.bind(str(place / "77-stuck%2Fone+2.sock"))
        blocked.listen(4)
        (running,) = list_systems()
        assert (running.pid, running.name) == (77, "stuck/one")
        with pytest.raises(sage.ActorError, match=r"actor system 'stuck/one' \(process 77\) did not answer within 0.05 s"):
            running.statistics(timeout=0.05)
    with pytest.raises(sage.ActorError, match="has ended"):
        running.statistics()


@pytest.mark.asyncio
async def test_an_answer_of_another_version_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with sage.ActorSystem("old") as system:
        await system.spawn(Worker)
        await opened(place)
        running = await the_only_one()
        with pytest.raises(sage.ActorError, match="answered something else"):
            await look(lambda: ask_inspector(running, "dead_letters", inspector_client.ActorReport))


def test_running_systems_are_plain_values() -> None:
    one = RunningSystem("a", 1, Path("/x"))
    assert replace(one, pid=2) > one
    assert len({one, RunningSystem("a", 1, Path("/x"))}) == 1


# -- texts ------------------------------------------------------------------------------------------------------------


@dataclass
class Node:
    value: object
    below: object = None


plain = st.one_of(
    st.none(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.builds(Odd, st.text()),
    st.integers().map(lambda n: 1 << (abs(n) % 9000)),
)
values = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.lists(inner, max_size=20),
        st.dictionaries(st.text(), inner, max_size=15),
        st.frozensets(st.integers(), max_size=20),
        st.sets(st.text(), max_size=20),
        st.tuples(inner, inner),
        st.builds(Node, inner, inner),
    ),
    max_leaves=30,
)


@given(values)
def test_any_value_is_told_in_one_short_printable_line(value: object) -> None:
    text = shortened(value)
    assert text.isprintable()
    assert len(text) <= 200
    text.encode()


def test_big_things_are_not_written_out() -> None:
    assert shortened(Node(list(range(10**6)), {number: number for number in range(10**6)})).startswith("Node(value=[0, 1, 2")
    assert shortened(b"x" * 10**8) == repr(b"x" * 80) + "..."
    assert shortened(1 << 10_000) == "<int of 10,001 bits>"
    assert shortened({"k": [1, (2,)]}) == "{'k': [1, (2,)]}"
    circle: list[object] = []
    circle.append(circle)
    assert "..." in shortened(circle)
    assert shortened(Node) == repr(Node)


def test_printable_leaves_what_it_is_told_to() -> None:
    assert printable("a\tb\n\x1b\ud800", but="\n") == "a\\tb\n\\x1b\\ud800"
