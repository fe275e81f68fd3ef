"""Both faces in a Jupyter notebook: cells run on a loop that is already running, and streams draw themselves."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

CELLS = {
    "describe": """
import os
import sage_actor as sage

env = sage.LocalEnvironment("cells")
doubled = env.from_collection(range(5)).map(lambda x: 2 * x, name="double")
doubled
""",
    "environment": "env",
    "blocking": """
results = doubled.collect()
env.execute()
list(results)
""",
    "print": """
shown = sage.LocalEnvironment("shown")
shown.from_collection(["one", "two"]).print()
shown.execute()
None
""",
    "again": """
later = sage.LocalEnvironment("later")
counted = later.from_collection("abca").key_by(str).count(emit="final").collect()
job = later.submit()
later.wait_for_completion(job), dict(counted)
""",
    "workers": """
factor = 10

class Scale(sage.MapFunction):
    def map(self, value):
        return value * factor, os.getpid()

spread = sage.LocalEnvironment("spread", backend="process", parallelism=2)
scaled = spread.from_collection(range(4000)).rebalance().map(Scale).collect()
spread.execute()
sum(value for value, _ in scaled), len({pid for _, pid in scaled}), os.getpid() in {pid for _, pid in scaled}
""",
    "failure": """
failing = sage.LocalEnvironment("failing")
failing.from_collection([1, 0]).map(lambda x: 1 / x, name="divide").collect()
try:
    failing.execute()
except sage.OperatorError as error:
    told = error
told.operator, told.position, type(told.__cause__).__name__
""",
    "async": """
async with sage.Environment("async cells") as live:
    squares = live.from_collection(range(4)).map(lambda x: x * x).collect()
    await live.execute()
list(squares)
""",
    "async for": """
seen = []
async with sage.Environment("endless cells") as live:
    async for n in live.from_source(iter(int, 1)).map(lambda x: x + 1):
        seen.append(n)
        if len(seen) == 3:
            break
seen
""",
    "serve": """
import asyncio
async with sage.Environment("served cells") as live:
    double = await live.from_requests().map(lambda x: 2 * x).serve()
    answers = await asyncio.gather(*(double(n) for n in range(3)))
answers
""",
}

RUN = """
import sys
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[1])
"""

Outputs = Mapping[str, list[Mapping[str, Any]]]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Outputs:
    """The outputs of each cell of one notebook, run once in a kernel of its own."""
    missing = [name for name in ("nbclient", "nbformat", "ipykernel") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"needs the extra `notebook`: {', '.join(missing)} not installed")
    path = tmp_path_factory.mktemp("notebook") / "cells.ipynb"
    cells = [
        {"cell_type": "code", "id": f"cell{i}", "metadata": {}, "source": source.strip(), "outputs": [], "execution_count": None}
        for i, source in enumerate(CELLS.values())
    ]
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    ran = subprocess.run([sys.executable, "-c", RUN, str(path)], cwd=path.parent, capture_output=True, text=True, timeout=100, check=False)
    assert ran.returncode == 0, ran.stderr[-6000:]
    executed = json.loads(path.read_text())
    return {name: cell["outputs"] for name, cell in zip(CELLS, executed["cells"], strict=True)}


def joined(text: object) -> str:
    """nbformat keeps long texts as lists of lines."""
    return "".join(text) if isinstance(text, list) else str(text)


def result(outputs: Outputs, cell: str) -> str:
    return next(joined(output["data"]["text/plain"]) for output in outputs[cell] if output["output_type"] == "execute_result")


@pytest.mark.parametrize("cell", ["describe", "environment"])
@pytest.mark.timeout(120)
def test_a_stream_and_an_environment_draw_themselves(outputs: Outputs, cell: str) -> None:
    svg = next(joined(output["data"]["image/svg+xml"]) for output in outputs[cell] if output["output_type"] == "execute_result")
    assert svg.startswith("<svg")
    assert ">double</text>" in svg


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("blocking", "[0, 2, 4, 6, 8]"),
        ("again", "('finished', {'a': 2, 'b': 1, 'c': 1})"),
        ("workers", "(79980000, 2, False)"),
        ("failure", "('divide', 1, 'ZeroDivisionError')"),
        ("async", "[0, 1, 4, 9]"),
        ("async for", "[1, 1, 1]"),
        ("serve", "[0, 2, 4]"),
    ],
)
@pytest.mark.timeout(120)
def test_a_cell_gives(outputs: Outputs, cell: str, expected: str) -> None:
    assert result(outputs, cell) == expected


@pytest.mark.timeout(120)
def test_what_a_stream_prints_stands_under_a_cell(outputs: Outputs) -> None:
    printed = [joined(output["text"]) for cell in outputs.values() for output in cell if output.get("name") == "stdout"]
    assert "".join(printed) == "one\ntwo\n"
