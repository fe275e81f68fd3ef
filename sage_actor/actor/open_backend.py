"""From an address ("local", "process", "redis://host:6379/0") to the backend it names."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from sage_actor import plugins
from sage_actor.actor.backend import Backend
from sage_actor.errors import UnknownBackend

__all__ = ["BACKENDS", "open_backend"]

BACKENDS = "sage_actor.backends"
"""The entry-point group: each entry is a factory ``create(address: str) -> Backend``."""


def open_backend(address: str) -> Backend:
    """The backend that an address names: the part before ``://``, or the whole word, is the entry point's name.

    Nothing is started or connected yet.

    Raises:
        UnknownBackend: no installed distribution offers that name; the message lists those that exist and the nearest one.
        BackendUnavailable: the address is known but cannot be used (ill-formed, or a package or platform is missing).
    """
    name = address.partition("://")[0]
    factory = plugins.find(BACKENDS, name)
    if factory is None:
        raise UnknownBackend(name, plugins.names(BACKENDS))
    # An entry point is untyped by nature; the conformance suite is what decides whether its factory keeps the protocol.
    return cast("Callable[[str], Backend]", factory)(address)
