"""``dan-async dev``: one command for nodes, chain and bundler, and one file that leads to all of them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from dan_async.devnet.local_chain import NPM_LINE, LocalChain
from dan_async.errors import ConfigurationError, DanError
from dan_async.network_file import NetworkFile
from tests.chain import local_chain
from tests.cli.conftest import Run, command, run

__all__ = ["run"]  # a fixture


@pytest.mark.long
@pytest.mark.timeout(200)
async def test_an_operation_signed_by_nodes_reaches_the_chain_that_it_starts(tmp_path: Path) -> None:
    """From an empty folder: the command, its file, a session, an account deployed by its first operation; then Ctrl-C."""
    local_chain.require_chain()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    modules = ["--node-modules", str(local_chain.MODULES)]
    dev = await asyncio.create_subprocess_exec(
        *command("dev", "--json", "--storage", "kept", *modules),
        cwd=tmp_path,
        env=environment,
        stdout=PIPE,
        stderr=PIPE,
        start_new_session=True,
    )
    try:
        assert dev.stdout is not None
        described = json.loads(await dev.stdout.readline())
        assert described["chain"]["id"] == local_chain.CHAIN_ID
        keygen = await asyncio.create_subprocess_exec(
            *command("keygen", "--network", "dev.toml", "--private-key-file", "dev-owner.key", "--json"),
            cwd=tmp_path,
            env=environment,
            stdout=PIPE,
        )
        made, _ = await keygen.communicate()
        assert json.loads(made)["chainId"] == local_chain.CHAIN_ID  # the file says which chain it is for
        await run_the_example(tmp_path, environment)
    finally:
        os.killpg(dev.pid, signal.SIGINT)
        out, err = await dev.communicate()
    assert (dev.returncode, out, err) == (0, b"", b"stopped\n")


async def run_the_example(folder: Path, environment: dict[str, str]) -> None:
    """A session key's smart account is deployed by its first operation, as the tutorial has it."""
    program = Path(__file__).parents[2] / "examples" / "on_a_chain.py"
    example = await asyncio.create_subprocess_exec(
        sys.executable, str(program), cwd=folder, env=environment, stdout=PIPE, stderr=PIPE
    )
    printed, complaints = await asyncio.wait_for(example.communicate(), 120)
    assert (example.returncode, complaints) == (0, b"")
    assert [line.split("  ")[0] for line in printed.decode().splitlines()] == [
        "session key",
        "smart account",
        "user operation",
        "on the chain",
    ]
    chain = NetworkFile.read(folder / "dev.toml").chain
    assert chain is not None
    assert chain.rpc_url is not None
    asked = local_chain.LocalChain(chain.rpc_url)
    assert asked.balance("0x2B5AD5c4795c026514f8317c7a215E218DcCD6cF") == 10**15


def test_without_the_programs_it_says_how_to_get_them(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line for npm, and nothing is started or written."""
    monkeypatch.chdir(tmp_path)
    finished = run("dev")
    assert finished.code == 2
    assert NPM_LINE in finished.error
    assert list(tmp_path.iterdir()) == []


async def test_a_program_that_does_not_start_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its last words, when it ends; when there is none, before anything is started."""
    (tmp_path / ".bin").mkdir()
    for name in ("contracts-0.6", "contracts-0.7"):
        (tmp_path / name / "artifacts").mkdir(parents=True)
    for name in ("anvil", "alto"):
        program = tmp_path / ".bin" / name
        program.write_text("#!/bin/sh\necho 'no room left'\nexit 3\n")
        program.chmod(0o700)
    with pytest.raises(DanError, match="anvil did not start: no room left"):
        await LocalChain(node_modules=tmp_path).start()
    package = tmp_path / "@foundry-rs" / "anvil"  # which npm does not always link in .bin
    package.mkdir(parents=True)
    program = (tmp_path / ".bin" / "anvil").rename(package / "bin.mjs")
    with pytest.raises(DanError, match="anvil did not start: no room left"):
        await LocalChain(node_modules=tmp_path).start()
    program.unlink()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigurationError, match="cannot find anvil"):
        LocalChain(node_modules=tmp_path)


async def test_the_programs_end_with_it_even_if_it_is_killed(tmp_path: Path) -> None:
    """A chain that nobody stops would keep its port, and write its state over that of the next run."""
    (tmp_path / ".bin").mkdir()
    for name in ("contracts-0.6", "contracts-0.7"):
        (tmp_path / name / "artifacts").mkdir(parents=True)
    for name in ("anvil", "alto"):
        program = tmp_path / ".bin" / name
        ends = f"trap 'touch {tmp_path}/ended; exit' TERM"
        program.write_text(
            f"#!/bin/sh\nexec >/dev/null 2>&1\n{ends}\ntouch {tmp_path}/begun\nwhile :; do sleep 0.02; done\n"
        )
        program.chmod(0o700)
    script = (
        "import asyncio, sys; from pathlib import Path; from dan_async.devnet.local_chain import LocalChain; "
        "asyncio.run(LocalChain(node_modules=Path(sys.argv[1])).start())"
    )
    killed = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script, str(tmp_path)),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    async with asyncio.timeout(30):
        while not (tmp_path / "begun").exists():
            await asyncio.sleep(0.02)
        killed.kill()
        while not (tmp_path / "ended").exists():
            await asyncio.sleep(0.02)
        await killed.wait()
