"""Adding and revoking ephemeral keys on real nodes, directly and through the gateway."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from attrs import evolve

from dan_async import CallbackWallet, DanClient, EphemeralKey, GatewayNetwork, LocalWallet
from dan_async.crypto.curve import ORDER
from dan_async.devnet import ClaimOtherThreshold, Devnet, NodeLimits
from dan_async.devnet.node.server import NodeMethods
from dan_async.errors import (
    ConfigurationError,
    GatewayError,
    InvalidFieldError,
    QuorumError,
    WalletRefusedError,
)
from dan_async.session import DanModuleInfo
from dan_async.wallets.base import EoaAuth
from tests.devnet.raw_client import connect_all

OWNER = LocalWallet("0x" + "00" * 31 + "07")
STRANGER = LocalWallet("0x" + "00" * 31 + "08")


def registered(net: Devnet, key_id: str) -> list[set[str]]:
    """The ephemeral keys that each node accepts for a key."""
    return [set(node.ephemeral_key_ids(key_id)) for node in net.nodes]


async def test_adding_rotates_without_a_new_key() -> None:
    """The new session has the same address and another ephemeral key; both are known to every node."""
    async with Devnet(threshold=2, parties=3) as net, DanClient(net) as dan:
        session = await dan.generate_session_key(wallet=OWNER, chain_id=1)
        rotated = await dan.add_ephemeral_key(session, wallet=OWNER, duration=60)
        assert registered(net, session.mpc_key_id) == [{session.eph_id, rotated.eph_id}] * 3
    assert type(rotated) is type(session)
    assert rotated.session_key_eoa == session.session_key_eoa
    assert rotated.hex_eph_sk_without_0x != session.hex_eph_sk_without_0x
    assert rotated.eph_id == EphemeralKey.from_hex(rotated.hex_eph_sk_without_0x, "secp256k1").default_id
    assert rotated.expires_at < session.expires_at


async def test_revoking_takes_the_key_away_for_good() -> None:
    """Every node confirms, forgets nothing over a restart, and a second revocation is as good as the first."""
    async with Devnet(threshold=2, parties=3) as net, DanClient(net) as dan:
        session = await dan.generate_session_key(wallet=OWNER, chain_id=1)
        report = await dan.revoke_ephemeral_key(session, wallet=OWNER)
        assert set(report.confirmed_by) == {node.operator for node in net.nodes}
        assert registered(net, session.mpc_key_id) == [set()] * 3
        await net.nodes[0].stop()
        await net.nodes[0].start()
        assert registered(net, session.mpc_key_id) == [set()] * 3
        await dan.revoke_ephemeral_key(session, wallet=OWNER)


async def test_who_passes_a_change_on_in_another_spelling_does_not_stop_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A dishonest node may be quicker than the owner; the others take both for the same request, and confirm it."""
    call, passed_on = NodeMethods.call, list[str]()

    async def pass_on(self: NodeMethods, method: str, params: Any, address: str) -> Any:
        if method == "dan_revoke_ephemeral_key":
            said = params["userAuthentication"]
            r, s, v = said["signature"][2:66], int(said["signature"][66:130], 16), said["signature"][130:]
            high = f"{r}{ORDER - s:064x}{({'1b': '1c', '1c': '1b'})[v]}".upper()
            other = {**said, "id": said["id"].lower(), "signature": high}
            await call(self, method, {**params, "userAuthentication": other}, address)
            passed_on.append(method)
        return await call(self, method, params, address)

    monkeypatch.setattr(NodeMethods, "call", pass_on)
    async with Devnet(threshold=2, parties=3) as net, DanClient(net) as dan:
        session = await dan.generate_session_key(wallet=OWNER, chain_id=1)
        report = await dan.revoke_ephemeral_key(session, wallet=OWNER)
        assert len(report.confirmed_by) == len(passed_on) == 3


