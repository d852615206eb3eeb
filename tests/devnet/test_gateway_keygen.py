"""Keys over the devnet's gateway: every revision, challenge and response and one-shot, on real nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from coincurve import PrivateKey

from dan_async import CallbackWallet, DanClient, GatewayNetwork, LocalWallet
from dan_async.config import Timeouts, TransportOptions
from dan_async.crypto.address import public_key_to_address
from dan_async.devnet import Devnet
from dan_async.errors import GatewayError, InvalidFieldError, WrongSignerError
from dan_async.retry import RetryPolicy
from tests.helpers import error_of, no_leaks
from tests.interpolation import interpolate_scalar

#: One event loop for the file, since the devnet lives on it.
pytestmark = pytest.mark.asyncio(loop_scope="module")

WALLET = LocalWallet("0x" + "00" * 31 + "01")
PATIENT = Timeouts(total_s=60, attempt_s=30, connect_s=30)
PARTIES = {"threshold": 2, "parties_number": 3}

#: Every revision that can be told, in each form it has; and the one that is found out.
WAYS = [("0.1", "v1"), ("0.3", "v1"), ("1", "v1"), ("1", "v2"), (None, "v1")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def net() -> AsyncIterator[Devnet]:
    """Three nodes and a gateway, for all tests of this file."""
    async with Devnet(threshold=2, parties=3) as devnet:
        async with connect(devnet, "1") as dan:  # after this the nodes' links to each other stay open
            await dan.generate_session_key(wallet=WALLET, chain_id=1, **PARTIES)
        yield devnet


def connect(net: Devnet, revision: str | None = None, version: str = "v1", **options: Any) -> DanClient:
    """Make a client of the devnet's gateway."""
    url = net.gateway_url.removesuffix("/v1") + f"/{version}"
    network = GatewayNetwork(url, revision=revision, api_version=version, timeouts=PATIENT, **options)
    return DanClient(network, timeouts=PATIENT)


def shared_key(net: Devnet, key_id: str) -> str:
    """The address of the private key that two of the nodes' shares make."""
    shares = [node.reveal_share(key_id) for node in net.nodes]
    assert all(share is not None for share in shares)
    secret = interpolate_scalar({share.index: share.secret_share for share in shares[1:]})
    return public_key_to_address(PrivateKey(secret.to_bytes(32, "big")).public_key.format())


@pytest.mark.parametrize(("revision", "version"), WAYS)
async def test_the_key_is_real(net: Devnet, revision: str | None, version: str) -> None:
    """The nodes hold shares of the very key whose address the gateway's client got."""
    async with no_leaks(), connect(net, revision, version) as dan:
        session = await dan.generate_session_key(
            wallet=WALLET, chain_id=80002, permissions={"permissions": []}, **PARTIES
        )
    assert (session.threshold, session.parties_number) == (2, 3)
    assert session.session_key_eoa == shared_key(net, session.mpc_key_id)


@pytest.mark.parametrize("algorithm", ["ed25519", "secp256k1"])
@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_ephemeral_keys_of_revision_1(net: Devnet, algorithm: Any, version: str) -> None:
    """Revision 1 takes both kinds."""
    async with no_leaks(), connect(net, "1", version) as dan:
        session = await dan.generate_session_key(wallet=WALLET, chain_id=80002, eph_alg=algorithm, **PARTIES)
    assert session.eph_alg == algorithm
    assert session.session_key_eoa == shared_key(net, session.mpc_key_id)


@pytest.mark.parametrize(("revision", "version"), [way for way in WAYS if way[0] != "0.1"])
async def test_adding_and_revoking_an_ephemeral_key(net: Devnet, revision: str | None, version: str) -> None:
    """A second ephemeral key for the same key; revoked where the revision can."""
    async with no_leaks(), connect(net, revision, version) as dan:
        session = await dan.generate_session_key(wallet=WALLET, chain_id=80002, **PARTIES)
        added = await dan.add_ephemeral_key(session, wallet=WALLET)
        assert added.mpc_key_id == session.mpc_key_id
        assert added.hex_eph_sk_without_0x != session.hex_eph_sk_without_0x
        if revision == "0.3":
            with pytest.raises(InvalidFieldError, match="does not exist"):
                await dan.revoke_ephemeral_key(added, wallet=WALLET)
        else:
            await dan.revoke_ephemeral_key(added, wallet=WALLET)
            await dan.revoke_ephemeral_key(added, wallet=WALLET)  # no harm in a second time


