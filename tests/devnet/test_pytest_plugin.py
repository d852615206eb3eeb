"""The pytest plugin, as users have it: found by its entry point, in a project of their own."""

from __future__ import annotations

import asyncio
import os
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

TEST = """
import pytest


@pytest.mark.asyncio
async def test_the_usual_network(devnet):
    assert str(devnet.threshold) == "2-of-3"
    assert all(node.is_running for node in devnet.nodes)


@pytest.mark.asyncio
async def test_others(make_devnet):
    one = await make_devnet(2, 2)
    other = await make_devnet(threshold=2, parties=4)
    assert len(one.nodes) + len(other.nodes) == 6
"""

ASYNCIO = ("-o", "asyncio_default_fixture_loop_scope=function", "-o")

#: A project with one test that has nothing to do with us, and one that has.
UNUSED = """
import sys


def test_nothing_of_ours_is_loaded():
    assert "dan_async.pytest_plugin" in sys.modules
    ours = [name for name in sys.modules if name.startswith("dan_async.")]
    assert set(ours) <= {"dan_async.pytest_plugin", "dan_async.errors", "dan_async.types"}
    assert not {"aiohttp", "coincurve"} & sys.modules.keys()


def test_with_a_network(devnet):
    pass
"""


async def run_theirs(folder: Path, test: str, *options: str) -> tuple[int | None, str]:
    """Run somebody else's test, with our entry points installed as pip would, and return the exit code and the output."""
    plugins = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
    metadata = folder / "installed" / "dan_async-1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: dan-async\nVersion: 1\n")
    lines = [f"{name} = {module}" for name, module in plugins.items()]
    (metadata / "entry_points.txt").write_text("\n".join(["[pytest11]", *lines, ""]))
    (folder / "test_theirs.py").write_text(test)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "--rootdir=.", *options),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(metadata.parent), str(ROOT)])},
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(50):
        output, _ = await process.communicate()
    return process.returncode, output.decode()


@pytest.mark.long
@pytest.mark.parametrize("mode", ["auto", "strict"])
async def test_the_fixtures_are_running_networks(mode: str, tmp_path: Path) -> None:
    """In both modes of pytest-asyncio, and with nothing in a conftest."""
    code, output = await run_theirs(tmp_path, TEST, *ASYNCIO, f"asyncio_mode={mode}")
    assert code == 0, output
    assert "2 passed" in output


async def test_it_costs_nothing_and_breaks_nothing_where_it_is_not_used(tmp_path: Path) -> None:
    """Not even without pytest-asyncio: only who uses a fixture hears what to install."""
    (tmp_path / "pytest_asyncio.py").write_text("raise ImportError\n")
    code, output = await run_theirs(tmp_path, UNUSED, "-p", "no:asyncio")
    assert code == 1
    assert "1 passed, 1 error" in output
    assert "The fixture devnet needs the package pytest_asyncio" in output
    assert 'pip install "dan-async[pytest]"' in output
