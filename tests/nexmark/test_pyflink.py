"""PyFlink is measured only where an interpreter that has it is named; there, its queries must give the oracle's rows, too."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

pytest.importorskip("duckdb", reason="the oracle is DuckDB: pip install '.[test]'")

from benchmarks.nexmark.check import difference, expected_rows, oracle_of, standing
from benchmarks.nexmark.generator import Settings, generate
from benchmarks.nexmark.pyflink_peer import EXPRESSED, VARIABLE, PyFlink, missing
from benchmarks.nexmark.run import judged, measure_pyflink
from benchmarks.rounds import Options

PYTHON = os.environ.get(VARIABLE, "")
EVENTS = generate(2000, Settings(seed=1))
without_pyflink = pytest.mark.skipif(not missing(sys.executable), reason="this interpreter has PyFlink")


@pytest.fixture(scope="module")
def pyflink() -> Iterator[PyFlink]:
    with PyFlink(PYTHON) as running:
        running.give(EVENTS)
        yield running


@pytest.mark.slow
@pytest.mark.skipif(bool(missing(PYTHON)), reason=missing(PYTHON))
@pytest.mark.parametrize("name", EXPRESSED)
def test_pyflink_answers_the_same_question(name: str, pyflink: PyFlink) -> None:
    assert not difference(standing(name, pyflink.rows(name)), expected_rows(name, oracle_of(EVENTS)))


def test_what_is_missing_is_said() -> None:
    assert VARIABLE in missing("")
    assert "/no/such/python does not run" in missing("/no/such/python")


@without_pyflink
def test_an_interpreter_without_it_is_refused_with_the_reason() -> None:
    assert "No module named 'pyflink'" in missing(sys.executable)


@without_pyflink
def test_a_process_that_dies_says_why() -> None:
    with PyFlink(sys.executable) as dying:
        dying.give(EVENTS[:1])
        with pytest.raises(RuntimeError, match="No module named 'pyflink'"):
            dying.seconds("q0")


def test_the_table_says_that_it_was_not_measured() -> None:
    def never() -> float:
        raise AssertionError("nothing to compare with")

    figures = measure_pyflink("q2", never, 1000, None)
    assert figures == {"pyflink": "not measured"}
    result = judged(Options(), {"q2": {"ours": 1e6, **figures}}, {}, "", missing(""))
    assert f"no PyFlink: no interpreter given (--pyflink or {VARIABLE})" in result.note
    assert result.met


@pytest.mark.parametrize(("ratio", "met"), [(19.9, False), (20.0, True)])
def test_the_query_that_does_worst_decides(ratio: float, met: bool) -> None:
    table: dict[str, dict[str, object]] = {
        "q2": {"ours": 1e6, "pyflink": 1e4, "ratio_pyflink": 100.0},
        "q3": {"ours": 1e6, "pyflink": 5e4, "ratio_pyflink": ratio},
    }
    result = judged(Options(), table, {}, "", "")
    assert result.met is met
    assert "q3 does worst" in result.note
