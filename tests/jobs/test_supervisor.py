"""The supervisor with real processes: plain scripts as jobs, so that only the supervisor itself is in question."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from sage_actor.errors import ConfigError, JobError, JobNotFound
from sage_actor.jobs.processes import process_started
from sage_actor.jobs.record import JobRecord, JobSpec
from sage_actor.jobs.store import JobStore
from sage_actor.jobs.supervisor import Supervisor, TooManyJobs

FOREVER = "import time\nprint('up', flush=True)\nwhile True: time.sleep(0.05)\n"
DEAF = """
import time
print('up', flush=True)
while True:
    try:
        while True: time.sleep(1)
    except BaseException: print('no')
"""
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])
print('child', child.pid, flush=True)
child.wait()
"""
THIRD_TIME = """
from pathlib import Path
count = Path('count')
life = len(count.read_text()) if count.exists() else 0
count.write_text('x' * (life + 1))
assert life == 2, f'life {life}'
"""


def script(source: str, name: str = "job", **options: object) -> JobSpec:
    return replace(JobSpec(name=name, kind="script", payload=source.encode(), filename=f"{name}.py"), **options)  # type: ignore[arg-type]


@asynccontextmanager
async def supervisor(home: Path, *, grace: float = 0.2, max_jobs: int = 10) -> AsyncGenerator[Supervisor, None]:
    running = Supervisor(JobStore(home / "jobs.sqlite"), home / "logs", max_jobs=max_jobs)
    await running.start()
    try:
        yield running
    finally:
        await running.aclose(grace)


async def until(running: Supervisor, job: JobRecord, true: Callable[[JobRecord], object]) -> JobRecord:
    """Wait for something to become true of a job. The pauses are waits for its end, which is the end of hope."""
    async with asyncio.timeout(15):
        while not true(record := running.find(job.id)):
            assert record.ended is None, record
            await running.wait(job.id, 0.02)
    return running.find(job.id)


async def until_log(running: Supervisor, job: JobRecord, text: str) -> str:
    """Wait until a job has written something."""
    async with asyncio.timeout(15):
        while text not in (said := (await running.read_log(job.id)).text):
            assert running.find(job.id).ended is None, said
            await running.wait(job.id, 0.02)
    return said


async def ended(running: Supervisor, job: JobRecord) -> JobRecord:
    record = await running.wait(job.id, 20)
    assert record.ended is not None, record
    return record


@pytest.mark.asyncio
async def test_a_script_runs_as_python_would_run_it(tmp_path: Path) -> None:
    source = "import sys, os\nprint(sys.argv, __name__, __file__, os.getcwd())\nimport beside\nprint(beside.here)\n"
    (tmp_path / "beside.py").write_text("here = 'found'")
    async with supervisor(tmp_path) as running:
        spec = script(source, args=("a", "--b"), directory=str(tmp_path), filename=str(tmp_path / "it.py"))
        job = await running.submit(spec)
        record = await ended(running, job)
        assert (record.status, record.exit_code, record.attempts, record.error) == ("finished", 0, 1, "")
        text = (await running.read_log(job.id)).text
        assert text == f"['{tmp_path}/it.py', 'a', '--b'] __main__ {tmp_path}/it.py {tmp_path}\nfound\n"


