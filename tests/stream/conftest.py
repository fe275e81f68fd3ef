"""What the stream tests share: the three backends as a parameter, and a real Redis server for the session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sage_actor.errors import BackendUnavailable
from sage_actor.testing import redis_server


@pytest.fixture(scope="session", autouse=True)
def redis_or_reason() -> Iterator[str]:
    """Address of a server that answers, else why there is none. Begun before any test, so that no test leaves it behind."""
    try:
        with redis_server() as address:
            yield address
    except BackendUnavailable as error:
        yield str(error)


@pytest.fixture
def redis_address(redis_or_reason: str) -> str:
    """A server that answers; skips, saying what to install, where there is none."""
    if not redis_or_reason.startswith("redis://"):
        pytest.skip(redis_or_reason)
    return redis_or_reason


@pytest.fixture(params=["local", "process", "redis"])
def backend(request: pytest.FixtureRequest) -> str:
    """The name of each backend in turn."""
    return str(request.getfixturevalue("redis_address")) if request.param == "redis" else str(request.param)


@pytest.fixture(params=["process", "redis"])
def remote_backend(request: pytest.FixtureRequest) -> str:
    """The name of each backend that has worker processes."""
    return str(request.getfixturevalue("redis_address")) if request.param == "redis" else str(request.param)
