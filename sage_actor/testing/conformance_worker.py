"""What the workers of the backend suite run, and the owner that it kills."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import importlib
import json
import os
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable
from typing import Final, cast

from sage_actor.actor.backend import Backend, Endpoint
from sage_actor.errors import BackendError
from sage_actor.ports import system_clock

__all__ = [
    "burst",
    "deaf",
    "digest",
    "digest_of",
    "echo",
    "flood",
    "flooding",
    "late",
    "numbered",
    "obey",
    "own",
    "pattern",
    "raising",
    "returning",
]

_END: Final = b"end of the burst"
_LARGEST: Final = 2**25 + 1


def numbered(number: int) -> bytes:
    """A frame that carries its number and some bytes that follow from it, so that a mix-up shows."""
    return b"%d:" % number + bytes([number % 251]) * (number % 97)


@functools.cache
def _noise() -> memoryview:
    return memoryview(random.Random(5).randbytes(_LARGEST))


def pattern(size: int) -> memoryview:
    """A frame of up to 32 MB and one byte, the same in every process, without a period."""
    return _noise()[:size]


def digest_of(frame: memoryview) -> bytes:
    """Size and digest of a frame."""
    return b"%d:" % len(frame) + hashlib.blake2b(frame, digest_size=16).digest()


def flooding(number: int, size: int) -> bytes:
    """A frame of a flood."""
    return number.to_bytes(8, "little") + bytes([number % 251]) * (size - 8)


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


async def deaf(endpoint: Endpoint) -> None:
    """Never start."""
    await asyncio.Event().wait()


async def digest(endpoint: Endpoint) -> None:
    """Answer every frame with its size and digest."""
    endpoint.start(lambda sender, frame: endpoint.send(sender, [digest_of(frame)]), _ignore)
    await asyncio.Event().wait()


async def flood(endpoint: Endpoint) -> None:
    """Told ``[count, size]`` by the owner, send so many frames to everybody, in one go, and count what comes from each.

    When all three others' have come, each right and in order, the owner is told how many.
    """
    seen: Counter[int] = Counter()
    expected: list[int] = []

    def receive(sender: int, frame: memoryview) -> None:
        if not expected and sender == 0:
            expected.extend(json.loads(bytes(frame)))
            count, size = expected
            for number in range(count):
                for peer in {0, 1, 2} - {endpoint.worker}:
                    endpoint.send(peer, [flooding(number, size)])
        elif bytes(frame) == flooding(seen[sender], len(frame)):
            seen[sender] += 1
        if expected and all(seen[peer] == expected[0] for peer in {0, 1, 2} - {endpoint.worker}):
            endpoint.send(0, [json.dumps(dict(sorted(seen.items()))).encode()])

    endpoint.start(receive, _ignore)
    await asyncio.Event().wait()


def burst(endpoint: Endpoint, to: int, count: int) -> None:
    """Send numbered frames in one go, and a last one that says so."""
    for number in range(count):
        endpoint.send(to, [numbered(number)])
    endpoint.send(to, [_END])


async def obey(endpoint: Endpoint) -> None:
    """Do what frames of the owner say (a JSON list: what, then its arguments); tell it what came from others.

    ``burst to count``; ``say text`` on stderr; ``exit code``, at once; ``end code``, once everything is
    flushed; ``leave code`` through `sys.exit`; ``give size``, a
    `pattern`; ``measure`` the frame; ``echo text``. With the whole loop, having said so, and saying "awake" behind it: ``block``
    for ever, ``pause seconds``, ``hold path`` until there is such a file (a file ``path.still`` says when that begins).
    At the end of a burst the owner gets ``[sender, number of frames, all right and in order]``.
    """
    seen: dict[int, int] = {}
    wrong: set[int] = set()
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
        elif what == "end":
            _standing_still(endpoint, b"ending", functools.partial(os._exit, *arguments))
        elif what == "block":
            _standing_still(endpoint, b"blocking", threading.Event().wait)
        elif what == "pause":
            _standing_still(endpoint, b"pausing", functools.partial(threading.Event().wait, *arguments))
        elif what == "hold":
            _standing_still(endpoint, b"pausing", functools.partial(_wait_for_file, *arguments))
        elif what == "give":
            endpoint.send(0, [pattern(arguments[0])])
        elif what == "measure":
            endpoint.send(0, [b"%d" % len(content)])
        else:
            endpoint.send(0, [arguments[0].encode()])

    endpoint.start(receive, _ignore)
    sys.exit(await leaving)


_still: set[asyncio.Task[None]] = set()


def _standing_still(endpoint: Endpoint, word: bytes, wait: Callable[[], object]) -> None:
    """Say a word, let it leave, wait with the whole loop, and say "awake"."""

    async def stand() -> None:
        endpoint.send(0, [word])
        await endpoint.flush()
        wait()
        endpoint.send(0, [b"awake"])

    task = asyncio.ensure_future(stand())
    _still.add(task)
    task.add_done_callback(_still.discard)


def _wait_for_file(path: str) -> None:
    pause = threading.Event()
    with open(f"{path}.still", "w"):
        pass
    while not os.path.exists(path):
        pause.wait(0.01)


async def raising(endpoint: Endpoint) -> None:
    """Send frames of 10 MB together and a last one, then fail."""
    for number in range(50):
        endpoint.send(0, [flooding(number, 200_000)])
    endpoint.send(0, [b"before it failed"])
    raise RuntimeError("this entry fails on purpose")


async def returning(endpoint: Endpoint) -> None:
    """Send frames, then end well."""
    for number in range(100):
        endpoint.send(0, [numbered(number)])


def own(create: str, address: str, group_name: str) -> None:
    """Own a group of two until killed, having printed the workers' process ids. The main function of a process."""
    module, _, name = create.partition(":")
    factory = cast("Callable[[str], Backend]", getattr(importlib.import_module(module), name))

    async def main() -> None:
        group = await factory(address).start(2, group=group_name, entry=f"{__name__}:echo")
        sys.stdout.write(json.dumps([worker.pid for worker in group.workers]) + "\n")
        sys.stdout.flush()
        await asyncio.Event().wait()

    asyncio.run(main())


def _ignore(error: BackendError) -> None:
    """The suite looks at the owner's side."""
