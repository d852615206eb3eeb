"""Passkeys end to end: registered and used through the gateway and over the nodes, real WebAuthn on every node."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from attrs import evolve

from dan_async import DanClient, GatewayNetwork, LocalWallet
from dan_async.config import Threshold, Timeouts
from dan_async.crypto.address import public_key_to_address
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.deadline import Deadline
from dan_async.devnet import Devnet
from dan_async.errors import (
    GatewayError,
    InvalidFieldError,
    NodeCode,
    QuorumError,
    WalletRefusedError,
    WalletTimeoutError,
)
from dan_async.network import EphemeralKeyChange
from dan_async.protocols.setups import EphemeralClaim
from dan_async.session import DanModuleInfo
from dan_async.types import RequestId
from dan_async.wallets import PasskeyAuth, PasskeyRegister
from tests.helpers import error_of, no_leaks
from tests.passkeys.authenticator import ORIGIN, RP_ID, USER_PRESENT, Authenticator, unb64

#: One event loop for the file, since the devnet lives on it.
pytestmark = pytest.mark.asyncio(loop_scope="module")

PATIENT = Timeouts(total_s=60, attempt_s=30, connect_s=30)
#: Its address is also base64url in its one form, which a credential id could spell.
WALLET = LocalWallet("0x" + "00" * 31 + "12")
ADDRESS = "0x52908400098527886E0F7030069857D2E4169EE7"
REQUEST = {
    "chain_id": 80002,
    "threshold": 2,
    "parties_number": 3,
    "hardcoded_values": {"eoa_address": ADDRESS},
}

Connect = Callable[[Devnet], DanClient]


def gateway(net: Devnet, version: str = "v1") -> DanClient:
    url = net.gateway_url.removesuffix("/v1") + f"/{version}"
    return DanClient(
        GatewayNetwork(url, revision="1", api_version=version, timeouts=PATIENT), timeouts=PATIENT
    )


def found_out(net: Devnet) -> DanClient:
    return DanClient(GatewayNetwork(net.gateway_url, timeouts=PATIENT), timeouts=PATIENT)


def nodes(net: Devnet) -> DanClient:
    return DanClient(net.network(timeouts=PATIENT), timeouts=PATIENT)


WAYS = pytest.mark.parametrize("connect", [gateway, nodes])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def net() -> AsyncIterator[Devnet]:
    """Three nodes and a gateway, for all tests of this file."""
    async with Devnet(threshold=2, parties=3) as devnet:
        async with gateway(devnet) as dan:  # after this the nodes' links to each other stay open
            await dan.generate_session_key(wallet=WALLET, chain_id=1, threshold=2, parties_number=3)
        yield devnet


def registration(device: Authenticator, create: Any = None) -> PasskeyRegister:
    return PasskeyRegister(
        "alice", b"account 1", create or device.create, rp_id=RP_ID, rp_name="Wallet", origin=ORIGIN
    )


def owner(device: Authenticator, get: Any = None, **page: str) -> PasskeyAuth:
    return PasskeyAuth(device.id, get or device.get, **({"rp_id": RP_ID, "origin": ORIGIN} | page))


def change(session: DanModuleInfo) -> EphemeralKeyChange:
    """Ask for another ephemeral key."""
    key = EphemeralKey.generate()
    return EphemeralKeyChange(
        request_id=RequestId("0x" + secrets.token_hex(32)),
        action="add",
        key_id=session.mpc_key_id,
        owner_id="whoever",
        claim=EphemeralClaim(
            eph_id=key.default_id, eph_pk=key.public_key, expiry=int(time.time()) + 60, sign_alg="secp256k1"
        ),
        threshold=Threshold(2, 3),
    )


async def refusal(job: Any) -> str:
    """Run a job that the nodes refuse; give what they said."""
    error = await error_of(job)
    assert isinstance(error, QuorumError | GatewayError)
    return str(error)


@pytest.mark.parametrize("connect", [gateway, found_out, nodes])
async def test_a_passkey_owns_a_key(net: Devnet, connect: Connect) -> None:
    """Registered, then used twice: each key is real, and filed under the given address."""
    device = Authenticator()
    async with no_leaks(), connect(net) as dan:
        assert await dan.register_passkey(registration(device)) == device.id
        for _ in range(2):
            session = await dan.generate_session_key(auth=owner(device), **REQUEST)
            assert session.eoa_address == ADDRESS
            share = net.nodes[0].reveal_share(session.mpc_key_id)
            assert share is not None
            assert public_key_to_address(share.public_key) == session.session_key_eoa


async def test_one_shot(net: Devnet) -> None:
    """In v2 the passkey signs the hash of the setup; registering takes v1."""
    device = Authenticator()
    async with no_leaks(), gateway(net) as dan, gateway(net, "v2") as once:
        with pytest.raises(InvalidFieldError, match="api_version must be v1"):
            await once.register_passkey(registration(device))
        await dan.register_passkey(registration(device))
        session = await once.generate_session_key(auth=owner(device), **REQUEST)
    assert net.nodes[0].reveal_share(session.mpc_key_id) is not None


async def test_the_smart_account_tells_the_address(net: Devnet) -> None:
    """Without a given address the payload has the account's."""

    class Account:
        signer = None
        bundler_url = None
        chain_id = 80002

        async def get_address(self) -> str:
            return ADDRESS

    device = Authenticator()
    request = {name: value for name, value in REQUEST.items() if name != "hardcoded_values"}
    async with nodes(net) as dan:
        await dan.register_passkey(registration(device))
        session = await dan.generate_session_key(
            auth=owner(device), smart_account_client=Account(), **request
        )
        with pytest.raises(InvalidFieldError, match="eoa_address is needed"):
            await dan.generate_session_key(auth=owner(device), **request)
    assert session.eoa_address == ADDRESS


