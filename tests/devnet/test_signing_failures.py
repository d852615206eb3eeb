"""Signing among nodes that crash, fall silent or cheat: it ends, the guilty are named, and others finish the job."""

from __future__ import annotations

import asyncio

import pytest
from attrs import evolve

from dan_async.crypto.signature import personal_message_digest, recover_public_key
from dan_async.devnet import (
    CheatInSigning,
    ContradictInSigning,
    Crash,
    CrashInSigning,
    DropReply,
    ForgeCommitments,
    NodeLimits,
    SilentInSigning,
    WrongSignatureShare,
)
from dan_async.devnet.mpc import threshold_ecdsa
from dan_async.devnet.mpc.aborts import SigningAbort
from dan_async.errors import AcknowledgementError, NodeCode
from dan_async.nodes.signature_shares import ExpectedShares, SpoiltSharesError, join_shares
from dan_async.protocols import fields
from dan_async.protocols.node import PRESIGN, SIGN, PresignatureOffer, SignatureShares
from tests.devnet.raw_client import Keygen, RpcFaultError, connect_all
from tests.devnet.raw_signing import Signer, signature_from, text_request
from tests.helpers import assert_runs_under, no_byte_more

#: Long enough for a round on a busy machine, short enough to wait for.
QUICK = NodeLimits(sign_quiet_s=1.5, stop_grace_s=0.1)
HELLO = personal_message_digest(b"hello")


def node_of(devnet, operator):
    return next(node for node in devnet.nodes if node.operator == operator)


async def begin(devnet, nodes, t):
    """A session whose pairs are all set up, so that only rounds of presignatures are hit by what follows."""
    signer = await Signer.after(Keygen(nodes=nodes, t=t))
    for start in range(len(nodes)):
        await signer.sign(signers=[(start + i) % len(nodes) for i in range(t)])
    return signer


async def outcome(node, method, text):
    """What a node answers: a result, or its refusal, or that the connection ended."""
    try:
        return await node.call(method, text)
    except (RpcFaultError, ConnectionError) as error:
        return error


async def presign_outcomes(signer, params):
    text = fields.encode(params)
    chosen = signer.chosen(params.signers)
    answers = await asyncio.gather(*(outcome(node, PRESIGN, text) for node in chosen))
    return dict(zip((node.operator for node in chosen), answers, strict=True))


async def test_two_that_lie_to_each_other_have_nobody_else_fail_without_a_reason(make_devnet, monkeypatch):
    """What each says of what it shares with the other does not add up; a third refers to one of them, who ought to know."""
    honest = threshold_ecdsa.zero_shares

    def zero_shares(index, seeds, context):
        parts = honest(index, seeds, context)
        return {**parts, 2: parts[2] + 1} if index == 1 else parts

    devnet = await make_devnet(3, 3)
    async with connect_all(devnet) as nodes:
        signer = await begin(devnet, nodes, 3)
        monkeypatch.setattr(threshold_ecdsa, "zero_shares", zero_shares)
        said = await presign_outcomes(signer, signer.presign_params())
    assert said[signer.ack.participants[2]].data == {"culprits": [], "abortedBy": signer.ack.participants[0]}


@pytest.mark.parametrize(
    "fault",
    [CrashInSigning(at_round=1), CrashInSigning(at_round=2), Crash()],
    ids=["commit", "multiply", "answer"],
)
async def test_a_crash_in_a_presignature_leaves_the_job_to_others(make_devnet, fault):
    """Whichever round it is; the other signers name the dead node, and another set of t signs."""
    devnet = await make_devnet(2, 3, limits=QUICK)
    async with connect_all(devnet) as nodes, assert_runs_under(20):
        signer = await begin(devnet, nodes, 2)
        dead, other = signer.signers((0, 1))
        devnet.faults[node_of(devnet, dead).index] = fault
        answers = await presign_outcomes(signer, signer.presign_params((0, 1)))
        assert isinstance(answers[dead], ConnectionError)
        if not isinstance(fault, Crash):  # which comes when the work is done
            assert answers[other].code == NodeCode.SIGNING_FAILED
            assert answers[other].data["culprits"] == [dead]
        signature = await signer.sign(signers=(1, 2))
    assert recover_public_key(HELLO, signature) == signer.ack.public_key


async def test_a_crash_before_a_share_leaves_the_job_to_others(make_devnet):
    """The presignature is lost with the node; the others make another one."""
    devnet = await make_devnet(2, 3, limits=QUICK)
    async with connect_all(devnet) as nodes, assert_runs_under(20):
        signer = await begin(devnet, nodes, 2)
        offer = await signer.presign(signer.presign_params((0, 1)))
        dead = node_of(devnet, signer.signers((0, 1))[0])
        devnet.faults[dead.index] = Crash(methods=[SIGN])
        params = signer.sign_params(signer.setup([text_request()]), (0, 1), [offer.presignature_id])
        text = fields.encode(params)
        lost, kept = await asyncio.gather(
            *(outcome(node, SIGN, text) for node in signer.chosen(params.signers))
        )
        assert isinstance(lost, ConnectionError)
        assert SignatureShares.read(kept).claims.request_id == params.request_id
        devnet.faults[dead.index] = None
        await dead.start()
    async with connect_all(devnet) as nodes:
        again = evolve(signer, nodes=nodes)
        assert await nodes[0].code_of(SIGN, text) == NodeCode.PRESIGNATURE_UNKNOWN
        signature = await again.sign(signers=(0, 1))
    assert recover_public_key(HELLO, signature) == signer.ack.public_key


