"""Signing for an ephemeral key that is elsewhere, over scripted nodes: what a gateway does."""

from __future__ import annotations

import asyncio

import pytest
from attrs import evolve

from dan_async.crypto.signature import personal_message_digest, recover_address
from dan_async.deadline import Deadline
from dan_async.devnet.gateway import RelayedOrder, relay_signgen
from dan_async.errors import ClientClosedError, NodeCode, QuorumError, RpcError, WalletError
from dan_async.nodes.round import SetupText
from dan_async.protocols import fields
from dan_async.protocols import node as node_1
from dan_async.protocols.gateway_1 import REVISION_1
from dan_async.protocols.setups import UserAuthentication
from dan_async.protocols.sign_request import SignRequest
from tests.fake_signing import KEY_ID, SigningNetwork

TEXTS = ("hello", "again")
DIGESTS = tuple(personal_message_digest(text.encode()) for text in TEXTS)


def order(t=2, **changes):
    requests = [
        SignRequest(request_type="EIP191", message=text.encode().hex(), transaction_id=text) for text in TEXTS
    ]
    setup = REVISION_1.signgen_setup(t=t, key_id=KEY_ID, message=REVISION_1.encode_message(requests))
    text = SetupText(
        request_id="0x" + "ab" * 32,
        operation="signgen",
        revision="1",
        text=REVISION_1.encode_setup(setup),
        key_id=KEY_ID,
    )
    return evolve(RelayedOrder(setup=text, t=t, digests=DIGESTS), **changes)


class Owner:
    """Whoever has the ephemeral key: signs what it is shown, once."""

    def __init__(self, before=None):
        self.shown = []
        self._before = before

    async def __call__(self, challenge):
        self.shown.append(challenge)
        if self._before is not None:
            self._before()
        return UserAuthentication(method="ephemeral", id="eph", credentials="{}", signature="0x00")


async def relay(net, wanted=None, owner=None, **options):
    network = net.network(**options)
    try:
        return await relay_signgen(network.pool, wanted or order(), owner or Owner(), deadline=Deadline(5))
    finally:
        await network.aclose()


def hold(net, signatures):
    return [recover_address(d, s) for d, s in zip(DIGESTS, signatures, strict=True)] == [net.address] * 2


async def test_the_owner_signs_over_a_nonce_of_every_node():
    """So that any t of them may sign; every message has its signature."""
    net, owner = SigningNetwork(2, 3), Owner()
    assert hold(net, await relay(net, owner=owner))
    (sent, *_) = [
        fields.decode(node_1.SignParams, params) for _, method, params in net.calls if method == "dan_sign"
    ]
    assert list(sent.participants) == [identity.operator for identity in net.identities]
    challenge = node_1.final_challenge(
        operation="signgen",
        request_id=sent.request_id,
        setup_digest=order().setup.digest,
        participants=sent.participants,
        nonces=sent.nonces,
    )
    assert owner.shown == [challenge.hex()]
    assert len(net.called("dan_sign")) == 2


async def test_one_shot_requests_have_no_nonces():
    """Their challenge is a hash of the setup."""
    net, owner = SigningNetwork(2, 3), Owner()
    wanted = order(is_oneshot=True)
    assert hold(net, await relay(net, wanted, owner))
    assert owner.shown == [REVISION_1.oneshot_challenge(wanted.setup.text)]
    (sent, *_) = [
        fields.decode(node_1.SignParams, params) for _, method, params in net.calls if method == "dan_sign"
    ]
    assert (sent.participants, sent.nonces, sent.presignature_ids) == ((), (), ())


@pytest.mark.parametrize("method", ["dan_challenge", "dan_sign"])
async def test_a_silent_node_is_done_without(method, monkeypatch):
    """Before the owner has signed, and after, without asking again."""
    monkeypatch.setattr("dan_async.nodes.health._UNKNOWN_S", {"presign": 0.1, "sign": 0.1})
    net, owner = SigningNetwork(2, 3), Owner()

    async def misbehave(name, params):
        if name == method:
            await asyncio.Event().wait()

    net.misbehaviour[net.operator(1)] = misbehave
    assert hold(net, await relay(net, owner=owner))
    assert len(owner.shown) == 1


async def test_nodes_that_fail_after_the_owner_signed_are_replaced():
    """Both of the first set."""
    net = SigningNetwork(2, 5)
    asked = []

    async def misbehave(name, params):
        if name == "dan_sign" and len(asked) < 2:
            asked.append(params["signers"])
            raise RpcError(NodeCode.SIGNING_FAILED, "no")

    for identity in net.identities:
        net.misbehaviour[identity.operator] = misbehave
    owner = Owner()
    assert hold(net, await relay(net, owner=owner))
    assert len(owner.shown) == 1


async def test_a_liar_spoils_nothing():
    """Its share, or the public key that it says."""
    net = SigningNetwork(2, 3)
    liar = net.identities[0]

    async def misbehave(name, params):
        if name != "dan_sign":
            return None
        honest = net.sign(liar, params)
        wrong = tuple(evolve(share, w=share.w ^ 1) for share in honest.claims.shares)
        return fields.to_json(net.resigned(liar, honest, shares=wrong))

    net.misbehaviour[liar.operator] = misbehave
    assert hold(net, await relay(net))


async def test_too_few_nodes_that_are_ready():
    """The owner is not asked."""
    net, owner = SigningNetwork(2, 3), Owner()

    async def misbehave(name, params):
        raise RpcError(NodeCode.UNSUPPORTED, "no")

    for index in (1, 2):
        net.misbehaviour[net.operator(index)] = misbehave
    with pytest.raises(QuorumError, match="fewer than 2 nodes") as caught:
        await relay(net, owner=owner)
    assert len(caught.value.nodes) >= 2
    assert not owner.shown


async def test_a_key_that_nobody_holds():
    """Is told apart."""
    net = SigningNetwork(2, 3)

    async def misbehave(name, params):
        raise RpcError(NodeCode.UNKNOWN_KEY, "no such key")

    for identity in net.identities:
        net.misbehaviour[identity.operator] = misbehave
    with pytest.raises(QuorumError, match="no node holds this key") as caught:
        await relay(net)
    assert not caught.value.retryable


async def test_an_owner_who_does_not_sign():
    """Its error comes back, and no node is asked to sign."""
    net = SigningNetwork(2, 3)

    def refuse():
        raise WalletError("no")

    with pytest.raises(WalletError):
        await relay(net, owner=Owner(refuse))
    assert not net.called("dan_sign")


async def test_a_closed_network_relays_nothing():
    """It says so."""
    network = SigningNetwork(2, 3).network()
    await network.aclose()
    with pytest.raises(ClientClosedError):
        await relay_signgen(network.pool, order(), Owner(), deadline=Deadline(1))
