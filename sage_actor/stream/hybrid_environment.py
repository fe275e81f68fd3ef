"""The blocking face for dataflows of which parts run at different places."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sage_actor.stream.local_environment import LocalEnvironment

__all__ = ["HybridEnvironment"]


class HybridEnvironment(LocalEnvironment):
    """A `LocalEnvironment` with places, for ``.place(name)``; as keyword or as ``config={"places": {...}}``.

    One that is given none has two: ``local``, this process, and ``process``, child processes of this machine.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        backend: str | None = None,
        parallelism: int | None = None,
        places: Mapping[str, str | Mapping[str, Any]] | None = None,
        config: Mapping[str, Any] | None = None,
        resume: bool | None = None,
        restore: str | None = None,
    ) -> None:
        super().__init__(name, backend=backend, parallelism=parallelism, places=places, config=config, resume=resume, restore=restore)
        if not self.settings.places:
            self.settings = self.settings.merged({"places": {"local": "local", "process": "process"}})
