"""
A million session keys, each kept encrypted; stop it at any moment, run it again, and it goes on where it was.

    python examples/million_keys.py [COUNT [NETWORK]]

It writes agents.db, and the key that encrypts it to agents.key. NETWORK is a network file, or another text that
DanClient.connect takes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dan_async import DanClient, DanError, LocalWallet
from dan_async.storage import StoreKey, keys_from_file

OWNER_KEY = "0x4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"  # well known: for tests only


def requests(count: int) -> Iterator[dict[str, Any]]:
    """Yield one request for each agent; they are read as they are needed, so a million costs no memory."""
    owner = LocalWallet(OWNER_KEY)
    for number in range(count):
        yield {"wallet": owner, "key_label": f"agent {number}", "reference": f"agent {number}"}


def make_store_key(path: Path) -> None:
    """Write the key of the store, readable by this user only, unless there is one."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with os.fdopen(file, "w") as opened:
        opened.write(StoreKey.generate().to_text())


async def main(count: int, network: str) -> None:
    """Make what is missing, and report every five seconds."""
    from dan_async.storage.sqlalchemy_store import SQLAlchemyStore

    make_store_key(Path("agents.key"))
    outcomes: Counter[str] = Counter()
    began = reported = time.monotonic()
    async with (
        SQLAlchemyStore("sqlite:///agents.db", keys_from_file("agents.key")) as store,
        DanClient.connect(network, store=store) as dan,
        dan.generate_session_keys(
            requests(count), resume=True, concurrency=32, chain_id=80002, duration=86_400
        ) as run,
    ):
        async for result in run:
            outcomes[result.status] += 1
            if result.error is not None:
                print(f"row {result.index}: {result.error}", file=sys.stderr)
            if time.monotonic() - reported > 5:
                reported = time.monotonic()
                print(
                    f"{outcomes.total()} of {count}, {outcomes.total() / (reported - began):.0f} a second",
                    flush=True,
                )
    print(", ".join(f"{number} {status}" for status, number in sorted(outcomes.items())))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().partition("\n")[0])
    parser.add_argument("count", type=int, nargs="?", default=1_000_000)
    parser.add_argument("network", nargs="?", default="devnet://2-of-3")
    arguments = parser.parse_args()
    try:
        asyncio.run(main(arguments.count, arguments.network))
    except (DanError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped: run it again to go on")
