"""What single steps cost on this machine, measured by doing them."""

from __future__ import annotations

import asyncio
import os
import pickle
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import sage_actor as sage
from sage_actor._core.batch import Batch
from sage_actor._core.frame import DATA, decode, encode
from sage_actor._core.stable_hash import split_by_key
from sage_actor.actor.open_backend import open_backend
from sage_actor.dataflow.plan import make_plan
from sage_actor.runtime.batch_codec import decode_batch, encode_batch

__all__ = ["Costs", "measure_costs"]

ENTRY = "sage_actor.testing.conformance_worker:echo"
MANY = 1000
ROUNDS = 7


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds of one core, unless said otherwise.

    Attributes:
        record: all that one record of a keyed count costs its worker, exchange not included.
        record_on_wire: what it costs beside that to be split off, encoded and decoded, in frames of a thousand.
        frame: what each frame costs, however little is in it: encoding, sending, receiving, decoding.
        send: the part of it that falls on the sender.
        hop: from sending to receiving an otherwise idle frame, waiting included.
        channel: what one channel adds to the deployment: planning and pickling in the owner, unpickling in the worker.
        start: of one worker process, up to its being ready.
        report: what the owner pays for one report of a task's counters.
        durable: until a small file is safely on disk, waiting included: written, synced, renamed, its folder synced.
        redis_entry: what one entry of a stream costs the Redis server: written, read, trimmed.
        loss_noticed: seconds until a lost worker is noticed: by the end of a process, or by silence on Redis.
        changed_key: bytes that a snapshot takes for one changed key.
        restored_keys: keys a second that a worker restores.
        manifest_part: bytes of the manifest for one part.
    """

    record: float
    record_on_wire: float
    frame: float
    send: float
    hop: float
    channel: float
    start: float
    report: float
    redis_entry: float
    durable: float
    loss_noticed: float = 5.0
    changed_key: float = 18.0
    restored_keys: float = 2.0e6
    manifest_part: float = 150.0

    def shown(self) -> list[tuple[str, float]]:
        """Name and value of each."""
        return list(asdict(self).items())


def best(action: Callable[[], object], times: int) -> float:
    """Seconds of one time, the best of a few goes: whatever else ran on the machine only makes them longer."""
    found: list[float] = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        for _ in range(times):
            action()
        found.append((time.perf_counter() - begun) / times)
    return min(found)


def record_cost(n: int = 1_000_000) -> float:
    """A keyed count on one worker without any exchange."""
    records = [i % 1000 for i in range(n)]
    found: list[float] = []
    for _ in range(3):
        env = sage.LocalEnvironment("record cost")
        env.from_collection(records).map(lambda r: r + 1).key_by(lambda r: r).count(emit="final").collect()
        begun = time.perf_counter()
        env.execute()
        found.append((time.perf_counter() - begun) / n)
    return min(found)


def wire_costs() -> tuple[float, float]:
    """Per frame and per record: encoding and decoding, and splitting by key for the records."""

    def there_and_back(size: int) -> Callable[[], object]:
        values = [(i % 1000, i) for i in range(size)]
        keys = [value[0] for value in values]

        def action() -> object:
            frame = b"".join(encode(DATA, 1, 1, 1, 1, size, encode_batch(Batch(values, keys))))
            return decode_batch(decode(memoryview(frame))[1])

        return action

    small, large = best(there_and_back(1), 2000), best(there_and_back(MANY), 50)
    whole = Batch([(i % 1000, i) for i in range(4096)], [i % 1000 for i in range(4096)])
    split = best(lambda: split_by_key(whole, 128, 8), 20) / 4096
    return small, (large - small) / (MANY - 1) + split


async def link_costs() -> tuple[float, float, float, float]:
    """Send and receive of a tiny frame, its hop, and the start of a worker."""
    begun = time.perf_counter()
    group = await open_backend("process").start(2, group="scale", entry=ENTRY)
    start = (time.perf_counter() - begun) / 2
    came = 0
    wanted = asyncio.Event()
    goal = 0

    def receive(sender: int, frame: memoryview) -> None:
        nonlocal came
        came += 1
        if came >= goal:
            wanted.set()

    try:
        group.endpoint.start(receive, lambda error: None)
        sends: list[float] = []
        bursts: list[float] = []
        hops: list[float] = []
        for _ in range(ROUNDS):
            came, goal = 0, MANY
            wanted.clear()
            at = time.perf_counter()
            for _ in range(MANY):
                group.endpoint.send(1, [b"x" * 60])
            sends.append((time.perf_counter() - at) / MANY)
            await wanted.wait()
            bursts.append((time.perf_counter() - at) / MANY / 2)
            for _ in range(50):
                came, goal = 0, 1
                wanted.clear()
                at = time.perf_counter()
                group.endpoint.send(1, [b"x" * 60])
                await wanted.wait()
                hops.append((time.perf_counter() - at) / 2)
    finally:
        await group.aclose()
    return min(sends), min(bursts), statistics.median(hops), start


def channel_cost() -> float:
    """One channel's share of planning, pickling and unpickling a job of two stages."""
    from sage_actor.runtime.shipping import pack_tasks
    from sage_actor.runtime.task_host import JobIdentity
    from sage_actor.runtime.task_snapshots import SnapshotSetting

    def deploy(parallelism: int) -> float:
        env = sage.LocalEnvironment("plan", backend="process", parallelism=parallelism)
        env.from_collection([1]).rebalance().map(lambda r: r).key_by(lambda r: r).count().collect()
        ends = [operator.id for operator in env.graph.loose_ends()] + [operator.id for operator in env.graph.sinks()]
        begun = time.perf_counter()
        plan = make_plan(env.graph, ends, env.settings, hosts_in_owner=False)
        for worker in range(1, plan.workers + 1):
            tasks = [task for task in plan.tasks if task.worker == worker]
            pickle.loads(pack_tasks(JobIdentity("plan", 1, 1), env.settings, SnapshotSetting(), tasks))
        return time.perf_counter() - begun

    few, many = min(deploy(8) for _ in range(3)), min(deploy(48) for _ in range(3))
    return (many - few) / (48 * 48 - 8 * 8)


