"""What nodes refuse to sign: each with its own code, and nothing is used up that need not be."""

from __future__ import annotations

import json
import secrets
import threading
import time

import pytest
from attrs import evolve

from dan_async import DanClient, LocalWallet
from dan_async.crypto.eip712 import typed_data_digest
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.devnet import NodeLimits
from dan_async.errors import NodeCode
from dan_async.protocols import fields
from dan_async.protocols import node as node_1
from dan_async.protocols.node import PRESIGN, SIGN
from dan_async.protocols.sign_request import RequestType, SignRequest
from tests.devnet.raw_client import Keygen, RpcFaultError, connect_all
from tests.devnet.raw_signing import Signer, text_request, user_operation
from tests.helpers import ManualClock, stall_detector

OWNER = LocalWallet("0x" + "00" * 31 + "07")
STRANGER = "0x" + "ab" * 20


@pytest.fixture
async def signer(make_devnet):
    """A session of 2-of-3."""
    devnet = await make_devnet(2, 3)
    async with connect_all(devnet) as nodes:
        yield await Signer.after(Keygen(nodes=nodes, t=2))


def encoded(params):
    if isinstance(params, node_1.PresignParams):
        return PRESIGN, fields.encode(params)
    return SIGN, fields.encode(params)


async def refusal(signer, params, node=0):
    """How a node refuses a request."""
    with pytest.raises(RpcFaultError) as caught:
        await signer.nodes[node].call(*encoded(params))
    return caught.value


async def code(signer, params, node=0):
    return (await refusal(signer, params, node)).code


async def presigned(signer, text="hello"):
    """A presignature, and a request that uses it."""
    offer = await signer.presign(signer.presign_params())
    return signer.sign_params(signer.setup([text_request(text)]), None, [offer.presignature_id])


# --- dan_presign ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"key_id": "ab" * 32}, NodeCode.UNKNOWN_KEY),
        ({"expires_at": 1}, NodeCode.CHALLENGE_EXPIRED),
        ({"expires_at": 2**32 - 1}, NodeCode.CHALLENGE_EXPIRED),
        ({"eph_id": "nobody"}, NodeCode.EPHEMERAL_KEY_REFUSED),
        ({"signature": "0x" + "11" * 65}, NodeCode.EPHEMERAL_KEY_REFUSED),
        ({"signature": "0x" + "11" * 64}, NodeCode.EPHEMERAL_KEY_REFUSED),
        ({"signature": "0x11"}, NodeCode.INVALID_PARAMS),
    ],
)
async def test_presign_refusals(signer, members, expected):
    """One member wrong at a time, everything else right."""
    assert await code(signer, signer.presign_params(**members)) == expected


async def test_signers_are_exactly_t_parties_with_this_node(signer):
    """t - 1, t + 1, without this node, with a stranger: never."""
    all_three = signer.ack.participants
    with_stranger = tuple(sorted((all_three[0], fields.ADDRESS.read("signers", STRANGER)), key=str.lower))
    for signers in (all_three[1:], all_three, with_stranger):
        assert await code(signer, signer.presign_params(signers=signers)) == NodeCode.WRONG_PARTICIPANTS
        params = signer.sign_params(signer.setup([text_request()]), signers=signers)
        assert await code(signer, params) == NodeCode.WRONG_PARTICIPANTS
    one = signer.presign_params(signers=all_three[:1])
    assert await code(signer, one) == NodeCode.INVALID_PARAMS


async def test_another_ephemeral_key_cannot_ask(signer):
    """Not under the right name, and not under its own."""
    other = evolve(signer, key=EphemeralKey.generate())
    assert (await refusal(signer, other.presign_params())).data == {"reason": "signature"}
    own = evolve(other, eph_id=other.key.default_id)
    assert (await refusal(signer, own.presign_params())).data == {"reason": "unknown"}


async def test_a_request_id_stands_for_one_request(signer):
    """Another content under the same id and signers is a conflict."""
    params = signer.presign_params()
    await signer.presign(params)
    other = signer.presign_params(request_id=params.request_id, expires_at=params.expires_at - 1)
    assert await code(signer, other) == NodeCode.REQUEST_CONFLICT


async def test_a_request_spelled_in_another_way_is_the_same(signer):
    """So a signer that passes a request on, spelled otherwise and sooner than the client, keeps no other from answering."""
    asked = signer.presign_params()
    passed_on = evolve(asked, signature="0x" + asked.signature[2:].upper())
    offer = await signer.presign(passed_on)
    assert await signer.presign(asked) == offer
    request_id, ids = "0x" + secrets.token_hex(32), [offer.presignature_id]
    setup = signer.setup([text_request()])
    params = signer.sign_params(setup, None, ids, request_id=request_id)
    # Nodes go by their own record of when an ephemeral key expires.
    passed_on = evolve(signer, expiry=signer.expiry + 1).sign_params(setup, None, ids, request_id=request_id)
    assert fields.encode(passed_on) != fields.encode(params)
    shares = await signer.send(passed_on)
    assert await signer.send(params) == shares


