"""The pytest plugin, as users load it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

TEST = """
async def test_the_usual_network(devnet):
    assert str(devnet.threshold) == "2-of-3"
    assert all(node.is_running for node in devnet.nodes)


async def test_others(make_devnet):
    one = await make_devnet(2, 2)
    other = await make_devnet(threshold=2, parties=4)
    assert len(one.nodes) + len(other.nodes) == 6
"""


async def test_the_plugin_gives_running_networks(tmp_path):
    """Loaded from a conftest of somebody else's project."""
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["dan_async.devnet.pytest_plugin"]\n')
    (tmp_path / "test_theirs.py").write_text(TEST)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "pytest", "-q", "-W", "error", "-o", "asyncio_mode=auto", "-p", "no:cacheprovider"),
        *("-o", "asyncio_default_fixture_loop_scope=function", "--rootdir=."),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(50):
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    assert b"2 passed" in output