async def test_only_the_owner_can_add_an_ephemeral_key(net: Devnet) -> None:
    """The nodes refuse another owner's signature; the gateway says so."""
    stranger = LocalWallet("0x" + "00" * 31 + "02")
    async with no_leaks(), connect(net, "1") as dan:
        session = await dan.generate_session_key(wallet=WALLET, chain_id=80002, **PARTIES)
        fields = session.to_dict() | {"eoaAddress": stranger.address}
        error = await error_of(dan.add_ephemeral_key(type(session).from_dict(fields), wallet=stranger))
    assert type(error) is GatewayError
    assert error.phase == "result"
    assert not error.retryable
    assert error.close_code is not None


async def test_the_revision_is_found_out_once(net: Devnet) -> None:
    """The devnet speaks the newest; after the first key it is known."""
    async with no_leaks(), connect(net) as dan:
        assert dan.network.revision is None
        await dan.generate_session_key(wallet=WALLET, chain_id=80002, **PARTIES)
        assert dan.network.revision == "1"


async def test_concurrent_keygens(net: Devnet) -> None:
    """Each call gets a key of its own, and the nodes hold each."""
    async with no_leaks(), connect(net) as dan:
        sessions = await asyncio.gather(
            *(dan.generate_session_key(wallet=WALLET, chain_id=80002, **PARTIES) for _ in range(8))
        )
    assert len({session.session_key_eoa for session in sessions}) == 8
    for session in sessions:
        assert session.session_key_eoa == shared_key(net, session.mpc_key_id)


async def test_a_person_may_take_their_time(net: Devnet) -> None:
    """An interactive wallet that is slower than the deadline still gets its key."""

    async def sign(typed_data: Any) -> str:
        await asyncio.sleep(1.0)
        return await WALLET.sign_typed_data(typed_data)

    wallet = CallbackWallet(WALLET.address, sign)
    async with no_leaks(), connect(net, "1") as dan:
        session = await dan.generate_session_key(wallet=wallet, chain_id=80002, timeout=20, **PARTIES)
    assert session.session_key_eoa == shared_key(net, session.mpc_key_id)


async def test_a_wrong_signature_is_never_sent(net: Devnet) -> None:
    """A wallet that signs with another key is found out by the client."""
    other = LocalWallet("0x" + "00" * 31 + "03")
    wallet = CallbackWallet(WALLET.address, other.sign_typed_data)
    async with no_leaks(), connect(net, "0.3") as dan:
        assert type(await error_of(dan.generate_session_key(wallet=wallet, chain_id=1, **PARTIES))) is (
            WrongSignerError
        )


async def test_more_parties_than_there_are_nodes(net: Devnet) -> None:
    """The gateway cannot do it and says so before the wallet is asked."""

    async def sign(typed_data: Any) -> str:
        raise AssertionError("asked")

    wallet = CallbackWallet(WALLET.address, sign)
    async with no_leaks(), connect(net, "1", retry=RetryPolicy(attempts=1)) as dan:
        error = await error_of(dan.generate_session_key(wallet=wallet, chain_id=1))  # 3-of-5
    assert type(error) is GatewayError
    assert (error.phase, error.attempts) == ("challenge", 1)
    assert "3 nodes are ready for key generation, 5 are needed" in error.message


async def test_several_gateways_with_tokens(net: Devnet) -> None:
    """Another gateway in front of the same nodes, which wants a token: refused without, served with."""
    url = await net.add_gateway(token="sesame-sesame")
    headers = {"Authorization": "Bearer sesame-sesame"}
    async with DanClient(GatewayNetwork(url, timeouts=PATIENT), timeouts=PATIENT) as dan:
        error = await error_of(dan.generate_session_key(wallet=WALLET, chain_id=1, **PARTIES))
    assert type(error) is GatewayError
    assert (error.phase, error.status) == ("connect", 401)
    assert "headers" in error.hint
    network = GatewayNetwork(url, timeouts=PATIENT, options=TransportOptions(headers=headers))
    async with DanClient(network, timeouts=PATIENT) as dan:
        session = await dan.generate_session_key(wallet=WALLET, chain_id=1, **PARTIES)
    assert session.session_key_eoa == shared_key(net, session.mpc_key_id)


async def test_health(net: Devnet) -> None:
    """The gateway is up."""
    async with no_leaks(), connect(net) as dan:
        assert (await dan.network.health()).live == 1


@pytest.mark.long
async def test_three_of_five_with_a_node_down() -> None:
    """A gateway cannot make a key of five parties with four nodes; once the fifth is back it can."""
    async with Devnet(threshold=3, parties=5) as devnet:
        async with connect(devnet, "1") as dan:
            await devnet.nodes[4].stop()
            error = await error_of(dan.generate_session_key(wallet=WALLET, chain_id=1))
            assert type(error) is GatewayError
            assert error.phase == "challenge"
            assert error.retryable
            assert error.attempts == 3
            await devnet.nodes[4].start()
            session = await dan.generate_session_key(wallet=WALLET, chain_id=1)
        assert session.session_key_eoa == shared_key(devnet, session.mpc_key_id)
