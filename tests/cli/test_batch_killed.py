"""A batch that is killed again and again: every row has one key in the end, and no node has made another."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sqlite3
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dan_async import DanClient, NodeNetwork, Threshold
from dan_async.devnet import Devnet
from dan_async.pytest_plugin import devnet, make_devnet
from dan_async.storage import keys_from_file
from dan_async.storage.sqlalchemy_store import SQLAlchemyStore
from tests.cli.conftest import command

__all__ = ["devnet", "make_devnet"]

#: How often it is killed; ``nox -s batch`` asks for twenty.
KILLS = int(os.environ.get("DAN_ASYNC_BATCH_KILLS", "5"))
ROWS = 6 * KILLS

pytestmark = pytest.mark.timeout(60 + 20 * KILLS)


def stored(file: Path) -> int:
    """How many records the store has."""
    try:
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
            return int(connection.execute("SELECT count(*) FROM dan_sessions").fetchone()[0])
    except sqlite3.OperationalError:  # not there yet
        return 0


async def start(options: list[str], folder: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *command(*options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


async def kill_somewhere(options: list[str], folder: Path, chance: random.Random) -> None:
    """Start the batch, and kill it a random moment after it has stored something new."""
    file = folder / "keys.db"
    goal = stored(file) + chance.randint(1, 6)
    process = await start(options, folder)
    end = time.monotonic() + 20
    while process.returncode is None and stored(file) < goal and time.monotonic() < end:
        await asyncio.sleep(0.005)
    await asyncio.sleep(chance.uniform(0, 0.05))
    if process.returncode is None:
        process.kill()
    await process.communicate()


@pytest.mark.long
async def test_every_row_has_exactly_one_key(devnet: Devnet, tmp_path: Path) -> None:
    """Killed at random moments and resumed: one session for each row, which opens and signs, and no key besides."""
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    print("seed", seed)
    owners = [f"{i + 1:064x}" for i in range(ROWS)]
    (tmp_path / "wallets.txt").write_text("\n".join(owners))
    named = [part for e in devnet.endpoints for part in ("--node", f"{e.url}={e.operator}")]
    options = [
        "batch",
        "wallets.txt",
        "--out",
        "sqlite:///keys.db",
        "--json",
        "--concurrency",
        "4",
        "--chain-id",
        "1",
    ]
    options += [*named, "--threshold", "2", "--parties", "3", "--duration", "86400"]
    for _ in range(KILLS):
        await kill_somewhere(options, tmp_path, chance)
    last = await start(options, tmp_path)
    out, err = await last.communicate()
    assert last.returncode == 0, err.decode()
    report = json.loads(out)
    assert report["made"] + report["kept"] + report["settled"] == ROWS

    async with SQLAlchemyStore(
        f"sqlite:///{tmp_path}/keys.db", keys_from_file(tmp_path / "keys.db.key")
    ) as store:
        records = [record async for record in store.find()]
    assert [record.state for record in records] == ["active"] * ROWS
    assert max(Counter(record.owner for record in records).values()) == 1
    assert max(Counter(record.reference for record in records).values()) == 1
    keys = {record.session.mpc_key_id for record in records if record.session}
    for node in devnet.nodes:
        assert keys_of(node) == keys
    network = NodeNetwork(devnet.endpoints, threshold=Threshold(2, 3))
    async with DanClient(network) as dan:
        for record in records[:: max(1, ROWS // 10)]:
            assert record.session is not None
            signature = await dan.sign_message("hello", record.session)
            assert len(signature) == 132


def keys_of(node: Any) -> set[str]:
    """Every key that a node has made."""
    return set(node._runner._server.ring._by_key)
