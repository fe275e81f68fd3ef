"""What the tests of actors on workers share: the backends that they run over."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import sage_actor.backends.redis
import sage_actor.remote.owner  # noqa: F401 - both not first on the event loop of a test, which would block it
from sage_actor.errors import BackendUnavailable
from sage_actor.testing import redis_server


@pytest.fixture(scope="session")
def redis_address() -> Iterator[str]:
    """A server that answers; skips, saying what to install, where there is none."""
    try:
        with redis_server() as address:
            yield address
    except BackendUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session", params=["process", "redis"])
def backend(request: pytest.FixtureRequest) -> str:
    """Backends whose workers are processes of their own."""
    if request.param == "redis":
        address: str = request.getfixturevalue("redis_address")
        return address
    return "process"
