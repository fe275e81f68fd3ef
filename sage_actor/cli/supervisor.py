"""The bare command: the supervisor process."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import TYPE_CHECKING

from sage_actor.config.address import default_host, default_max_jobs, default_port

if TYPE_CHECKING:
    from sage_actor.server.serve import Started

__all__ = ["run_supervisor"]


def run_supervisor(host: str | None, port: int | None, max_jobs: int | None) -> int:
    """Run a supervisor until SIGTERM or Ctrl-C; returns 0 once its jobs are stopped."""
    from sage_actor.server.serve import serve  # the HTTP framework takes longer to load than any other command to run

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    chosen = host or default_host()
    asyncio.run(
        serve(
            chosen,
            default_port() if port is None else port,
            max_jobs=default_max_jobs() if max_jobs is None else max_jobs,
            ready=_tell,
            note=lambda text: print(text, file=sys.stderr, flush=True),
        )
    )
    print("stopped", file=sys.stderr)
    return 0


def _tell(started: Started) -> None:
    print(f"supervisor on http://{started.address} (data in {started.home})")
    print(f"status page: {started.link}", flush=True)
    if not started.address.is_loopback:
        print(
            f"warning: it listens on {started.address.host}, in plain HTTP: the token and the jobs can be read on the way. "
            "Put it behind a proxy with TLS, or listen on 127.0.0.1.",
            file=sys.stderr,
            flush=True,
        )
