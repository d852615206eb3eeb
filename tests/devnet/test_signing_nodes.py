"""Nodes sign together: any t of them, with presignatures, with nonces, or in one shot."""

from __future__ import annotations

import asyncio
import itertools
import threading

import pytest
from attrs import evolve

from dan_async.crypto.address import point_to_address
from dan_async.crypto.curve import decode
from dan_async.crypto.signature import personal_message_digest, recover_address
from dan_async.devnet import CrashInSigning, Devnet, NodeLimits
from dan_async.devnet.mpc.aborts import SigningAbort
from dan_async.devnet.mpc.pairwise_setup import PairSetup
from dan_async.devnet.mpc.threshold_ecdsa import SigningParty
from dan_async.protocols import fields
from dan_async.protocols.sign_request import sign_request_digest
from tests.devnet.raw_client import Keygen, RpcFaultError, connect_all
from tests.devnet.raw_signing import Signer, signature_from, text_request, user_operation
from tests.helpers import no_leaks

HELLO = personal_message_digest(b"hello")


def address_of(signer):
    return point_to_address(decode(signer.ack.public_key))


def pairs_of(node):
    return node._runner._last.signing.pairs


def setup_id(node, peer):
    return pairs_of(node).get(peer.operator).setup_id


async def test_the_nonce_of_a_signature_is_not_that_of_its_presignature(make_devnet):
    """Which the client knows before it says what shall be signed; in the form without a presignature neither."""
    devnet = await make_devnet(2, 2)
    async with connect_all(devnet) as nodes:
        signer = await Signer.after(Keygen(nodes=nodes, t=2))
        offer = await signer.presign(signer.presign_params())
        setup = signer.setup([text_request()])
        for ids in ([offer.presignature_id], []):
            answers = await signer.send(signer.sign_params(setup, presignature_ids=ids))
            nonce_point = answers[0].claims.shares[0].nonce_point
            assert (nonce_point == offer.nonce_point) is bool(ids)
            assert signature_from(answers)[:32] != nonce_point[1:]


async def test_every_subset_of_t_signs(make_devnet):
    """All ten sets of three of five nodes; each signature recovers to the key's address."""
    devnet = await make_devnet(3, 5)
    async with connect_all(devnet) as nodes:
        signer = await Signer.after(Keygen(nodes=nodes, t=3))
        for signers in itertools.combinations(range(5), 3):
            signature = await signer.sign(signers=signers)
            assert recover_address(HELLO, signature) == address_of(signer)


@pytest.mark.parametrize("revision", ["0.1", "0.3", "1"])
@pytest.mark.parametrize("form", ["presignature", "nonces"])
async def test_every_revision_signs(make_devnet, revision, form):
    """With ed25519 and secp256k1 ephemeral keys; a presignature is made ahead, or while the request is worked on."""
    devnet = await make_devnet(2, 3)
    request = user_operation() if revision == "0.1" else text_request()
    async with connect_all(devnet) as nodes:
        signer = await Signer.after(Keygen(nodes=nodes, t=2, revision=revision))
        if form == "presignature":
            signature = await signer.sign(request)
        else:
            setup = signer.setup([request])
            request_id = "0x" + "0c" * 32
            nonces = await signer.nonces(setup, request_id, nodes)
            params = signer.sign_params(
                setup, participants=signer.ack.participants, nonces=tuple(nonces), request_id=request_id
            )
            signature = signature_from(await signer.send(params))
    assert recover_address(sign_request_digest(request), signature) == address_of(signer)


async def test_a_one_shot_request_with_several_messages(make_devnet):
    """One presignature for each; every signature is for its own message."""
    devnet = await make_devnet(2, 3)
    async with connect_all(devnet) as nodes:
        signer = await Signer.after(Keygen(nodes=nodes, t=2))
        answers = await signer.send(signer.sign_params(signer.setup([text_request("a"), text_request("b")])))
    for number, text in enumerate((b"a", b"b")):
        signature = signature_from(answers, number)
        assert recover_address(personal_message_digest(text), signature) == address_of(signer)


async def test_shares_are_signed_by_their_operators(make_devnet):
    """Over the whole answer."""
    devnet = await make_devnet(2, 2)
    async with connect_all(devnet) as nodes:
        signer = await Signer.after(Keygen(nodes=nodes, t=2))
        answers = await signer.send(signer.sign_params(signer.setup([text_request()])))
    for node, answer in zip(nodes, answers, strict=True):
        assert answer.signer(answer.claims.request_id) == node.operator


async def test_a_repeated_request_gets_the_same_answer(make_devnet):
    """Also while the first one is under way: nothing is signed twice."""
    devnet = await make_devnet(2, 2)
    async with connect_all(devnet) as nodes:
        signer = await Signer.after(Keygen(nodes=nodes, t=2))
        params = signer.presign_params()
        first, second = await asyncio.gather(signer.presign(params), signer.presign(params))
        assert first == second == await signer.presign(params)
        params = signer.sign_params(signer.setup([text_request()]), None, [first.presignature_id])
        assert await signer.send(params) == await signer.send(params)


async def test_fewer_than_t_shares_are_no_signature(make_devnet):
    """Whichever one of the three is missing: two of three do not sign, not even together with the client."""
    devnet = await make_devnet(3, 3)
    async with connect_all(devnet) as nodes:
        signer = await Signer.after(Keygen(nodes=nodes, t=3))
        answers = await signer.send(signer.sign_params(signer.setup([text_request()])))
    assert recover_address(HELLO, signature_from(answers)) == address_of(signer)
    for missing in range(3):
        with pytest.raises(SigningAbort, match="does not verify"):
            signature_from([answer for i, answer in enumerate(answers) if i != missing])


