"""What the process backend promises beyond the rules for every backend."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

import pytest

from sage_actor.backends import process
from sage_actor.backends.worker_group import ProcessGroup
from sage_actor.errors import BackendError, BackendUnavailable

ENTRIES = """
import asyncio, json, os, signal, subprocess, sys

async def tell(endpoint):
    main = sys.modules["__main__"]
    endpoint.send(0, [json.dumps({
        "main": main.__file__, "path": sys.path, "cwd": os.getcwd(), "session": os.getsid(0), "pid": os.getpid(),
        "interrupt": signal.getsignal(signal.SIGINT) == signal.SIG_IGN, "loop": type(asyncio.get_running_loop()).__module__,
        "interval": sys.getswitchinterval(), "argv": open("/proc/self/cmdline").read().split("\\0"), "stdin": sys.stdin.read(),
    }).encode()])
    print("to the owner's stdout")
    await asyncio.Event().wait()

async def parent(endpoint):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    endpoint.send(0, [str(child.pid).encode()])
    await asyncio.Event().wait()

async def stubborn(endpoint):
    endpoint.send(0, [b"here"])
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            print("not yet", file=sys.stderr, flush=True)
            return

async def interrupted(endpoint):
    os.kill(os.getpid(), signal.SIGINT)
    endpoint.send(0, [b"still here"])
    await asyncio.Event().wait()

async def threaded(endpoint):
    import threading
    threading.Thread(target=threading.Event().wait).start()
    raise RuntimeError("with a thread that never ends")
"""


@pytest.fixture
def entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that only this test's import path has."""
    (tmp_path / "entries_of_a_test.py").write_text(ENTRIES)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return "entries_of_a_test"


class Owner:
    """Starts a group of one and waits for what comes."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[bytes] = asyncio.Queue()
        self.lost: asyncio.Queue[BackendError] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.group.kill()

    async def start(self, entry: str) -> ProcessGroup:
        self.group = group = await process.create("process").start(1, group="group-of-a-test", entry=entry)
        group.endpoint.start(lambda sender, frame: self.frames.put_nowait(bytes(frame)), self.lost.put_nowait)
        return group

    async def frame(self) -> bytes:
        async with asyncio.timeout(10):
            return await self.frames.get()


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except FileNotFoundError:
        return False


@pytest.mark.asyncio
async def test_a_worker_has_the_owners_path_and_place_but_not_its_main(entries: str, capfd: pytest.CaptureFixture[str]) -> None:
    async with Owner() as owner:
        group = await owner.start(f"{entries}:tell")
        told = json.loads(await owner.frame())
        await group.aclose()
        assert Path(told["main"]).name == "worker_boot.py"
        assert told["path"] == sys.path
        assert told["cwd"] == os.getcwd()
        assert told["session"] == told["pid"] == group.workers[0].pid != os.getsid(0)
        assert told["interrupt"] is True
        assert told["interval"] < 0.001
        assert told["stdin"] == ""
        assert "group-of-a-test" in told["argv"]
        assert told["argv"][told["argv"].index("--worker") + 1] == "1"
        assert "to the owner's stdout" in capfd.readouterr().out


@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["closed", "killed", "stuck"])
async def test_a_worker_takes_along_what_user_code_has_started(entries: str, how: str) -> None:
    async with Owner() as owner:
        group = await owner.start(f"{entries}:parent")
        child = int(await owner.frame())
        assert lives(child)
        if how == "killed":
            os.kill(group.workers[0].pid, signal.SIGKILL)
            await owner.lost.get()
        elif how == "stuck":
            os.kill(group.workers[0].pid, signal.SIGSTOP)
            await group.kill()
        else:
            await group.aclose()
        async with asyncio.timeout(3):
            while lives(child):  # noqa: ASYNC110  nobody tells us of a stranger's end
                await asyncio.sleep(0)
        await group.aclose()


@pytest.mark.asyncio
async def test_stderr_of_a_worker_reaches_ours(entries: str, capsys: pytest.CaptureFixture[str]) -> None:
    async with Owner() as owner:
        group = await owner.start(f"{entries}:stubborn")
        await owner.frame()
        await group.aclose()
        assert "not yet" in capsys.readouterr().err
        assert owner.lost.empty()


@pytest.mark.asyncio
async def test_ctrl_c_does_not_end_a_worker(entries: str) -> None:
    async with Owner() as owner:
        group = await owner.start(f"{entries}:interrupted")
        assert await owner.frame() == b"still here"
        await group.aclose()
        assert owner.lost.empty()


@pytest.mark.asyncio
async def test_a_thread_of_user_code_does_not_keep_a_failed_worker(entries: str) -> None:
    async with Owner() as owner:
        group = await owner.start(f"{entries}:threaded")
        async with asyncio.timeout(3):
            error = await owner.lost.get()
        await group.aclose()
        assert "with a thread that never ends" in str(error)


@pytest.mark.asyncio
async def test_no_descriptors_left_is_said_so() -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = set(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(before) + 16, hard))
    try:
        with pytest.raises(BackendUnavailable, match="ulimit -n"):
            await process.create("process").start(12, group="too-many", entry="sage_actor.testing.conformance_worker:echo")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert set(os.listdir("/proc/self/fd")) <= before


def test_a_script_without_a_main_guard_works(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "print('main runs')\n"
        "import asyncio\n"
        "from sage_actor.backends.process import create\n"
        "async def main():\n"
        "    group = await create('process').start(2, group='g', entry='sage_actor.testing.conformance_worker:echo')\n"
        "    await group.aclose()\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "main runs\n"
    assert done.stderr == ""


def test_a_script_that_ends_without_closing_leaves_no_worker(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "import asyncio, json\n"
        "from sage_actor.backends.process import create\n"
        "async def main():\n"
        "    global group\n"
        "    group = await create('process').start(2, group='g', entry='sage_actor.testing.conformance_worker:echo')\n"
        "    print(json.dumps([worker.pid for worker in group.workers]))\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-Wignore", str(script)], capture_output=True, text=True, timeout=30, check=True)
    for pid in json.loads(done.stdout):
        for _ in range(10_000):
            if not lives(pid):
                break
            os.sched_yield()
        assert not lives(pid)