async def test_only_the_owner_may() -> None:
    """Another wallet is refused before anything is sent, and by the nodes when the session does not say whose it is."""
    async with Devnet(threshold=2, parties=2) as net, DanClient(net) as dan:
        session = await dan.generate_session_key(wallet=OWNER, chain_id=1)
        with pytest.raises(InvalidFieldError, match="the session belongs to"):
            await dan.add_ephemeral_key(session, wallet=STRANGER)
        forged = evolve(session, eoa_address=STRANGER.address)
        with pytest.raises(QuorumError, match="0 nodes confirmed"):
            await dan.add_ephemeral_key(forged, wallet=STRANGER)
        with pytest.raises(QuorumError):
            await dan.revoke_ephemeral_key(forged, wallet=STRANGER)
        assert registered(net, session.mpc_key_id) == [{session.eph_id}] * 2


async def test_the_owner_is_named_once() -> None:
    """A wallet or an owner of another kind, one of them and not both; an ephemeral key is no owner."""

    class Agent:
        method = "ephemeral"
        id = "agent"
        interactive = False

    async with Devnet(threshold=2, parties=2) as net, DanClient(net) as dan:
        session = await dan.generate_session_key(wallet=OWNER, chain_id=1)
        for change in (dan.add_ephemeral_key, dan.revoke_ephemeral_key):
            with pytest.raises(ConfigurationError, match="no wallet was given"):
                await change(session)
            with pytest.raises(InvalidFieldError, match="is given as well as auth"):
                await change(session, wallet=OWNER, auth=EoaAuth(OWNER))
            with pytest.raises(InvalidFieldError, match="auth must be an owner"):
                await change(session, auth=Agent())
            with pytest.raises(InvalidFieldError, match=r"auth is 0x\w+, and the session belongs to"):
                await change(session, auth=EoaAuth(STRANGER))
        rotated = await dan.add_ephemeral_key(session, auth=EoaAuth(OWNER))
        await dan.revoke_ephemeral_key(rotated, auth=EoaAuth(OWNER))
        assert registered(net, session.mpc_key_id) == [{session.eph_id}] * 2


async def test_a_key_that_nobody_holds() -> None:
    """An unknown key id is an error before the wallet is asked."""

    async def never(typed_data: Any) -> str:
        raise AssertionError

    async with Devnet(threshold=2, parties=2) as net, DanClient(net) as dan:
        session = await dan.generate_session_key(wallet=OWNER, chain_id=1)
        with pytest.raises(QuorumError, match="0 nodes confirmed"):
            await dan.add_ephemeral_key(
                evolve(session, mpc_key_id="00" * 32), wallet=CallbackWallet(OWNER.address, never)
            )
        with pytest.raises(ConfigurationError):
            await dan.add_ephemeral_key(evolve(session, mpc_key_id="no hex"), wallet=OWNER)


@pytest.mark.parametrize("down", [1, 2])
async def test_how_many_must_confirm(down: int) -> None:
    """Of 2-of-3, two nodes suffice to add and to revoke; one does not."""
    async with Devnet(threshold=2, parties=3) as net, DanClient(net) as dan:
        session = await dan.generate_session_key(wallet=OWNER, chain_id=1)
        for node in net.nodes[:down]:
            await node.stop()
        if down == 1:
            await dan.add_ephemeral_key(session, wallet=OWNER)
            report = await dan.revoke_ephemeral_key(session, wallet=OWNER)
            assert len(report.confirmed_by) == 2
            assert len(report.failures) == 1
        else:
            with pytest.raises(QuorumError, match="1 nodes confirmed addEphemeralKey, at least 2 must"):
                await dan.add_ephemeral_key(session, wallet=OWNER)


@pytest.mark.long
async def test_a_liar_does_not_revoke_alone() -> None:
    """It says that the key is 5-of-5, where one node would be enough: neither over the nodes nor through the gateway."""
    async with Devnet(threshold=3, parties=5) as net, DanClient(net) as dan:
        session = await dan.generate_session_key(wallet=OWNER, chain_id=1)
        bare = DanModuleInfo.from_dict(
            {name: session.to_dict()[name] for name in ("sessionKeyEOA", "mpcKeyId", "hexEphSKWithout0x")}
        )
        net.faults[0] = ClaimOtherThreshold()
        for node in net.nodes[1:]:
            await node.stop()
        async with DanClient(GatewayNetwork(net.gateway_url, revision="1")) as through_gateway:
            for client in (dan, through_gateway):
                with pytest.raises((QuorumError, GatewayError), match=r"0 nodes confirmed|does not count"):
                    await client.revoke_ephemeral_key(bare, wallet=OWNER)
            for node in net.nodes[1:4]:
                await node.start()
            report = await dan.revoke_ephemeral_key(bare, wallet=OWNER)
            assert set(report.confirmed_by) == {node.operator for node in net.nodes[1:4]}
            await through_gateway.revoke_ephemeral_key(bare, wallet=OWNER)


