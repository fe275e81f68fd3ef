"""The data directory, the token, addresses: what comes from outside the program."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from sage_actor.config.address import Address, default_max_jobs, default_port, find_address, parse_address
from sage_actor.config.environment import environment
from sage_actor.config.paths import data_directory, job_store_file, log_directory, supervisor_file, token_file
from sage_actor.config.tokens import find_token, obtain_token, read_token
from sage_actor.errors import ConfigError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "home"
    monkeypatch.setenv("SAGE_ACTOR_HOME", str(place))
    for name in ("SAGE_ACTOR_TOKEN", "SAGE_ACTOR_JOBMANAGER__HOST", "SAGE_ACTOR_JOBMANAGER__PORT", "SAGE_ACTOR_JOBMANAGER__MAX_JOBS"):
        monkeypatch.delenv(name, raising=False)
    return place


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_ACTOR_TOKEN", "")
    assert environment("SAGE_ACTOR_TOKEN") is None
    assert environment("SAGE_ACTOR_TOKEN", "x") == "x"


def test_everything_lives_in_the_chosen_directory(home: Path) -> None:
    assert data_directory() == home
    assert {path.parent for path in (token_file(), job_store_file(), log_directory(), supervisor_file())} == {home}
    assert not home.exists(), "asking creates nothing"


def test_the_platform_decides_otherwise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SAGE_ACTOR_HOME")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    assert data_directory() == tmp_path / "share" / "sage_actor"


def test_a_home_that_is_a_file_is_refused(home: Path) -> None:
    home.write_text("")
    with pytest.raises(ConfigError, match=r"SAGE_ACTOR_HOME.*not a directory"):
        data_directory()


def test_the_first_start_writes_a_token_for_this_account_only(home: Path) -> None:
    assert read_token() is None
    token = obtain_token()
    assert len(token) >= 32
    assert token_file().stat().st_mode & 0o777 == 0o600
    assert home.stat().st_mode & 0o777 == 0o700
    assert obtain_token() == read_token() == find_token() == token
    assert [path.name for path in home.iterdir()] == ["token"], "nothing is left aside"


def test_two_first_starts_agree_on_one_token() -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(obtain_token())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_a_token_others_may_read_is_refused() -> None:
    obtain_token()
    os.chmod(token_file(), 0o644)
    with pytest.raises(ConfigError, match=r"others may read it.*delete it"):
        obtain_token()


def test_a_damaged_token_is_refused() -> None:
    obtain_token()
    token_file().write_text("")
    with pytest.raises(ConfigError, match=r"empty or damaged"):
        read_token()


def test_the_environment_outweighs_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    obtain_token()
    monkeypatch.setenv("SAGE_ACTOR_TOKEN", "from outside")
    assert find_token() == "from outside"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("localhost:19001", Address("localhost", 19001)),
        ("example.org", Address("example.org", 19001)),
        (":5000", Address("127.0.0.1", 5000)),
        ("http://10.0.0.7:80/", Address("10.0.0.7", 80)),
        ("[::1]:9000", Address("::1", 9000)),
        ("::1", Address("::1", 19001)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "host:port", "host:0", "host:70000", "https://host:1", "a b:1", "host/path"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"jobmanager"):
        parse_address(text)


def test_loopback_is_told_apart() -> None:
    assert all(parse_address(text).is_loopback for text in ("localhost:1", "127.0.0.1:1", "127.9.9.9:1", "[::1]:1"))
    assert not any(parse_address(text).is_loopback for text in ("example.org:1", "10.0.0.1:1", "0.0.0.0:1"))


def test_the_running_supervisor_is_found_by_what_it_noted(home: Path) -> None:
    assert find_address() == Address("127.0.0.1", 19001)
    home.mkdir()
    supervisor_file().write_text(json.dumps({"host": "127.0.0.1", "port": 4711, "pid": 1}))
    assert find_address() == Address("127.0.0.1", 4711)
    supervisor_file().write_text("")
    assert find_address() == Address("127.0.0.1", 19001)


def test_settings_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_ACTOR_JOBMANAGER__HOST", "0.0.0.0")
    monkeypatch.setenv("SAGE_ACTOR_JOBMANAGER__PORT", "5001")
    assert find_address() == Address("127.0.0.1", 5001), "an address to listen on is not one to talk to"
    monkeypatch.setenv("SAGE_ACTOR_JOBMANAGER__PORT", "many")
    with pytest.raises(ConfigError, match=r"SAGE_ACTOR_JOBMANAGER__PORT.*'many' is not a port"):
        default_port()
    monkeypatch.setenv("SAGE_ACTOR_JOBMANAGER__MAX_JOBS", "0")
    with pytest.raises(ConfigError, match=r"SAGE_ACTOR_JOBMANAGER__MAX_JOBS.*'0'"):
        default_max_jobs()
