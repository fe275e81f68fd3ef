"""One actor from close by, as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from sage_actor.actor.inspection import ActorReport, DeadLetterReport, TimerReport, printable
from sage_actor.cli.actor_tree import time_text

__all__ = ["actor_details"]

LISTED = 20
LETTERS = 10


def actor_details(system: str, pid: int, report: ActorReport, letters: Sequence[DeadLetterReport]) -> str:
    """Lines about an actor: its counts, what waits, its timers, who watches it, its last failure, its dead letters.

    Args:
        system: name of its system.
        pid: the system's process.
        report: what the inspector told.
        letters: the system's last dead letters; those for other actors are left out.
    """
    counts = report.statistics
    lines = [
        f"{printable(counts.path)}: {printable(counts.class_name)}, {counts.state}, in {printable(system)} (process {pid})",
        f"  messages    {counts.accepted:,} accepted = {counts.handled:,} handled + {counts.dead_lettered:,} dead letters "
        f"+ {counts.queued:,} queued + {counts.stashed:,} stashed + {counts.in_hand:,} in hand",
    ]
    if counts.expected_errors:
        lines.append(f"  answers     {counts.expected_errors:,} asks were answered by an expected error")
    if counts.waiting_senders:
        lines.append(f"  senders     {counts.waiting_senders:,} wait for room in its mailbox")
    if any((*counts.wait, *counts.service)):
        lines.append(f"  wait        median {time_text(counts.wait[0])}, 99th percentile {time_text(counts.wait[1])} (one in 64)")
        lines.append(f"  service     median {time_text(counts.service[0])}, 99th percentile {time_text(counts.service[1])} (one in 64)")
    lines += _failures(report)
    lines.append(f"  restart     {report.restart}")
    lines.append(f"  supervises  {report.children_total:,} children by {report.supervision}")
    lines += _listed("    ", [printable(path) for path in report.children[:LISTED]], report.children_total)
    lines += [f"  timer       {_timer_text(timer)}" for timer in report.timers]
    if report.watchers_total:
        lines.append(f"  watched by  {report.watchers_total:,}, actors among them:")
        lines += _listed("    ", [printable(path) for path in report.watchers] or ["none"], len(report.watchers) or 1)
    if report.waiting:
        lines.append("  waiting, oldest first")
        lines += _listed("    ", report.waiting[:LISTED], counts.queued + counts.stashed)
    own = [letter for letter in letters if letter.actor == counts.path]
    if own:
        lines.append(f"  dead letters among the system's last {len(letters)}, newest first")
        lines += _listed("    ", [_letter_text(letter) for letter in reversed(own)][:LETTERS], len(own))
    if report.last_failure is not None and report.last_failure.traceback:
        lines.append("  traceback of the last failure")
        lines += [f"    {line}" for line in report.last_failure.traceback.splitlines()]
    return "\n".join(lines)


def _failures(report: ActorReport) -> Iterator[str]:
    counts = report.statistics
    if not counts.failed and not counts.restarts:
        return
    ago = ", ".join(f"{time_text(seconds)} ago" for seconds in report.failures)
    remembered = f"; those that its restart strategy counts: {ago}" if ago else ""
    yield f"  failures    {counts.failed:,}, {counts.restarts:,} restarts{remembered}"
    if report.last_failure is not None:
        yield f"  last        {report.last_failure.error}"


def _listed(indent: str, texts: Sequence[str], total: int) -> Iterator[str]:
    yield from (f"{indent}{text}" for text in texts)
    if total > len(texts):
        yield f"{indent}and {total - len(texts):,} more"


def _timer_text(timer: TimerReport) -> str:
    rhythm = "once" if timer.every is None else f"every {time_text(timer.every)}"
    return f"{timer.key}, {rhythm}, due in {time_text(timer.due_in)}"


def _letter_text(letter: DeadLetterReport) -> str:
    at = datetime.fromtimestamp(letter.at_ms / 1000, UTC).astimezone().strftime("%H:%M:%S")
    return f"{at} {letter.message}: {letter.reason}"
