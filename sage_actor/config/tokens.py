"""The token that lets the CLI and RemoteEnvironment of this account talk to its supervisor."""

from __future__ import annotations

from pathlib import Path

from sage_actor.config.environment import environment
from sage_actor.config.paths import token_file
from sage_actor.config.secret_files import obtain_secret, read_secret

__all__ = ["find_token", "obtain_token", "read_token"]


def read_token(path: Path | None = None) -> str | None:
    """The token in `path` (default: this account's), or None if there is none yet.

    Raises:
        ConfigError: others may read the file, or it is empty or unreadable.
    """
    return read_secret("token", path or token_file())


def obtain_token(path: Path | None = None) -> str:
    """The token in `path`; the first call writes a new random one, readable by this account only.

    Safe when two processes do it at once: both return the same token.

    Raises:
        ConfigError: as `read_token`, or the directory cannot be written.
    """
    return obtain_secret("token", path or token_file())


def find_token() -> str | None:
    """The token to use as a client: ``SAGE_ACTOR_TOKEN`` if set, else this account's file, else None."""
    return environment("SAGE_ACTOR_TOKEN") or read_token()