async def test_only_who_may_use_a_key_has_a_place_under_an_id(signer):
    """Long requests of others are looked at in a thread; nobody who comes meanwhile is refused for them."""
    params = await presigned(signer)
    strange = evolve(params, setup=params.setup + " " * 50_000)
    for node in signer.nodes[:2]:
        await node.websocket.send_str(
            f'{{"jsonrpc":"2.0","id":99,"method":"{SIGN}","params":{fields.encode(strange)}}}'
        )
    await signer.send(params)


async def test_an_ephemeral_key_has_so_many_presignatures(make_devnet):
    """A new one takes the place of the oldest, which signs no more; another ephemeral key is not concerned."""
    devnet = await make_devnet(2, 2, limits=NodeLimits(max_presignatures=2))
    async with connect_all(devnet) as nodes:
        signer = await Signer.after(Keygen(nodes=nodes, t=2))
        first, second = await presigned(signer), await presigned(signer)
        third = await presigned(signer)
        await (await Signer.after(Keygen(nodes=nodes, t=2))).sign()
        assert await code(signer, first) == NodeCode.PRESIGNATURE_UNKNOWN
        await signer.send(second)
        await signer.send(third)


# --- dan_sign ---------------------------------------------------------------------------------------------------------


async def test_a_presignature_signs_once(signer):
    """Another message, or the same one again under another id, finds it spent."""
    params = await presigned(signer)
    await signer.send(params)
    for text in ("hello", "other"):
        again = signer.sign_params(signer.setup([text_request(text)]), None, params.presignature_ids)
        assert await code(signer, again) == NodeCode.PRESIGNATURE_SPENT


async def test_a_presignature_does_not_outlive_the_node(make_devnet, tmp_path):
    """Neither used nor unused ones are there after a restart: nothing of them was ever written."""
    devnet = await make_devnet(2, 2, storage=tmp_path)
    async with connect_all(devnet) as nodes:
        signer = await Signer.after(Keygen(nodes=nodes, t=2))
        used, unused = await presigned(signer), await presigned(signer)
        await signer.send(used)
    for node in devnet.nodes:
        await node.stop()
        await node.start()
    async with connect_all(devnet) as nodes:
        signer = evolve(signer, nodes=nodes)
        for params in (used, unused):
            assert await code(signer, params) == NodeCode.PRESIGNATURE_UNKNOWN
        await signer.sign()


async def test_a_presignature_is_for_its_signers_and_its_ephemeral_key(signer):
    """Another key of the same owner, or other signers, cannot use it."""
    params = await presigned(signer)
    others = signer.sign_params(signer.setup([text_request()]), (0, 2), params.presignature_ids)
    assert await code(signer, others) == NodeCode.PRESIGNATURE_UNKNOWN
    stranger = await Signer.after(Keygen(nodes=signer.nodes, t=2))
    stolen = stranger.sign_params(stranger.setup([text_request()]), None, params.presignature_ids)
    assert await code(signer, stolen) == NodeCode.PRESIGNATURE_UNKNOWN
    await signer.send(params)


async def test_what_is_refused_uses_nothing_up(signer):
    """A forged request for a presignature leaves it to its owner."""
    params = await presigned(signer)
    forger = evolve(signer, key=EphemeralKey.generate())
    forged = forger.sign_params(params.setup, None, params.presignature_ids)
    assert await code(signer, forged) == NodeCode.EPHEMERAL_KEY_REFUSED
    assert len(await signer.send(params)) == 2


@pytest.mark.parametrize("change", ["setup", "request_id", "presignature"])
async def test_the_ephemeral_key_signs_the_whole_request(signer, change):
    """Another message, another id or another presignature under the same signature is refused."""
    params = await presigned(signer)
    if change == "setup":
        params = evolve(params, setup=signer.setup([text_request("other")]))
    elif change == "request_id":
        params = evolve(params, request_id="0x" + secrets.token_hex(32))
    else:
        params = evolve(params, presignature_ids=(await presigned(signer)).presignature_ids)
    if (
        change == "setup"
    ):  # revision 1 repeats the message in the signature, which is where it is missed first
        assert await code(signer, params) == NodeCode.INVALID_PARAMS
    else:
        assert (await refusal(signer, params)).data == {"reason": "signature"}


