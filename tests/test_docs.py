"""The documentation is true: its programs run, its links lead somewhere, the commands and tests it names exist.

A block fenced as ``python`` that imports sage_actor is a complete program and is run. Above one that cannot run here stands
``<!-- not run: the reason -->``; it is still compiled. Other ``python`` blocks are fragments and are compiled.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [path for path in [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))] if path.exists()]
FENCE = re.compile(r"^(?P<above>[^\n]*)\n(?:\n)?```python\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """One ``python`` block of a page."""

    page: Path
    line: int
    code: str
    not_run: str

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks() -> list[Block]:
    found: list[Block] = []
    for page in PAGES:
        text = "\n\n" + page.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            reason = re.search(r"<!-- not run: (.+?) -->", match["above"])
            line = text.count("\n", 0, match.start("code")) - 1
            found.append(Block(page, line, match["code"], reason[1] if reason else ""))
    return found


def is_program(block: Block) -> bool:
    return re.search(r"^(import|from) sage_actor", block.code, re.MULTILINE) is not None


def page_parameters() -> list[object]:
    return [pytest.param(page, id=page.relative_to(ROOT).as_posix()) for page in PAGES]


@pytest.mark.parametrize("block", [pytest.param(block, id=block.name) for block in blocks()])
def test_python_blocks(block: Block, tmp_path: Path) -> None:
    compile(block.code, block.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    if not is_program(block):
        return
    if block.not_run:
        pytest.skip(f"{block.name} is not run: {block.not_run}")
    program = tmp_path / "program.py"
    program.write_text(block.code, encoding="utf-8")
    done = subprocess.run([sys.executable, str(program)], cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, f"{block.name} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings make."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", page_parameters())
def test_links_lead_somewhere(page: Path) -> None:
    broken: list[str] = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue  # an address outside; looking it up would make the tests depend on the network
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        if not path.exists() or (anchor and path.suffix == ".md" and anchor not in anchors(path)):
            broken.append(target)
    assert not broken, f"{page.relative_to(ROOT)} links to {broken}"


@pytest.mark.parametrize("page", page_parameters())
def test_files_that_a_page_names_exist(page: Path) -> None:
    """Paths in backticks, with ``::name`` of a test where one stands behind them."""
    wrong: list[str] = []
    text = page.read_text(encoding="utf-8")
    for file, name in re.findall(r"`((?:tests|examples|docs|benchmarks|sage_actor|backends)/[\w./-]+\.\w+)(?:::(\w+))?[^`]*`", text):
        path = ROOT / file
        if not path.exists():
            wrong.append(f"{file} does not exist")
        elif name and not re.search(rf"^\s*(async )?(def|class) {name}\b", path.read_text(encoding="utf-8"), re.MULTILINE):
            wrong.append(f"{file} has no {name}")
    assert not wrong, f"{page.relative_to(ROOT)}: {wrong}"


@pytest.mark.parametrize("page", page_parameters())
def test_make_targets_that_a_page_names_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    text = page.read_text(encoding="utf-8")
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    code = "\n".join(fenced + re.findall(r"`[^`\n]+`", text))
    named = set(re.findall(r"\bmake (?:[A-Z_]+=\S+ )*([a-z][a-z0-9-]*)", code))
    assert named <= targets, f"{page.relative_to(ROOT)} names make targets that do not exist: {sorted(named - targets)}"