@WAYS
async def test_an_unknown_passkey_is_refused(net: Devnet, connect: Connect) -> None:
    """Nobody owns a key with a passkey that the nodes have not seen."""
    async with no_leaks(), connect(net) as dan:
        said = await refusal(dan.generate_session_key(auth=owner(Authenticator()), **REQUEST))
    assert "passkey is registered" in said or connect is gateway


async def test_another_key_under_the_same_id_is_refused(net: Devnet) -> None:
    """The assertion must verify with the public key that was registered."""
    device = Authenticator()
    thief = Authenticator(credential_id=device.credential_id)
    async with nodes(net) as dan:
        await dan.register_passkey(registration(device))
        said = await refusal(dan.generate_session_key(auth=owner(thief), **REQUEST))
        assert "does not verify" in said
        assert "already" in await refusal(dan.register_passkey(registration(thief)))
        await dan.generate_session_key(auth=owner(device), **REQUEST)


async def test_the_counter_must_go_up(net: Devnet) -> None:
    """A counter that stands still or goes back is a sign of a copy."""
    device = Authenticator()
    async with nodes(net) as dan:
        await dan.register_passkey(registration(device))
        device.sign_count = 6
        await dan.generate_session_key(auth=owner(device), **REQUEST)
        for count in (6, 2):
            device.sign_count = count
            said = await refusal(dan.generate_session_key(auth=owner(device), **REQUEST))
            assert "does not verify" in said
        device.sign_count = 7
        await dan.generate_session_key(auth=owner(device), **REQUEST)


async def test_the_person_must_be_verified(net: Devnet) -> None:
    """Presence alone does, neither to register nor to sign."""
    device = Authenticator()
    device.flags = USER_PRESENT
    async with nodes(net) as dan:
        assert "does not verify" in await refusal(dan.register_passkey(registration(device)))
        device = Authenticator()
        await dan.register_passkey(registration(device))
        device.flags = USER_PRESENT
        assert "does not verify" in await refusal(dan.generate_session_key(auth=owner(device), **REQUEST))


async def test_another_page_is_refused(net: Devnet) -> None:
    """A passkey signs on the page that registered it only, whatever the client says about the page."""
    device = Authenticator()
    async with nodes(net) as dan:
        await dan.register_passkey(registration(device))
        device.origin = "https://evil.wallet.example"
        elsewhere = owner(device, origin=device.origin)
        assert "another page" in await refusal(dan.generate_session_key(auth=elsewhere, **REQUEST))


async def test_another_relying_party_is_refused(net: Devnet) -> None:
    """What the authenticator signed must name the relying party."""
    device = Authenticator()
    async with nodes(net) as dan:
        await dan.register_passkey(registration(device))
        device.rp_id = "evil.example"
        assert "does not verify" in await refusal(dan.generate_session_key(auth=owner(device), **REQUEST))


async def test_an_assertion_for_another_request_is_refused(net: Devnet) -> None:
    """An assertion over an old challenge is worth nothing, though the client lets it pass."""
    device = Authenticator()
    old = PasskeyAuth(device.id, device.get, rp_id=RP_ID, origin=ORIGIN)
    async with nodes(net) as dan:
        await dan.register_passkey(registration(device))
        kept = await old.authorise(challenge="ab" * 32, typed_data={})

        class Replay(PasskeyAuth):
            async def authorise(self, **_: Any) -> str:
                return kept

        replay = Replay(device.id, device.get, rp_id=RP_ID, origin=ORIGIN)
        assert "does not verify" in await refusal(dan.generate_session_key(auth=replay, **REQUEST))


async def test_registering_again(net: Devnet) -> None:
    """The same passkey cannot be registered by a second request."""
    device = Authenticator()
    async with nodes(net) as dan:
        await dan.register_passkey(registration(device))
        assert "already" in await refusal(dan.register_passkey(registration(device)))


