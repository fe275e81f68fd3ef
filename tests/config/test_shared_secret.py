"""The secret that machines share: made once, readable by nobody else, outweighed by the environment, found by name from below."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from sage_actor.actor.worker_agents import shared_secret
from sage_actor.config.paths import redis_secret_file
from sage_actor.config.shared_secret import obtain_shared_secret
from sage_actor.errors import BackendUnavailable, ConfigError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAGE_ACTOR_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SAGE_ACTOR_SECRET", raising=False)
    return tmp_path / "home"


def test_it_is_written_once_for_this_account_only(home: Path) -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(obtain_shared_secret())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert len(found[0]) >= 32
    assert redis_secret_file() == home / "redis.secret"
    assert redis_secret_file().stat().st_mode & 0o777 == 0o600


def test_one_that_others_may_read_is_refused() -> None:
    obtain_shared_secret()
    os.chmod(redis_secret_file(), 0o640)
    with pytest.raises(ConfigError, match=r"redis\.secret.*others may read it"):
        obtain_shared_secret()
    with pytest.raises(ConfigError, match=r"chmod 600"):  # a copy made by hand; a new secret would not be the others'
        obtain_shared_secret()


def test_one_that_is_no_text_is_refused(home: Path) -> None:
    home.mkdir()
    redis_secret_file().write_bytes(bytes(range(128, 192)))  # read with replacements it would be the same for everybody
    redis_secret_file().chmod(0o600)
    with pytest.raises(ConfigError, match="damaged"):
        obtain_shared_secret()


def test_the_environment_outweighs_the_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_ACTOR_SECRET", "sixteen characters")
    assert obtain_shared_secret() == "sixteen characters"
    assert not home.exists()
    monkeypatch.setenv("SAGE_ACTOR_SECRET", "short")
    with pytest.raises(ConfigError, match=r"SAGE_ACTOR_SECRET.*fewer than 16"):
        obtain_shared_secret()


def test_a_backend_finds_it_by_name() -> None:
    assert shared_secret("redis") == obtain_shared_secret()
    with pytest.raises(BackendUnavailable, match=r"no entry point 'nobody' in group 'sage_actor\.secrets'"):
        shared_secret("nobody")
