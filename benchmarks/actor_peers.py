"""The peers: the same questions asked of xoscar, Pykka, Thespian and Ray, each in a process of its own, where it is installed."""

from __future__ import annotations

import asyncio
import gc
import importlib
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from benchmarks.memory import tree_mib
from benchmarks.rounds import on_loop

__all__ = ["LIBRARIES", "measured", "missing"]

LIBRARIES = {"pykka": "Pykka", "xoscar": "xoscar", "thespian": "Thespian", "ray": "Ray"}
IN_FLIGHT = 100


def missing(*libraries: str) -> str:
    """Which peers are not installed, in words; empty if all are there."""
    absent = [LIBRARIES[name] for name in libraries if importlib.util.find_spec(name) is None]
    return f"not measured, because not installed (pip install '.[bench]'): {', '.join(absent)}" if absent else ""


def measured(peer: str, count: int, loop: str = "asyncio") -> dict[str, float]:
    """What one peer answers, in a fresh process; nothing if it is not installed.

    Args:
        peer: a name of `PEERS`, such as "pykka_tell".
        count: operations; slow paths do a fraction of them.
        loop: the event loop it shall run on, where it has one; the names of its figures begin with that.
    """
    if missing(peer.partition("_")[0]):
        return {}
    command = [sys.executable, "-m", "benchmarks.actor_peers", peer, str(count), loop]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the peer {peer} failed with exit status {done.returncode}:\n{done.stderr[-2000:]}")
    rates: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return rates


# -- what runs in the process of the peer ---------------------------------------------------------------------------------


def per_second(count: int, call: Callable[[], object]) -> float:
    """Rate of a plain call."""
    gc.collect()
    begun = time.perf_counter()
    for _ in range(count):
        call()
    return count / (time.perf_counter() - begun)


def pykka_counter() -> Any:
    """A Pykka actor that counts, as a thread."""
    pykka: Any = importlib.import_module("pykka")

    class Counter(pykka.ThreadingActor):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            super().__init__()  # pyright: ignore[reportUnknownMemberType]
            self.n = 0

        def on_receive(self, message: int) -> int:
            self.n += message
            return self.n

    return Counter.start()


def pykka_tell(count: int, loop: str) -> dict[str, float]:
    """Tells into its unbounded queue, until the last is handled."""
    ref = pykka_counter()
    begun = time.perf_counter()
    for _ in range(count):
        ref.tell(1)
    assert ref.ask(0) == count
    spent = time.perf_counter() - begun
    ref.stop()
    return {"Pykka tell": count / spent}


def pykka_ask(count: int, loop: str) -> dict[str, float]:
    """One at a time, from another thread: it has no other way."""
    ref = pykka_counter()
    rate = per_second(count, lambda: ref.ask(1))
    assert ref.ask(0) == count
    ref.stop()
    return {"Pykka ask": rate}


def pykka_memory(count: int, loop: str) -> dict[str, float]:
    """Resident bytes an idle actor: a thread each."""
    pykka: Any = importlib.import_module("pykka")
    pykka_counter().stop()
    gc.collect()
    before = tree_mib()
    refs = [pykka_counter() for _ in range(count)]
    for ref in refs:
        assert ref.ask(1) == 1
    grown = tree_mib() - before
    pykka.ActorRegistry.stop_all()
    return {"Pykka": grown * 2**20 / count}


def thespian_counter() -> Any:
    """The class of a Thespian actor that counts."""
    base: Any = importlib.import_module("thespian.actors").Actor

    class Counter(base):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            self.n = 0

        def receiveMessage(self, message: object, sender: object) -> None:
            if message == "get":
                self.send(sender, self.n)
            else:
                self.n += 1

    globals()[Counter.__name__] = Counter  # Thespian finds classes by their name in their module
    return Counter


def thespian_rates(base: str, tells: int, asks: int) -> tuple[float, float]:
    """Rates of tell and ask on one of its system bases."""
    system: Any = importlib.import_module("thespian.actors").ActorSystem(base)
    try:
        counter = system.createActor(thespian_counter())
        assert system.ask(counter, "get", 30) == 0
        begun = time.perf_counter()
        for _ in range(tells):
            system.tell(counter, 1)
        assert system.ask(counter, "get", 60) == tells
        told = time.perf_counter() - begun
        begun = time.perf_counter()
        for _ in range(asks):
            assert system.ask(counter, "get", 30) == tells
        return tells / told, asks / (time.perf_counter() - begun)
    finally:
        system.shutdown()


