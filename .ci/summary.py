"""Prints the last line of a CI run: tests and steps that passed, failed and were skipped.

    summary.py FOLDER_OF_JUNIT_FILES STEPS_PASSED STEPS_FAILED

Skipped tests are named, with their reasons: a skip must be seen.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path


def main() -> None:
    folder, steps_passed, steps_failed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    counts: Counter[str] = Counter()
    for report in sorted(folder.glob("*.xml")):
        for case in ET.parse(report).getroot().iter("testcase"):
            outcomes = {child.tag for child in case}
            name = f"{case.get('classname')}::{case.get('name')}"
            if outcomes & {"failure", "error"}:
                counts["failed"] += 1
                print(f"failed: {name}")
            elif "skipped" in outcomes:
                counts["skipped"] += 1
                skipped = case.find("skipped")
                print(f"skipped: {name}: {skipped.get('message') if skipped is not None else ''}")
            else:
                counts["passed"] += 1
    print(f"steps: {steps_passed} passed, {steps_failed} failed")
    # A step that failed without a test of its own still counts, so that the line never reads better than the run was.
    failed = max(counts["failed"], steps_failed)
    print(f"{counts['passed']} passed, {failed} failed, {counts['skipped']} skipped")


if __name__ == "__main__":
    main()
