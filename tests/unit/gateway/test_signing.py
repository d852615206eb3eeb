"""Signing at a scripted gateway: the recorded exchanges byte for byte, and answers that are never returned."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dan_async import DanClient, GatewayNetwork
from dan_async.crypto.address import public_key_to_address
from dan_async.crypto.curve import ORDER, base_multiply, encode
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.crypto.signature import personal_message_digest, recover_address, sign_digest
from dan_async.deadline import Deadline
from dan_async.devnet.gateway import accept
from dan_async.errors import (
    ClientClosedError,
    GatewayError,
    InvalidFieldError,
    ProtocolError,
    SessionExpiredError,
    SignatureCheckError,
)
from dan_async.network import SigningOrder
from dan_async.protocols.results import SigngenResult
from dan_async.protocols.setups import EphemeralClaim
from dan_async.protocols.sign_request import SignRequest
from dan_async.session import DanModuleInfo
from tests.gateway_server import (
    KEY_ID,
    ONCE,
    QUICK,
    VECTORS,
    Visit,
    at_challenge,
    at_result,
    challenge_frame,
    scripted,
)
from tests.helpers import no_leaks

RECORDED = [case for case in VECTORS if case["operation"] == "signgen"]
SECRET = b"\x05" * 32
ADDRESS = public_key_to_address(encode(base_multiply(int.from_bytes(SECRET))))
DIGEST = personal_message_digest(b"hello")
RIGHT = sign_digest(SECRET, DIGEST)
HIGH = RIGHT[:32] + (ORDER - int.from_bytes(RIGHT[32:64])).to_bytes(32) + bytes((55 - RIGHT[64],))
NOW = 1_800_000_000.0


def session(**changes: Any) -> DanModuleInfo:
    """A session of the key that the scripts sign with."""
    values = {
        "session_key_eoa": ADDRESS,
        "mpc_key_id": KEY_ID,
        "hex_eph_sk_without_0x": "33" * 32,
        "eoa_address": "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf",
        "threshold": 2,
        "parties_number": 3,
    }
    return DanModuleInfo(**{**values, **changes})


def client(url: str, revision: str = "0.3", **options: Any) -> DanClient:
    """A client that tries once."""
    network = GatewayNetwork(url, revision=revision, **{"retry": ONCE, "clock": lambda: NOW, **options})
    return DanClient(network, clock=lambda: NOW)


def signing(signature: bytes = RIGHT, **changes: Any) -> Any:
    """Serve a signgen with this signature."""

    async def script(visit: Visit) -> None:
        await visit.receive()
        await visit.send(challenge_frame(visit))
        await visit.receive()
        exchange = accept(visit.operation, visit.frames[0]).read_authentications(visit.frames[1])
        (served,) = exchange.setups.values()
        requests = exchange.protocol.sign_requests(served.setup)
        results = [
            SigngenResult(
                signature=signature[:64],
                recovery_id=signature[64] - 27,
                transaction_id=request.transaction_id,
            )
            for request in requests
        ]
        await visit.send(changes.get("frame") or exchange.protocol.encode_signgen_results(results))
        await visit.gone()

    return script


# --- recorded exchanges -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", RECORDED, ids=[case["name"] for case in RECORDED])
async def test_recorded_exchange(case: dict[str, Any]) -> None:
    """Path and frames are byte for byte those of the TypeScript clients, and so is the signature."""
    inputs, revision = case["inputs"], case["revision"]
    version = inputs.get("api_version", "v1")
    if revision == "1":
        inner = inputs["inner_message"]
    else:
        inner = inputs["message"] if revision == "0.1" else json.loads(inputs["message"])["message"]
    key = EphemeralKey.from_hex(inputs["eph_private_key"], inputs["eph_alg"])
    request = SignRequest(
        request_type="accountAbstractionTx", message=inner, transaction_id=inputs.get("transaction_id", "x")
    )
    order = SigningOrder(
        key_id=inputs["key_id"],
        address=ADDRESS,
        t=inputs["t"],
        claim=EphemeralClaim(
            eph_id=inputs.get("eph_id", key.default_id),
            eph_pk=key.public_key,
            expiry=inputs["now"] + 3600,
            sign_alg=inputs["eph_alg"],
        ),
        owner_id=inputs["eoa"],
        requests=(request,),
        digests=(bytes(32),),
    )

    async def script(visit: Visit) -> None:
        for reply in case["server_replies"]:
            await visit.receive()
            await visit.send(reply)
        await visit.gone()

    async with no_leaks(), scripted(script) as gateway:
        network = GatewayNetwork(
            gateway.url(version),
            revision=revision,
            api_version=version,
            retry=ONCE,
            clock=lambda: float(inputs["now"]),
        )
        (signature,) = await network.signgen(order, key, deadline=Deadline(10))
        await network.aclose()
    (visit,) = gateway.visits
    assert visit.path_qs == case["path"]
    assert visit.frames == case["frames"]
    said = case["result"][0] if isinstance(case["result"], list) else case["result"]
    assert signature.hex() == f"{said['sign']}{27 + said['recid']:02x}"


def test_the_recordings_are_there() -> None:
    """Every signgen of every revision and form."""
    assert len(RECORDED) == 18


# --- what the gateway gives -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("revision", ["0.3", "1"])
async def test_a_right_signature_is_returned(revision: str) -> None:
    """In the form that users want."""
    async with no_leaks(), scripted(signing()) as gateway, client(gateway.url(), revision) as dan:
        assert await dan.sign_message("hello", session()) == "0x" + RIGHT.hex()


async def test_a_high_s_is_made_low() -> None:
    """Contracts refuse high ones (EIP-2)."""
    assert recover_address(DIGEST, HIGH) == ADDRESS
    async with scripted(signing(HIGH)) as gateway, client(gateway.url()) as dan:
        assert await dan.sign_message("hello", session()) == "0x" + RIGHT.hex()


WRONG = {
    "another key": sign_digest(b"\x06" * 32, DIGEST),
    "another message": sign_digest(SECRET, bytes(32)),
    "a flipped bit": RIGHT[:40] + bytes((RIGHT[40] ^ 1,)) + RIGHT[41:],
    "the other recovery id": RIGHT[:64] + bytes((55 - RIGHT[64],)),
    "r of 0": bytes(32) + RIGHT[32:],
    "s of 0": RIGHT[:32] + bytes(32) + RIGHT[64:],
    "s beyond the order": RIGHT[:32] + b"\xff" * 32 + RIGHT[64:],
    "r beyond the order": b"\xff" * 32 + RIGHT[32:],
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
async def test_a_wrong_signature_is_never_returned(wrong: bytes) -> None:
    """Nor shown in the error."""
    async with scripted(signing(wrong)) as gateway, client(gateway.url()) as dan:
        with pytest.raises(SignatureCheckError, match="does not recover") as caught:
            await dan.sign_message("hello", session())
    assert wrong.hex()[:64] not in str(caught.value)


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "ok",
        "sign=00:recid=0",
        f"sign={RIGHT[:64].hex()}:recid=2",
        f"sign={RIGHT[:64].hex()}:recid=0:recid=0",
        f"sign={RIGHT[:64].hex()}:recid=0;sign={RIGHT[:64].hex()}:recid=0",
        f"sign={RIGHT[:64].hex()}:recid=0:transactionId=x",
        "keyId=1:publicKey=2",
    ],
)
async def test_a_result_that_is_none_is_a_protocol_error(frame: str) -> None:
    """The strict grammar of results."""
    async with scripted(signing(frame=frame or " ")) as gateway, client(gateway.url()) as dan:
        with pytest.raises(ProtocolError):
            await dan.sign_message("hello", session())


async def test_it_is_tried_again_also_after_the_authentication() -> None:
    """A message signed twice is no more signed than before; each time over a new challenge."""

    async def break_off(visit: Visit) -> None:
        await visit.receive()
        await visit.send(challenge_frame(visit))
        await visit.receive()
        visit.abort()

    async with scripted(break_off, break_off, signing()) as gateway:
        async with client(gateway.url(), retry=QUICK) as dan:
            assert await dan.sign_message("hello", session()) == "0x" + RIGHT.hex()
        assert len(gateway.visits) == 3
        assert len({visit.frames[1] for visit in gateway.visits}) == 3


async def test_a_refusal_says_what_may_be_wrong() -> None:
    """Gateways do not tell; the hint lists what is likely."""

    async def refuse(visit: Visit) -> None:
        await visit.receive()
        await visit.send(challenge_frame(visit))
        await visit.receive()
        await visit.leave(4403, "ephemeral key was revoked")

    async with scripted(refuse) as gateway, client(gateway.url()) as dan:
        with pytest.raises(GatewayError, match="revoked") as caught:
            await dan.sign_message("hello", session())
    assert caught.value.phase == "result"
    assert not caught.value.retryable


@pytest.mark.parametrize("code", [1012, 4429, 4502])
@pytest.mark.parametrize("at", [at_challenge, at_result])
async def test_a_gateway_in_trouble_is_not_said_to_refuse(at: Any, code: int) -> None:
    """The hint speaks of the gateway's own condition, not of a request that it may not accept."""

    async def trouble(visit: Visit) -> None:
        await visit.leave(code, "later")

    async with scripted(at(trouble)) as gateway, client(gateway.url()) as dan:
        with pytest.raises(GatewayError) as caught:
            await dan.sign_message("hello", session())
    assert (caught.value.close_code, caught.value.retryable) == (code, True)
    assert "had a problem or too much to do" in caught.value.hint
    assert "may not accept" not in caught.value.hint


