"""The import names of SAGE's documents: served last, never mixed into somebody else's package, honest about what is missing."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sage_actor
from sage_actor import seed_names
from sage_actor.seed_names import COMING_LATER, SEED_NAMES


@pytest.fixture(autouse=True)
def _installed() -> Iterator[None]:
    seed_names.install()
    yield
    seed_names.uninstall()


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in SEED_NAMES.items() for name in names])
def test_a_seed_name_is_the_very_object_of_sage_actor(module: str, name: str) -> None:
    assert getattr(importlib.import_module(module), name) is getattr(sage_actor, SEED_NAMES[module][name])


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in COMING_LATER.items() for name in names])
def test_a_name_without_its_feature_says_what_it_waits_for(module: str, name: str, repository: Path) -> None:
    with pytest.raises(ImportError, match=rf"{module}\.{name} .*comes later \(row {COMING_LATER[module][name]} ") as caught:
        exec(f"from {module} import {name}")
    assert not isinstance(caught.value, ModuleNotFoundError)
    assert f"| {COMING_LATER[module][name]} |" in (repository / "docs" / "features.md").read_text(encoding="utf-8")


def test_an_unknown_name_and_an_unknown_module_are_ordinary_import_errors() -> None:
    with pytest.raises(ImportError, match=r"cannot import name 'Nothing' from 'sage\.core\.api'"):
        exec("from sage.core.api import Nothing")
    with pytest.raises(AttributeError, match=r"here are DataStream, HybridEnvironment, LocalEnvironment, RemoteEnvironment"):
        importlib.import_module("sage.core.api").Nothing  # noqa: B018
    with pytest.raises(ModuleNotFoundError, match=r"sage\.nothing"):
        importlib.import_module("sage.nothing")


def test_a_star_import_gives_what_is_there() -> None:
    names: dict[str, object] = {}
    exec("from sage.lib.io import *", names)
    assert {"ConsoleSink", "FileSink", "FileSource"} <= set(names)
    assert "KafkaSource" not in names


def test_modules_show_their_names() -> None:
    assert {"LocalEnvironment", "RemoteEnvironment"} <= set(dir(importlib.import_module("sage.core.api.env")))


def test_installing_is_idempotent_and_last() -> None:
    before = list(sys.meta_path)
    seed_names.install()
    assert sys.meta_path == before
    assert type(before[-1]).__module__ == "sage_actor.seed_names"


def test_uninstalling_forgets_modules_and_keeps_objects() -> None:
    environment = importlib.import_module("sage.core.api").LocalEnvironment
    seed_names.uninstall()
    seed_names.uninstall()
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("sage.core.api")
    assert environment is sage_actor.LocalEnvironment


def test_an_installed_sage_wins_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "sage"
    package.mkdir()
    (package / "__init__.py").write_text("owner = 'somebody else'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    try:
        assert importlib.import_module("sage").owner == "somebody else"
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("sage.core.api")
        assert importlib.import_module("sage_flow.environment").SageFlowEnvironment is sage_actor.LocalEnvironment
    finally:
        sys.modules.pop("sage", None)


def test_importing_the_module_is_enough_and_loads_nothing_else() -> None:
    program = (
        "import sys, sage_actor.seed_names\n"
        "import sage.core.api, sage.lib.io\n"
        "assert not [name for name in sys.modules if name.startswith('sage_actor.stream')]\n"
        "from sage.core.api import LocalEnvironment\n"
        "assert LocalEnvironment.__module__ == 'sage_actor.stream.local_environment'\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


def test_sage_run_serves_the_names(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from sage.core.api import LocalEnvironment\nenv = LocalEnvironment('names')\nenv.from_batch([1, 2]).sink(print)\nenv.submit()\n"
    )
    ran = subprocess.run(
        [sys.executable, "-m", "sage_actor", "run", "local", str(script)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stdout) == (0, "1\n2\n"), ran.stderr
