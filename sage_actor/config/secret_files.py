"""Secrets of this account, one random text a file, readable by nobody else."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from sage_actor.errors import ConfigError

__all__ = ["LEAST", "obtain_secret", "read_secret"]

LEAST = 16
"""Characters that a secret has at least."""


def read_secret(key: str, place: Path) -> str | None:
    """The secret in a file, or None if there is none yet.

    Args:
        key: what it is called in errors.

    Raises:
        ConfigError: others may read the file, or it is empty, no text, or unreadable.
    """
    try:
        with place.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            secret = file.read(4096).decode("ascii", "replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(key, f"cannot be read: {error.strerror}", str(place)) from error
    if os.name == "posix" and mode & 0o077:
        raise ConfigError(
            key, f"others may read it (mode {mode:o}); `chmod 600` it, or delete it, a new one is written at the next start", str(place)
        )
    if len(secret) < LEAST or not secret.isascii():
        raise ConfigError(key, "it is empty or damaged; delete it, a new one is written at the next start", str(place))
    return secret


def obtain_secret(key: str, place: Path) -> str:
    """The secret in a file; the first call writes a new random one, readable by this account only.

    Safe when two processes do it at once: both return the same.

    Raises:
        ConfigError: as `read_secret`, or the directory cannot be written.
    """
    existing = read_secret(key, place)
    if existing is not None:
        return existing
    fresh = secrets.token_urlsafe(32)
    # Written aside and linked into place: whoever reads the final name never sees half a secret.
    aside = place.with_name(f".{place.name}.{secrets.token_hex(8)}")
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(fresh)
        try:
            os.link(aside, place)
        except FileExistsError:
            fresh = read_secret(key, place) or fresh
        finally:
            aside.unlink()
    except OSError as error:
        raise ConfigError(key, f"cannot be written: {error.strerror}", str(place)) from error
    return fresh
