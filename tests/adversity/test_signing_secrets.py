"""The ephemeral key while signing: it may stand in the session, and nowhere else."""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import Any

import pytest

from dan_async import DanClient, EphemeralKey
from dan_async.errors import ClientClosedError, ConnectError, DanError, NodeCode, RpcError
from tests.adversity.test_secrets import EPHEMERAL, chain, leaks
from tests.fake_signing import SigningNetwork
from tests.gateway_server import scripted
from tests.unit.gateway.test_signing import client as gateway_client
from tests.unit.gateway.test_signing import session, signing

FAULTS: dict[str, Any] = {
    "none": None,
    "refused": RpcError(NodeCode.EPHEMERAL_KEY_REFUSED, "no"),
    "unreachable": ConnectError("gone"),
    "failed": RpcError(NodeCode.SIGNING_FAILED, "a peer is silent", {"culprits": ["x"]}),
    "bug": ZeroDivisionError(),
}


@pytest.fixture
def net() -> SigningNetwork:
    found = SigningNetwork(2, 2)
    found.ephemeral = EphemeralKey.from_hex(EPHEMERAL)
    return found


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("method", ["dan_presign", "dan_sign"])
async def test_nothing_secret_is_logged_raised_or_sent(
    net: SigningNetwork, fault: str, method: str, caplog: Any, capfd: Any
) -> None:
    """At DEBUG, with asyncio's own debug on and faults injected, no form of the key appears."""
    asyncio.get_running_loop().set_debug(True)
    if FAULTS[fault] is not None:

        async def fail(called: str, params: Any) -> Any:
            if called == method:
                raise FAULTS[fault]

        net.misbehaviour[net.operator(1)] = fail
    text = ""
    dan = DanClient(net.network(), clock=lambda: net.now)
    with caplog.at_level(logging.DEBUG):
        try:
            await dan.sign_message("hello", net.session(eph_alg="secp256k1"))
        except (DanError, ZeroDivisionError) as error:
            assert fault != "none"
            text += chain(error)
    await dan.aclose()
    out, err = capfd.readouterr()
    text += caplog.text + out + err + "".join(repr(record.__dict__) for record in caplog.records)
    text += repr(net.calls)
    assert net.calls
    assert not leaks(text)


async def test_nothing_secret_is_sent_to_a_gateway(caplog: Any) -> None:
    """Nor logged there."""
    async with scripted(signing()) as gateway, gateway_client(gateway.url()) as dan:
        with caplog.at_level(logging.DEBUG):
            await dan.sign_message("hello", session(hex_eph_sk_without_0x=EPHEMERAL))
        assert not leaks(caplog.text + "".join(frame for visit in gateway.visits for frame in visit.frames))


async def test_the_key_that_was_made_for_the_call_is_wiped(net: SigningNetwork) -> None:
    """Also when presignatures are still being made in the background."""
    dan = DanClient(net.network(), clock=lambda: net.now)
    older = {id(o) for o in gc.get_objects() if isinstance(o, EphemeralKey)}
    for _ in range(3):
        await dan.sign_message("hello", net.session())
    for key in [o for o in gc.get_objects() if isinstance(o, EphemeralKey) and id(o) not in older]:
        with pytest.raises(ClientClosedError, match="wiped"):
            key.to_hex()
    await dan.aclose()
