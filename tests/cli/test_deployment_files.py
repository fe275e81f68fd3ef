"""What examples/deploy asks for is there: the files are well-formed and call commands and options that exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from sage_actor.cli.main import app

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "deploy"


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8")))


def commands() -> list[list[str]]:
    """Every argument list that is handed to the image's entry point."""
    found = [service["command"] for name, service in documents("compose.yaml")[0]["services"].items() if name != "redis"]
    for document in documents("kubernetes.yaml"):
        spec = document.get("spec", {}).get("template", {}).get("spec", {})
        found += [container["args"] for container in spec.get("containers", []) if container["image"].startswith("sage-actor")]
    return found


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_commands_and_options_exist(command: list[str]) -> None:
    name, *arguments = command
    answer = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert answer.exit_code == 0, answer.output
    for argument in arguments:
        if argument.startswith("--"):
            assert re.search(rf"{argument}\b", answer.output), f"`sage {name}` has no option {argument}"
    if name == "run":
        assert arguments[-1].endswith(".py"), "what stands behind the script is the script's"


def test_volumes_secrets_and_services_that_are_named_are_defined() -> None:
    manifests = documents("kubernetes.yaml")
    kinds = {(document["kind"], document["metadata"]["name"]) for document in manifests}
    text = (FOLDER / "kubernetes.yaml").read_text(encoding="utf-8")
    for claim in re.findall(r"claimName: ([\w-]+)", text):
        assert ("PersistentVolumeClaim", claim) in kinds
    for host in re.findall(r"redis://([\w-]+):", text):
        assert ("Service", host) in kinds
    compose = documents("compose.yaml")[0]
    for service in compose["services"].values():
        for other in service.get("depends_on", []):
            assert other in compose["services"]
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert source.startswith(".") or source in compose["volumes"]


def test_the_image_builds_from_files_that_are_there() -> None:
    lines = (FOLDER / "Dockerfile").read_text(encoding="utf-8").splitlines()
    assert sum(line.startswith("FROM ") for line in lines) == 2
    assert 'ENTRYPOINT ["python", "-m", "sage_actor"]' in lines
    assert any(line.startswith("USER ") and "root" not in line for line in lines)
