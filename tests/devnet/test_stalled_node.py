"""One node that stalls: once the key is made, t acknowledgements are enough; before, a spare takes its seat."""

from __future__ import annotations

from dan_async import DanClient, LocalWallet, NodeNetwork, Threshold, Timeouts
from dan_async.devnet import Devnet, DropReply, DropRequest
from dan_async.network import KeygenReport
from tests.helpers import assert_runs_under

WALLET = LocalWallet("11" * 32)

#: Whoever waited for the stalled node would wait for a minute.
PATIENT = Timeouts(total_s=300, attempt_s=60, hedge_s=0.1)


async def test_the_key_comes_without_the_node_whose_acknowledgement_never_does() -> None:
    """Each of five nodes in turn makes the key and loses its reply: the call returns as if nothing were wrong."""
    async with Devnet(threshold=3, parties=5) as net:
        network = NodeNetwork(net.endpoints, threshold=Threshold(3, 5), timeouts=PATIENT)
        async with DanClient(network, timeouts=PATIENT) as dan:
            await dan.generate_session_key(wallet=WALLET, chain_id=1)  # opens the links between the nodes
            for stalled in range(5):
                reports: list[KeygenReport] = []
                net.faults[stalled] = DropReply(methods=("dan_keygen",))
                async with assert_runs_under(15):
                    await dan.generate_session_key(wallet=WALLET, chain_id=1, on_report=reports.append)
                net.faults[stalled] = None
                (report,) = reports
                late = {outcome.operator for outcome in report.outcomes if not outcome.is_success}
                assert net.nodes[stalled].operator in late
                assert len(report.holders) >= 3
                assert report.restarts == 0


async def test_a_spare_takes_the_seat_of_a_node_that_stalls_at_the_challenge() -> None:
    """The pool has one node more than needed: the key generation, which needs all its participants, never meets the stalled one."""
    async with Devnet(threshold=2, parties=4) as net:
        net.faults[0] = DropRequest(methods=("dan_challenge",))
        network = NodeNetwork(net.endpoints, threshold=Threshold(2, 3), timeouts=PATIENT)
        reports: list[KeygenReport] = []
        async with DanClient(network, timeouts=PATIENT) as dan, assert_runs_under(15):
            await dan.generate_session_key(wallet=WALLET, chain_id=1, on_report=reports.append)
        (report,) = reports
        assert [outcome.operator for outcome in report.replaced] == [net.nodes[0].operator]
        assert report.threshold == Threshold(2, 3)
