"""What every node refuses, each with its own code, over real connections. What is refused leaves nothing behind."""

from __future__ import annotations

import time

import pytest

from dan_async.devnet import FallSilent, NodeLimits
from dan_async.devnet.context import NodeIdentity
from dan_async.errors import NodeCode
from dan_async.protocols import fields
from tests.devnet.raw_client import Keygen, changed, connect_all
from tests.helpers import ManualClock


@pytest.fixture
async def nodes(devnet):
    async with connect_all(devnet) as opened:
        yield opened


async def test_an_expired_claim(nodes):
    """CLAIM_EXPIRED, and the owner's signature does not help."""
    keygen = Keygen(nodes=nodes, t=2, expiry=int(time.time()))
    await keygen.prepare()
    assert await keygen.codes() == [NodeCode.CLAIM_EXPIRED] * 3


async def test_a_claim_that_lives_too_long(nodes):
    """CLAIM_EXPIRED as well: more than 365 days."""
    keygen = Keygen(nodes=nodes, t=2, expiry=int(time.time()) + 366 * 86_400)
    await keygen.prepare()
    assert await keygen.codes() == [NodeCode.CLAIM_EXPIRED] * 3


async def test_a_claim_expires_by_the_nodes_own_clock(make_devnet):
    """Injected here; the refusal comes when that clock says so."""
    clock = ManualClock()
    devnet = await make_devnet(2, 2, clock=clock)
    async with connect_all(devnet) as nodes:
        keygen = Keygen(nodes=nodes, t=2, expiry=int(clock.now) + 10)
        await keygen.prepare()
        clock.advance(10)
        assert await keygen.codes() == [NodeCode.CLAIM_EXPIRED] * 2
        clock.advance(-1)
        assert len(await keygen.send()) == 2


async def test_another_owner(nodes):
    """WRONG_OWNER: signed by a key that is not the owner's."""
    keygen = Keygen(nodes=nodes, t=2)
    params = await keygen.prepare()
    assert (
        await keygen.codes(changed(params, id=NodeIdentity.generate().operator)) == [NodeCode.WRONG_OWNER] * 3
    )


async def test_a_signature_over_another_request(nodes):
    """WRONG_OWNER: the owner signed, but not this."""
    keygen, other = Keygen(nodes=nodes, t=2), Keygen(nodes=nodes, t=2)
    other.signer = keygen.signer
    params = await keygen.prepare()
    signature = (await other.prepare()).user_authentication.signature
    assert await keygen.codes(changed(params, signature=signature)) == [NodeCode.WRONG_OWNER] * 3


async def test_permissions_changed_on_the_way(nodes):
    """
    CHALLENGE_MISMATCH: the wallet does not see the permissions, but the nonce is bound to the whole setup.

    With nonces for the changed setup it would be WRONG_OWNER, since the signed challenge has its hash.
    """
    keygen = Keygen(nodes=nodes, t=2, permissions='{"limit":1}')
    params = await keygen.prepare()
    widened = params.setup.replace('\\"limit\\":1', '\\"limit\\":9')
    assert widened != params.setup
    assert await keygen.codes(changed(params, setup=widened)) == [NodeCode.CHALLENGE_MISMATCH] * 3
    keygen.setup = widened
    fresh = await keygen.challenge()
    assert (
        await keygen.codes(changed(params, setup=widened, nonces=tuple(fresh))) == [NodeCode.WRONG_OWNER] * 3
    )


async def test_nonces_that_were_never_given_out(nodes):
    """CHALLENGE_MISMATCH, although the owner signed over them."""
    keygen = Keygen(nodes=nodes, t=2)
    keygen.sign([bytes([i]) * 32 for i in range(3)])
    assert await keygen.codes() == [NodeCode.CHALLENGE_MISMATCH] * 3


async def test_nonces_of_another_request(nodes):
    """CHALLENGE_MISMATCH: a nonce is bound to the request it was given out for."""
    keygen, other = Keygen(nodes=nodes, t=2), Keygen(nodes=nodes, t=2)
    keygen.sign(await other.challenge())
    assert await keygen.codes() == [NodeCode.CHALLENGE_MISMATCH] * 3


