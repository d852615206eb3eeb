"""sign_message on real nodes: any t of them, nobody else, whatever fails meanwhile; and in every revision of the gateway."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from itertools import combinations
from typing import Any

import pytest
import pytest_asyncio
from attrs import evolve
from eth_account import Account
from eth_account.messages import encode_defunct, encode_typed_data

from dan_async import DanClient, GatewayNetwork, LocalWallet, NodeNetwork, Threshold
from dan_async.config import Timeouts
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.deadline import Deadline
from dan_async.devnet import (
    ContradictInSigning,
    CrashInSigning,
    Delay,
    Devnet,
    DropRequest,
    ForgeCommitments,
    NodeLimits,
    SilentInSigning,
    WrongSignatureShare,
)
from dan_async.errors import (
    EphemeralKeyRefusedError,
    GatewayError,
    InvalidFieldError,
    NotPermittedError,
    PermissionDeniedError,
    QuorumError,
)
from dan_async.jobs.sign_message import message_request
from dan_async.network import SigningOrder
from dan_async.nodes import SigningOptions
from dan_async.nodes.health import rank
from dan_async.protocols.setups import EphemeralClaim
from dan_async.protocols.sign_request import sign_request_digest
from dan_async.session import DanModuleInfo, DanSessionKeyPayload
from tests.helpers import assert_runs_under

pytestmark = pytest.mark.asyncio(loop_scope="module")

OWNER = LocalWallet("0x" + "00" * 31 + "07")
PATIENT = Timeouts(total_s=50, attempt_s=30, connect_s=20)
LIMITS = NodeLimits(sign_round_s=8.0, stop_grace_s=0.1)
TYPED_DATA = {
    "types": {
        "EIP712Domain": [{"name": "name", "type": "string"}],
        "Order": [{"name": "amount", "type": "uint256"}],
    },
    "domain": {"name": "é"},
    "primaryType": "Order",
    "message": {"amount": 2**200},
}
OPERATION = {
    "userOperation": {
        "sender": "0x9c5754De1443984659E1b3a8d1931D83475ba29C",
        "nonce": "1",
        "initCode": "",
        "callData": "b61d27f6",
        "callGasLimit": "100000",
        "verificationGasLimit": "0x186a0",
        "preVerificationGas": "0xc350",
        "maxFeePerGas": "0x3b9aca00",
        "maxPriorityFeePerGas": "0x3b9aca00",
        "paymasterAndData": "0x",
        "signature": "0x",
    },
    "entryPointVersion": "v0.6.0",
    "entryPointAddress": "0x5FF137D4b0FDCD49DcA30c7CF57E578a026d2789",
    "chainId": 80002,
}
TWO_OF_THREE: dict[str, Any] = {"threshold": 2, "parties_number": 3}
WAYS = [("0.1", "v1"), ("0.3", "v1"), ("1", "v1"), ("1", "v2")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def net() -> AsyncIterator[Devnet]:
    """Five nodes and a gateway, for all tests of this file."""
    async with Devnet(threshold=3, parties=5, limits=LIMITS) as devnet:
        yield devnet


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session(net: Devnet) -> DanSessionKeyPayload:
    """A session of three of five."""
    async with direct(net) as dan:
        return await dan.generate_session_key(wallet=OWNER, chain_id=80002)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def trio() -> AsyncIterator[Devnet]:
    """Three nodes that may come to harm."""
    async with Devnet(threshold=2, parties=3, limits=LIMITS) as devnet:
        yield devnet


def direct(net: Devnet, indices: Any = range(5), **options: Any) -> DanClient:
    """A client of some of the nodes."""
    endpoints = [net.endpoints[index] for index in indices]
    network = NodeNetwork(endpoints, threshold=Threshold(3, 5), timeouts=PATIENT, **options)
    return DanClient(network, timeouts=PATIENT)


def gateway(net: Devnet, revision: str, version: str = "v1") -> DanClient:
    """A client of the gateway."""
    url = net.gateway_url.removesuffix("/v1") + f"/{version}"
    network = GatewayNetwork(
        url, revision=revision, api_version=version, timeouts=PATIENT, threshold=Threshold(3, 5)
    )
    return DanClient(network, timeouts=PATIENT)


def signer_of(text: str, signature: str) -> str:
    """Who signed a text, as eth-account sees it."""
    address: str = Account.recover_message(encode_defunct(text=text), signature=signature)
    return address


# --- any t of n -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("three", list(combinations(range(5), 3)), ids=str)
async def test_any_three_of_five_sign(net: Devnet, session: DanSessionKeyPayload, three: Any) -> None:
    """All ten subsets."""
    async with direct(net, three) as dan:
        signature = await dan.sign_message("hello", session)
    assert signer_of("hello", signature) == session.session_key_eoa


async def test_two_of_five_never_sign(net: Devnet, session: DanSessionKeyPayload) -> None:
    """Neither when asked for three, nor when asked to do with two."""
    async with direct(net, (0, 1)) as dan:
        with pytest.raises(QuorumError):
            await dan.sign_message("hello", session)
        with pytest.raises(QuorumError):
            await dan.sign_message("hello", evolve(session, threshold=2, parties_number=2))


async def test_every_kind_of_message(net: Devnet, session: DanSessionKeyPayload) -> None:
    """Text, typed data, a digest, a user operation."""
    async with direct(net) as dan:
        typed = await dan.sign_message(TYPED_DATA, session)
        raw = await dan.sign_message(b"\xab" * 32, session, request_type="rawBytes")
        operation = await dan.sign_message(OPERATION, session)
    address = session.session_key_eoa
    assert Account.recover_message(encode_typed_data(full_message=TYPED_DATA), signature=typed) == address
    assert Account._recover_hash(b"\xab" * 32, signature=raw) == address
    digest = sign_request_digest(message_request(OPERATION))
    assert Account._recover_hash(digest, signature=operation) == address


async def test_nodes_that_do_not_hold_the_key_are_left_out(net: Devnet) -> None:
    """In a pool that is larger than n."""
    async with direct(net, (0, 1, 2)) as dan:
        session = await dan.generate_session_key(wallet=OWNER, chain_id=80002, threshold=2, parties_number=2)
    async with direct(net) as dan:
        for _ in range(2):
            signature = await dan.sign_message("hello", session)
            assert signer_of("hello", signature) == session.session_key_eoa


async def test_many_at_the_same_time(net: Devnet, session: DanSessionKeyPayload) -> None:
    """Each caller gets the signature of its own message."""
    async with direct(net) as dan:
        texts = [f"message {i}" for i in range(8)]
        signatures = await asyncio.gather(*(dan.sign_message(text, session) for text in texts))
    for text, signature in zip(texts, signatures, strict=True):
        assert signer_of(text, signature) == session.session_key_eoa
    assert len({signature[:66] for signature in signatures}) == len(texts)


async def test_a_stock_makes_it_one_round_trip(net: Devnet, session: DanSessionKeyPayload) -> None:
    """The third signature finds presignatures that were made ahead, and asks for nothing but shares."""
    async with direct(net) as dan:
        for _ in range(2):
            await dan.sign_message("hello", session)
        stock = dan.network.pool.signer.stock
        async with asyncio.timeout(10):
            while not len(stock):
                await asyncio.sleep(0.01)
        before = len(stock)
        await dan.sign_message("hello", session)
        assert len(stock) == before - 1


# --- the ephemeral key ------------------------------------------------------------------------------------------------


async def test_a_revoked_key_signs_nothing(net: Devnet) -> None:
    """Not with what was made ahead either."""
    async with direct(net) as dan:
        session = await dan.generate_session_key(wallet=OWNER, chain_id=80002)
        for _ in range(3):
            await dan.sign_message("hello", session)
        await dan.revoke_ephemeral_key(session, wallet=OWNER)
        with pytest.raises(EphemeralKeyRefusedError) as caught:
            await dan.sign_message("hello", session)
    assert not caught.value.retryable
    assert "revoked" in str(caught.value)
    for revision, version in (("1", "v1"), ("1", "v2")):
        async with gateway(net, revision, version) as dan:
            with pytest.raises(GatewayError):
                await dan.sign_message("hello", session)


async def test_an_expired_key_signs_nothing(net: Devnet) -> None:
    """The nodes keep the time that the owner signed, whatever the session says."""
    async with direct(net) as dan:
        session = await dan.generate_session_key(wallet=OWNER, chain_id=80002, duration=2)
        await asyncio.sleep(session.expires_at - time.time() + 0.05)
        forged = evolve(session, expires_at=session.expires_at + 3600)
        with pytest.raises(EphemeralKeyRefusedError):
            await dan.sign_message("hello", forged)


async def test_a_key_that_was_never_registered_signs_nothing(net: Devnet, session: Any) -> None:
    """Whoever knows the key id has nothing."""
    async with direct(net) as dan:
        with pytest.raises(EphemeralKeyRefusedError):
            await dan.sign_message("hello", evolve(session, hex_eph_sk_without_0x="11" * 32, eph_id=None))
        with pytest.raises(QuorumError):
            await dan.sign_message("hello", evolve(session, hex_eph_sk_without_0x="11" * 32))


async def test_a_rotated_session_signs_with_the_same_address(net: Devnet, session: Any) -> None:
    """An added ephemeral key is as good as the first."""
    async with direct(net) as dan:
        rotated = await dan.add_ephemeral_key(session, wallet=OWNER)
        signature = await dan.sign_message("hello", rotated)
    assert signer_of("hello", signature) == session.session_key_eoa


# --- failures ---------------------------------------------------------------------------------------------------------

TROUBLE = [
    CrashInSigning(at_round=1),
    CrashInSigning(at_round=2),
    SilentInSigning(round=1),
    SilentInSigning(round=2),
    ContradictInSigning(),
    ForgeCommitments(),
    WrongSignatureShare(),
    DropRequest(methods=["dan_presign"]),
    DropRequest(methods=["dan_sign"]),
    Delay(seconds=30, methods=["dan_sign"]),
]


@pytest.mark.parametrize("fault", TROUBLE, ids=lambda fault: str(fault).replace(" ", ""))
async def test_one_node_in_trouble_does_not_stop_the_others(trio: Devnet, fault: Any) -> None:
    """Another t finish the job, within the deadline."""
    async with DanClient(NodeNetwork(trio.endpoints, timeouts=PATIENT), timeouts=PATIENT) as dan:
        session = await dan.generate_session_key(wallet=OWNER, chain_id=1, **TWO_OF_THREE)
        await dan.sign_message("first", session)
        best = rank(dan.network.pool.nodes)[0].operator  # who is asked next
        victim = next(node for node in trio.nodes if node.operator == best)
        trio.faults[victim.index] = fault
        try:
            async with assert_runs_under(40):
                for i in range(4):
                    signature = await dan.sign_message(f"message {i}", session)
                    assert signer_of(f"message {i}", signature) == session.session_key_eoa
        finally:
            trio.faults[victim.index] = None
            await victim.start()


async def test_too_many_nodes_in_trouble_is_an_error_that_says_so(trio: Devnet) -> None:
    """Two of three are down: nobody signs, and the error names them."""
    async with DanClient(NodeNetwork(trio.endpoints, timeouts=PATIENT), timeouts=PATIENT) as dan:
        session = await dan.generate_session_key(wallet=OWNER, chain_id=1, **TWO_OF_THREE)
        for node in trio.nodes[:2]:
            await node.stop()
        try:
            with pytest.raises(QuorumError) as caught:
                await dan.sign_message("hello", session)
        finally:
            for node in trio.nodes[:2]:
                await node.start()
    assert trio.nodes[0].operator in str(caught.value)


async def test_a_session_signs_after_its_nodes_were_restarted(tmp_path: Any) -> None:
    """What was made ahead is gone with the nodes; new ones are made."""
    async with Devnet(threshold=2, parties=2, limits=LIMITS, storage=tmp_path) as net:
        async with DanClient(net, timeouts=PATIENT) as dan:
            session = await dan.generate_session_key(wallet=OWNER, chain_id=1)
            for _ in range(3):
                await dan.sign_message("hello", session)
            for node in net.nodes:
                await node.stop()
                await node.start()
            signature = await dan.sign_message("again", session)
    assert signer_of("again", signature) == session.session_key_eoa


# --- the gateway ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("revision", "version"), WAYS)
async def test_every_revision_generates_and_signs(net: Devnet, revision: str, version: str) -> None:
    """Each in its own form; revision 0.1 has user operations only."""
    async with gateway(net, revision, version) as dan:
        session = await dan.generate_session_key(wallet=OWNER, chain_id=80002)
        signature = await dan.sign_message(OPERATION, session)
        digest = sign_request_digest(message_request(OPERATION))
        assert Account._recover_hash(digest, signature=signature) == session.session_key_eoa
        if revision == "0.1":
            with pytest.raises(InvalidFieldError, match=r"0\.1"):
                await dan.sign_message("hello", session)
        else:
            assert signer_of("hello", await dan.sign_message("hello", session)) == session.session_key_eoa


@pytest.mark.parametrize(("revision", "version"), WAYS)
async def test_a_session_of_the_gateway_signs_over_the_nodes(
    net: Devnet, revision: str, version: str
) -> None:
    """And one of the nodes over the gateway, if it takes the ephemeral key."""
    async with gateway(net, revision, version) as far, direct(net) as near:
        session = await far.generate_session_key(wallet=OWNER, chain_id=80002)
        for known in (session, DanModuleInfo.from_dict(session.to_dict())):
            assert signer_of("hello", await near.sign_message("hello", known)) == session.session_key_eoa
        if revision != "0.1":
            session = await near.generate_session_key(wallet=OWNER, chain_id=80002, eph_alg="ed25519")
            assert signer_of("hello", await far.sign_message("hello", session)) == session.session_key_eoa


@pytest.mark.parametrize("way", ["nodes", "gateway v1", "gateway v2"])
async def test_several_messages_are_signed_in_one_request(net: Devnet, session: Any, way: str) -> None:
    """Each with a nonce of its own; the signatures come in the order of the messages."""
    client = direct(net) if way == "nodes" else gateway(net, "1", way[-2:])
    requests = tuple(message_request(f"message {i}") for i in range(3))
    async with client as dan:
        with EphemeralKey.from_hex(session.hex_eph_sk_without_0x) as key:
            order = SigningOrder(
                key_id=session.mpc_key_id,
                address=session.session_key_eoa,
                t=3,
                claim=EphemeralClaim(
                    eph_id=session.eph_id,
                    eph_pk=key.public_key,
                    expiry=session.expires_at,
                    sign_alg="secp256k1",
                ),
                owner_id=session.eoa_address,
                requests=requests,
                digests=tuple(map(sign_request_digest, requests)),
            )
            signatures = order.check(await dan.network.signgen(order, key, deadline=Deadline(40)))
    for i, signature in enumerate(signatures):
        assert signer_of(f"message {i}", signature) == session.session_key_eoa
    assert len({signature[:66] for signature in signatures}) == 3


async def test_the_fields_of_the_seed_are_enough_for_the_gateway(net: Devnet) -> None:
    """The payload as TypeScript stores it."""
    async with gateway(net, "0.3") as dan:
        session = await dan.generate_session_key(wallet=OWNER, chain_id=80002)
        seven = DanModuleInfo.from_dict(session.to_dict())
        assert signer_of("hello", await dan.sign_message("hello", seven)) == session.session_key_eoa


async def test_the_gateway_goes_on_when_a_node_fails_after_the_challenge(trio: Devnet) -> None:
    """Its client signs once; other nodes take over."""
    async with gateway(trio, "0.3") as dan:
        session = await dan.generate_session_key(wallet=OWNER, chain_id=1, **TWO_OF_THREE)
        trio.faults[1] = WrongSignatureShare()
        try:
            async with assert_runs_under(40):
                for i in range(3):
                    signature = await dan.sign_message(f"message {i}", session)
                    assert signer_of(f"message {i}", signature) == session.session_key_eoa
        finally:
            trio.faults[1] = None


async def test_no_stock_no_background_work(net: Devnet, session: DanSessionKeyPayload) -> None:
    """With a stock of 0 nothing is made ahead."""
    async with direct(net, signing=SigningOptions(stock=0)) as dan:
        for _ in range(3):
            await dan.sign_message("hello", session)
        assert not len(dan.network.pool.signer.stock)
        assert not dan.network.pool.signer._refills


# --- permissions ------------------------------------------------------------------------------------------------------


async def test_what_the_owner_did_not_permit_is_not_signed(net: Devnet) -> None:
    """Every node says no; the error has their words, and is a permission error too."""
    async with direct(net) as dan:
        session = await dan.generate_session_key(
            wallet=OWNER, chain_id=80002, permissions={"permissions": []}
        )
        with pytest.raises(NotPermittedError) as caught:
            await dan.sign_message("hello", session)
    assert isinstance(caught.value, PermissionDeniedError)
    assert len(caught.value.nodes) >= 3
