"""The token that lets the CLI and RemoteEnvironment of this account talk to its supervisor."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from sage_actor.config.environment import environment
from sage_actor.config.paths import token_file
from sage_actor.errors import ConfigError

__all__ = ["find_token", "obtain_token", "read_token"]


def read_token(path: Path | None = None) -> str | None:
    """The token in `path` (default: this account's), or None if there is none yet.

    Raises:
        ConfigError: others may read the file, or it is empty or unreadable.
    """
    place = path or token_file()
    try:
        with place.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            token = file.read(4096).decode("ascii", "replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError("token", f"cannot be read: {error.strerror}", str(place)) from error
    if os.name == "posix" and mode & 0o077:
        raise ConfigError("token", f"others may read it (mode {mode:o}); delete it, a new one is written at the next start", str(place))
    if len(token) < 16:
        raise ConfigError("token", "it is empty or damaged; delete it, a new one is written at the next start", str(place))
    return token


def obtain_token(path: Path | None = None) -> str:
    """The token in `path`; the first call writes a new random one, readable by this account only.

    Safe when two processes do it at once: both return the same token.

    Raises:
        ConfigError: as `read_token`, or the directory cannot be written.
    """
    place = path or token_file()
    existing = read_token(place)
    if existing is not None:
        return existing
    fresh = secrets.token_urlsafe(32)
    # Written aside and linked into place: whoever reads the final name never sees half a token.
    aside = place.with_name(f".{place.name}.{secrets.token_hex(8)}")
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(fresh)
        try:
            os.link(aside, place)
        except FileExistsError:
            fresh = read_token(place) or fresh
        finally:
            aside.unlink()
    except OSError as error:
        raise ConfigError("token", f"cannot be written: {error.strerror}", str(place)) from error
    return fresh


def find_token() -> str | None:
    """The token to use as a client: ``SAGE_ACTOR_TOKEN`` if set, else this account's file, else None."""
    return environment("SAGE_ACTOR_TOKEN") or read_token()
