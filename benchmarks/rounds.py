"""How everything here is measured: interleaved rounds, paired ratios, medians; on both event loops."""

from __future__ import annotations

import asyncio
import gc
import statistics
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import TypeVar

from benchmarks.result import Result

__all__ = ["LOOPS", "Options", "compare", "interleaved", "median", "on_loop", "pairs"]

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says. `short` runs are for crashes only: small inputs, one round, nothing judged."""

    short: bool = False
    rounds: int = 5
    backend: str = "local"


def loops() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The event loops a user may run on: the stock one, and uvloop where it is installed."""
    found: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    try:
        import uvloop
    except ImportError:
        return found
    return found | {"uvloop": uvloop.new_event_loop}


LOOPS = loops()


def on_loop(name: str, main: Callable[[], Coroutine[object, object, R]]) -> R:
    """Run a coroutine on a fresh loop of that kind."""
    with asyncio.Runner(loop_factory=LOOPS[name]) as runner:
        return runner.run(main())


def interleaved(rounds: int, runs: Mapping[str, Callable[[], R]]) -> dict[str, list[R]]:
    """A B C A B C ...: every run once a round, so that drift of the machine meets all alike."""
    results: dict[str, list[R]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            gc.collect()
            results[name].append(run())
    return results


def median(values: list[float]) -> float:
    """The median; of an even number the mean of the middle two."""
    return statistics.median(values)


def pairs(ours: list[float], other: list[float]) -> float:
    """How many times as fast as the other: the median over rounds of seconds over seconds."""
    return median([b / a for a, b in zip(ours, other, strict=True)])


def compare(
    case: str,
    options: Options,
    records: int,
    seconds: Mapping[str, list[float]],
    *,
    at_least: float,
    of_peer: float | None,
    target: str,
    peer_missing: str = "",
    note: str = "",
) -> Result:
    """Judge rates. `seconds` has "floor", perhaps "peer" and further floors, and one entry per event loop.

    The row shows the loop that does worse; a target is met only if both loops meet it.
    """
    floor, peer = seconds["floor"], seconds.get("peer")
    used = [name for name in LOOPS if name in seconds]
    each: dict[str, dict[str, object]] = {}
    met = True
    for name in used:
        to_floor = pairs(seconds[name], floor)
        to_peer = None if peer is None else pairs(seconds[name], peer)
        met = met and to_floor >= at_least and (to_peer is None or of_peer is None or to_peer >= of_peer)
        each[name] = {
            "ours": records / median(seconds[name]),
            "ratio_floor": to_floor,
            "ratio_peer": to_peer,
            "ratio_floor_by_round": [b / a for a, b in zip(seconds[name], floor, strict=True)],
        }
    worse = min(used, key=lambda name: pairs(seconds[name], floor))
    detail: dict[str, object] = dict(each)
    for name, taken in seconds.items():
        if name not in (*used, "floor", "peer"):
            detail[name] = {"rate": records / median(taken), "ratio": pairs(seconds[worse], taken)}
    notes = [note] if note else []
    notes.append(f"shown: {worse}, the slower of the two loops" if len(used) > 1 else f"only {used[0]} here")
    if peer is None:
        notes.append(f"no peer: {peer_missing}")
    if options.short:
        notes.append("short run: not judged")
    return Result(
        case,
        "rec/s",
        records / median(seconds[worse]),
        records / median(floor),
        None if peer is None else records / median(peer),
        pairs(seconds[worse], floor),
        None if peer is None else pairs(seconds[worse], peer),
        target,
        None if options.short else met,
        "; ".join(notes),
        detail,
    )
