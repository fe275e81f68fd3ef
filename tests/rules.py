"""Lists the rules of the semantics and the tests that hold us to them; fails on a claimed rule without a test.

    python tests/rules.py [--quiet]

A test carries ``@pytest.mark.rule("A41")``. The rules claimed so far stand in tests/rules_expected.txt, one a line. Where the
specification lies beside the repository (../shared/semantics.md), each rule is printed with its first words.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
SEMANTICS = HERE.parent.parent / "shared" / "semantics.md"
RULE = re.compile(r"[AF]\d+[a-z]?")


class Collector:
    """A pytest plugin that notes which test carries which rule."""

    def __init__(self) -> None:
        self.tests: dict[str, list[str]] = defaultdict(list)
        self.errors: list[str] = []

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            name = item.nodeid.split("[", 1)[0]
            for marker in item.iter_markers("rule"):
                for rule in marker.args:
                    if name not in self.tests[rule]:
                        self.tests[rule].append(name)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.errors.append(f"{report.nodeid}: {report.longreprtext.strip().splitlines()[-1]}")


def claimed() -> list[str]:
    lines = (HERE / "rules_expected.txt").read_text(encoding="utf-8").splitlines()
    return [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]


def texts() -> dict[str, str]:
    """Rule -> its first words, where the specification is at hand."""
    if not SEMANTICS.exists():
        return {}
    found = re.findall(rf"^(?:\* )?({RULE.pattern})[.:] (.*)$", SEMANTICS.read_text(encoding="utf-8"), re.MULTILINE)
    return {rule: text[:90] for rule, text in found}


def order(rule: str) -> tuple[str, int, str]:
    return rule[0], int(re.sub(r"\D", "", rule) or 0), rule


def main() -> int:
    sys.path.insert(0, str(HERE.parent))  # some tests hold the benchmarks' own queries against an oracle
    collector = Collector()
    # Without the reporter its options are unknown, so the project's usual ones are replaced.
    options = ["--override-ini", "addopts=--import-mode=importlib --strict-markers", "-p", "no:terminal", "-p", "no:cacheprovider"]
    options += ["-p", "sage_actor.testing.pytest_plugin"]  # the mark `simulate`
    status = pytest.main(["--collect-only", *options, str(HERE)], plugins=[collector])
    problems = [f"cannot be collected: {error}" for error in collector.errors]
    if not problems and status not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        problems.append(f"pytest could not collect the tests (exit status {int(status)})")
    problems += [f"{rule} is no rule's number; used in {tests[0]}" for rule, tests in collector.tests.items() if not RULE.fullmatch(rule)]
    problems += [
        f"{rule} is claimed in tests/rules_expected.txt but no test carries it" for rule in claimed() if rule not in collector.tests
    ]

    words = texts()
    if "--quiet" not in sys.argv:
        for rule in sorted({*collector.tests, *claimed()}, key=order):
            note = "" if rule in claimed() else "  (not claimed as a whole yet)"
            print(f"{rule:5} {words.get(rule, '')}{note}")
            for test in collector.tests.get(rule, []):
                print(f"        {test}")
        if words:
            print(f"{len(set(words) - set(claimed()))} further rules of the semantics are not claimed yet")
    for problem in problems:
        print(f"rules: {problem}", file=sys.stderr)
    print(f"{len(claimed())} rules claimed, {len(collector.tests)} carried by tests, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
