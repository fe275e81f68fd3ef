"""``python -m benchmarks [NAME ...] [--json] [--short] [--rounds N] [--backend B]``; without a name, the whole table."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.result import Result, row, show
from benchmarks.rounds import Options

CASES = {
    "chain": "chain",
    "wordcount": "wordcount",
    "wordcount_final": "wordcount_final",
    "vectorised": "vectorised",
    "latency": "latency",
    "latency_redis": "latency_redis",
    "import": "import_time",
    "backpressure": "backpressure",
    "compile": "compile",
    "stop": "stop",
    "shuffle_process": "shuffle_process",
    "latency_process": "latency_process",
    "scaling": "scaling",
    "shuffle_redis": "shuffle_redis",
    "shuffle_ray": "shuffle_ray",
    "windows": "windows",
    "sliding": "sliding",
    "session": "session",
    "joins": "joins",
    "nexmark": "nexmark.run",
    "checkpoint": "checkpoint",
    "recovery": "recovery",
    "memory": "keyed_memory",
    "memory_optimization": "memory_optimization",
    "wordcount_checkpoints": "wordcount_checkpoints",
    "tell": "tell",
    "ask": "ask",
    "actors_memory": "actors_memory",
    "ring": "ring",
    "spawn": "spawn",
}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Floor, peer and ours from one interleaved run.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(CASES)}, or all (the default)")
    parser.add_argument("--json", action="store_true", help="one JSON object a case, a line each")
    parser.add_argument("--short", action="store_true", help="small and quick, for crashes only; nothing is judged")
    parser.add_argument("--rounds", type=int, default=None, help="interleaved rounds (5; 1 if short)")
    parser.add_argument("--backend", default="local", help="backpressure, stop, latency: process, redis (a private server) or redis://...")
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in CASES and name != "all"]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are: {', '.join(CASES)}")
    if given.rounds is not None and given.rounds < 1:
        parser.error("--rounds must be at least 1")
    return given


@contextlib.contextmanager
def chosen_backend(name: str) -> Iterator[str]:
    """``redis`` without an address means a server of our own for the time of the run."""
    if name != "redis":
        yield name
        return
    from sage_actor.testing import redis_server

    with redis_server() as url:
        yield url


def run_one(name: str, given: argparse.Namespace) -> dict[str, object]:
    """One case in this process."""
    module = importlib.import_module(f"benchmarks.{CASES[name]}")
    with chosen_backend(given.backend) as backend:
        rounds = given.rounds or (1 if given.short else 5)
        result: Result = module.measure(Options(short=given.short, rounds=rounds, backend=backend))
    return result.as_dict()


def run_apart(name: str, given: argparse.Namespace) -> dict[str, object] | None:
    """One case in a fresh process, so that none inherits another's heap; None if it crashed."""
    command = [sys.executable, "-m", "benchmarks", name, "--json", "--backend", given.backend]
    command += ["--short"] if given.short else []
    command += ["--rounds", str(given.rounds)] if given.rounds else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return None
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def machine() -> str:
    """What the figures depend on."""
    return f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"


def table(names: list[str], given: argparse.Namespace) -> int:
    """Every case, as it is done; the exit status counts crashes, not missed targets."""
    crashed = []
    notes: list[str] = []
    if not given.json:
        print(machine())
        print(row(), flush=True)
    for name in names:
        result = run_apart(name, given)
        if result is None:
            crashed.append(name)
            print(f"{name}: crashed, see above", file=sys.stderr, flush=True)
            continue
        print(json.dumps(result) if given.json else row(result), flush=True)
        if result["note"]:
            notes.append(f"{result['case']}: {result['note']}")
    if not given.json:
        print("\n" + "\n".join(notes))
    return len(crashed)


def main() -> int:
    """Answers the exit status."""
    given = arguments()
    names = list(CASES) if not given.names or "all" in given.names else list(given.names)
    if len(names) > 1:
        return table(names, given)
    result = run_one(names[0], given)
    print(json.dumps(result) if given.json else f"{machine()}\n{show(result)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
