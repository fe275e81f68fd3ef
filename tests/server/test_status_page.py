"""The status page in a real browser, where there is one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Running

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH; install the package `chromium` to run it")


def page(url: str, profile: Path) -> str:
    """The document as it stands once the page has asked for its data."""
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    options = [f"--user-data-dir={profile}", "--virtual-time-budget=3000", "--dump-dom", url]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=50, check=True)
    return done.stdout.partition("<script>")[0]


def test_it_shows_jobs_their_errors_and_output(running: Running, tmp_path: Path) -> None:
    client = running.client
    bad = client.submit("bad <b>name", "script", b"print('last words', flush=True)\nraise ValueError('<i>broken</i> here')")
    assert client.job(bad.id, wait=20).status == "failed"
    live = client.submit("sleeper", "script", b"import time\nwhile True: time.sleep(0.05)\n")
    while client.job(live.id, wait=0.02).status != "running":
        pass
    seen = page(f"{running.link}&job={bad.id}", tmp_path)
    assert '<span class="badge failed">failed</span>' in seen
    assert '<span class="badge running">running</span>' in seen
    assert "bad &lt;b&gt;name" in seen, "what a job is named or says is never taken as markup"
    assert "ValueError: &lt;i&gt;broken&lt;/i&gt; here" in seen
    assert "last words" in seen
    assert "live, " in seen
    assert running.token not in seen
    client.cancel(live.id)


RESTARTS = b"""
import asyncio
import sage_actor as sage

class Numbers(sage.Source):
    place = 0
    async def read(self, limit):
        await asyncio.sleep(0.01)
        self.place += 1
        return [self.place]
    def position(self):
        return self.place
    async def seek(self, position):
        self.place = position

def checked(n):
    if n == 30:
        raise ValueError("<i>thirty</i>")
    return n

env = sage.LocalEnvironment("numbers", config={"checkpoint.interval": "20ms", "restart.delay": "60s"})
env.from_source(Numbers, bounded=False).map(checked, name="checked").sink(lambda n: None)
env.execute()
"""


def test_it_shows_why_a_job_restarts_and_its_checkpoints(running: Running, tmp_path: Path) -> None:
    client = running.client
    job = client.submit("restarts", "script", RESTARTS, directory=str(tmp_path))
    while client.job(job.id, wait=0.02).status != "restarting":
        assert not client.job(job.id).ended_for_good, client.logs(job.id)
    (flow,) = client.job(job.id).dataflows
    seen = page(f"{running.link}&job={job.id}", tmp_path / "profile")
    assert '<span class="badge restarting">restarting</span>' in seen
    assert "ValueError: &lt;i&gt;thirty&lt;/i&gt;" in seen
    assert "(attempt 2)" in seen
    assert f"{flow.checkpoints['newest']}, " in seen.partition('id="flows"')[2]
    assert "the beginning" in seen
    client.cancel(job.id)


def test_without_the_token_it_shows_nothing_and_says_what_it_needs(running: Running, tmp_path: Path) -> None:
    seen = page(f"http://{running.address}/", tmp_path / "none")
    assert "not signed in" in seen
    assert "badge" not in seen.partition('id="jobs"')[2].partition("</tbody>")[0]
    seen = page(f"http://{running.address}/#token=wrong", tmp_path / "wrong")
    assert "the token is wrong" in seen
