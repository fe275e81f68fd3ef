"""``sage simulate``: green for what is right, and the seed with its fewest faults for what is not."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import sage_actor as sage
from sage_actor.cli.main import main
from sage_actor.testing.simulated_findings import Finding
from sage_actor.testing.simulated_pipeline import PipelineResults, SimulatedPipeline
from sage_actor.testing.simulated_run import SimulatedReport

ROOT = Path(__file__).parents[2]
EXAMPLE = str(ROOT / "examples" / "simulated_pipeline.py")
BROKEN = str(ROOT / "tests" / "simulation" / "broken_sink.py")


@pytest.fixture(autouse=True)
def loud_again() -> Iterator[None]:
    yield
    logging.disable(logging.NOTSET)


def test_the_example_is_green_and_says_what_it_went_through(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", EXAMPLE, "--seeds", "20", "--workers", "1"]) == 0
    out = capsys.readouterr().out
    told = re.search(r"20 seeds: (\d+) crashes, \d+ zombies, (\d+) checkpoints, (\d+) restores", out)
    assert told is not None, out
    assert all(int(number) >= 20 for number in told.groups())
    assert "between the commits of two sinks" in out


def test_a_broken_sink_is_found_with_its_seed_and_faults(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", BROKEN, "--seeds", "300", "--workers", "1"]) == 1
    out = capsys.readouterr().out
    assert "duplicated" in out
    seed = re.search(r"again: sage simulate \S+ --seed (\d+)", out)
    assert seed is not None, out
    assert out.count("fault: ") == 1, "one crash is enough for it"
    assert main(["simulate", BROKEN, "--seed", seed[1]]) == 1


@pytest.mark.parametrize("text", ["", "def other(): pass", "def pipeline(:"])
def test_a_file_without_a_pipeline_is_refused(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "script_without.py"
    script.write_text(text, encoding="utf-8")
    assert main(["simulate", str(script)]) == 2
    assert "script_without.py" in capsys.readouterr().err


def test_what_a_check_refuses_is_a_finding() -> None:
    def check(results: PipelineResults) -> None:
        assert results.collected["doubled"] == [], "it has to be empty"

    pipeline = SimulatedPipeline(lambda env: {"doubled": env.from_collection(range(5)).map(lambda n: 2 * n).collect()}, check)
    found = pipeline.examine(0)
    assert isinstance(found, Finding)
    assert "it has to be empty" in found.seen
    assert pipeline.shortened(found).faults == []


def test_an_async_description_serves_as_well() -> None:
    async def pipeline(env: sage.Environment) -> Sequence[str]:
        return env.from_collection([3, 1, 2]).map(str).collect()

    simulated = SimulatedPipeline(pipeline)
    assert simulated.expected.collected == {"collected": ["3", "1", "2"]}
    assert isinstance(simulated.examine(3), SimulatedReport)


def test_differences_tell_lost_from_duplicated_from_wrong() -> None:
    right = PipelineResults(tables={"t": [1, 2, [3]]})
    assert right.differences(PipelineResults(tables={"t": [[3], 2, 1]})) == []
    assert PipelineResults(tables={"t": [1, 1, 9]}).differences(PipelineResults(tables={"t": [1, 2]})) == [
        "table 't': 1 lost, such as [2]",
        "table 't': 1 duplicated, such as [1]",
        "table 't': 1 not in an undisturbed run, such as [9]",
    ]
    assert PipelineResults().differences(PipelineResults(collected={"c": [5]})) == ["collected 'c': 1 lost, such as [5]"]