async def test_pairs_get_ready_after_a_key_generation(make_devnet):
    """Nobody has asked for a signature yet; each pair has one set-up, and both sides the same."""
    devnet = await make_devnet(2, 3)
    async with connect_all(devnet) as nodes:
        await Keygen(nodes=nodes, t=2).run()
        async with asyncio.timeout(10):
            while sum(len(pairs_of(node)) for node in devnet.nodes) < 6:
                await asyncio.sleep(0.02)
    for one, other in itertools.combinations(devnet.nodes, 2):
        assert setup_id(one, other) == setup_id(other, one)


async def test_a_pair_is_set_up_once(make_devnet):
    """More keys and more signatures use the set-up there is; so does a restarted node."""
    devnet = await make_devnet(2, 2)
    one, other = devnet.nodes
    async with connect_all(devnet) as nodes:
        first = await Signer.after(Keygen(nodes=nodes, t=2))
        await asyncio.gather(*(first.sign() for _ in range(4)))
        made = setup_id(one, other)
        await (await Signer.after(Keygen(nodes=nodes, t=2))).sign()
        assert setup_id(one, other) == setup_id(other, one) == made
    await one.stop()
    await one.start()
    async with connect_all(devnet) as nodes:
        await evolve(first, nodes=nodes).sign()
    assert setup_id(one, other) == setup_id(other, one) == made


@pytest.mark.parametrize("loser", [0, 1])
async def test_a_node_that_has_lost_its_set_up_gets_a_new_one(make_devnet, loser):
    """Whichever of the two it is, the one that begins set-ups or the other; nobody is banned."""
    devnet = await make_devnet(2, 2)
    async with connect_all(devnet) as nodes:
        signer = await Signer.after(Keygen(nodes=nodes, t=2))
        await signer.sign()
    lost, kept = devnet.nodes[loser], devnet.nodes[1 - loser]
    made = setup_id(kept, lost)
    await lost.stop()
    records = lost._runner._memory._records
    for name in [name for name in records if name.startswith("pair-")]:
        del records[name]
    await lost.start()
    async with connect_all(devnet) as nodes:
        await evolve(signer, nodes=nodes).sign()
    assert setup_id(kept, lost) == setup_id(lost, kept) != made


async def test_halves_that_do_not_match_are_made_anew(make_devnet):
    """A node comes back with an older side of a set-up, as after a restored backup: no ban, and a new set-up."""
    devnet = await make_devnet(2, 2)
    one, other = devnet.nodes
    async with connect_all(devnet) as nodes:
        signer = await Signer.after(Keygen(nodes=nodes, t=2))
        await signer.sign()
        backup = dict(one._runner._memory._records)
        await other.stop()
        records = other._runner._memory._records
        for name in [name for name in records if name.startswith("pair-")]:
            del records[name]
        await other.start()
    async with connect_all(devnet) as nodes:
        await evolve(signer, nodes=nodes).sign()
        await one.stop()
        one._runner._memory._records.update(backup)
        await one.start()
    async with connect_all(devnet) as nodes:
        await evolve(signer, nodes=nodes).sign()
    assert setup_id(one, other) == setup_id(other, one)


async def test_nodes_in_processes_of_their_own_sign(make_devnet):
    """The same over real processes; when one dies in the middle, the others sign without it."""
    devnet = await make_devnet(2, 3, processes=True, limits=NodeLimits(sign_quiet_s=1.5))
    async with connect_all(devnet) as nodes:
        signer = await Signer.after(Keygen(nodes=nodes, t=2))
        signature = await signer.sign(signers=(0, 2))
        assert recover_address(HELLO, signature) == address_of(signer)
        dead = next(node for node in devnet.nodes if node.operator == signer.signers((0, 2))[0])
        devnet.faults[dead.index] = CrashInSigning(at_round=2)
        with pytest.raises((RpcFaultError, ConnectionError)):
            await signer.presign(signer.presign_params((0, 2)))
        signature = await signer.sign(signers=(1, 2))
    assert recover_address(HELLO, signature) == address_of(signer)


async def test_arithmetic_does_not_run_on_the_event_loop(make_devnet, monkeypatch):
    """Every step of a set-up and of a presignature runs on the thread that is there for it."""
    threads = {}

    def watched(kind):
        class Watched(kind):
            def _begin(self, name):
                threads.setdefault((kind.__name__, name), set()).add(threading.current_thread().name)
                super()._begin(name)

        return Watched

    monkeypatch.setattr("dan_async.devnet.peers.presigning.PairSetup", watched(PairSetup))
    monkeypatch.setattr("dan_async.devnet.peers.presigning.SigningParty", watched(SigningParty))
    devnet = await make_devnet(2, 2)
    async with connect_all(devnet) as nodes:
        await (await Signer.after(Keygen(nodes=nodes, t=2))).sign()
    assert len(threads) == 6 + 3
    assert set.union(*threads.values()) == {"dan-devnet-arithmetic"}


async def test_nothing_is_left_behind():
    """No task and no socket after signatures and a stop, also with a presignature under way."""
    async with no_leaks(), Devnet(2, 2) as devnet, connect_all(devnet) as nodes:
        signer = await Signer.after(Keygen(nodes=nodes, t=2))
        await signer.sign()
        alone = asyncio.create_task(nodes[0].code_of("dan_presign", fields.encode(signer.presign_params())))
        await asyncio.sleep(0.1)
        for node in devnet.nodes:
            await node.stop()
        with pytest.raises((ConnectionError, AssertionError)):
            assert await alone == 0