# --- nothing is sent --------------------------------------------------------------------------------------------------


async def test_what_the_revision_cannot_carry_sends_nothing() -> None:
    """Text in 0.1, and a secp256k1 ephemeral key before revision 1."""
    async with scripted(signing()) as gateway:
        async with client(gateway.url(), "0.1") as dan:
            with pytest.raises(InvalidFieldError, match=r"0\.1"):
                await dan.sign_message("hello", session())
        async with client(gateway.url(), "0.3") as dan:
            with pytest.raises(InvalidFieldError, match="eph_alg"):
                await dan.sign_message("hello", session(eph_alg="secp256k1"))
        assert not gateway.requests


async def test_an_expired_session_sends_nothing() -> None:
    """Not even a connection is made."""
    async with scripted(signing()) as gateway, client(gateway.url()) as dan:
        with pytest.raises(SessionExpiredError):
            await dan.sign_message("hello", session(expires_at=int(NOW)))
        assert not gateway.requests


async def test_a_closed_network_signs_nothing() -> None:
    """And says so."""
    dan = client("wss://gateway.example/v1")
    network = dan.network
    await dan.aclose()
    with pytest.raises(ClientClosedError):
        await network.signgen(None, None, deadline=Deadline(1))  # type: ignore[arg-type]  # it does not come so far


async def test_the_claim_says_when_the_session_ends() -> None:
    """The one that the owner signed, where the session knows it; an hour from now otherwise."""
    async with scripted(signing()) as gateway, client(gateway.url()) as dan:
        await dan.sign_message("hello", session(expires_at=int(NOW) + 77))
        await dan.sign_message("hello", session())
        credentials = [
            json.loads(json.loads(visit.frames[1])["credentials"]["credentials"]) for visit in gateway.visits
        ]
    assert [claim["expiry"] for claim in credentials] == [int(NOW) + 77, int(NOW) + 3600]
