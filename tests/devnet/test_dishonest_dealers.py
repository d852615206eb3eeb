"""Session keys in spite of nodes that spoil a key generation without showing it to most of the others."""

from __future__ import annotations

from typing import Any

import pytest

from dan_async import DanClient, LocalWallet
from dan_async.config import Timeouts
from dan_async.devnet import DealBadOpening, Devnet, NodeLimits, WithholdEcho
from dan_async.devnet.faults.kinds import Fault
from dan_async.errors import InvalidFieldError, QuorumError
from dan_async.network import KeygenReport
from tests.helpers import assert_runs_under

WALLET = LocalWallet("0x" + "00" * 31 + "01")
PATIENT = Timeouts(total_s=30)
QUICK = NodeLimits(round_s=1.5, stop_grace_s=0.1)


async def make_key(net: Devnet, **options: Any) -> tuple[Any, KeygenReport]:
    """Make a 3-of-5 key; gives the session and the report."""
    reports: list[KeygenReport] = []
    async with DanClient(net.network(timeouts=PATIENT)) as dan, assert_runs_under(25):
        session = await dan.generate_session_key(
            wallet=WALLET,
            chain_id=1,
            **{"threshold": 3, "parties_number": 5} | options,
            on_report=reports.append,
        )
    return session, reports[0]


@pytest.mark.parametrize("liars", [(0,), (4,), (0, 3), (1, 2)])
async def test_a_bad_opening_to_one_party_costs_a_few_rounds(liars: tuple[int, ...]) -> None:
    """Nobody can be shown it; who was in dispute never takes part together again, and as many spares as liars are enough."""
    faults: dict[int, Fault] = dict.fromkeys(liars, DealBadOpening())
    async with Devnet(3, 5 + len(liars), limits=QUICK, faults=faults) as net:
        _, report = await make_key(net)
        dishonest = {net.nodes[index].operator for index in liars}
    assert len(report.outcomes) == 5
    assert not dishonest & {outcome.operator for outcome in report.outcomes}
    assert dishonest.issuperset(report.culprits)
    assert all(dishonest & set(pair) for pair in report.disputes)
    assert report.disputes or report.culprits
    assert report.restarts <= 2 * len(liars)


async def test_with_more_spares_both_that_are_in_dispute_sit_out() -> None:
    """Then one round is lost, and no more."""
    async with Devnet(3, 7, limits=QUICK, faults={1: DealBadOpening()}) as net:
        _, report = await make_key(net)
    assert report.restarts <= 1
    assert report.disputes or report.culprits or not report.restarts


async def test_without_spares_fewer_parties_will_do() -> None:
    """If that is allowed; if not, nothing can be done against a single liar, and the error names it."""
    async with Devnet(3, 5, limits=QUICK, faults={1: DealBadOpening()}) as net:
        liar = net.nodes[1].operator
        _, report = await make_key(net, min_parties=4)
        assert report.threshold.n == 4
        assert liar not in report.holders
        with pytest.raises(QuorumError) as caught:
            await make_key(net)
    assert liar in caught.value.hint or liar in caught.value.culprits
    assert "add spare nodes" in caught.value.hint


@pytest.mark.parametrize("reach", [1, 2])
async def test_a_key_is_no_hostage_of_a_node_that_withheld_its_echo(reach: int) -> None:
    """The honest nodes all get their share, and sign when the dishonest one is gone."""
    async with Devnet(3, 5, limits=QUICK, faults={0: WithholdEcho(reach=reach)}) as net:
        session, report = await make_key(net, min_holders=5)
        assert len(report.holders) == 5
        assert report.restarts == 0
        for index in (0, 1):
            await net.nodes[index].stop()
        async with DanClient(net.network(timeouts=PATIENT)) as dan:
            assert await dan.sign_message("hello", session)


async def test_a_payload_waits_for_as_many_holders_as_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that cannot hear the others gets the certificate from the client; with t it would not have been waited for."""
    monkeypatch.setattr("dan_async.devnet.node.keygen.KeygenService._pass_on", lambda *_: None)
    async with Devnet(3, 5, limits=QUICK, faults={0: WithholdEcho(reach=2)}) as net:
        _, few = await make_key(net)
        assert 3 <= len(few.holders) < 5
        _, all_ = await make_key(net, min_holders=5)
        assert len(all_.holders) == 5
        assert {outcome.step for outcome in all_.outcomes} == {"keygen", "certificate"}


async def test_min_holders_is_for_nodes(make_devnet: Any) -> None:
    """A gateway does not say who holds a share."""
    from dan_async import GatewayNetwork

    net = await make_devnet(2, 3)
    async with DanClient(GatewayNetwork(net.gateway_url, revision="1")) as dan:
        with pytest.raises(InvalidFieldError, match="min_holders"):
            await dan.generate_session_key(
                wallet=WALLET, chain_id=1, threshold=2, parties_number=3, min_holders=3
            )
