"""The other commands, as a person calls them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sage_actor.cli.census import count_plainly, describe_census, library_files
from sage_actor.server.client import SupervisorClient
from sage_actor.stream.local_environment import LocalEnvironment

Sage = Callable[..., subprocess.CompletedProcess[str]]


def call(*arguments: str, home: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | variables | ({} if home is None else {"SAGE_ACTOR_HOME": str(home)})
    return subprocess.run(
        [sys.executable, "-m", "sage_actor", *arguments], capture_output=True, text=True, timeout=50, env=environment, check=False
    )


@pytest.fixture(scope="module")
def supervisor_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of the supervisor of `sage`."""
    return tmp_path_factory.mktemp("cli") / "home"


@pytest.fixture(scope="module")
def sage(supervisor_home: Path) -> Iterator[Sage]:
    """Commands beside a running supervisor, which they find by themselves."""
    home = supervisor_home
    command = [sys.executable, "-m", "sage_actor", "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ | {"SAGE_ACTOR_HOME": str(home)}
    ) as process:
        assert process.stdout is not None
        assert "supervisor on http://127.0.0.1:" in process.stdout.readline()
        assert "/#token=" in process.stdout.readline()

        def beside(*arguments: str, token: str = "") -> subprocess.CompletedProcess[str]:
            return call(*arguments, home=home, SAGE_ACTOR_TOKEN=token)

        yield beside
        process.terminate()
        assert process.wait(15) == 0


def test_submitting_listing_reading_logs(sage: Sage, tmp_path: Path) -> None:
    script = tmp_path / "greeting.py"
    script.write_text("import sys, os\nprint('hello', *sys.argv[1:])\n")
    done = sage("submit", "--wait", str(script), "-x", "--wait")
    assert (done.returncode, done.stderr) == (0, "greeting: finished\n")
    job_id = done.stdout.strip()
    assert re.fullmatch(r"[0-9a-f]{12}", job_id)
    assert sage("logs", "greeting").stdout == sage("logs", job_id, "--follow").stdout == "hello -x --wait\n"

    (tmp_path / "bad.py").write_text("raise ValueError('of a rather long kind: ' + 'x' * 100)\n")
    name = "a-name-longer-than-any-column-of-a-table-on-a-small-terminal-would-be"
    done = sage("submit", "--name", name, "--wait", str(tmp_path / "bad.py"))
    assert done.returncode == 1
    assert "ValueError: of a rather long kind" in done.stderr
    listing = sage("jobs").stdout
    assert name in listing, "nothing is cut when piped"
    assert [line.split()[1:3] for line in listing.splitlines()] == [["name", "status"], ["greeting", "finished"], [name, "failed"]]
    told = json.loads(sage("jobs", "--json").stdout)
    assert [(job["name"], job["status"], job["exit_code"]) for job in told] == [("greeting", "finished", 0), (name, "failed", 1)]


def test_stopping(sage: Sage, tmp_path: Path) -> None:
    script = tmp_path / "forever.py"
    script.write_text("import time\nwhile True: time.sleep(0.05)\n")
    assert sage("submit", str(script)).returncode == 0
    done = sage("stop", "forever", "--cancel")
    assert done.returncode == 0
    assert re.fullmatch(r"forever \([0-9a-f]{12}\): cancelled\n", done.stdout)


COUNTING = """
import asyncio, sys
from pathlib import Path
import sage_actor as sage

class Numbers(sage.Source):
    place = 0
    async def read(self, limit):
        await asyncio.sleep(0.001)
        if self.place < 100:
            self.place += 10
            return list(range(self.place - 10, self.place))
        return None if Path(sys.argv[1]).exists() else []
    def position(self):
        return self.place
    async def seek(self, position):
        print("goes on at", position, flush=True)
        self.place = position

def drop(pair):
    if pair[1] == 50:
        print("counted", pair[0], flush=True)

env = sage.LocalEnvironment("counting", config={"checkpoint.interval": "20ms"})
env.from_source(Numbers, bounded=False).key_by(lambda n: n % 2).count(name="counts").sink(drop)
env.execute()
"""


def take_savepoint(home: Path, *arguments: str) -> str:
    program = "import typer; from sage_actor.cli.savepoint import savepoint; typer.run(savepoint)"
    command = [sys.executable, "-c", program, *arguments]
    environment = os.environ | {"SAGE_ACTOR_HOME": str(home)}
    return subprocess.run(command, capture_output=True, text=True, timeout=50, env=environment, check=True, cwd=home).stdout.strip()


