"""Records for the tests of stores, and of what uses them."""

from __future__ import annotations

import secrets
from typing import Any

from attrs import evolve

from dan_async.session import DanSessionKeyPayload
from dan_async.storage import KeygenIntent, StoredSession

ADA = "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf"
BOB = "0x2B5AD5c4795c026514f8317c7a215E218DcCD6cF"
NOW = 1_700_000_000.0


def session(**changes: Any) -> DanSessionKeyPayload:
    """A session as generate_session_key gives it."""
    usual = DanSessionKeyPayload(
        session_key_eoa="0x6813Eb9362372EEF6200f3b1dbC3f819671cBA69",
        mpc_key_id=secrets.token_hex(32),
        hex_eph_sk_without_0x=secrets.token_hex(31) + "01",
        parties_number=3,
        threshold=2,
        eoa_address=ADA,
        chain_id=80002,
        public_key="0x02" + "ab" * 32,
        eph_id="agent",
        eph_alg="secp256k1",
        expires_at=int(NOW) + 3600,
    )
    return evolve(usual, **changes)


def active(*, at: float = NOW, reference: str | None = None, **changes: Any) -> StoredSession:
    """A record of a usable session."""
    return StoredSession.of(session(**changes), now=at, reference=reference)


def pending(*, at: float = NOW, reference: str | None = None, **changes: Any) -> StoredSession:
    """A record of something that was asked for."""
    usual = StoredSession(
        record_id="0x" + secrets.token_hex(32),
        owner=ADA,
        chain_id=80002,
        state="pending",
        expires_at=int(NOW) + 3600,
        created_at=int(at * 1000),
        updated_at=int(at * 1000),
        reference=reference,
        intent=KeygenIntent(
            hex_eph_sk=secrets.token_hex(31) + "01",
            eph_id="agent",
            eph_alg="secp256k1",
            owner_id=ADA,
            threshold=2,
            parties_number=3,
        ),
    )
    return evolve(usual, **changes)
