"""Batches over real nodes."""

from __future__ import annotations

from pathlib import Path

from dan_async import DanClient, LocalWallet, NodeNetwork, Threshold
from dan_async.devnet import Devnet
from dan_async.storage import FixedKeys, StoreKey
from dan_async.storage.sqlalchemy_store import SQLAlchemyStore

ROWS = 50


async def test_fifty_rows_make_fifty_keys(devnet: Devnet, tmp_path: Path) -> None:
    """Every row has a key of its own, which all nodes hold and the store has; a second run finds them all there."""
    rows = [{"reference": f"row {i}", "chain_id": i + 1} for i in range(ROWS)]
    async with SQLAlchemyStore(f"sqlite:///{tmp_path}/keys.db", FixedKeys([StoreKey.generate()])) as store:
        network = NodeNetwork(devnet.endpoints, threshold=Threshold(2, 3))
        async with DanClient(network, store=store) as dan:
            common = {"wallet": LocalWallet("11" * 32), "resume": True, "concurrency": 8}
            made = {r.index: r async for r in dan.generate_session_keys(rows, **common)}
            kept = {r.index: r async for r in dan.generate_session_keys(rows, **common)}
        stored = {record.reference: record.session async for record in store.find()}
    assert [made[i].status for i in range(ROWS)] == ["made"] * ROWS
    assert [kept[i].status for i in range(ROWS)] == ["kept"] * ROWS
    sessions = [made[i].session for i in range(ROWS)]
    assert [session.chain_id for session in sessions] == list(range(1, ROWS + 1))
    assert len({session.session_key_eoa for session in sessions}) == ROWS
    assert [stored[f"row {i}"] for i in range(ROWS)] == sessions
    for session in sessions:
        assert all(node.reveal_share(session.mpc_key_id) for node in devnet.nodes)