async def test_sign_refusals_by_the_setup(signer):
    """Another key, another t, another algorithm, no message, a message that is none."""
    setups = {
        signer.setup([text_request()], key_id="ab" * 32): NodeCode.UNKNOWN_KEY,
        signer.setup([text_request()], key_id="main"): NodeCode.INVALID_PARAMS,
        signer.setup([text_request()], t=3): NodeCode.INVALID_PARAMS,
        signer.setup([text_request()]).replace("secp256k1", "ed25519"): NodeCode.UNSUPPORTED,
        signer.setup([text_request()]).replace('"message":"', '"message":"AAAA'): NodeCode.INVALID_PARAMS,
    }
    for setup, expected in setups.items():
        assert await code(signer, signer.sign_params(setup)) == expected, setup


async def test_one_presignature_for_each_message(signer):
    """Neither more nor fewer."""
    params = await presigned(signer)
    setup = signer.setup([text_request("a"), text_request("b")])
    assert (
        await code(signer, signer.sign_params(setup, None, params.presignature_ids))
        == NodeCode.INVALID_PARAMS
    )


async def test_a_wallet_does_not_authorise_signatures(signer):
    """Only the ephemeral key does."""
    params = await presigned(signer)
    auth = evolve(params.user_authentication, method="eoa", id=signer.owner)
    assert await code(signer, evolve(params, user_authentication=auth)) == NodeCode.UNSUPPORTED


async def test_nonces_are_used_once_and_for_what_they_were_given(signer):
    """A nonce for another message, one that was used, one that nobody gave."""
    setup, request_id = signer.setup([text_request()]), "0x" + secrets.token_hex(32)
    nonces = await signer.nonces(setup, request_id, signer.nodes)
    members = {"participants": signer.ack.participants, "nonces": tuple(nonces), "request_id": request_id}
    other = signer.sign_params(signer.setup([text_request("other")]), **members)
    assert await code(signer, other) == NodeCode.CHALLENGE_MISMATCH
    unknown = signer.sign_params(setup, **{**members, "nonces": (b"\1" * 32, b"\2" * 32, b"\3" * 32)})
    assert await code(signer, unknown) == NodeCode.CHALLENGE_MISMATCH
    first = signer.sign_params(setup, **members)
    await signer.send(first)
    await signer.send(signer.sign_params(setup, (0, 2), **members))  # the same request, other signers


async def test_a_one_shot_request_has_its_own_id(signer):
    """Under any other it could be sent again and again."""
    params = signer.sign_params(signer.setup([text_request()]))
    other = evolve(params, request_id="0x" + secrets.token_hex(32))
    assert await code(signer, other) == NodeCode.CHALLENGE_MISMATCH


async def test_permissions_are_enforced_by_each_node(make_devnet):
    """A user operation within them is signed; one outside, and any text, is refused, and uses nothing up."""
    devnet = await make_devnet(2, 2)
    allowed, forbidden = "0x" + "33" * 20, "0x" + "44" * 20
    permissions = json.dumps({"permissions": [{"type": "call", "to": allowed, "selectors": ["0x"]}]})
    async with connect_all(devnet) as nodes:
        signer = await Signer.after(Keygen(nodes=nodes, t=2, permissions=permissions))
        offer = await signer.presign(signer.presign_params())
        for request in (text_request(), user_operation(forbidden)):
            named = signer.sign_params(signer.setup([request]), None, [offer.presignature_id])
            one_shot = signer.sign_params(signer.setup([request]))
            for node in (0, 1):
                assert await code(signer, named, node) == NodeCode.NOT_PERMITTED
                assert await code(signer, one_shot, node) == NodeCode.NOT_PERMITTED
        setup = signer.setup([user_operation(allowed)])
        assert len(await signer.send(signer.sign_params(setup, None, [offer.presignature_id]))) == 2


# --- the life of an ephemeral key -------------------------------------------------------------------------------------


async def test_a_revoked_key_signs_nothing(make_devnet):
    """Not with a presignature made before, not in one shot, and not after a restart; it gets no new presignature."""
    devnet = await make_devnet(2, 2)
    async with DanClient(devnet) as dan, connect_all(devnet) as nodes:
        session = await dan.generate_session_key(wallet=OWNER, chain_id=1)
        signer = Signer.of_session(devnet, nodes, session)
        await signer.sign()
        params = await presigned(signer)
        assert stocks(devnet) == [1, 1]
        await dan.revoke_ephemeral_key(session, wallet=OWNER)
        assert stocks(devnet) == [0, 0]
        assert await reasons(signer, params) == {"revoked"}
        for node in devnet.nodes:
            await node.stop()
            await node.start()
    async with connect_all(devnet) as nodes:
        assert await reasons(evolve(signer, nodes=nodes), params) == {"revoked"}


