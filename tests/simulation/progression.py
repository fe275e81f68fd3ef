"""The progression test at length: thousands of simulated lives and deaths, and what was lost, duplicated or out of order.

python tests/simulation/progression.py --seeds 5000              # ends with status 1 if anything was
python tests/simulation/progression.py --first 1234 --seeds 1    # one seed alone
python tests/simulation/progression.py --rescaled                # the parallelism changes all the time

Every seed crashes behind at least one complete checkpoint. A seed that fails is printed with the fewest faults it fails with.
"""

from __future__ import annotations

import argparse
import functools
import logging
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor

from sage_actor.testing.progression import examine_progression, run_progression
from sage_actor.testing.simulated_faults import KILL_POINTS, PlannedFault
from sage_actor.testing.simulated_findings import Finding, shortened
from sage_actor.testing.simulated_run import SimulatedReport, Tally

LEAST_HITS = 50
"""How often each kill-point has to be hit, as soon as there are seeds enough for it."""
SEEDS_FOR_THAT = 2000
EVERY = 250
STOP_AFTER = 5
"""Findings, after which it is clear enough."""


def quiet() -> None:
    """What a job says about each of its failures is no news here."""
    logging.disable(logging.CRITICAL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rescaled", action="store_true", help="change the parallelism all the time, under any load balancer")
    arguments = parser.parse_args()
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    tally, findings = Tally(), list[Finding]()
    begun = time.perf_counter()
    with ProcessPoolExecutor(arguments.workers, initializer=quiet) as pool:
        for seed, result in zip(
            seeds, pool.map(functools.partial(examine_progression, rescaled=arguments.rescaled), seeds, chunksize=5), strict=False
        ):
            if isinstance(result, Finding):
                findings.append(result)
                print(f"seed {seed}: {result.seen}", flush=True)
                if len(findings) == STOP_AFTER:
                    pool.shutdown(cancel_futures=True)
                    break
            else:
                tally.add(seed, result)
            if (seed + 1 - arguments.first) % EVERY == 0:
                print(f"{seed + 1 - arguments.first:,} seeds, {time.perf_counter() - begun:,.0f} s, {len(findings)} failed", flush=True)
    return tell(tally, findings, time.perf_counter() - begun, functools.partial(run_progression, rescaled=arguments.rescaled))


def tell(tally: Tally, findings: list[Finding], seconds: float, run: Callable[[int, Sequence[PlannedFault]], SimulatedReport]) -> int:
    """The tables; the status to end with."""
    print("\n".join(tally.lines()))
    print(f"{tally.added:,} seeds were given a kill more, since nothing had crashed in them; {seconds:,.0f} s")
    quiet()
    for finding in findings:
        print("\n".join(shortened(finding, run).lines()))
    lost, duplicated, disordered = (sum(word in finding.seen for finding in findings) for word in ("lost", "duplicated", "disordered"))
    failed = f"failed in any way: {len(findings)} of {tally.seeds + len(findings):,} seeds"
    print(f"lost {lost}, duplicated {duplicated}, disordered {disordered}; {failed}")
    problems = [f"nothing crashed in seeds {tally.uncrashed[:10]}"] if tally.uncrashed else []
    if tally.seeds >= SEEDS_FOR_THAT:
        problems += [f"{point!r} was hit {tally.killed(point)} times only" for point in KILL_POINTS if tally.killed(point) < LEAST_HITS]
    print("\n".join(problems), end="\n" if problems else "")
    return 1 if findings or problems else 0


if __name__ == "__main__":
    sys.exit(main())
