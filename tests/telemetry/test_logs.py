"""Structured events: what they carry, where they go, and what is left alone."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from sage_actor.dataflow.context import FunctionContext
from sage_actor.errors import ConfigError
from sage_actor.telemetry.logs import configure, get_logger


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger("sage_actor")
    handlers, level, propagate = root.handlers[:], root.level, root.propagate
    yield
    root.handlers[:], root.propagate = handlers, propagate
    root.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_events_carry_what_is_bound() -> None:
    stream = io.StringIO()
    configure("debug", json=True, stream=stream)
    log = get_logger(job="totals", operator="map", attempt=2)
    log.info("file skipped", path="a.txt", weird={1, 2}.__class__)
    log.bind(task=1).debug("taken %d", 3)
    first, second = lines(stream)
    assert first["event"] == "file skipped"
    assert (first["job"], first["operator"], first["attempt"], first["path"]) == ("totals", "map", 2, "a.txt")
    assert (first["level"], first["logger"]) == ("info", "sage_actor.job")
    assert str(first["timestamp"]).endswith("Z")
    assert (second["event"], second["task"], second["level"]) == ("taken 3", 1, "debug")


def test_text_events_are_one_readable_line() -> None:
    stream = io.StringIO()
    configure(stream=stream)
    get_logger(job="totals").warning("file skipped", path="a.txt")
    (line,) = stream.getvalue().splitlines()
    assert "file skipped" in line
    assert "job=totals" in line
    assert "path=a.txt" in line
    assert "\x1b" not in line


def test_standard_loggers_of_the_runtime_and_of_functions_are_covered() -> None:
    stream = io.StringIO()
    configure(json=True, stream=stream)
    FunctionContext("totals", "map", 1).logger.info("opened %s", "it")
    logging.getLogger("sage_actor.jobs").error("store is gone")
    logging.getLogger("elsewhere").error("not ours")
    first, second = lines(stream)
    assert (first["event"], first["job"], first["operator"], first["task"]) == ("opened it", "totals", "map", 1)
    assert (second["event"], second["logger"]) == ("store is gone", "sage_actor.jobs")


def test_exceptions_are_told_in_both_forms() -> None:
    for form in (True, False):
        stream = io.StringIO()
        configure(json=form, stream=stream)
        try:
            raise LookupError("no such row")
        except LookupError:
            get_logger(job="totals").exception("failed")
        assert "LookupError: no such row" in stream.getvalue()
        assert len(stream.getvalue().splitlines()) == 1 or not form


def test_levels_filter_and_configuring_again_replaces() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure("INFO", stream=first)
    configure("error", json=True, stream=second)
    log = get_logger()
    log.warning("quiet")
    log.error("loud")
    assert first.getvalue() == ""
    assert [event["event"] for event in lines(second)] == ["loud"]


def test_an_unknown_level_is_named() -> None:
    with pytest.raises(ConfigError, match=r"LOUD.*DEBUG, INFO"):
        configure("LOUD")


def test_names_that_logging_keeps_get_an_underscore() -> None:
    stream = io.StringIO()
    configure(json=True, stream=stream)
    get_logger(name="mine", args=3).info("event", message="text")
    (event,) = lines(stream)
    assert (event["name_"], event["args_"], event["message_"]) == ("mine", 3, "text")


def test_unconfigured_events_reach_the_applications_own_logging(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        get_logger(job="totals").info("plain")
    (record,) = caplog.records
    assert record.getMessage() == "plain"
    assert record.__dict__["job"] == "totals"


def test_the_process_wide_structlog_configuration_is_left_alone() -> None:
    configure(json=True, stream=io.StringIO())
    get_logger(job="totals").info("event")
    assert not structlog.is_configured()
