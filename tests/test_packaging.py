"""What a person installs: a wheel, built from the sdist, used outside this tree; and the folder backends/ under its one name."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import textwrap
import tomllib
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

USE = """
import os
import sage_actor as sage
import sage_actor.backends
from importlib import metadata

assert "site-packages" in sage.__file__, sage.__file__
assert "site-packages" in sage_actor.backends.__file__
factor = 3
for backend in ("local", "process"):
    env = sage.LocalEnvironment("wheel", backend=backend, parallelism=2)
    out = env.from_collection(range(100)).rebalance().map(lambda x: (x * factor, os.getpid())).collect()
    env.execute()
    assert sorted(value for value, _ in out) == [x * factor for x in range(100)]
    assert (os.getpid() in {pid for _, pid in out}) == (backend == "local"), backend
found = metadata.entry_points(group="sage_actor.backends")
assert {point.name for point in found} >= {"local", "process", "multiprocessing", "redis", "rediss"}, found
assert all(callable(point.load()) for point in found)
print("the wheel works")
"""


def run(*command: str | Path, cwd: Path, seconds: float = 400) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTEST_ADDOPTS", "VIRTUAL_ENV"}}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def product_files() -> set[str]:
    """What the wheel must hold: every source and data file of the package, under the name it installs as."""
    left_out = {".c", ".cpp", ".so", ".pyc"}
    found: set[str] = set()
    for folder, prefix in (("sage_actor", "sage_actor"), ("backends", "sage_actor/backends")):
        for path in (ROOT / folder).rglob("*"):
            inner = path.relative_to(ROOT / folder)
            generated = path.suffix in left_out or {"__pycache__", "build"} & set(inner.parts)
            inside_link = folder == "sage_actor" and inner.parts[0] == "backends"
            if path.is_file() and not generated and not inside_link:
                found.add(f"{prefix}/{inner.as_posix()}")
    return found


def test_backends_refuse_a_second_name() -> None:
    done = subprocess.run([sys.executable, "-c", "import backends"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "ImportError" in done.stderr
    assert "sage_actor.backends" in done.stderr
    assert run(sys.executable, "-c", "import sage_actor.backends as b; print(b.__name__)", cwd=ROOT).strip() == "sage_actor.backends"


def test_entry_points_resolve() -> None:
    described = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    points = metadata.entry_points(group="sage_actor.backends")
    assert {point.name for point in points} >= set(described["entry-points"]["sage_actor.backends"])
    assert all(callable(point.load()) for point in points)


def test_versions_agree() -> None:
    import sage_actor

    described = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert sage_actor.__version__ == described
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\n## {described}" in changes, "CHANGELOG.md has no section for this version"


def test_install_py_parses_on_an_old_python_and_names_every_target() -> None:
    text = (ROOT / "install.py").read_text(encoding="utf-8")
    compile(text, "install.py", "exec", dont_inherit=True)
    import ast

    ast.parse(text, feature_version=(3, 6))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in ("venv", "demo", "test", "check", "bench", "rules", "docs", "clean", "wheel-test"):
        assert f"\n{target}:" in makefile, f"the Makefile has no target {target}"


def test_install_py_says_what_is_missing(tmp_path: Path) -> None:
    environment = {"PATH": str(tmp_path), "CC": "no-such-compiler", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(ROOT / "install.py"), "demo"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert "no C compiler: 'no-such-compiler'" in done.stderr
    assert "build-essential" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_wheel_from_the_sdist_works_elsewhere(tmp_path: Path) -> None:
    dist, wheels, elsewhere = tmp_path / "dist", tmp_path / "wheels", tmp_path / "elsewhere"
    elsewhere.mkdir()

    run(sys.executable, "-m", "build", "--sdist", "--outdir", dist, ROOT, cwd=elsewhere)
    sdist = next(dist.glob("*.tar.gz"))
    with tarfile.open(sdist) as archive:
        inside = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert not [name for name in inside if name.endswith((".c", ".cpp", ".so", ".pyc"))]
    assert {"sage_actor/_core/batch_queue.pyx", "sage_actor/_core/batch_queue.pxd", "sage_actor/_core/batch_queue.pyi"} <= inside
    assert {"backends/local.py", "install.py", "Makefile", "LICENSE", "CHANGELOG.md", "tests/conftest.py"} <= inside

    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", wheels, sdist, cwd=elsewhere)
    wheel = next(wheels.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert not product_files() - names, "files that the wheel lacks"
    assert not [
        name for name in names if name.endswith((".c", ".cpp", ".pyc")) or name.startswith(("backends/", "tests/", "sage_actor/build"))
    ]
    compiled = {name.split(".")[0] for name in names if name.endswith((".so", ".pyd"))}
    assert compiled == {name.removesuffix(".pyx") for name in names if name.endswith(".pyx")}

    bare = tmp_path / "bare"
    venv.create(bare, with_pip=True)
    python = bare / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", wheel, cwd=elsewhere)
    program = elsewhere / "use.py"
    program.write_text(textwrap.dedent(USE))
    assert run(python, program, cwd=elsewhere, seconds=60).strip() == "the wheel works"
    version = run(bare / "bin" / "sage", "--version", cwd=elsewhere, seconds=60)
    assert wheel.name.split("-")[1] in version
    assert run(python, "-m", "sage_actor", "--version", cwd=elsewhere, seconds=60) == version
