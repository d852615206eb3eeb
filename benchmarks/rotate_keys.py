"""
How long a store takes to change its key: ``python -m benchmarks.rotate_keys [--records 100000] [--store URL]``.

The store is filled with session keys under one key; then ``rotate_keys()`` encrypts all of them anew while a reader gets one
record after the other, a hundredth of a second apart. Exits with 1 if the change takes longer than --most seconds, a record
is not under the new key afterwards, or one of them is not what was stored.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import asdict

from benchmarks.measure import LatencyHistogram, platform_facts, say
from dan_async.config import Threshold
from dan_async.session import DanSessionKeyPayload
from dan_async.storage import FixedKeys, StoredSession, StoreKey
from dan_async.storage.database import sessions_table
from dan_async.storage.sqlalchemy_store import Sealer, SQLAlchemyStore
from dan_async.types import RequestId

__all__ = ["main", "measure"]

_TOGETHER = 500
_PAUSE_S = 0.01
_THRESHOLD = Threshold(2, 3)


def _record(number: int) -> StoredSession:
    session = DanSessionKeyPayload(
        session_key_eoa="0x" + os.urandom(20).hex(),
        mpc_key_id=os.urandom(32).hex(),
        hex_eph_sk_without_0x=os.urandom(32).hex(),
        parties_number=_THRESHOLD.n,
        threshold=_THRESHOLD.t,
        eoa_address="0x" + os.urandom(20).hex(),
        chain_id=80002,
        expires_at=2**33,
    )
    return StoredSession.of(session, now=1.8e9 + number)


async def _fill(store: SQLAlchemyStore, keys: FixedKeys, count: int) -> list[RequestId]:
    """Put records into the store, all at once, as ``save()`` does one by one."""
    await store.open()
    sealer, ids = Sealer(keys), []
    async with store.engine.begin() as connection:
        while len(ids) < count:
            records = [_record(len(ids) + i) for i in range(min(_TOGETHER, count - len(ids)))]
            rows = [asdict(await sealer.seal(record)) | {"version": 1} for record in records]
            await connection.execute(sessions_table.insert(), rows)
            ids += [record.record_id for record in records]
    return ids


async def _read(store: SQLAlchemyStore, ids: Sequence[RequestId], found: LatencyHistogram) -> None:
    while True:
        started = time.perf_counter()
        record = await store.get(random.choice(ids))
        found.record(time.perf_counter() - started)
        assert record is not None
        assert record.session is not None
        await asyncio.sleep(_PAUSE_S)


async def measure(url: str, count: int) -> dict[str, Any]:
    """
    Fill an empty store, change its key beside reads, and look at every record.

    Returns:
        Records, seconds, CPU seconds of this process, and the latencies of the reads in milliseconds.
    """
    old, new = StoreKey.generate("old"), StoreKey.generate("new")
    say(f"filling the store with {count} records")
    async with SQLAlchemyStore(url, FixedKeys([old])) as store:
        ids = await _fill(store, FixedKeys([old]), count)
        before = {record.record_id: record async for record in store.find()}
    say("changing the key")
    reads = LatencyHistogram()
    async with SQLAlchemyStore(url, FixedKeys([new, old])) as store:
        reader = asyncio.create_task(_read(store, ids, reads))
        started, cpu = time.perf_counter(), time.process_time()
        rotated = await store.rotate_keys()
        seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu
        reader.cancel()
        await asyncio.wait([reader])
        if not reader.cancelled():
            reader.result()
    say("looking at every record")
    async with SQLAlchemyStore(url, FixedKeys([new])) as store:
        after = {record.record_id: record async for record in store.find()}
    return {
        "records": count,
        "rotated": rotated,
        "isRight": rotated == count and before == after,
        "seconds": round(seconds, 1),
        "cpuSeconds": round(cpu_s, 1),
        "reads": reads.total,
        "readsMs": reads.to_dict(),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, run, print, and say whether it was right and in time."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rotate_keys")
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--most", type=float, default=60.0, help="seconds that it may take")
    parser.add_argument(
        "--store", metavar="URL", help="an empty database; a SQLite file of its own if not given"
    )
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        url = options.store or f"sqlite:///{Path(folder) / 'sessions.db'}"
        found = asyncio.run(measure(url, options.records))
    print(found)
    print(", ".join(f"{name}: {value}" for name, value in platform_facts().items()))
    return int(not found["isRight"] or found["seconds"] > options.most)


if __name__ == "__main__":
    raise SystemExit(main())
