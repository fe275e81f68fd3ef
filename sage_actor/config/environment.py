"""The one place that reads the process environment."""

from __future__ import annotations

import os
from typing import overload

__all__ = ["environment"]


@overload
def environment(name: str, default: str) -> str: ...
@overload
def environment(name: str, default: None = None) -> str | None: ...
def environment(name: str, default: str | None = None) -> str | None:
    """Value of an environment variable; `default` when it is unset or empty. Read at every call, never cached."""
    return os.environ.get(name) or default
