"""The life of a supervised job, as pure rules."""

from __future__ import annotations

from typing import get_args

import pytest

from sage_actor.jobs.lifecycle import CANCELLED_EXIT, LIVE, Outcome, Report, Request, Status, can_follow, is_final, judge

STATUSES: tuple[Status, ...] = get_args(Status)


def test_a_final_status_is_followed_by_nothing() -> None:
    for before in STATUSES:
        assert is_final(before) == (before not in LIVE)
        if is_final(before):
            assert not any(can_follow(before, after) for after in STATUSES)


def test_every_live_status_can_end_every_way_that_matters() -> None:
    for before in LIVE:
        assert can_follow(before, "failed")
        assert can_follow(before, "cancelled")
    assert can_follow("restarting", "running")
    assert not can_follow("stopping", "running"), "what was told to stop does not come back"
    assert not can_follow("stopping", "restarting")


def test_a_job_that_says_finished_and_exits_cleanly_has_finished() -> None:
    assert judge(0, Report("finished"), "none") == Outcome("finished")
    assert judge(0, Report("finished"), "stop") == Outcome("finished")
    assert judge(0, Report("finished"), "cancel") == Outcome("finished"), "it was faster than the request"


def test_its_own_words_tell_why_it_failed() -> None:
    assert judge(1, Report("failed", "operator 'map': boom"), "none") == Outcome("failed", "operator 'map': boom")
    assert judge(1, Report("failed", "boom"), "stop") == Outcome("failed", "boom")


@pytest.mark.parametrize("request_", ["none", "stop"])
def test_the_exit_code_outweighs_the_report(request_: Request) -> None:
    killed = judge(-9, Report("finished"), request_, "the end\n")
    assert killed.status == "failed"
    assert "SIGKILL (exit code -9)" in killed.error
    assert "reported 'finished'" in killed.error
    assert killed.error.endswith("the end")


@pytest.mark.parametrize(
    ("code", "said"),
    [(0, "without saying how its job ended"), (3, "exit code 3 without naming an error"), (-11, "SIGSEGV"), (-250, "signal 250")],
)
def test_an_unexplained_end_is_a_failure_with_its_last_words(code: int, said: str) -> None:
    outcome = judge(code, None, "none", "one\ntwo\n")
    assert outcome.status == "failed"
    assert said in outcome.error
    assert outcome.error.endswith("its last output:\none\ntwo")
    assert judge(code, None, "none").error.endswith("it had written nothing")


def test_cancelled_means_asked_for() -> None:
    assert judge(CANCELLED_EXIT, Report("cancelled"), "cancel") == Outcome("cancelled")
    assert judge(-9, None, "cancel") == Outcome("cancelled"), "it was killed because it did not react"
    assert judge(1, Report("failed", "boom"), "cancel") == Outcome("cancelled", "boom"), "what it said is kept"
    assert judge(CANCELLED_EXIT, Report("cancelled"), "none") == Outcome("cancelled"), "by a signal from outside"
