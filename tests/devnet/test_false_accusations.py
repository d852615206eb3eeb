"""A node that accuses another at the start of a round: honest nodes say who gave up, and blame nobody."""

from __future__ import annotations

import pytest

from dan_async.devnet import Accuse, AccuseInSigning
from dan_async.errors import NodeCode
from tests.devnet.raw_client import Keygen, connect_all
from tests.devnet.test_keygen_failures import failures
from tests.devnet.test_signing_failures import begin, node_of, presign_outcomes
from tests.helpers import assert_runs_under


@pytest.mark.parametrize("round_", [1, 2, 3])
async def test_in_key_generation(make_devnet, round_):
    """Nothing has come of anybody when a round begins: that is no reason to believe it. Four times, for it is a race."""
    devnet = await make_devnet(2, 4)
    devnet.faults[0] = Accuse(round=round_)
    liar = devnet.nodes[0].operator
    for _ in range(4):
        async with connect_all(devnet) as nodes, assert_runs_under(5):
            keygen = Keygen(nodes=nodes, t=2)
            await keygen.prepare()
            refusals = dict(zip([node.operator for node in nodes], await failures(keygen), strict=True))
        own = refusals.pop(liar)
        assert own.data["culprits"]
        assert own.data["evidence"] == "silence"
        for refusal in refusals.values():
            assert refusal.code == NodeCode.KEYGEN_FAILED
            assert refusal.data["culprits"] == []
            assert refusal.data["abortedBy"] in {liar, *refusals}  # or one that was told before


@pytest.mark.parametrize("round_", [1, 2])
async def test_in_a_presignature(make_devnet, round_):
    """Nobody waits for the accused any longer than its message takes."""
    devnet = await make_devnet(3, 3)
    async with connect_all(devnet) as nodes, assert_runs_under(20):
        signer = await begin(devnet, nodes, 3)
        liar = signer.signers()[0]
        devnet.faults[node_of(devnet, liar).index] = AccuseInSigning(round=round_)
        for _ in range(4):
            refusals = await presign_outcomes(signer, signer.presign_params())
            assert refusals.pop(liar).data["culprits"] == [signer.signers()[2]]
            assert [refusal.data["culprits"] for refusal in refusals.values()] == [[], []]
            assert all(refusal.data["abortedBy"] in {liar, *refusals} for refusal in refusals.values())
