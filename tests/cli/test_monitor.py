"""``sage monitor actors`` beside a program that runs."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sage_actor.actor.statistics import ActorStatistics, SystemStatistics
from sage_actor.cli.actor_tree import Change, draw_tree, time_text
from sage_actor.cli.main import main

PROGRAM = """
import asyncio, sys
import sage_actor as sage
from sage_actor.actor import inspector

inspector.OPENS_AFTER = 0.0

class Item(sage.Actor):
    def take(self, count):
        return count

class Stock(sage.Actor):
    async def on_start(self):
        for _ in range(5):
            await self.context.spawn(Item)
        await self.context.spawn(Item, name="last one")

class Stuck(sage.Actor):
    async def receive(self, message):
        await asyncio.Event().wait()

class Fragile(sage.Actor):
    def fail(self):
        raise ValueError("\\x1b[31mred")

async def main():
    async with sage.ActorSystem("shop", restart=sage.FixedDelay(attempts=None, delay=0)) as shop, sage.ActorSystem("other") as other:
        stock = await shop.spawn(Stock, name="stock")
        stuck = await shop.spawn(Stuck, name="stuck", mailbox=sage.MailboxSettings(capacity=2, overflow="drop_new"))
        for number in range(5):
            stuck.tell_nowait({"number": number})
            await asyncio.sleep(0)
        fragile = await shop.spawn(Fragile, name="fragile")
        try:
            await fragile.ask(Fragile.fail)
        except sage.ActorFailed:
            pass
        await other.spawn(Item, name="alone")
        from sage_actor.actor.inspector_place import inspector_directory
        while not (inspector_directory().exists() and len(list(inspector_directory().iterdir())) == 2):
            await asyncio.sleep(0)
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        await shop.kill(stuck)

asyncio.run(main())
"""

Sage = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A place for temporary files that holds the sockets of this file's programs only."""
    own = Path(tempfile.mkdtemp(prefix="sm", dir="/tmp"))
    yield own
    shutil.rmtree(own)


