"""What the backend tests share: a real Redis server for the session, and the loops that they run on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

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