def report_cost() -> float:
    """The owner's share of one report: unpickling and filing it."""
    report = pickle.dumps([dict.fromkeys(("task", "records_in", "records_out", "busy", "blocked", "queued", "pid", "late"), 123456)])
    return best(lambda: pickle.loads(report), 2000) + 5e-6


def durable_cost() -> float:
    """A small file, safe on the disk of the temporary folder; the median, since a disk's best case is no help."""
    found: list[float] = []
    with tempfile.TemporaryDirectory(prefix="sage-scale-") as folder:
        directory = os.open(folder, os.O_RDONLY)
        for number in range(20):
            begun = time.perf_counter()
            with open(f"{folder}/writing", "wb") as file:
                file.write(b"x" * 4096)
                file.flush()
                os.fsync(file.fileno())
            os.rename(f"{folder}/writing", f"{folder}/{number}")
            os.fsync(directory)
            found.append(time.perf_counter() - begun)
        os.close(directory)
    return statistics.median(found)


def redis_cost() -> float:
    """Entries of 4 KiB through one stream, a hundred to a round trip: the server is the bottleneck, so the time is its own."""
    from redis import Redis

    from sage_actor.testing import redis_server

    with redis_server() as address, Redis.from_url(address) as client:
        pipe = client.pipeline(transaction=False)

        def action() -> object:
            for _ in range(100):
                pipe.xadd("scale", {"f": b"x" * 4096})
            pipe.xread({"scale": "0-0"}, count=100)
            pipe.xtrim("scale", maxlen=0, approximate=False)
            return pipe.execute()

        return best(action, 5) / 100


def measure_costs() -> Costs:
    """All of them; takes about ten seconds."""
    frame, on_wire = wire_costs()
    send, link, hop, start = asyncio.run(link_costs())
    return Costs(
        record=record_cost(),
        record_on_wire=on_wire,
        frame=frame + link,
        send=frame / 2 + send,
        hop=hop,
        channel=channel_cost(),
        start=start,
        report=report_cost(),
        redis_entry=redis_cost(),
        durable=durable_cost(),
    )
