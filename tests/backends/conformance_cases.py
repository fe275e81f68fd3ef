"""The backends that the conformance suite runs over here, by the name of their column in the table."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Generator
from dataclasses import replace
from pathlib import Path

from redis.asyncio import Redis

from sage_actor import plugins
from sage_actor.actor.backend import Backend
from sage_actor.actor.open_backend import BACKENDS, open_backend
from sage_actor.errors import BackendUnavailable
from sage_actor.runtime.places import PlacedBackend
from sage_actor.testing import RedisServer, redis_server
from sage_actor.testing.agent_processes import agent_processes
from sage_actor.testing.conformance import BackendCase

__all__ = ["COLUMNS", "HOSTED_IN_OWNER", "Missing", "create_placed", "open_column", "placed_case", "plugin_case", "redis_case"]

PLUGIN = Path(__file__).with_name("plugin")


class Missing(Exception):
    """This backend cannot run here; the text says why."""


def redis_case(address: str) -> BackendCase:
    """Through a server that runs."""

    async def keys() -> Collection[str]:
        async with Redis.from_url(address) as client:
            return list(map(str, await client.keys("sage:conformance*")))

    async def held() -> int:
        async with Redis.from_url(address) as client:
            return sum([await client.memory_usage(key) or 0 for key in await client.keys("sage:*")])

    return BackendCase(address, leftovers=keys, held=held)


def create_placed(address: str) -> Backend:
    """Half of the workers beside their owner, the others behind a Redis server."""
    return PlacedBackend({"near": open_backend("process"), "far": open_backend(address)})


def placed_case(address: str) -> BackendCase:
    """A backend made of two, one of them through a server that runs."""
    return replace(redis_case(address), create=create_placed)


@contextlib.contextmanager
def plugin_case() -> Generator[BackendCase, None, None]:
    """The package in plugin/, built and installed into a folder that is on sys.path within the block, known by its entry point alone."""
    with tempfile.TemporaryDirectory(prefix="sage-plugin-") as made:
        source, target = Path(made, "source"), Path(made, "installed")
        shutil.copytree(PLUGIN, source, ignore=shutil.ignore_patterns("__pycache__"))
        # Neither a build environment nor dependencies: nothing is fetched.
        options = ["--disable-pip-version-check", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
        command = [sys.executable, "-m", "pip", "install", *options]
        done = subprocess.run([*command, "--target", str(target), str(source)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Missing(f"the plug-in package cannot be installed: {done.stderr.strip()[-1000:]}")
        sys.path.insert(0, str(target))
        try:
            yield BackendCase("tidal://")
        finally:
            sys.path.remove(str(target))
            for name in [name for name in sys.modules if name.partition(".")[0] == "tidal_backend"]:
                del sys.modules[name]
            vars(plugins)["_loaded"].pop((BACKENDS, "tidal"), None)


@contextlib.contextmanager
def _of(address: str) -> Generator[BackendCase, None, None]:
    yield BackendCase(address)


@contextlib.contextmanager
def _behind_redis(case: Callable[[str], BackendCase]) -> Generator[BackendCase, None, None]:
    try:
        with redis_server() as address:
            yield case(address)
    except BackendUnavailable as error:
        raise Missing(str(error)) from error


@contextlib.contextmanager
def _with_agents() -> Generator[BackendCase, None, None]:
    """Workers of two agents, started as in two terminals, at a server of their own."""
    before = os.environ.get("SAGE_ACTOR_SECRET")
    os.environ["SAGE_ACTOR_SECRET"] = secrets.token_hex(16)  # not the account's own, which the run would make
    try:
        with RedisServer() as server, agent_processes(server.address, slots=4):
            yield replace(redis_case(server.address), address=f"{server.address}?wait=3s")
    except BackendUnavailable as error:
        raise Missing(str(error)) from error
    finally:
        if before is None:
            del os.environ["SAGE_ACTOR_SECRET"]
        else:
            os.environ["SAGE_ACTOR_SECRET"] = before


@contextlib.contextmanager
def _on_ray() -> Generator[BackendCase, None, None]:
    """The workers of a cluster that the first group starts; Ray keeps the exit codes of its actors to itself."""
    if importlib.util.find_spec("ray") is None:
        raise Missing('Ray is not installed here: pip install "sage-actor[ray]"')
    yield BackendCase("ray", exit_codes=False, client_stays=True)


HOSTED_IN_OWNER = {"local"}
"""Columns whose backend has no workers of its own."""

COLUMNS: dict[str, Callable[[], contextlib.AbstractContextManager[BackendCase]]] = {
    "local": functools.partial(_of, "local"),
    "process": functools.partial(_of, "process"),
    "redis": functools.partial(_behind_redis, redis_case),
    "agents": _with_agents,
    "ray": _on_ray,
    "placed": functools.partial(_behind_redis, placed_case),
    "plug-in": plugin_case,
}
"""Each opens what it needs, and closes it with the block; raises `Missing` where it cannot."""


def open_column(name: str) -> contextlib.AbstractContextManager[BackendCase]:
    """The case of a column."""
    return COLUMNS[name]()
