"""How long does ``import sage_actor`` take, and how soon after ``execute`` does the first record arrive?"""

from __future__ import annotations

import subprocess
import sys
import time
from functools import partial

from benchmarks import bytewax_flows
from benchmarks.result import Result
from benchmarks.rounds import Options, interleaved, median

__all__ = ["measure"]

BLOCKING = """
import time
import sage_actor as sage
seen = []
env = sage.LocalEnvironment("first record")
env.from_collection(range(3)).map(lambda x: x + 1).sink(lambda x: seen.append(time.perf_counter()))
begun = time.perf_counter()
env.execute()
assert len(seen) == 3
print(seen[0] - begun)
"""

ASYNC = """
import asyncio, time
import sage_actor as sage
async def main():
    seen = []
    async with sage.Environment("first record") as env:
        env.from_collection(range(3)).map(lambda x: x + 1).sink(lambda x: seen.append(time.perf_counter()))
        begun = time.perf_counter()
        await env.execute()
    assert len(seen) == 3
    print(seen[0] - begun)
asyncio.run(main())
"""


def start(code: str) -> float:
    """Seconds that a fresh interpreter takes from start to exit."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - begun


def first_record(code: str) -> float:
    """Seconds that a fresh interpreter reports."""
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def measure(options: Options) -> Result:
    """Milliseconds above a bare interpreter; the first record from the call of ``execute`` on."""
    runs = {
        "bare": partial(start, "pass"),
        "import": partial(start, "import sage_actor"),
        "names": partial(start, "from sage_actor import Environment, LocalEnvironment"),
        "blocking": partial(first_record, BLOCKING),
        "async": partial(first_record, ASYNC),
    }
    reason = bytewax_flows.missing()
    if not reason:
        runs["peer"] = partial(start, "import bytewax.dataflow, bytewax.operators")
    for run in runs.values():
        run()  # once for the byte code and the page cache
    seconds = interleaved(2 if options.short else max(options.rounds, 11), runs)
    above = {
        name: 1e3 * median([taken - bare for taken, bare in zip(seconds[name], seconds["bare"], strict=True)])
        for name in ("import", "names", "peer")
        if name in seconds
    }
    first = {name: 1e3 * median(seconds[name]) for name in ("blocking", "async")}
    met = above["import"] < 60 and max(first.values()) < 30
    peer = above.get("peer")
    return Result(
        "import",
        "ms",
        above["import"],
        None,
        peer,
        None,
        None if peer is None else peer / max(above["import"], 1e-3),
        "import under 60 ms, first record under 30 ms after execute",
        None if options.short else met,
        "above a bare interpreter" + (f"; no peer: {reason}" if reason else "; peer: import bytewax.dataflow, bytewax.operators"),
        {
            "bare_interpreter_ms": 1e3 * median(seconds["bare"]),
            "import_environments_ms": above["names"],
            "first_record_LocalEnvironment_ms": first["blocking"],
            "first_record_Environment_ms": first["async"],
        },
    )