async def test_a_lost_answer_is_given_again(make_devnet):
    """The work was done once; who asks again has the same share."""
    devnet = await make_devnet(2, 2, limits=QUICK)
    async with connect_all(devnet) as nodes:
        signer = await begin(devnet, nodes, 2)
        offer = await signer.presign(signer.presign_params())
        devnet.faults[0] = DropReply(methods=[SIGN], times=1)
        params = signer.sign_params(signer.setup([text_request()]), None, [offer.presignature_id])
        forgetful = next(node for node in nodes if node.operator == devnet.nodes[0].operator)
        with pytest.raises(TimeoutError):
            await forgetful.call(SIGN, fields.encode(params), timeout_s=0.3)
        signature = signature_from(await signer.send(params))
    assert recover_public_key(HELLO, signature) == signer.ack.public_key


@pytest.mark.parametrize("round_", [1, 2])
async def test_a_silent_signer_is_named(make_devnet, round_):
    """By all others, within the time of a round; then the rest signs."""
    devnet = await make_devnet(3, 4, limits=QUICK)
    async with connect_all(devnet) as nodes, assert_runs_under(20):
        signer = await begin(devnet, nodes, 3)
        silent, *others = signer.signers((0, 1, 2))
        devnet.faults[node_of(devnet, silent).index] = SilentInSigning(round=round_)
        answers = await presign_outcomes(signer, signer.presign_params((0, 1, 2)))
        for other in others:
            assert answers[other].code == NodeCode.SIGNING_FAILED
            assert answers[other].data["culprits"] == [silent]
        await signer.sign(signers=(1, 2, 3))


async def test_a_signer_that_nobody_asked_is_named(make_devnet):
    """A client that asks only some of the signers has their time, for one round."""
    devnet = await make_devnet(2, 2, limits=QUICK)
    async with connect_all(devnet) as nodes, assert_runs_under(20):
        signer = await begin(devnet, nodes, 2)
        text = fields.encode(signer.presign_params())
        refusal = await outcome(nodes[0], PRESIGN, text)
    assert refusal.code == NodeCode.SIGNING_FAILED
    assert refusal.data["culprits"] == [nodes[1].operator]


async def test_a_cheat_is_banned_for_good(make_devnet, tmp_path):
    """Also when it behaves again, and after both were restarted; with others both still sign."""
    devnet = await make_devnet(2, 3, limits=QUICK, storage=tmp_path)
    async with connect_all(devnet) as nodes:
        signer = await begin(devnet, nodes, 2)
        cheat, victim = signer.signers((0, 1))
        devnet.faults[node_of(devnet, cheat).index] = CheatInSigning()
        answers = await presign_outcomes(signer, signer.presign_params((0, 1)))
        assert answers[victim].data["culprits"] == [cheat]
        assert "consistency check" in answers[victim].message
        devnet.faults[node_of(devnet, cheat).index] = None
        await assert_banned(signer, cheat, victim)
    for operator in (cheat, victim):
        await node_of(devnet, operator).stop()
        await node_of(devnet, operator).start()
    async with connect_all(devnet) as nodes:
        signer = evolve(signer, nodes=nodes)
        await assert_banned(signer, cheat, victim)
        await signer.sign(signers=(0, 2))
        await signer.sign(signers=(1, 2))


async def test_a_ban_outlives_a_new_set_up(make_devnet, tmp_path):
    """A cheat that throws its side away, to be given another set-up, is given none."""
    devnet = await make_devnet(2, 2, limits=QUICK, storage=tmp_path)
    async with connect_all(devnet) as nodes:
        signer = await begin(devnet, nodes, 2)
        cheat, victim = signer.signers()
        devnet.faults[node_of(devnet, cheat).index] = CheatInSigning()
        await presign_outcomes(signer, signer.presign_params())
    devnet.faults[node_of(devnet, cheat).index] = None
    node = node_of(devnet, cheat)
    await node.stop()
    for record in (tmp_path / f"node-{node.index}" / "records").glob("pair-*"):
        record.unlink()
    await node.start()
    async with connect_all(devnet) as nodes:
        await assert_banned(evolve(signer, nodes=nodes), cheat, victim)