@pytest.mark.parametrize(
    ("source", "code", "said"),
    [
        ("def f(): raise ValueError('broken here')\nf()", 1, "ValueError: broken here"),
        ("import sys\nsys.exit('not today')", 1, "exited with status 1"),
        ("import sys\nsys.exit(7)", 1, "exited with status 7"),
        ("import os\nprint('bye', flush=True)\nos._exit(3)", 3, "exit code 3 without naming an error; its last output:\nbye"),
        ("import os\nos._exit(0)", 0, "without saying how its job ended"),
        (
            "import os, signal\nprint('bye', flush=True)\nos.kill(os.getpid(), signal.SIGKILL)",
            -9,
            "SIGKILL (exit code -9); its last output:\nbye",
        ),
        ("def", 1, "SyntaxError"),
        ("import nothing_of_that_name", 1, "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
    ],
)
@pytest.mark.asyncio
async def test_every_way_to_fail_is_told(tmp_path: Path, source: str, code: int, said: str) -> None:
    async with supervisor(tmp_path) as running:
        record = await ended(running, await running.submit(script(source)))
        assert (record.status, record.exit_code, record.pid) == ("failed", code, None)
        assert said in record.error


@pytest.mark.asyncio
async def test_a_traceback_shows_the_scripts_frames_only(tmp_path: Path) -> None:
    async with supervisor(tmp_path) as running:
        job = await running.submit(script("def f():\n    1 / 0\nf()\n", filename=str(tmp_path / "it.py")))
        await ended(running, job)
        text = (await running.read_log(job.id)).text
        assert text.startswith(f'Traceback (most recent call last):\n  File "{tmp_path}/it.py", line 3, in <module>')
        assert "sage_actor" not in text


@pytest.mark.asyncio
async def test_a_killed_process_is_noticed_and_takes_its_children_along(tmp_path: Path) -> None:
    async with supervisor(tmp_path) as running:
        job = await running.submit(script(PARENT))
        child = int((await until_log(running, job, "child ")).split()[1])
        pid = running.find(job.id).pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        record = await ended(running, job)
        assert (record.status, record.exit_code) == ("failed", -9)
        assert f"child {child}" in record.error
        async with asyncio.timeout(5):
            # Killed, perhaps not reaped yet by whoever inherited it; nothing tells us when.
            while process_started(child) is not None:  # noqa: ASYNC110
                await asyncio.sleep(0)


@pytest.mark.asyncio
async def test_stop_and_cancel(tmp_path: Path) -> None:
    async with supervisor(tmp_path) as running:
        first, second = await running.submit(script(FOREVER, "first")), await running.submit(script(FOREVER, "second"))
        for job in (first, second):
            await until_log(running, job, "up")
        assert running.stop("first").status == "stopping"
        assert running.stop("first").status == "stopping", "idempotent"
        assert running.cancel(second.id).status == "stopping"
        for job in (first, second):
            record = await ended(running, job)
            assert (record.status, record.exit_code) == ("cancelled", 143)
        assert running.stop("first").status == "cancelled", "what has ended is not changed"


@pytest.mark.asyncio
async def test_stopping_before_the_process_is_up_is_not_lost(tmp_path: Path) -> None:
    async with supervisor(tmp_path) as running:
        job = await running.submit(script(FOREVER))
        running.stop(job.id)
        assert (await ended(running, job)).status == "cancelled"


@pytest.mark.asyncio
async def test_one_that_does_not_react_is_killed_when_the_supervisor_leaves(tmp_path: Path) -> None:
    async with supervisor(tmp_path) as running:
        job = await running.submit(script(DEAF))
        await until_log(running, job, "up")
        pid = running.find(job.id).pid
        assert pid is not None
    assert process_started(pid) is None
    record = running.find(job.id)
    assert record.status == "cancelled"
    assert "the supervisor was stopped" in record.error


@pytest.mark.asyncio
async def test_names_find_the_newest_and_refuse_to_guess(tmp_path: Path) -> None:
    async with supervisor(tmp_path) as running:
        with pytest.raises(JobNotFound, match=r"no jobs are known"):
            running.find("job")
        old = await running.submit(script("", "job"))
        await ended(running, old)
        jobs = [await running.submit(script(FOREVER, "job")) for _ in range(2)]
        assert running.find("job").id in {job.id for job in jobs}
        with pytest.raises(JobError, match=rf"2 live jobs are named 'job'; use an id: {jobs[0].id}, {jobs[1].id}"):
            running.stop("job")
        running.cancel(jobs[0].id)
        await ended(running, jobs[0])
        assert running.cancel("job").id == jobs[1].id


@pytest.mark.asyncio
async def test_no_more_live_jobs_than_allowed(tmp_path: Path) -> None:
    async with supervisor(tmp_path, max_jobs=1) as running:
        job = await running.submit(script(FOREVER))
        with pytest.raises(TooManyJobs, match=r"1 jobs are live already.*--max-jobs"):
            await running.submit(script(""))
        running.cancel(job.id)
        await ended(running, job)
        assert (await ended(running, await running.submit(script("")))).status == "finished", "an ended job counts no more"


@pytest.mark.asyncio
async def test_a_failing_job_restarts_when_it_asked_for_it(tmp_path: Path) -> None:
    restart = {"strategy": "exponential-delay", "attempts": 5, "delay": "10ms"}
    async with supervisor(tmp_path) as running:
        job = await running.submit(script(THIRD_TIME, directory=str(tmp_path), restart=restart))
        record = await ended(running, job)
        assert (record.status, record.attempts, record.error) == ("finished", 3, "")
        text = (await running.read_log(job.id)).text
        assert "AssertionError: life 0\n--- attempt 2, " in text
        assert "AssertionError: life 1\n--- attempt 3, " in text


@pytest.mark.asyncio
async def test_restarts_end_and_the_last_error_stays(tmp_path: Path) -> None:
    async with supervisor(tmp_path) as running:
        job = await running.submit(script("1 / 0", restart={"strategy": "fixed-delay", "attempts": 1, "delay": 0}))
        record = await ended(running, job)
        assert (record.status, record.attempts) == ("failed", 2)
        assert "ZeroDivisionError" in record.error


@pytest.mark.asyncio
async def test_a_job_that_waits_for_its_restart_can_be_stopped(tmp_path: Path) -> None:
    async with supervisor(tmp_path) as running:
        job = await running.submit(script("1 / 0", restart={"delay": "1h", "max_delay": "1h"}))
        waiting = await until(running, job, lambda record: record.status == "restarting")
        assert waiting.restart_at is not None
        running.stop(job.id)
        record = await ended(running, job)
        assert (record.status, record.attempts, record.restart_at) == ("failed", 1, None)
        assert "ZeroDivisionError" in record.error


@pytest.mark.asyncio
async def test_wrong_options_are_refused_before_anything_runs(tmp_path: Path) -> None:
    async with supervisor(tmp_path) as running:
        with pytest.raises(ConfigError, match=r"restart\.delai"):
            await running.submit(script("", restart={"delai": 3}))
        assert running.records() == []
        record = await ended(running, await running.submit(script("", directory=str(tmp_path / "nowhere"))))
        assert record.status == "failed"
        assert "could not be started" in record.error
        assert "nowhere" in record.error


@pytest.mark.asyncio
async def test_history_survives_and_jobs_left_live_are_settled_truthfully(tmp_path: Path) -> None:
    async with supervisor(tmp_path) as running:
        done = await running.submit(script("print('kept')", "done"))
        await ended(running, done)
    # What a supervisor leaves that was killed: a process that is gone, one that still runs, a job never started.
    sleeper = await asyncio.create_subprocess_exec("sleep", "600", start_new_session=True)
    store = JobStore(tmp_path / "jobs.sqlite")
    left = [
        JobRecord(id="gone", name="gone", kind="script", status="running", pid=sleeper.pid, pid_started=1, created=1),
        JobRecord(
            id="alive", name="alive", kind="script", status="running", pid=sleeper.pid, pid_started=process_started(sleeper.pid), created=2
        ),
        JobRecord(id="new", name="new", kind="script", status="created", created=3),
        JobRecord(id="wanted", name="wanted", kind="script", status="running", pid=sleeper.pid, pid_started=1, created=4, attempts=1),
    ]
    for record in left[:-1]:
        store.add(record, script("", record.name))
    store.add(left[-1], script("print('again')", "wanted", restart={"strategy": "fixed-delay", "delay": 0}))
    store.close()

    async with supervisor(tmp_path) as running:
        assert (running.find("done").status, (await running.read_log("done")).text) == ("finished", "kept\n")
        assert running.find("gone").status == "failed"
        assert f"its process {sleeper.pid} with it" in running.find("gone").error
        assert running.find("alive").status == "failed"
        assert "still alive and has been killed" in running.find("alive").error
        assert await sleeper.wait() == -9
        assert running.find("new").status == "failed"
        assert "before it was started" in running.find("new").error
        record = await ended(running, running.find("wanted"))
        assert (record.status, record.attempts) == ("finished", 2), "it had asked for restarts"
