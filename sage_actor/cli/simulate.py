"""``sage simulate FILE``: a dataflow of a script under the faults of many seeds, in a simulation."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Generator
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sage_actor.testing.simulated_pipeline import Finding, SimulatedPipeline, SimulatedReport

__all__ = ["simulate"]

_loaded: list[SimulatedPipeline] = []


def simulate(
    file: Annotated[str, typer.Argument(help="A script with a function pipeline(env), and perhaps check(results).")],
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds.")] = 100,
    first: Annotated[int, typer.Option(min=0, help="The first of them.")] = 0,
    seed: Annotated[int | None, typer.Option(min=0, help="This one alone.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes to run them in. [default: one for each core]")] = None,
) -> None:
    """Crash a dataflow in thousands of ways, and see whether its results stay those of an undisturbed run.

    Each seed is one course of events: kills, torn files, lost messages, full disks, another order of everything. The first that
    fails is printed with the fewest faults that it fails with.
    """
    chosen = range(first, first + seeds) if seed is None else range(seed, seed + 1)
    try:
        _load(file)
    except (OSError, AttributeError, SyntaxError) as error:
        raise typer.BadParameter(str(error), param_hint="FILE") from error
    raise typer.Exit(_examine_all(file, chosen, min(workers or os.cpu_count() or 1, len(chosen))))


def _load(file: str) -> None:
    from sage_actor.testing.simulated_pipeline import SimulatedPipeline

    logging.disable(logging.CRITICAL)  # a job says much about its failures, and here they are wanted
    _loaded[:] = [SimulatedPipeline.from_file(file)]


def _examine(seed: int) -> SimulatedReport | Finding:
    return _loaded[0].examine(seed)


def _results(file: str, seeds: range, workers: int) -> Generator[SimulatedReport | Finding, None, None]:
    if workers == 1:
        yield from map(_examine, seeds)
        return
    with ProcessPoolExecutor(workers, initializer=_load, initargs=(file,)) as pool:
        try:
            yield from pool.map(_examine, seeds)
        finally:
            pool.shutdown(cancel_futures=True)


def _examine_all(file: str, seeds: range, workers: int) -> int:
    from sage_actor.testing.simulated_pipeline import Finding, Tally

    tally = Tally()
    done = len(seeds) // 10 or 1
    results = _results(file, seeds, workers)
    for number, (seed, result) in enumerate(zip(seeds, results, strict=False), 1):
        if isinstance(result, Finding):
            results.close()
            print(f"seed {seed} fails: {result.seen}; looking for the fewest faults", file=sys.stderr)
            print("\n".join(_loaded[0].shortened(result).lines()))
            print(f"again: sage simulate {file} --seed {seed}")
            return 1
        tally.add(seed, result)
        if number % done == 0 and number < len(seeds):
            print(f"{number:,} of {len(seeds):,} seeds", file=sys.stderr)
    print("\n".join(tally.lines()))
    print("the results of every seed are those of an undisturbed run")
    return 0