async def test_nonces_in_the_wrong_order(nodes):
    """CHALLENGE_MISMATCH: each node looks for its own nonce in its own place."""
    keygen = Keygen(nodes=nodes[:2], t=2)
    keygen.sign(list(reversed(await keygen.challenge())))
    assert await keygen.codes() == [NodeCode.CHALLENGE_MISMATCH] * 2


async def test_expired_nonces(make_devnet):
    """CHALLENGE_EXPIRED, by the nodes' clock."""
    clock = ManualClock()
    devnet = await make_devnet(2, 2, clock=clock, limits=NodeLimits(nonce_lifetime_s=60))
    async with connect_all(devnet) as nodes:
        keygen = Keygen(nodes=nodes, t=2, expiry=int(clock.now) + 3600)
        await keygen.prepare()
        clock.advance(60)
        assert await keygen.codes() == [NodeCode.CHALLENGE_EXPIRED] * 2


async def test_nonces_used_before(make_devnet):
    """
    CHALLENGE_REUSED: a request that came to nothing has used its nonces up.

    The very same request is told once more how it failed; anything else under these nonces is a replay.
    """
    devnet = await make_devnet(2, 3, limits=NodeLimits(round_s=1))
    devnet.faults[0] = FallSilent()
    async with connect_all(devnet) as nodes:
        keygen = Keygen(nodes=nodes, t=2)
        params = await keygen.prepare()
        assert await keygen.codes() == [NodeCode.KEYGEN_FAILED] * 3
        devnet.faults[0] = None
        assert await keygen.codes() == [NodeCode.KEYGEN_FAILED] * 3
        spelled = changed(params, signature="0x" + params.user_authentication.signature[2:].upper())
        assert await keygen.codes(spelled) == [NodeCode.KEYGEN_FAILED] * 3
        again = changed(params, signature="0x" + "11" * 64 + "1b")
        assert await keygen.codes(again) == [NodeCode.CHALLENGE_REUSED] * 3


async def test_a_failed_request_may_be_made_again_with_new_nonces(make_devnet):
    """Under the same id, newly signed: nothing was made under it."""
    devnet = await make_devnet(2, 3, limits=NodeLimits(round_s=1))
    devnet.faults[0] = FallSilent()
    async with connect_all(devnet) as nodes:
        keygen = Keygen(nodes=nodes, t=2)
        await keygen.prepare()
        await keygen.codes()
        devnet.faults[0] = None
        assert len({ack.claims for ack in await keygen.run()}) == 1


async def test_other_content_under_a_used_id(nodes):
    """REQUEST_CONFLICT: the id names a finished request with other content."""
    keygen = Keygen(nodes=nodes, t=2)
    await keygen.run()
    other = Keygen(nodes=nodes, t=2, request_id=keygen.request_id)
    await other.prepare()
    assert await other.codes() == [NodeCode.REQUEST_CONFLICT] * 3


@pytest.mark.parametrize("member", ["signature", "nonces", "credentials"])
async def test_every_member_counts_as_content(nodes, member):
    """REQUEST_CONFLICT, also if only the signature is another one."""
    keygen = Keygen(nodes=nodes, t=2)
    params = await keygen.prepare()
    await keygen.send()
    other = {"signature": "0x" + "11" * 65, "nonces": (bytes(32),) * 3, "credentials": "{}"}[member]
    assert await keygen.codes(changed(params, **{member: other})) == [NodeCode.REQUEST_CONFLICT] * 3


async def test_other_content_while_the_first_is_under_way(make_devnet):
    """REQUEST_CONFLICT as well."""
    devnet = await make_devnet(2, 2, limits=NodeLimits(round_s=0.5))
    async with connect_all(devnet) as nodes:
        keygen = Keygen(nodes=nodes, t=2)
        params = await keygen.prepare()
        text = fields.encode(params)
        await nodes[0].websocket.send_str(
            f'{{"jsonrpc":"2.0","id":99,"method":"dan_keygen","params":{text}}}'
        )
        other = fields.encode(changed(params, signature="0x" + "11" * 65))
        assert await nodes[0].code_of("dan_keygen", other) == NodeCode.REQUEST_CONFLICT