async def test_a_ban_outlives_a_full_disk_and_a_restored_backup(make_devnet, tmp_path):
    """No byte can be written when the cheat is found out, and the set-ups come back from a backup: it is banned all the same."""
    devnet = await make_devnet(2, 2, limits=QUICK, storage=tmp_path)
    async with connect_all(devnet) as nodes:
        signer = await begin(devnet, nodes, 2)
        cheat, victim = signer.signers()
        earlier = await signer.presign(signer.presign_params())
        node = node_of(devnet, victim)
        records = tmp_path / f"node-{node.index}" / "records"
        backup = {path: path.read_bytes() for path in records.glob("pair-*")}
        devnet.faults[node_of(devnet, cheat).index] = CheatInSigning()
        with no_byte_more():
            answers = await presign_outcomes(signer, signer.presign_params())
        assert answers[victim].data["culprits"] == [cheat]
        devnet.faults[node_of(devnet, cheat).index] = None
        params = signer.sign_params(signer.setup([text_request()]), None, [earlier.presignature_id])
        (victims,) = signer.chosen([victim])
        refusal = await outcome(victims, SIGN, fields.encode(params))
        assert (refusal.code, refusal.data["culprits"]) == (NodeCode.SIGNING_FAILED, [cheat])
    await node.stop()
    for path, content in backup.items():
        path.write_bytes(content)
    await node.start()
    async with connect_all(devnet) as nodes:
        await assert_banned(evolve(signer, nodes=nodes), cheat, victim)


async def assert_banned(signer, cheat, victim):
    answers = await presign_outcomes(signer, signer.presign_params((0, 1)))
    assert answers[victim].code == NodeCode.SIGNING_FAILED
    assert answers[victim].data["culprits"] == [cheat]
    assert "never signs with" in answers[victim].message
    assert answers[cheat].code == NodeCode.SIGNING_FAILED


LIES = [
    (WrongSignatureShare(), "{liar}", "{liar}"),
    (ForgeCommitments(), "not those that the node made beforehand", "{liar}"),
    (ContradictInSigning(), "{first} {liar}", "{first} {liar}"),
]


@pytest.mark.parametrize(
    ("fault", "presigned", "oneshot"), LIES, ids=[type(fault).__name__ for fault, _, _ in LIES]
)
async def test_a_lie_has_a_name_at_once(make_devnet, fault, presigned, oneshot):
    """Among three signers, whether the presignature was made before the message was known or after."""
    devnet = await make_devnet(3, 3, limits=QUICK)
    async with connect_all(devnet) as nodes:
        signer = await begin(devnet, nodes, 3)
        first, _, liar = signer.signers()
        devnet.faults[node_of(devnet, liar).index] = fault
        setup = signer.setup([text_request()])
        expected = ExpectedShares(
            request_id="", key_id=signer.ack.key_id, digests=(HELLO,), presignatures=None, address=None
        )
        offered = await presign_outcomes(signer, signer.presign_params())
        offers = {operator: PresignatureOffer.read(answer) for operator, answer in offered.items()}
        params = signer.sign_params(setup, presignature_ids=[offers[first].presignature_id])
        found = await problem(signer, params, evolve(expected, presignatures=(offers,)))
        assert presigned.format(first=first, liar=liar) in found
        found = await problem(signer, signer.sign_params(setup), expected)
        assert found == oneshot.format(first=first, liar=liar)


async def problem(signer, params, expected):
    """Sign, and return who is to blame, or why one answer does not count."""
    try:
        answers = await signer.send(params)
        for answer in answers:
            evolve(expected, request_id=params.request_id).check(answer.operator, answer)
        join_shares(answers)
    except AcknowledgementError as error:
        return error.message
    except SpoiltSharesError as error:
        return " ".join(
            [*error.liars, *(name for pair in error.disputes for name in sorted(pair, key=str.lower))]
        )
    pytest.fail("there is a signature")


async def test_a_wrong_share_spoils_one_signature_only(make_devnet):
    """Other signers do without that node."""
    devnet = await make_devnet(2, 3, limits=QUICK)
    async with connect_all(devnet) as nodes:
        signer = await begin(devnet, nodes, 2)
        devnet.faults[node_of(devnet, signer.signers((0, 1))[0]).index] = WrongSignatureShare()
        with pytest.raises(SigningAbort, match="does not verify"):
            await signer.sign(signers=(0, 1))
        await signer.sign(signers=(1, 2))


async def test_a_node_that_stops_tells_the_others(make_devnet):
    """Nobody waits out a round for it."""
    devnet = await make_devnet(2, 2, limits=NodeLimits(sign_quiet_s=30, sign_round_s=30, stop_grace_s=0.1))
    async with connect_all(devnet) as nodes, assert_runs_under(20):
        signer = await begin(devnet, nodes, 2)
        one, other = signer.signers()
        devnet.faults[node_of(devnet, one).index] = SilentInSigning(round=1)
        waiting = asyncio.create_task(presign_outcomes(signer, signer.presign_params()))
        await asyncio.sleep(0.2)
        await node_of(devnet, one).stop()
        answers = await waiting
    assert answers[other].data == {"culprits": [one], "abortedBy": one}