def thespian_all(count: int, loop: str) -> dict[str, float]:
    """Its in-process base, and the one with a process for each actor."""
    inside, multi = thespian_rates("simpleSystemBase", count, count), thespian_rates("multiprocQueueBase", count // 10, count // 50)
    return {
        "Thespian tell, in process": inside[0],
        "Thespian ask, in process": inside[1],
        "Thespian tell, process each": multi[0],
        "Thespian ask, process each": multi[1],
    }


async def awaited_per_second(count: int, call: Callable[[], Awaitable[object]]) -> float:
    """Rate of a call that is awaited, one at a time."""
    gc.collect()
    begun = time.perf_counter()
    for _ in range(count):
        await call()
    return count / (time.perf_counter() - begun)


async def gathered_per_second(count: int, call: Callable[[], Awaitable[object]]) -> float:
    """Rate of a call with 100 in flight."""
    gc.collect()
    begun = time.perf_counter()
    for _ in range(count // IN_FLIGHT):
        await asyncio.gather(*[call() for _ in range(IN_FLIGHT)])
    return count // IN_FLIGHT * IN_FLIGHT / (time.perf_counter() - begun)


def xoscar_counter() -> Any:
    """The class of a stateful xoscar actor. Its base class takes a lock for each message, so one message runs at a time."""
    xoscar: Any = importlib.import_module("xoscar")

    class Counter(xoscar.Actor):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            self.n = 0

        def add(self, by: int) -> int:
            self.n += by
            return self.n

    return Counter


async def xoscar_paths(processes: int) -> tuple[Any, dict[str, Any]]:
    """A pool, and refs by path: inline (guarded call), channel (in-process queues), process (Unix socket)."""
    xoscar: Any = importlib.import_module("xoscar")
    pool = await xoscar.create_actor_pool("127.0.0.1", n_process=processes)
    addresses = (await xoscar.get_pool_config(pool.external_address)).get_external_addresses()
    counter = xoscar_counter()
    refs = {"channel": await xoscar.create_actor(counter, uid="near", address=addresses[0])}
    refs["inline"] = await xoscar.actor_ref(address=addresses[0], uid="near")
    if processes:
        refs["sub-process"] = await xoscar.create_actor(counter, uid="far", address=addresses[1])
    return pool, refs


async def xoscar_asks(count: int, loop: str) -> dict[str, float]:
    """Its three ways apart: they differ in kind."""
    pool, refs = await xoscar_paths(1)
    rates: dict[str, float] = {}
    for path, share in (("inline", 1), ("channel", 10), ("sub-process", 40)):
        ref, some = refs[path], max(IN_FLIGHT, count // share // IN_FLIGHT * IN_FLIGHT)
        before = await ref.add(0)
        rates[f"{loop} xoscar {path}"] = await awaited_per_second(some, lambda ref=ref: ref.add(1))  # type: ignore[misc]
        rates[f"{loop} xoscar {path}, 100 in flight"] = await gathered_per_second(some, lambda ref=ref: ref.add(1))  # type: ignore[misc]
        assert await ref.add(0) == before + 2 * some
    await pool.stop()
    return rates


async def xoscar_sends(count: int, loop: str) -> dict[str, float]:
    """Its send, awaited: through the in-process channel, and inline."""
    pool, refs = await xoscar_paths(0)
    rates: dict[str, float] = {}
    for path, share in (("inline", 1), ("channel", 10)):
        ref, some = refs[path], count // share
        before = await ref.add(0)
        rates[f"{loop} xoscar send, {path}"] = await awaited_per_second(some, lambda ref=ref: ref.add.send(1))  # type: ignore[misc]
        assert await ref.add(0) == before + some
    await pool.stop()
    return rates


def on(main: Callable[[int, str], Coroutine[object, object, dict[str, float]]]) -> Callable[[int, str], dict[str, float]]:
    """As a peer that runs on the loop it is told."""
    return lambda count, loop: on_loop(loop, lambda: main(count, loop))


def ray_ask(count: int, loop: str) -> dict[str, float]:
    """Asks of an actor in another process, one at a time and all in flight."""
    ray: Any = importlib.import_module("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=40)

    @ray.remote  # type: ignore[misc, unused-ignore]
    class Counter:
        def __init__(self) -> None:
            self.n = 0

        def add(self, by: int) -> int:
            self.n += by
            return self.n

    counter: Any = Counter.remote()  # type: ignore[attr-defined, unused-ignore]
    assert ray.get(counter.add.remote(0)) == 0
    alone = per_second(count // 10, lambda: ray.get(counter.add.remote(1)))
    begun = time.perf_counter()
    answers = ray.get([counter.add.remote(1) for _ in range(count)])
    many = count / (time.perf_counter() - begun)
    assert answers[-1] == count // 10 + count
    ray.shutdown()
    return {"Ray ask": alone, "Ray ask, all in flight": many}


PEERS: dict[str, Callable[[int, str], dict[str, float]]] = {
    "pykka_tell": pykka_tell,
    "pykka_ask": pykka_ask,
    "pykka_memory": pykka_memory,
    "thespian_all": thespian_all,
    "xoscar_ask": on(xoscar_asks),
    "xoscar_send": on(xoscar_sends),
    "ray_ask": ray_ask,
}

if __name__ == "__main__":
    print(json.dumps(PEERS[sys.argv[1]](int(sys.argv[2]), sys.argv[3])))
