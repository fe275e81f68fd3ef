"""Run the conformance suite over every backend that is here, and print a table: rule by backend.

    python tests/backends/conformance_table.py [--backend NAME ...] [--rule PART ...]

Each backend runs in a process of its own, three at a time: much of it is waiting. Exit status 1 if a rule failed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from conformance_cases import COLUMNS, HOSTED_IN_OWNER, Missing, open_column

from sage_actor.testing.conformance import BackendCase, Rule, backend_rules, rule_name

WIDTH = 9
TOLD = "rule: "
"""Begins a line that is meant for the table: a library may write to the same stdout what it likes."""
RULE_LIMIT = 150.0
ALONE = "no workers of its own: everything lives in the owner"


@dataclass(slots=True)
class Column:
    """What came of one backend: by rule "ok", "FAILED" or "n/a"; why not at all."""

    name: str
    cells: dict[str, str] = field(default_factory=lambda: dict[str, str]())
    failures: dict[str, str] = field(default_factory=lambda: dict[str, str]())
    missing: str = ""
    seconds: float = 0.0

    def of(self, rule: str) -> str:
        """One cell."""
        if self.missing:
            return "n/a"
        return self.cells.get(rule, "n/a")


def chosen(parts: Sequence[str], *, hosts_in_owner: bool = False) -> list[Rule]:
    """Rules whose names have one of the parts in them; all without any."""
    rules = backend_rules(hosts_in_owner=hosts_in_owner)
    return [rule for rule in rules if not parts or any(part in rule_name(rule) for part in parts)]


# -- in the process of one backend ------------------------------------------------------------------------------------


def run_column(name: str, parts: Sequence[str]) -> int:
    """Run the rules over one backend; one line of JSON for each."""
    try:
        with open_column(name) as case:
            for rule in chosen(parts, hosts_in_owner=name in HOSTED_IN_OWNER):
                begun = time.monotonic()
                failure = run_rule(rule, case)
                print(TOLD + json.dumps([rule_name(rule), failure, time.monotonic() - begun]), flush=True)
    except Missing as error:
        print(TOLD + json.dumps(["", str(error), 0.0]), flush=True)
    return 0


def run_rule(rule: Rule, case: BackendCase) -> str:
    """Nothing, or how it failed."""

    async def main() -> None:
        async with asyncio.timeout(RULE_LIMIT):
            await rule(case)

    try:
        asyncio.run(main())
    except AssertionError as error:
        return str(error)
    except Exception:  # noqa: BLE001 - whatever a backend raises is a finding
        return traceback.format_exc(limit=-6)
    return ""


# -- in the process that prints ---------------------------------------------------------------------------------------


async def watch_column(name: str, parts: Sequence[str], turns: asyncio.Semaphore) -> Column:
    """Start the process of a backend when it is its turn, and say what it says."""
    column = Column(name)
    async with turns:
        begun = time.monotonic()
        command = [sys.executable, os.path.abspath(__file__), "--only", name, *(word for part in parts for word in ("--rule", part))]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        assert process.stderr is not None
        said = asyncio.ensure_future(process.stderr.read())  # what the workers of the suite write on purpose, too
        try:
            while line := await process.stdout.readline():
                told = line.decode(errors="replace")
                if told.startswith(TOLD):
                    take(column, *json.loads(told.removeprefix(TOLD)))
            if await process.wait():
                column.failures["the whole suite"] = (await said).decode(errors="replace")[-2000:]
        finally:
            if process.returncode is None:  # as Ctrl-C does: it has agents and servers to end
                process.send_signal(signal.SIGINT)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(15.0):
                        await process.wait()
            if process.returncode is None:
                process.kill()
                await process.wait()
            await said
        column.seconds = time.monotonic() - begun
    return column


def take(column: Column, rule: str, failure: str, seconds: float) -> None:
    """Note the outcome of a rule, and show that it goes on."""
    if not rule:
        column.missing = failure
        print(f"{column.name:10} not here: {failure}", flush=True)
        return
    column.cells[rule] = "FAILED" if failure else "ok"
    if failure:
        column.failures[rule] = failure
    print(f"{column.name:10} {column.cells[rule]:7} {seconds:5.1f} s  {rule.replace('_', ' ')}", flush=True)


def table(columns: Sequence[Column], rules: Sequence[str]) -> str:
    """The whole table, with its notes."""
    widest = max(map(len, rules), default=4)

    def line(name: str, cells: Iterable[str]) -> str:
        return (name.replace("_", " ").ljust(widest) + "  " + "".join(cell.ljust(WIDTH) for cell in cells)).rstrip()

    lines = [line("rule", (column.name for column in columns))]
    lines += [line(rule, (column.of(rule) for column in columns)) for rule in rules]
    lines.append(line("seconds", (f"{column.seconds:.0f}" for column in columns)))
    notes = [f"n/a at {column.name}: {column.missing}" for column in columns if column.missing]
    notes += [f"n/a at {column.name}: {ALONE}" for column in columns if column.name in HOSTED_IN_OWNER and not column.missing]
    failures = [f"{column.name}, {rule.replace('_', ' ')}:\n{text}" for column in columns for rule, text in column.failures.items()]
    return "\n".join([*lines, "", *notes, *(f"\nFAILED at {failure}" for failure in failures)])


async def run_all(names: Sequence[str], parts: Sequence[str]) -> int:
    """Every backend, then the table; answers the exit status."""
    begun = time.monotonic()
    turns = asyncio.Semaphore(3)
    slowest_first = sorted(names, key=lambda name: name != "ray")
    found = await asyncio.gather(*(watch_column(name, parts, turns) for name in slowest_first))
    columns = sorted(found, key=lambda column: names.index(column.name))
    rules = [rule_name(rule) for rule in chosen(parts)]
    failed = sum(len(column.failures) for column in columns)
    kept = sum(cell == "ok" for column in columns for cell in column.cells.values())
    counts = f"{len(rules)} rules, {len(columns)} backends: {kept} kept, {failed} failed"
    print(f"\n{table(columns, rules)}\n{counts}, in {time.monotonic() - begun:.0f} s")
    return 1 if failed or not kept else 0


def main() -> int:
    """Answers the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--backend", action="append", choices=list(COLUMNS), default=[], help="only this one; may be given more than once")
    parser.add_argument("--rule", action="append", default=[], help="only rules with this in their name")
    parser.add_argument("--only", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    parts = [part.replace(" ", "_") for part in given.rule]
    if given.only:
        return run_column(given.only, parts)
    return asyncio.run(run_all(given.backend or list(COLUMNS), parts))


if __name__ == "__main__":
    sys.exit(main())