@pytest.mark.parametrize("change", ["reversed", "missing", "stranger"])
async def test_wrong_participants(nodes, change):
    """WRONG_PARTICIPANTS: not ascending, not n, or not known to the nodes."""
    keygen = Keygen(nodes=nodes, t=2)
    params = await keygen.prepare()
    participants = {
        "reversed": params.participants[::-1],
        "missing": params.participants[:2],
        "stranger": tuple(
            sorted((*params.participants[:2], NodeIdentity.generate().operator), key=str.lower)
        ),
    }[change]
    wrong = changed(params, participants=participants, nonces=params.nonces[: len(participants)])
    assert set(await keygen.codes(wrong)) == {NodeCode.WRONG_PARTICIPANTS}


async def test_a_node_that_is_no_participant(make_devnet):
    """WRONG_PARTICIPANTS: it does not sit in on other nodes' keys."""
    devnet = await make_devnet(2, 3)
    async with connect_all(devnet) as nodes:
        keygen = Keygen(nodes=nodes[:2], t=2)
        text = fields.encode(await keygen.prepare())
        assert await nodes[2].code_of("dan_keygen", text) == NodeCode.WRONG_PARTICIPANTS


async def test_an_oversized_request(make_devnet):
    """TOO_LARGE, with the request's id, and the connection goes on."""
    devnet = await make_devnet(2, 3, limits=NodeLimits(max_request_bytes=20_000))
    async with connect_all(devnet) as nodes:
        keygen = Keygen(nodes=nodes, t=2, permissions='{"a":"' + "x" * 20_000 + '"}')
        await keygen.prepare()
        assert await keygen.codes() == [NodeCode.TOO_LARGE] * 3
        small = Keygen(nodes=nodes, t=2)
        assert len(await small.run()) == 3


async def test_an_operation_that_nodes_do_not_do(nodes):
    """UNSUPPORTED, already at the challenge."""
    keygen = Keygen(nodes=nodes, t=2)
    for node in nodes:
        params = {**keygen.challenge_params(), "operation": "transfer"}
        assert await node.code_of("dan_challenge", params) == NodeCode.UNSUPPORTED


async def test_a_refused_request_costs_the_nonce_nothing(nodes):
    """After a wrong signature the right one is still taken."""
    keygen = Keygen(nodes=nodes, t=2)
    params = await keygen.prepare()
    assert await keygen.codes(changed(params, signature="0x" + "11" * 65)) == [NodeCode.WRONG_OWNER] * 3
    assert len(await keygen.send(params)) == 3


async def test_too_many_used_nonces(make_devnet):
    """RATE_LIMITED, and not a nonce more than the limit in memory; asking for any number of them takes none."""
    devnet = await make_devnet(2, 2, limits=NodeLimits(max_nonces=1))
    async with connect_all(devnet) as nodes:
        keygen = Keygen(nodes=nodes, t=2)
        for _ in range(3):
            await keygen.challenge()
        await keygen.run()
        assert await nodes[0].code_of("dan_challenge", keygen.challenge_params()) == NodeCode.RATE_LIMITED


async def test_too_many_key_generations(make_devnet):
    """RATE_LIMITED: a session that waits for its peers holds a place."""
    devnet = await make_devnet(2, 2, limits=NodeLimits(max_keygens=1, round_s=0.5))
    async with connect_all(devnet) as nodes:
        first, second = Keygen(nodes=nodes, t=2), Keygen(nodes=nodes, t=2)
        text = fields.encode(await first.prepare())
        await nodes[0].websocket.send_str(
            f'{{"jsonrpc":"2.0","id":99,"method":"dan_keygen","params":{text}}}'
        )
        text = fields.encode(await second.prepare())
        assert await nodes[0].code_of("dan_keygen", text) == NodeCode.RATE_LIMITED
