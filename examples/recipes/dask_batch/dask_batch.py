"""
Many session keys on a Dask cluster: rows spread over its workers, one encrypted store, no row with two keys.

    python examples/recipes/dask_batch/dask_batch.py [ROWS]
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import tempfile
from collections import Counter
from pathlib import Path

import distributed

from dan_async.dask_batch import WorkerSetup, generate_session_keys_on
from dan_async.devnet import Devnet
from dan_async.storage import StoreKey


async def main(rows: int, folder: Path) -> None:
    """Make a key for each row, twice: the second time they are all there."""
    key_file = folder / "store.key"
    key_file.touch(mode=0o600)
    key_file.write_text(StoreKey.generate().to_text())
    owner = secrets.token_hex(32)  # a throwaway owner
    given = [{"reference": f"row {i}", "private_key": owner, "chain_id": 80002} for i in range(rows)]
    async with (
        Devnet(threshold=2, parties=3) as net,
        distributed.LocalCluster(  # type: ignore[no-untyped-call]  # Dask has no types
            n_workers=2,
            threads_per_worker=1,
            asynchronous=True,
            dashboard_address=None,  # pyright: ignore[reportArgumentType]  # it has no types
            host="127.0.0.1",
        ) as local,
        distributed.Client(local, asynchronous=True) as cluster,  # type: ignore[no-untyped-call]  # the same
    ):
        setup = WorkerSetup(
            nodes=[f"{node.url}={node.operator}" for node in net.endpoints],
            threshold=net.threshold,
            store_url=f"sqlite:///{folder}/keys.db",
            key_file=str(key_file),
        )
        for _ in range(2):
            results = [one async for one in generate_session_keys_on(cluster, given, setup, partition=4)]
            print(dict(Counter(one.status for one in results)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().partition("\n")[0])
    parser.add_argument("rows", type=int, nargs="?", default=12)
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(main(parser.parse_args().rows, Path(name)))
