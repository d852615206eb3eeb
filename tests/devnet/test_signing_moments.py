"""What changes while a request for a signature is under way counts: revocation, expiry, permissions."""

from __future__ import annotations

import asyncio
import json
import secrets

import pytest

from dan_async import DanClient, LocalWallet
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.crypto.signature import personal_message_digest, recover_public_key
from dan_async.devnet.peers.presigning import PresignSessions
from dan_async.errors import NodeCode
from dan_async.protocols import fields
from dan_async.protocols.node import PRESIGN, SIGN
from dan_async.protocols.sign_request import sign_request_digest
from tests.devnet.raw_client import Keygen, RpcFaultError, connect_all
from tests.devnet.raw_signing import Signer, signature_from, text_request, user_operation
from tests.helpers import ManualClock

OWNER = LocalWallet("0x" + "00" * 31 + "07")


class Pause:
    """Holds every presignature that is ready until it is let go."""

    def __init__(self, monkeypatch):
        self.made = 0
        self.go_on = asyncio.Event()
        run = PresignSessions.run

        async def held(sessions, job):
            presignature = await run(sessions, job)
            self.made += 1
            await self.go_on.wait()
            return presignature

        monkeypatch.setattr(PresignSessions, "run", held)

    async def until(self, count):
        async with asyncio.timeout(10):
            while self.made < count:
                await asyncio.sleep(0.005)


@pytest.fixture
def pause(monkeypatch):
    return Pause(monkeypatch)


def asked(signer, method, text):
    """Ask both nodes; gives tasks whose results are refusals."""

    async def refusal(node):
        with pytest.raises(RpcFaultError) as caught:
            await node.call(method, text)
        return caught.value

    return asyncio.gather(*(refusal(node) for node in signer.nodes))


@pytest.mark.parametrize("method", [PRESIGN, SIGN])
async def test_a_revocation_in_the_middle_counts(make_devnet, pause, method):
    """The presignature is made, but the key was revoked before it was offered, or used."""
    devnet = await make_devnet(2, 2)
    async with DanClient(devnet) as dan, connect_all(devnet) as nodes:
        session = await dan.generate_session_key(wallet=OWNER, chain_id=1)
        signer = Signer.of_session(devnet, nodes, session)
        if method == PRESIGN:
            text = fields.encode(signer.presign_params())
        else:
            text = fields.encode(signer.sign_params(signer.setup([text_request()])))
        waiting = asked(signer, method, text)
        await pause.until(2)
        await dan.revoke_ephemeral_key(session, wallet=OWNER)
        pause.go_on.set()
        refusals = await waiting
    assert [refusal.data for refusal in refusals] == [{"reason": "revoked"}] * 2
    assert [len(node._runner._last.signing.stock) for node in devnet.nodes] == [0, 0]


@pytest.mark.parametrize("method", [PRESIGN, SIGN])
async def test_an_expiry_in_the_middle_counts(make_devnet, pause, method):
    """The same when the key's time ends meanwhile."""
    clock = ManualClock()
    devnet = await make_devnet(2, 2, clock=clock)
    async with connect_all(devnet) as nodes:
        signer = await Signer.after(Keygen(nodes=nodes, t=2, expiry=int(clock.now) + 30))
        if method == PRESIGN:
            text = fields.encode(signer.presign_params(expires_at=int(clock.now) + 200))
        else:
            text = fields.encode(signer.sign_params(signer.setup([text_request()])))
        waiting = asked(signer, method, text)
        await pause.until(2)
        clock.advance(30)
        pause.go_on.set()
        refusals = await waiting
    assert [refusal.data["reason"] for refusal in refusals] == ["expired"] * 2
    assert all(refusal.data["time"] == 1000 * clock() for refusal in refusals)


async def test_permissions_that_end_in_the_middle_count(make_devnet, pause):
    """Their last second is over when the presignature is ready."""
    clock = ManualClock()
    devnet = await make_devnet(2, 2, clock=clock)
    target = "0x" + "33" * 20
    permissions = json.dumps(
        {
            "validUntil": int(clock.now) + 10,
            "permissions": [{"type": "call", "to": target, "selectors": ["0x"]}],
        }
    )
    async with connect_all(devnet) as nodes:
        keygen = Keygen(nodes=nodes, t=2, permissions=permissions, expiry=int(clock.now) + 3600)
        signer = await Signer.after(keygen)
        params = signer.sign_params(signer.setup([user_operation(target)]))
        waiting = asked(signer, SIGN, fields.encode(params))
        await pause.until(2)
        clock.advance(60)
        pause.go_on.set()
        refusals = await waiting
    assert {refusal.code for refusal in refusals} == {NodeCode.NOT_PERMITTED}


async def test_a_long_message_is_signed(make_devnet):
    """It is read beside the event loop; the signature is the same thing."""
    devnet = await make_devnet(2, 2)
    text = "x" * 60_000
    async with connect_all(devnet) as nodes:
        signer = await Signer.after(Keygen(nodes=nodes, t=2))
        signature = await signer.sign(text_request(text))
    assert recover_public_key(personal_message_digest(text.encode()), signature) == signer.ack.public_key


async def test_a_key_of_one_revision_signs_in_another(make_devnet):
    """An ed25519 key that was registered under a name signs in 0.1, whose credentials have none."""
    devnet = await make_devnet(2, 2)
    async with connect_all(devnet) as nodes:
        key = EphemeralKey.generate("ed25519")
        signer = await Signer.after(Keygen(nodes=nodes, t=2, revision="0.3", key=key))
        for revision in ("0.1", "0.3", "1"):
            signer.revision = revision
            signature = await signer.sign(user_operation())
            digest = sign_request_digest(user_operation())
            assert recover_public_key(digest, signature) == signer.ack.public_key


async def test_revision_0_1_names_the_owner(make_devnet):
    """Credentials in another owner's name are refused, although the ephemeral key's signature holds."""
    devnet = await make_devnet(2, 2)
    async with connect_all(devnet) as nodes:
        signer = await Signer.after(Keygen(nodes=nodes, t=2, revision="0.1"))
        offer = await signer.presign(signer.presign_params())
        signer.owner = OWNER.address
        params = signer.sign_params(signer.setup([user_operation()]), None, [offer.presignature_id])
        assert await nodes[0].code_of(SIGN, fields.encode(params)) == NodeCode.UNKNOWN_KEY


async def test_a_one_shot_request_is_not_done_again_while_it_is_known(make_devnet):
    """When its answer is forgotten, a copy of it gets no second signature."""
    clock = ManualClock()
    devnet = await make_devnet(2, 2, clock=clock)
    async with connect_all(devnet) as nodes:
        signer = await Signer.after(Keygen(nodes=nodes, t=2, expiry=int(clock.now) + 10_000))
        params = signer.sign_params(signer.setup([text_request(secrets.token_hex(8))]))
        first = await signer.send(params)
        assert signature_from(await signer.send(params)) == signature_from(first)
        clock.advance(301)
        assert await nodes[0].code_of(SIGN, fields.encode(params)) == NodeCode.CHALLENGE_REUSED
