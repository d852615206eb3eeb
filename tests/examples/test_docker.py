"""The container's files name commands, options, programs and paths that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from dan_async.cli import app
from dan_async.devnet.local_chain import NPM_LINE

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "examples" / "docker"
DOCKERFILE = (FOLDER / "Dockerfile").read_text()
COMMANDS = [json.loads(line) for line in re.findall(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)]


@pytest.mark.parametrize(("name", "options"), [(name, options) for name, *options in COMMANDS])
def test_the_images_commands_are_ours(name: str, options: list[str], tmp_path: Path) -> None:
    """The parser takes every option, and what the container keeps is in its volume."""
    options = [str(tmp_path) if option.startswith("/") else option for option in options]
    parsed = app._load(name).make_context(name, options).params
    assert [str(parsed[option]) for option in ("storage", "write", "owner_key")] == [
        "state",
        "state/dev.toml",
        "state/dev-owner.key",
    ]


def test_the_images_programs_are_those_that_the_command_asks_for() -> None:
    """The npm packages of `dan-async dev`, each at a fixed version."""
    (line,) = re.findall(r"npm install --\S+ --\S+ (.*?)\n\n", DOCKERFILE, re.DOTALL)
    packages = line.replace("\\\n", " ").split()
    wanted = NPM_LINE.split()[2:]
    assert [package for package in packages if not re.search(r"@\d+\.\d+\.\d+$", package)] == []
    assert all(package.startswith(name) for package, name in zip(packages, wanted, strict=True))


def test_compose_builds_what_is_there() -> None:
    """Context, file, target and volume exist, and the container may do little."""
    compose = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    (service,) = compose["services"].values()
    build = service["build"]
    assert (FOLDER / build["context"]).resolve() == ROOT
    assert ROOT / build["dockerfile"] == FOLDER / "Dockerfile"
    assert f" AS {build['target']}\n" in DOCKERFILE
    assert service["volumes"] == [f"{next(iter(compose['volumes']))}:/home/dan/state"]
    assert (service["network_mode"], service["cap_drop"]) == ("host", ["ALL"])
