"""What the workers of the backend suite run, and the owner that it kills."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
import threading
from collections.abc import Callable
from typing import Final, cast

from sage_actor.actor.backend import Backend, Endpoint
from sage_actor.errors import BackendError
from sage_actor.ports import system_clock

__all__ = ["burst", "echo", "late", "numbered", "obey", "own", "raising", "returning"]

_END: Final = b"end of the burst"


def numbered(number: int) -> bytes:
    """A frame that carries its number and some bytes that follow from it, so that a mix-up shows."""
    return b"%d:" % number + bytes([number % 251]) * (number % 97)


async def echo(endpoint: Endpoint) -> None:
    """Send back every frame to whom it came from, unchanged."""
    endpoint.start(lambda sender, frame: endpoint.send(sender, [frame]), _ignore)
    await asyncio.Event().wait()


async def late(endpoint: Endpoint) -> None:
    """Send frames before starting, let frames of the owner arrive unread for a while, then start to echo."""
    for number in range(100):
        endpoint.send(0, [numbered(number)])
    await endpoint.flush()
    await system_clock.sleep(0.2)
    await echo(endpoint)


def burst(endpoint: Endpoint, to: int, count: int) -> None:
    """Send numbered frames in one go, and a last one that says so."""
    for number in range(count):
        endpoint.send(to, [numbered(number)])
    endpoint.send(to, [_END])


async def obey(endpoint: Endpoint) -> None:
    """Do what frames of the owner say (a JSON list: what, then its arguments); tell it what came from others.

    ``burst to count``; ``say text`` on stderr; ``exit code``, at once; ``leave code`` through `sys.exit`; ``block`` for ever,
    having said so; ``echo text``. At the end of a burst the owner gets ``[sender, number of frames, all right and in order]``.
    """
    seen: dict[int, int] = {}
    wrong: set[int] = set()
    blocking: list[asyncio.Future[None]] = []
    leaving: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def receive(sender: int, frame: memoryview) -> None:
        content = bytes(frame)
        if sender != 0:
            if content == _END:
                endpoint.send(0, [json.dumps([sender, seen.pop(sender, 0), sender not in wrong]).encode()])
                return
            number = seen.get(sender, 0)
            seen[sender] = number + 1
            if content != numbered(number):
                wrong.add(sender)
            return
        what, *arguments = json.loads(content)
        if what == "burst":
            burst(endpoint, *arguments)
        elif what == "say":
            sys.stderr.write(f"{arguments[0]}\n")
            sys.stderr.flush()
            endpoint.send(0, [b"said"])
        elif what == "exit":
            os._exit(arguments[0])
        elif what == "leave":
            leaving.set_result(arguments[0])
        elif what == "block":
            blocking.append(asyncio.ensure_future(_block(endpoint)))
        else:
            endpoint.send(0, [arguments[0].encode()])

    endpoint.start(receive, _ignore)
    sys.exit(await leaving)


async def _block(endpoint: Endpoint) -> None:
    endpoint.send(0, [b"blocking"])
    await endpoint.flush()
    threading.Event().wait()


async def raising(endpoint: Endpoint) -> None:
    """Send one frame, then fail."""
    endpoint.send(0, [b"before it failed"])
    raise RuntimeError("this entry fails on purpose")


async def returning(endpoint: Endpoint) -> None:
    """Send frames, then end well."""
    for number in range(100):
        endpoint.send(0, [numbered(number)])


def own(create: str, address: str) -> None:
    """Own a group of two until killed, having printed the workers' process ids. The main function of a process."""
    module, _, name = create.partition(":")
    factory = cast("Callable[[str], Backend]", getattr(importlib.import_module(module), name))

    async def main() -> None:
        group = await factory(address).start(2, group="orphans", entry=f"{__name__}:echo")
        sys.stdout.write(json.dumps([worker.pid for worker in group.workers]) + "\n")
        sys.stdout.flush()
        await asyncio.Event().wait()

    asyncio.run(main())


def _ignore(error: BackendError) -> None:
    """The suite looks at the owner's side."""
