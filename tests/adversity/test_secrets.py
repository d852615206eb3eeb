"""A canary key through the whole flow: it may stand in the payload, and nowhere else."""

from __future__ import annotations

import asyncio
import base64
import gc
import logging
from typing import Any

import pytest

from dan_async import DanClient, EphemeralKey, LocalWallet
from dan_async.errors import ClientClosedError, ConnectError, DanError, NodeCode, RpcError
from tests.fake_nodes import FakeNetwork

EPHEMERAL = "5ec7e7" + "c0ffee" * 9 + "1234"
OWNER_KEY = "badc0de" + "f00d" * 14 + "1"


def forms(key: str) -> set[str]:
    """The shapes in which a key could leak: hex, base64, number, bytes literal."""
    raw = bytes.fromhex(key)
    return {
        key,
        key.upper(),
        base64.b64encode(raw).decode(),
        base64.urlsafe_b64encode(raw).decode(),
        str(int(key, 16)),
        repr(raw)[2:-1],
        repr(bytearray(raw))[12:-2],
    }


def leaks(text: str) -> list[str]:
    return [form for key in (EPHEMERAL, OWNER_KEY) for form in forms(key) if form in text]


def chain(error: BaseException | None) -> str:
    text = ""
    while error is not None:
        text += f"{error}{error!r}{error.__dict__}"
        error = error.__cause__ or error.__context__
    return text


FAULTS: dict[str, Any] = {
    "none": None,
    "refused": RpcError(NodeCode.WRONG_OWNER, "no"),
    "unreachable": ConnectError("gone"),
    "failed": RpcError(NodeCode.KEYGEN_FAILED, "a peer is silent", {"culprits": ["x"]}),
    "bug": ZeroDivisionError(),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("method", ["dan_challenge", "dan_keygen"])
async def test_nothing_secret_is_logged_or_raised(fault: str, method: str, caplog: Any, capfd: Any) -> None:
    """At DEBUG, with asyncio's own debug on and faults injected, no form of either key appears."""
    asyncio.get_running_loop().set_debug(True)
    fake = FakeNetwork(2, 2)
    if FAULTS[fault] is not None:

        async def fail(called: str, params: Any) -> Any:
            if called == method:
                raise FAULTS[fault]

        fake.misbehaviour[fake.operator(1)] = fail
    wallet = LocalWallet(OWNER_KEY)
    client = DanClient(fake.network())
    text = repr(wallet) + str(wallet) + repr(client)
    with caplog.at_level(logging.DEBUG):
        try:
            payload = await client.generate_session_key(
                wallet=wallet, chain_id=1, hardcoded_values={"hexEphSKWithout0x": EPHEMERAL}
            )
            assert payload.hex_eph_sk_without_0x == EPHEMERAL
            text += repr(payload) + str(payload)
        except (DanError, ZeroDivisionError) as error:
            assert fault != "none"
            text += chain(error)
    await client.aclose()
    out, err = capfd.readouterr()
    text += caplog.text + out + err + "".join(repr(record.__dict__) for record in caplog.records)
    assert not leaks(text)


async def test_nothing_secret_is_sent() -> None:
    """Neither key is in any request: only the ephemeral public key and the owner's signature are."""
    fake = FakeNetwork(2, 2)
    client = DanClient(fake.network())
    await client.generate_session_key(
        wallet=LocalWallet(OWNER_KEY), chain_id=1, hardcoded_values={"hexEphSKWithout0x": EPHEMERAL}
    )
    assert fake.calls
    assert not leaks(repr(fake.calls))
    await client.aclose()


async def test_only_the_documented_copies_stay_in_memory() -> None:
    """The payload's text is the only copy left: the key made for the call is wiped, and no buffer has its bytes."""
    fake = FakeNetwork(2, 2)
    client = DanClient(fake.network())
    older = {id(o) for o in gc.get_objects() if isinstance(o, EphemeralKey)}
    payload = await client.generate_session_key(wallet=LocalWallet(OWNER_KEY), chain_id=1)
    for key in [o for o in gc.get_objects() if isinstance(o, EphemeralKey) and id(o) not in older]:
        with pytest.raises(ClientClosedError, match="wiped"):
            key.to_hex()
    raw = bytes.fromhex(payload.hex_eph_sk_without_0x)
    assert not [o for o in gc.get_objects() if isinstance(o, bytearray) and raw in o]
    await client.aclose()