def test_a_savepoint_from_outside_and_a_job_that_goes_on_from_it(
    sage: Sage, supervisor_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "counting.py"
    script.write_text(COUNTING)
    monkeypatch.setenv("SAGE_ACTOR_HOME", str(supervisor_home))
    client = SupervisorClient()

    def submit(*options: str) -> str:
        return sage("submit", *options, str(script), str(tmp_path / "go")).stdout.strip()

    def until_log(job_id: str, *texts: str) -> None:
        while not all(text in client.logs(job_id) for text in texts):
            assert not client.job(job_id, wait=0.05).ended_for_good, client.logs(job_id)

    job_id = submit()
    until_log(job_id, "counted 0", "counted 1")
    kept = take_savepoint(supervisor_home, job_id, "--target", "kept")
    assert Path(kept).is_relative_to(supervisor_home / "kept"), "a relative folder is meant from where one stands"
    last = take_savepoint(supervisor_home, job_id, "--stop")
    told = client.job(job_id, wait=20)
    assert (told.status, told.dataflows[0].status) == ("finished", "finished")
    line = next(line for line in sage("jobs").stdout.splitlines() if line.startswith(job_id))
    assert re.search(r" \d+ \(\d+ s ago\) ", line), "number and age of the newest checkpoint"

    for options in (("--restore", kept), ("--restore", last)):
        again = submit(*options)
        until_log(again, "goes on at 100")
        assert client.cancel(again).status == "stopping"
        assert client.job(again, wait=20).status == "cancelled"
    again = submit("--resume")
    until_log(again, "goes on at 100")
    (tmp_path / "go").touch()
    assert client.job(again, wait=20).status == "finished"


def test_wrong_words_are_refused(sage: Sage, tmp_path: Path) -> None:
    done = sage("logs", "nobody")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: no job 'nobody'; known: ")
    script = tmp_path / "it.py"
    script.touch()
    assert "did you mean 'exponential-delay'" in sage("submit", "--restart", "exponential", str(script)).stderr
    assert sage("submit", "--attempts", "3", str(script)).returncode == 2
    assert "No such file" in sage("submit", str(tmp_path / "nothing.py")).stderr


def test_no_supervisor_there(tmp_path: Path) -> None:
    done = call("jobs", "--address", "localhost:1", home=tmp_path)
    assert done.returncode == 1
    assert "error: no supervisor at localhost:1" in done.stderr
    assert "python -m sage_actor" in done.stderr
    assert "not an address" in call("jobs", "--address", "ftp://x", home=tmp_path).stderr


def test_a_wrong_token_is_told(sage: Sage) -> None:
    done = sage("jobs", token="wrong")
    assert (done.returncode, done.stdout) == (1, "")
    assert "refused the token (the token is wrong)" in done.stderr


def test_version_help_and_nonsense() -> None:
    assert re.fullmatch(r"sage_actor \d+\.\d+\.\d+ \(Python 3\.\d+\.\d+\)\n", call("--version").stdout)
    help_ = call("--help").stdout
    assert all(word in help_ for word in ("run", "demo", "submit", "jobs", "logs", "stop", "check-env", "--port", "--max-jobs"))
    done = call("nonsense")
    assert (done.returncode, "nonsense" in done.stderr) == (2, True)
    done = call("--port", "5", "jobs")
    assert done.returncode == 2
    assert "belong to the supervisor process" in " ".join(done.stderr.split())


def test_check_env(tmp_path: Path) -> None:
    done = call("check-env", home=tmp_path, SAGE_REDIS_URL="redis://:secret@127.0.0.1:1")
    assert done.returncode == 0, done.stdout
    for word in (
        "Python",
        "compiled core",
        "backend local",
        "backend process",
        "backend redis",
        "C compiler",
        "data directory",
        "command sage",
    ):
        assert word in done.stdout
    assert "none at redis://127.0.0.1:1" in done.stdout
    assert "secret" not in done.stdout
    (tmp_path / "file").touch()
    done = call("check-env", home=tmp_path / "file")
    assert done.returncode == 1
    assert "missing: data directory" in done.stdout


def test_the_census_agrees_with_a_plain_loop() -> None:
    files = [file for file in library_files() if file.package in ("json", "asyncio", "collections")]
    assert len(files) > 30
    env = LocalEnvironment("census", parallelism=2)
    census = describe_census(env, files)
    env.execute()
    assert (census.packages(), census.counts()) == count_plainly(files)


def test_the_demo_on_worker_processes_names_them_and_their_shares() -> None:
    done = call("demo", "--backend", "process")
    assert done.returncode == 0, done.stdout + done.stderr
    shares = [int(share) for share in re.findall(r"^\d+ +[\d,]+ +(\d+)%$", done.stdout, re.MULTILINE)]
    assert len(shares) == 2
    assert min(shares) >= 20
    assert "equal to collections.Counter over the same" in done.stdout
    assert "census: running" in done.stderr or "files of the standard library" in done.stderr
