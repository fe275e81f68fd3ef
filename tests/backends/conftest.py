"""What the backend tests share: a Redis server and a Ray cluster for the session."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from sage_actor.errors import BackendUnavailable
from sage_actor.testing import redis_server

collect_ignore = ["plugin", "conformance_table.py", "conformance_cases.py", "agent_setting.py"]
# The cases are shared with a script, and other processes import what they name.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def redis_address() -> Iterator[str]:
    """A server that answers; skips, saying what to install, where there is none."""
    try:
        with redis_server() as address:
            yield address
    except BackendUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    """A small cluster that this process is connected to, one for all tests; skips where Ray is not installed."""
    ray = pytest.importorskip("ray", reason='Ray is not installed: pip install "sage-actor[ray]"')
    handler = signal.getsignal(signal.SIGTERM)
    with warnings.catch_warnings(action="ignore"):
        ray.init(
            "local", num_cpus=4, resources={"licence": 3}, object_store_memory=200_000_000, include_dashboard=False, log_to_driver=False
        )
    signal.signal(signal.SIGTERM, handler)  # Ray takes it over
    yield "ray"
    ray.shutdown()
