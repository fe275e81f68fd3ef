"""``python -m benchmarks.nexmark [--queries q5,q7] [--events N] [--seed S] [--rounds N] [--no-csv] [--check]
[--pyflink PYTHON] [--json] [--short]``."""

from __future__ import annotations

import argparse
import json
import os
import sys

from benchmarks.nexmark.pyflink_peer import VARIABLE
from benchmarks.nexmark.queries import QUERIES
from benchmarks.nexmark.run import EVENTS, Plan, check, measure_plan
from benchmarks.result import show
from benchmarks.rounds import Options


def main() -> int:
    """Answers the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nexmark", description="Each query: floor, peer and ours.")
    parser.add_argument("--queries", default="", help="names with commas between them; all if not given")
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-csv", action="store_true", help="leave out the queries over a file")
    parser.add_argument("--check", action="store_true", help="compare with the oracle, measure nothing")
    parser.add_argument(
        "--pyflink", default=os.environ.get(VARIABLE, ""), metavar="PYTHON", help=f"an interpreter that has PyFlink (default: ${VARIABLE})"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--short", action="store_true", help="small and quick, for crashes only")
    given = parser.parse_args()
    names = tuple(name for name in given.queries.split(",") if name)
    unknown = [name for name in names if name not in QUERIES]
    if unknown:
        parser.error(f"no query {', '.join(unknown)}; there are: {', '.join(QUERIES)}")
    plan = Plan(given.events, names, not given.no_csv, given.seed, given.pyflink)
    if given.check:
        check(plan.names(), plan.seed)
        print(f"{len(plan.names())} queries give the oracle's rows")
        return 0
    result = measure_plan(Options(short=given.short, rounds=given.rounds), plan).as_dict()
    print(json.dumps(result) if given.json else show(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
