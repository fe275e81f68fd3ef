"""Where this account's data lives: one directory, overridden by ``SAGE_ACTOR_HOME``."""

from __future__ import annotations

import sys
from pathlib import Path

from sage_actor.config.environment import environment
from sage_actor.errors import ConfigError

__all__ = [
    "checkpoint_directory",
    "data_directory",
    "job_store_file",
    "log_directory",
    "redis_secret_file",
    "supervisor_file",
    "token_file",
]


def data_directory() -> Path:
    """The data directory; not created here.

    ``SAGE_ACTOR_HOME`` if set, else the platform's place for an account's data.

    Raises:
        ConfigError: ``SAGE_ACTOR_HOME`` names something that is not a directory.
    """
    chosen = environment("SAGE_ACTOR_HOME")
    if chosen is not None:
        directory = Path(chosen).expanduser().absolute()
        if directory.exists() and not directory.is_dir():
            raise ConfigError("SAGE_ACTOR_HOME", f"{str(directory)!r} is not a directory", "environment")
        return directory
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "sage_actor"
    if sys.platform == "win32":
        return Path(environment("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "sage_actor"
    return Path(environment("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "sage_actor"


def token_file() -> Path:
    """The file that holds the supervisor's token (mode 0600)."""
    return data_directory() / "token"


def redis_secret_file() -> Path:
    """The file that holds the secret of workers on other machines (mode 0600); the same content on each of them."""
    return data_directory() / "redis.secret"


def job_store_file() -> Path:
    """The supervisor's job store."""
    return data_directory() / "jobs.sqlite"


def log_directory() -> Path:
    """Output of jobs: ``<job id>.log`` each."""
    return data_directory() / "logs"


def checkpoint_directory() -> Path:
    """Checkpoints of jobs that set no ``checkpoint.dir``: a folder for each job's name."""
    return data_directory() / "checkpoints"


def supervisor_file() -> Path:
    """Locked by the running supervisor; says its address."""
    return data_directory() / "supervisor.json"