async def test_a_key_that_was_added_signs(make_devnet):
    """The rotated ephemeral key signs with the same session key, and so does the old one until it is revoked."""
    devnet = await make_devnet(2, 2)
    async with DanClient(devnet) as dan, connect_all(devnet) as nodes:
        session = await dan.generate_session_key(wallet=OWNER, chain_id=1)
        rotated = await dan.add_ephemeral_key(session, wallet=OWNER)
        await dan.revoke_ephemeral_key(session, wallet=OWNER)
        await Signer.of_session(devnet, nodes, rotated).sign()


async def test_an_expired_key_signs_nothing(make_devnet):
    """To the second; whatever expiry its credentials show."""
    clock = ManualClock()
    devnet = await make_devnet(2, 2, clock=clock)
    async with connect_all(devnet) as nodes:
        signer = await Signer.after(Keygen(nodes=nodes, t=2, expiry=int(clock.now) + 30))
        offer = await signer.presign(signer.presign_params(expires_at=int(clock.now) + 60))
        assert offer.expires_at == signer.expiry
        clock.advance(29)
        params = signer.sign_params(signer.setup([text_request()]), None, [offer.presignature_id])
        await signer.send(params)
        clock.advance(1)
        later = evolve(signer, expiry=int(clock.now) + 3600)
        assert await reasons(later, later.sign_params(later.setup([text_request("b")])), clock()) == {
            "expired"
        }


async def test_presignatures_expire(make_devnet):
    """After the node's lifetime, or when the client said, whichever is first."""
    clock = ManualClock()
    devnet = await make_devnet(2, 2, clock=clock, limits=NodeLimits(presignature_lifetime_s=60))
    async with connect_all(devnet) as nodes:
        signer = await Signer.after(Keygen(nodes=nodes, t=2, expiry=int(clock.now) + 3600))
        made = {}
        for lifetime in (20, 200):
            offer = await signer.presign(signer.presign_params(expires_at=int(clock.now) + lifetime))
            assert offer.expires_at == int(clock.now) + min(lifetime, 60)
            made[lifetime] = signer.sign_params(signer.setup([text_request()]), None, [offer.presignature_id])
        clock.advance(20)
        assert await code(signer, made[20]) == NodeCode.PRESIGNATURE_UNKNOWN
        assert stocks(devnet) == [1, 1]
        clock.advance(40)
        assert await code(signer, made[200]) == NodeCode.PRESIGNATURE_UNKNOWN
        assert stocks(devnet) == [0, 0]


def stocks(devnet):
    """How many presignatures each node has ready."""
    return [len(node._runner._last.signing.stock) for node in devnet.nodes]


async def reasons(signer, params, now=None):
    """Why nodes refuse an ephemeral key, whatever it asks for."""
    one_shot = signer.sign_params(signer.setup([text_request("one")]))
    presign = signer.presign_params(expires_at=int(now or time.time()) + 30)
    found = set()
    for request in (params, one_shot, presign):
        for node in range(len(signer.nodes)):
            refused = await refusal(signer, request, node)
            assert refused.code == NodeCode.EPHEMERAL_KEY_REFUSED
            found.add(refused.data["reason"])
    return found


# --- what a stranger's request costs ----------------------------------------------------------------------------------


def long_typed_data():
    """Typed data that takes long to hash."""
    numbers = list(range(10**9, 10**9 + 15_000))
    return SignRequest(
        request_type=RequestType.EIP712,
        message=json.dumps(
            {
                "types": {"Main": [{"name": "numbers", "type": "uint256[]"}]},
                "primaryType": "Main",
                "domain": {"name": "long"},
                "message": {"numbers": numbers},
            }
        ),
    )


async def test_a_strangers_typed_data_is_not_hashed(signer, monkeypatch):
    """The key and the ephemeral key's signature come first; a quarter of a megabyte costs the loop nothing."""
    threads = []

    def digest(data):
        threads.append(threading.current_thread() is threading.main_thread())
        return typed_data_digest(data)

    monkeypatch.setattr("dan_async.protocols.sign_request.typed_data_digest", digest)
    request = long_typed_data()
    unknown = signer.sign_params(signer.setup([request], key_id="ab" * 32))
    stranger = evolve(signer, key=EphemeralKey.generate("secp256k1"))
    foreign = stranger.sign_params(stranger.setup([request]))
    forged = evolve(signer.sign_params(signer.setup([request])), request_id="0x" + "ab" * 32)
    async with stall_detector(0.1):
        assert await code(signer, unknown) == NodeCode.UNKNOWN_KEY
        assert await code(signer, foreign) == NodeCode.EPHEMERAL_KEY_REFUSED
        assert await code(signer, forged) == NodeCode.CHALLENGE_MISMATCH
    assert threads == []
    await signer.sign(request)
    assert threads
    assert not any(threads)