@pytest.fixture(scope="module")
def program(place: Path) -> Iterator[int]:
    """A program with two actor systems; its process id."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"TMPDIR": str(place)},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process.pid
        process.stdin.close()
        assert process.wait(15) == 0


@pytest.fixture
def sage(place: Path, program: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Sage:
    """The command line in this process, beside the program."""
    monkeypatch.setattr(tempfile, "tempdir", str(place))

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(arguments)
        return (status, *capsys.readouterr())

    return call


def test_a_tree_of_every_system(sage: Sage, program: int) -> None:
    status, out, err = sage("monitor", "actors")
    assert (status, err) == (0, "")
    assert "\x1b" not in out, "colours are for terminals"
    other, shop = out.split("\n\n")
    assert other.splitlines()[0] == f"other: process {program}, 1 actor (1 spawned), 0 failures, 0 restarts, 0 dead letters"
    summary, heading, *lines = shop.splitlines()
    assert summary == f"shop: process {program}, 9 actors (9 spawned), 1 failure, 1 restart, 2 dead letters"
    assert re.split("  +", heading)[:8] == ["actor", "state", "queued", "age", "handled", "failures", "restarts", "dead letters"]
    rows = [re.split("  +", line) for line in lines]
    assert [row[0] for row in rows] == ["stock", *(f"├ Item-{number}" for number in range(2, 7)), "└ last one", "stuck", "fragile"]
    assert re.fullmatch(r"[0-9.]+ ?m?s", rows[7][3]), "how long its two messages have waited"
    assert (*rows[7][1:3], *rows[7][4:8]) == ("busy", "2", "·", "·", "·", "2")
    assert rows[8][1:8] == ["running", "·", "·", "1", "1", "1", "·"]


def test_one_system_as_json(sage: Sage, program: int) -> None:
    status, out, _ = sage("monitor", "actors", "--system", "shop", "--json")
    assert status == 0
    (told,) = json.loads(out)
    assert (told["name"], told["pid"]) == ("shop", program)
    stock, stuck, fragile = told["statistics"]["actors"]
    assert [child["path"] for child in stock["children"]][-1] == "stock/last one"
    assert (stuck["accepted"], stuck["queued"], stuck["in_hand"], stuck["dead_lettered"]) == (5, 2, 1, 2)
    assert (fragile["failed"], fragile["restarts"]) == (1, 1)


def test_one_actor_from_close_by(sage: Sage) -> None:
    status, out, err = sage("monitor", "actors", "--actor", "stuck")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("stuck: Stuck, running, in shop (process ")
    assert "    {'number': 1}" in lines
    assert any(re.fullmatch(r"    \d\d:\d\d:\d\d \{'number': 4\}: the mailbox was full", line) for line in lines)
    status, out, _ = sage("monitor", "actors", "--actor", "fragile")
    assert "  last        ValueError: \\x1b[31mred" in out.splitlines()
    assert "    ValueError: \\x1b[31mred" in out.splitlines(), "the traceback; nothing in it reaches the terminal's controls"
    (told,) = json.loads(sage("monitor", "actors", "--actor", "alone", "--json")[1])
    assert (told["name"], told["actor"]["statistics"]["path"]) == ("other", "alone")


def test_what_is_not_there_is_said(sage: Sage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status, out, err = sage("monitor", "actors", "--system", "shopp")
    assert (status, out) == (1, "")
    assert err == "error: no actor system 'shopp' is running under this account; running: 'other', 'shop'\n"
    status, out, err = sage("monitor", "actors", "--actor", "stock/nothing", "--system", "shop")
    assert (status, out) == (1, "")
    assert "no actor lives at 'stock/nothing'" in err
    assert sage("monitor", "actors", "--interval", "soon")[0] == 1
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for options in ((), ("--json",), ("--live",)):
        status, out, err = sage("monitor", "actors", *options)
        assert (status, out) == (1, "")
        assert err.startswith("error: no actor system is running under this account")


def test_a_system_that_does_not_answer_spoils_nothing_for_the_others(sage: Sage, program: int) -> None:
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as blocked, pytest.MonkeyPatch.context() as patch:
        patch.setattr("sage_actor.cli.monitor.PATIENCE", 0.2)
        address = next(path for path in Path(tempfile.gettempdir()).rglob("*-shop.sock")).with_name("7-blocked.sock")
        blocked.bind(str(address))
        blocked.listen(8)
        status, out, _ = sage("monitor", "actors")
        assert status == 1
        assert "actor system 'blocked' (process 7) did not answer within 0.2 s" in out
        assert f"shop: process {program}" in out
        assert json.loads(sage("monitor", "actors", "--json", "--system", "blocked")[1])[0].keys() == {"name", "pid", "error"}
    address.unlink()


@contextlib.contextmanager
def killed(process: subprocess.Popen[Any]) -> Iterator[None]:
    """A failing test does not wait for it."""
    try:
        yield
    finally:
        process.kill()


def test_live_on_a_terminal_until_ctrl_c(program: int, place: Path) -> None:
    control, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
    command = [sys.executable, "-m", "sage_actor", "monitor", "actors", "--live", "--interval", "100ms"]
    environment = os.environ | {"TMPDIR": str(place), "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "24"}
    with (
        subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment, start_new_session=True) as process,
        killed(process),
    ):
        os.close(terminal)
        shown = ""
        while shown.count("shop: process") < 3:
            assert select.select([control], [], [], 15)[0], shown
            shown += os.read(control, 65_536).decode(errors="replace")
        process.send_signal(signal.SIGINT)
        while select.select([control], [], [], 15)[0]:
            try:
                rest = os.read(control, 65_536)
            except OSError:  # Linux: the other end is closed
                break
            shown += rest.decode(errors="replace")
        assert process.wait(15) == 0
    os.close(control)
    assert "\x1b[?1049h" in shown
    assert "\x1b[?1049l" in shown, "the screen is given back"
    assert "Aborted" not in shown
    lines = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line) for line in re.split(r"\r?\n|\x1b\[H", shown)]
    headings = {tuple(line.split()) for line in lines if "queued" in line}
    assert {" ".join(heading) for heading in headings} == {"actor state queued age handled /s fails starts dead p50 p99 p50 p99"}
    assert max(len(line) for line in lines) <= 100


def test_live_into_a_pipe_is_a_line_of_json_a_look(place: Path, program: int) -> None:
    command = [sys.executable, "-m", "sage_actor", "monitor", "actors", "--live", "--interval", "100ms", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(place)}) as process, killed(process):
        assert process.stdout is not None
        for _ in range(3):
            assert [told["name"] for told in json.loads(process.stdout.readline())] == ["other", "shop"]
        process.send_signal(signal.SIGINT)
        process.stdout.read()  # to the end: it may be writing
        assert process.wait(15) == 0


# -- drawing ----------------------------------------------------------------------------------------------------------


def actor(path: str, *children: ActorStatistics, **counts: object) -> ActorStatistics:
    plain: dict[str, object] = dict.fromkeys(
        (
            "accepted",
            "handled",
            "failed",
            "expected_errors",
            "dead_lettered",
            "queued",
            "stashed",
            "in_hand",
            "waiting_senders",
            "restarts",
        ),
        0,
    )
    known = plain | {"class_name": "Any", "state": "running", "mailbox_age": 0.0, "wait": (0.0, 0.0), "service": (0.0, 0.0)} | counts
    return ActorStatistics(path=path, children=children, **known)  # type: ignore[arg-type]


def system(*actors: ActorStatistics) -> SystemStatistics:
    return SystemStatistics(name="drawn", living=len(actors), spawned=0, failures=0, restarts=0, dead_letters=0, actors=actors)


def drawn(statistics: SystemStatistics, width: int, lines: int = 0, changes: dict[str, Change] | None = None) -> list[str]:
    from io import StringIO

    from rich.console import Console

    console = Console(file=StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(draw_tree(console, 1, statistics, changes, lines))
    assert isinstance(console.file, StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_long_names_are_cut_and_numbers_are_not() -> None:
    big = actor(
        "p" * 80,
        handled=12_345_678,
        queued=1_024,
        dead_lettered=99_999,
        state="restarting",
        wait=(1.5e-5, 0.0123),
        service=(3e-4, 75.0),
        mailbox_age=4000.0,
    )
    for width in (100, 120, 200):
        lines = drawn(system(actor("a", actor("a/b", actor("a/b/c")), actor("a/d")), big), width, changes={})
        assert max(len(line) for line in lines) <= width
        assert " ".join(lines[-1].split()).endswith(" restarting 1,024 1.1h 12,345,678 · · · 99,999 15µs 12ms 300µs 1.2m")
        assert [line.split("running")[0].rstrip() for line in lines[3:7]] == ["a", "├ b", "│ └ c", "└ d"]


def test_what_has_no_room_is_counted() -> None:
    lines = drawn(system(*(actor(f"n{number}") for number in range(50))), 100, lines=20)
    assert len(lines) == 20
    assert lines[-1] == "and 34 more, for which there is no room here"
    assert len(drawn(system(*(actor(f"n{number}") for number in range(17))), 100, lines=20)) == 20


def test_a_second_look_tells_how_fast_and_how_long_nothing_moved() -> None:
    counts = system(actor("stuck", queued=3, in_hand=1), actor("quick", handled=100))
    lines = drawn(counts, 100, changes={"stuck": Change(0.0, 75.0), "quick": Change(1234.5, 0.0)})
    assert lines[3].split()[:7] == ["stuck", "busy", "1.2m", "3", ">1.2m", "·", "0"]
    assert "1,234" in lines[4]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "·"),
        (9.2e-7, "0.9µs"),
        (9.96e-6, "10µs"),
        (0.0015, "1.5ms"),
        (0.25, "250ms"),
        (5.6, "5.6s"),
        (90.0, "1.5m"),
        (7200, "2.0h"),
        (2e6, "23d"),
    ],
)
def test_times_are_short(seconds: float, text: str) -> None:
    assert time_text(seconds) == text
    assert len(text) <= 5
