"""Kill real processes with -9, at named points and at random, and count what is lost, duplicated or out of order.

    python tests/kill9/run.py [NAME ...] [--backend NAME] [--seed N] [--list] [--keep FOLDER]

NAME is a part of a case's name; without any, the whole suite runs. Exit status 1 if anything went wrong; what a case that failed left
behind stays in its folder, which is printed.
"""

from __future__ import annotations

import argparse
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cases import Entry, suite
from committed import Faults
from scenario import Case, Outcome

__all__ = ["in_namespace"]

COLUMNS = (38, 8, 8, 12, 5, 6, 6, 9, 15, 9, 9)
HEADER = ("case", "backend", "state", "parallelism", "runs", "kills", "check.", "restored", "lost/dup/dis/wr", "recovery", "replayed")


def line(cells: tuple[object, ...]) -> str:
    """One row."""
    return "  ".join(str(cell).ljust(width) for cell, width in zip(cells, COLUMNS, strict=True)).rstrip()


def row(outcome: Outcome) -> str:
    """A case as a row of the table."""
    case, faults = outcome.case, outcome.faults
    recovery = f"{max(outcome.recovery):.2f} s" if outcome.recovery else "-"
    figures = f"{faults.lost}/{faults.duplicated}/{faults.disordered}/{faults.wrong}"
    scale = ">".join(map(str, case.parallelism))
    cells = (case.name[:38], case.backend, case.state, scale, outcome.runs, outcome.kills, outcome.complete, len(outcome.restored))
    return line((*cells, figures, recovery, outcome.replayed)) + ("" if outcome.good else "   WRONG")


def show(outcome: Outcome) -> None:
    """The row, and what is to be said of it."""
    print(row(outcome), *(f"    {note}" for note in outcome.notes), *(f"    ! {text}" for text in outcome.problems), sep="\n", flush=True)


def in_namespace(name: str, folder: Path) -> Outcome:
    """Run one case in a mount namespace of its own."""
    with tempfile.NamedTemporaryFile(suffix=".outcome") as answer:
        command = ["unshare", "-Urm", sys.executable, str(Path(__file__).resolve()), name, "--inside", str(folder), answer.name]
        done = subprocess.run(command, env=os.environ | {"SAGE_KILL9_MOUNTED": str(folder)}, capture_output=True, text=True, check=False)
        if done.returncode:
            outcome = Outcome(Case(name))
            outcome.problems.append(done.stderr[-2000:])
            return outcome
        found = pickle.loads(Path(answer.name).read_bytes())
        assert isinstance(found, Outcome)
        return found


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="parts of names of cases")
    parser.add_argument("--backend", default="", help="only cases of this backend: local, process, redis, ray")
    parser.add_argument("--seed", type=int, default=7, help="of the random times")
    parser.add_argument("--list", action="store_true", help="name the cases, run none")
    parser.add_argument("--keep", type=Path, default=None, help="where the folders of the cases are made")
    parser.add_argument("--inside", nargs=2, default=None, help=argparse.SUPPRESS)
    return parser.parse_args()


def chosen(entries: list[Entry], names: list[str]) -> list[Entry]:
    """Those of a name, else those whose name has it in it; without names all."""
    found: list[Entry] = []
    for name in names:
        exact = [entry for entry in entries if entry.name == name]
        found += exact or [entry for entry in entries if name in entry.name]
    return found if names else entries


def main() -> int:
    """Answers the exit status."""
    given = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    entries = chosen([entry for entry in suite(given.seed) if given.backend in ("", entry.backend)], given.names)
    if given.inside:
        folder, answer = given.inside
        Path(answer).write_bytes(pickle.dumps(entries[0].run(Path(folder))))
        return 0
    if given.list:
        print("\n".join(entry.name for entry in entries))
        return 0
    place = given.keep or Path(tempfile.mkdtemp(prefix="sage-kill9-"))
    begun = time.monotonic()
    print(line(HEADER), flush=True)
    outcomes: list[Outcome] = []
    for number, entry in enumerate(entries):
        outcomes.append(entry.run(place / f"{number:02d}"))
        show(outcomes[-1])
    return summary(outcomes, place, time.monotonic() - begun)


def summary(outcomes: list[Outcome], place: Path, seconds: float) -> int:
    """The last lines; answers the exit status."""
    faults = Faults()
    for outcome in outcomes:
        faults.add(outcome.faults)
    bad = [outcome for outcome in outcomes if not outcome.good]
    restored = sum(len(outcome.restored) for outcome in outcomes)
    print(
        f"\n{len(outcomes)} cases, {sum(o.runs for o in outcomes)} runs, {sum(o.kills for o in outcomes)} kills, "
        f"{sum(o.complete for o in outcomes)} checkpoints, {restored} restored, in {seconds:.0f} s\n"
        f"lost = {faults.lost}, duplicated = {faults.duplicated}, disordered = {faults.disordered}, wrong = {faults.wrong}"
    )
    if bad:
        print(f"{len(bad)} cases went wrong; what they left is in {place}")
        return 1
    if place.exists() and not any(place.iterdir()):
        place.rmdir()
    return 0


if __name__ == "__main__":
    sys.exit(main())
