"""The life of a supervised job as pure rules: which status may follow which, and what the end of a process means."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Literal

__all__ = ["CANCELLED_EXIT", "FAILED_EXIT", "LIVE", "Outcome", "Report", "Request", "Status", "can_follow", "is_final", "judge"]

Status = Literal["created", "running", "stopping", "restarting", "finished", "failed", "cancelled"]
Request = Literal["none", "stop", "cancel"]

LIVE: frozenset[Status] = frozenset(("created", "running", "stopping", "restarting"))
FAILED_EXIT = 1
CANCELLED_EXIT = 143
"""Exit status of a job process that was cancelled: 128 + SIGTERM, as a shell would say it."""

_NEXT: dict[Status, frozenset[Status]] = {
    "created": frozenset(("running", "stopping", "failed", "cancelled", "finished")),
    "running": frozenset(("stopping", "restarting", "finished", "failed", "cancelled")),
    "stopping": frozenset(("finished", "failed", "cancelled")),
    "restarting": frozenset(("running", "stopping", "failed", "cancelled")),
    "finished": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
}


def can_follow(before: Status, after: Status) -> bool:
    """Whether a job may go from `before` to `after`. A final status is followed by nothing."""
    return after in _NEXT[before]


def is_final(status: Status) -> bool:
    """Whether the job has ended for good."""
    return status not in LIVE


@dataclass(frozen=True, slots=True)
class Report:
    """The last thing a job process said about its own end."""

    status: Literal["finished", "failed", "cancelled"]
    error: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the end of a job process means."""

    status: Literal["finished", "failed", "cancelled"]
    error: str = ""


def judge(exit_code: int, report: Report | None, request: Request, last_lines: str = "") -> Outcome:
    """Decide how a job ended.

    The exit code outweighs the report: a process that says "finished" and then dies has failed.

    Args:
        exit_code: of the process; negative is minus the number of the signal that killed it.
        report: its own last report, None if it never made one.
        request: what had been asked of it.
        last_lines: the end of its output, for deaths it could not explain itself.
    """
    if request == "cancel" and not (exit_code == 0 and report is not None and report.status == "finished"):
        return Outcome("cancelled", report.error if report is not None and report.status == "failed" else "")
    if report is not None and exit_code == 0 and report.status == "finished":
        return Outcome("finished")
    if report is not None and report.status == "cancelled" and exit_code == CANCELLED_EXIT:
        return Outcome("cancelled", report.error)
    if report is not None and report.status == "failed" and exit_code > 0:
        return Outcome("failed", report.error)
    return Outcome("failed", _unexplained(exit_code, report, last_lines))


def _unexplained(exit_code: int, report: Report | None, last_lines: str) -> str:
    if exit_code < 0:
        text = f"the job's process was killed by {_signal_name(-exit_code)} (exit code {exit_code})"
    elif exit_code == 0:
        text = "the job's process ended with exit code 0 without saying how its job ended (did it call os._exit?)"
    else:
        text = f"the job's process ended with exit code {exit_code} without naming an error"
    if report is not None:
        text += f" after it had reported {report.status!r}"
    return f"{text}; its last output:\n{last_lines.rstrip()}" if last_lines.strip() else f"{text}; it had written nothing"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