async def test_a_flood_of_challenges_does_not_keep_the_owner_from_revoking() -> None:
    """Nor do nonces that others have used up, with new key generations refused meanwhile."""
    async with Devnet(threshold=2, parties=2, limits=NodeLimits(max_nonces=1)) as net, DanClient(net) as dan:
        session = await dan.generate_session_key(wallet=OWNER, chain_id=1)
        async with connect_all(net) as nodes:
            flood = {
                "requestId": "0x" + "00" * 32,
                "operation": "revokeEphemeralKey",
                "setupHash": "0x" + "00" * 32,
            }
            for node in nodes:
                await asyncio.gather(*(node.call("dan_challenge", flood) for _ in range(50)))
        with pytest.raises(QuorumError):
            await dan.generate_session_key(wallet=OWNER, chain_id=1)
        await dan.revoke_ephemeral_key(session, wallet=OWNER)
        assert registered(net, session.mpc_key_id) == [set()] * 2


async def test_what_was_revoked_is_not_added_again() -> None:
    """Also under a new authorisation: the owner takes a new ephemeral key."""
    async with Devnet(threshold=2, parties=2) as net, DanClient(net) as dan:
        session = await dan.generate_session_key(wallet=OWNER, chain_id=1)
        await dan.revoke_ephemeral_key(session, wallet=OWNER)
        with pytest.raises(QuorumError, match="was revoked, which is for good"):
            await dan.add_ephemeral_key(
                session, wallet=OWNER, ephemeral_key=session.hex_eph_sk_without_0x, eph_id=session.eph_id
            )
        await dan.add_ephemeral_key(session, wallet=OWNER)


async def test_a_refusal_changes_nothing() -> None:
    """The owner says no: nothing is changed at any node."""

    async def refuse(typed_data: Any) -> str:
        raise WalletRefusedError("the owner said no")

    async with Devnet(threshold=2, parties=2) as net, DanClient(net) as dan:
        session = await dan.generate_session_key(wallet=OWNER, chain_id=1)
        with pytest.raises(WalletRefusedError):
            await dan.revoke_ephemeral_key(session, wallet=CallbackWallet(OWNER.address, refuse))
        assert registered(net, session.mpc_key_id) == [{session.eph_id}] * 2


async def test_an_id_belongs_to_one_public_key() -> None:
    """The name of an ephemeral key cannot be taken over by another key."""
    async with Devnet(threshold=2, parties=2) as net, DanClient(net) as dan:
        session = await dan.generate_session_key(wallet=OWNER, chain_id=1, eph_id="agent")
        with pytest.raises(QuorumError, match="belongs to another public key"):
            await dan.add_ephemeral_key(session, wallet=OWNER, eph_id="agent")


@pytest.mark.parametrize(("revision", "api_version"), [("0.3", "v1"), ("1", "v1"), ("1", "v2")])
async def test_through_the_gateway(revision: str, api_version: str) -> None:
    """The same through the gateway, for a session that was made over the nodes directly."""
    async with Devnet(threshold=2, parties=3) as net, DanClient(net) as direct:
        session = await direct.generate_session_key(wallet=OWNER, chain_id=1)
        url = net.gateway_url.replace("/v1", f"/{api_version}")
        network = GatewayNetwork(url, revision=revision, api_version=api_version)
        async with DanClient(network) as dan:
            rotated = await dan.add_ephemeral_key(session, wallet=OWNER)
            assert registered(net, session.mpc_key_id) == [{session.eph_id, rotated.eph_id}] * 3
            if revision == "1":
                await dan.revoke_ephemeral_key(rotated, wallet=OWNER)
                assert registered(net, session.mpc_key_id) == [{session.eph_id}] * 3
            forged = evolve(session, eoa_address=STRANGER.address)
            with pytest.raises(GatewayError):
                await dan.add_ephemeral_key(forged, wallet=STRANGER)
