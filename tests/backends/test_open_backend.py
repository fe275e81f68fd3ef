"""Backends are found by name, ours and other people's, and nothing else is."""

from __future__ import annotations

import importlib.util
import sys
import uuid
from pathlib import Path

import pytest

from sage_actor import backends, plugins
from sage_actor.actor.backend import Backend
from sage_actor.actor.open_backend import BACKENDS, open_backend
from sage_actor.backends.local import LocalBackend
from sage_actor.errors import BackendUnavailable, UnknownBackend


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a backend that another installed distribution offers."""
    name = f"stranger{uuid.uuid4().hex[:8]}"
    folder = tmp_path / f"{name}-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(f"[{BACKENDS}]\n{name} = {name}_module:make.backend\n")
    (tmp_path / f"{name}_module.py").write_text(
        "class make:\n    @staticmethod\n    def backend(address):\n        from sage_actor.backends.local import LocalBackend\n"
        "        found = LocalBackend()\n        found.name = address\n        return found\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return name


@pytest.mark.parametrize("address", ["local", "process", "multiprocessing", "redis://localhost:1/0", "rediss://localhost:1/0"])
def test_ours_are_found_and_nothing_is_started(address: str) -> None:
    backend = open_backend(address)
    assert isinstance(backend, Backend)
    assert backend.hosts_in_owner is (address == "local")


def test_the_part_before_the_colon_chooses_and_the_factory_gets_it_all(stranger: str) -> None:
    assert open_backend(f"{stranger}://here?x=1").name == f"{stranger}://here?x=1"
    assert open_backend(stranger).name == stranger
    assert {stranger, "local", "process", "redis"} <= set(plugins.names(BACKENDS))


def test_an_unknown_name_says_what_there_is_and_what_is_near() -> None:
    with pytest.raises(UnknownBackend, match=r"no backend 'proces'; did you mean 'process'\? installed: .*local.*redis"):
        open_backend("proces")
    with pytest.raises(UnknownBackend, match="no backend 'kafka'; installed: "):
        open_backend("kafka://broker")


def test_an_entry_point_that_does_not_load_says_so(stranger: str, tmp_path: Path) -> None:
    (tmp_path / f"{stranger}_module.py").write_text("import no_such_module_anywhere\n")
    with pytest.raises(ImportError, match="no_such_module_anywhere"):
        open_backend(stranger)


@pytest.mark.parametrize(
    ("address", "hint"), [("local://x", "'local'"), ("process://x", "'process'"), ("redis", "redis://localhost:6379/0")]
)
def test_an_ill_formed_address_says_how_to_write_it(address: str, hint: str) -> None:
    with pytest.raises(BackendUnavailable, match=hint):
        open_backend(address)


def test_finding_twice_gives_the_same_object() -> None:
    assert plugins.find(BACKENDS, "local") is plugins.find(BACKENDS, "local")
    assert plugins.find(BACKENDS, "nothing of that name") is None
    assert isinstance(open_backend("local"), LocalBackend)


def test_the_backends_folder_refuses_a_second_name() -> None:
    spec = importlib.util.spec_from_file_location("backends", backends.__file__)
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(ImportError, match=r"'backends' is a second copy .* import it as sage_actor\.backends"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    assert "backends" not in sys.modules
