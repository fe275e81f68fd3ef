"""The other peer: PyFlink in a process of its own, run by an interpreter that has it; our side of the conversation."""

from __future__ import annotations

import json
import pickle
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.nexmark.events import Auction, Bid, Event, Person, row

__all__ = ["EXPRESSED", "VARIABLE", "PyFlink", "missing"]

VARIABLE = "PYFLINK_PYTHON"
"""The environment variable that names the interpreter where no option does."""
EXPRESSED = ("q0", "q1", "q2", "q3", "q5", "q7", "q8", "q11", "q14", "q18", "q19", "q20", "q21", "q22")
"""The queries that `pyflink_queries` has."""
WITH_KIND = ("q0", "q18")
"""Those that emit whole events, which begin with their kind over there."""
KINDS = {Person: 0, Auction: 1, Bid: 2}

Row = tuple[Any, ...]


def missing(python: str) -> str:
    """Why there is no such peer; empty if there is one."""
    if not python:
        return f"no interpreter given (--pyflink or {VARIABLE})"
    try:
        done = subprocess.run([python, "-c", "import pyflink.datastream"], capture_output=True, text=True, check=False)
    except OSError as error:
        return f"{python} does not run ({error.strerror})"
    last = done.stderr.strip().splitlines()[-1:]
    return f"{python} has no PyFlink ({''.join(last)})" if done.returncode else ""


class PyFlink:
    """One process and one JVM for all jobs, from entering to leaving the context.

    Args:
        python: an interpreter that has PyFlink, and a Java that it finds.
    """

    def __init__(self, python: str) -> None:
        self.python = python

    def __enter__(self) -> Self:
        self.folder = tempfile.TemporaryDirectory()
        self.events, self.rows_file, self.errors = (str(Path(self.folder.name) / name) for name in ("events", "rows", "errors"))
        self.given = 0
        command = [self.python, str(Path(__file__).with_name("pyflink_queries.py"))]
        with open(self.errors, "w", encoding="utf-8") as errors:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.process.communicate()
        finally:
            self.folder.cleanup()

    def give(self, events: Sequence[Event]) -> None:
        """The events of the jobs that follow."""
        self.given += 1  # a file of its own, so that the other side sees that it is new
        tuples = [(KINDS[event.__class__], *row(event)) for event in events]
        Path(f"{self.events}{self.given}").write_bytes(pickle.dumps(tuples))

    def seconds(self, name: str) -> float:
        """What a query takes over the given events, its start and end left out."""
        return float(self.ask(name, "")["seconds"])

    def rows(self, name: str) -> list[Row]:
        """What a query emits, in the order in which it does."""
        self.ask(name, self.rows_file)
        found: list[Row] = pickle.loads(Path(self.rows_file).read_bytes())
        return [record[1:] for record in found] if name in WITH_KIND else found

    def ask(self, name: str, rows: str) -> dict[str, Any]:
        """Run one job.

        Raises:
            RuntimeError: the job failed, or the process has died; with what it said.
        """
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        line = ""
        try:
            stdin.write(json.dumps({"query": name, "events": f"{self.events}{self.given}", "rows": rows}) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            self.process.stdin = None  # or leaving would flush what nobody reads
        if not line:
            raise RuntimeError(f"PyFlink died: {Path(self.errors).read_text(encoding='utf-8')[-2000:]}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"PyFlink failed in {answer['error']}")
        return answer