@WAYS
async def test_the_person_declines(net: Devnet, connect: Connect) -> None:
    """The error says so, and nothing was registered."""

    async def decline(_: dict[str, Any]) -> None:
        return None

    async with no_leaks(), connect(net) as dan:
        error = await error_of(dan.register_passkey(registration(Authenticator(), decline)))
    assert type(error) is WalletRefusedError


async def test_the_person_is_too_slow(net: Devnet) -> None:
    """The client's limit for wallets holds for passkeys."""

    async def sleep(_: dict[str, Any]) -> None:
        await asyncio.Event().wait()

    device = Authenticator()
    timeouts = Timeouts(total_s=60, wallet_s=0.05)
    async with no_leaks(), DanClient(net.network(), timeouts=timeouts) as dan:
        assert type(await error_of(dan.register_passkey(registration(device, sleep)))) is WalletTimeoutError
        job = dan.generate_session_key(auth=owner(device, sleep), **REQUEST)
        assert type(await error_of(job)) is WalletTimeoutError


async def test_a_gateway_of_old_has_no_passkeys(net: Devnet) -> None:
    """Revision 0.3 cannot register one; nobody is asked."""
    device = Authenticator()
    async with DanClient(GatewayNetwork(net.gateway_url, revision="0.3")) as dan:
        with pytest.raises(InvalidFieldError, match="does not exist in revision"):
            await dan.register_passkey(registration(device))
    assert device.asked == []


async def test_a_passkey_cannot_pass_for_an_address(net: Devnet) -> None:
    """A credential id that spells the owner's address does not own the owner's key."""
    device = Authenticator(credential_id=unb64(WALLET.address))
    assert device.id == WALLET.address
    async with nodes(net) as dan:
        session = await dan.generate_session_key(wallet=WALLET, chain_id=1, threshold=2, parties_number=3)
        await dan.register_passkey(registration(device))
        error = await error_of(
            dan.network.add_ephemeral_key(change(session), owner(device), deadline=Deadline(30))
        )
    assert isinstance(error, QuorumError)
    assert all(outcome.error.code == NodeCode.UNKNOWN_KEY for outcome in error.outcomes)


async def test_a_passkey_adds_and_revokes_an_ephemeral_key(net: Devnet) -> None:
    """The owner of a key changes who uses it; another passkey, whose id differs in the case of a letter, does not."""
    device = Authenticator(credential_id=secrets.token_bytes(33))
    twin = Authenticator(credential_id=unb64(device.id.swapcase()))
    async with nodes(net) as dan:
        for one in (device, twin):
            await dan.register_passkey(registration(one))
        session = await dan.generate_session_key(auth=owner(device), **REQUEST)
        wanted = change(session)
        assert (
            len(
                (
                    await dan.network.add_ephemeral_key(wanted, owner(device), deadline=Deadline(30))
                ).confirmed_by
            )
            == 3
        )
        again = evolve(wanted, request_id="0x" + secrets.token_hex(32), action="revoke")
        error = await error_of(dan.network.revoke_ephemeral_key(again, owner(twin), deadline=Deadline(30)))
        assert isinstance(error, QuorumError)
        report = await dan.network.revoke_ephemeral_key(again, owner(device), deadline=Deadline(30))
        assert len(report.confirmed_by) == 3


async def test_a_passkey_rotates_and_ends_a_session(net: Devnet) -> None:
    """The client's own methods take the owner in place of a wallet; another passkey is refused by the nodes."""
    device, stranger = Authenticator(), Authenticator()
    async with nodes(net) as dan:
        for one in (device, stranger):
            await dan.register_passkey(registration(one))
        session = await dan.generate_session_key(auth=owner(device), **REQUEST)
        assert isinstance(await error_of(dan.add_ephemeral_key(session, auth=owner(stranger))), QuorumError)
        rotated = await dan.add_ephemeral_key(session, auth=owner(device), duration=60)
        accepted = [set(node.ephemeral_key_ids(session.mpc_key_id)) for node in net.nodes]
        assert accepted.count({session.eph_id, rotated.eph_id}) == 3
        report = await dan.revoke_ephemeral_key(rotated, auth=owner(device))
    assert len(report.confirmed_by) == 3
    assert rotated.eoa_address == ADDRESS


async def test_passkeys_survive_a_restart(net: Devnet) -> None:
    """Public keys and counters are on disk before anyone is told."""
    device = Authenticator()
    async with nodes(net) as dan:
        await dan.register_passkey(registration(device))
        device.sign_count = 4
        await dan.generate_session_key(auth=owner(device), **REQUEST)
    for node in net.nodes:
        await node.stop()
    for node in net.nodes:
        await node.start()
    async with nodes(net) as dan:
        device.sign_count = 4
        assert "does not verify" in await refusal(dan.generate_session_key(auth=owner(device), **REQUEST))
        await dan.generate_session_key(auth=owner(device), **REQUEST)
