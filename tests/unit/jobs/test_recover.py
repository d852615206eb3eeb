"""Settling a record that somebody else has settled meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from dan_async.jobs.keeping import SessionKeeper
from dan_async.jobs.recover import settle
from dan_async.network import KeygenSettlement
from dan_async.storage import MemorySessionStore
from tests.helpers import ManualClock
from tests.stored import NOW, pending, session


class Network:
    """Says that there is no key, and lets somebody else be faster."""

    def __init__(self, meanwhile: Any) -> None:
        self._meanwhile = meanwhile

    async def settle_keygen(self, question: Any, *, deadline: Any) -> KeygenSettlement:
        await self._meanwhile()
        return KeygenSettlement(report=None, is_certain=True)


@pytest.mark.parametrize("others", ["found it", "dropped it", "called it failed", "let it expire"])
async def test_what_the_others_found_holds(others: str) -> None:
    """Nothing of theirs is overwritten or deleted."""
    store = MemorySessionStore(clock=ManualClock())
    record = pending()
    await store.save(record)
    made = session()
    after = {
        "found it": record.changed("active", now=NOW + 1, session=made),
        "called it failed": record.changed("failed", now=NOW + 1),
        "let it expire": record.changed("expired", now=NOW + 1),
    }.get(others)

    async def meanwhile() -> None:
        if after is None:
            await store.delete(record.record_id)
        else:
            await store.replace(after, expected="pending")

    found = await settle(Network(meanwhile), SessionKeeper(store, ManualClock()), record, timeout_s=1)
    expected = {"found it": "finished", "let it expire": "expired"}.get(others, "dropped")
    assert found.settlement == expected
    assert found.session == (made if others == "found it" else None)
    assert await store.get(record.record_id) == after
