"""Key generation end to end: real nodes, real WebSockets, a real distributed key."""

from __future__ import annotations

import asyncio
import itertools
import threading

import pytest

from dan_async.config import Threshold
from dan_async.crypto.address import public_key_to_address
from dan_async.crypto.curve import base_multiply, decode, encode, points_fit_degree
from dan_async.devnet import Devnet, NodeLimits
from dan_async.devnet.mpc.dkg import DkgParty
from dan_async.protocols import fields
from dan_async.protocols import node as node_1
from tests.devnet.raw_client import Keygen, connect_all, keygen_on
from tests.helpers import no_leaks
from tests.interpolation import interpolate_scalar


def shares_of(devnet, key_id):
    """Every node's secret share, by party index."""
    found = (node.reveal_share(key_id) for node in devnet.nodes)
    return {share.index: share.secret_share for share in found if share is not None}


async def test_any_t_shares_make_the_private_key_and_fewer_do_not(make_devnet):
    """The key is real, and no node ever had it: every 3 of 5 shares interpolate to it, no 2 do."""
    devnet = await make_devnet(3, 5)
    (ack, *_) = await keygen_on(devnet, 3)
    address = public_key_to_address(ack.public_key)
    shares = shares_of(devnet, ack.key_id)
    assert sorted(shares) == [1, 2, 3, 4, 5]
    for size in (3, 4, 5):
        for chosen in itertools.combinations(shares, size):
            private_key = interpolate_scalar({index: shares[index] for index in chosen})
            assert public_key_to_address(encode(base_multiply(private_key))) == address
    for size in (1, 2):
        for chosen in itertools.combinations(shares, size):
            guess = interpolate_scalar({index: shares[index] for index in chosen})
            assert public_key_to_address(encode(base_multiply(guess))) != address


async def test_acknowledgements_agree_and_are_signed(devnet):
    """Same claims from every node, each signed by its operator, each with its own index."""
    acks = await keygen_on(devnet, 2)
    assert len({ack.claims for ack in acks}) == 1
    assert [ack.party_index for ack in acks] == [1, 2, 3]
    assert {ack.operator for ack in acks} == {node.operator for node in devnet.nodes}
    for ack in acks:
        assert ack.signer(ack.request_id) == ack.operator


async def test_the_key_id_is_the_hash_that_anyone_can_compute(devnet):
    """Over public key, t, participants, owner and request."""
    async with connect_all(devnet) as nodes:
        keygen = Keygen(nodes=nodes, t=2)
        (ack, *_) = await keygen.run()
    assert ack.key_id == node_1.compute_key_id(
        public_key=ack.public_key,
        t=2,
        participants=keygen.participants,
        owner_id=keygen.signer.operator,
        request_id=keygen.request_id,
    )


async def test_public_shares_belong_to_the_secret_ones(devnet):
    """And lie with the public key on one polynomial of degree t - 1."""
    (ack, *_) = await keygen_on(devnet, 2)
    for index, secret in shares_of(devnet, ack.key_id).items():
        assert encode(base_multiply(secret)) == ack.public_shares[index - 1]
    points = dict(enumerate(map(decode, (ack.public_key, *ack.public_shares))))
    assert points_fit_degree(points, 1)


@pytest.mark.parametrize("threshold", ["2-of-2", "4-of-4", "3-of-7", "11-of-11", "11-of-20"])
async def test_thresholds(make_devnet, threshold):
    """From the smallest to the largest; the key is checked by interpolating all shares."""
    agreed = Threshold.parse(threshold)
    devnet = await make_devnet(agreed.t, agreed.n, limits=NodeLimits(round_s=50))  # machines may be busy
    acks = await keygen_on(devnet, agreed.t)
    assert len({ack.claims for ack in acks}) == 1
    shares = shares_of(devnet, acks[0].key_id)
    some = dict(itertools.islice(shares.items(), agreed.t))
    assert encode(base_multiply(interpolate_scalar(some))) == acks[0].public_key
    fewer = dict(itertools.islice(shares.items(), agreed.t - 1))
    assert encode(base_multiply(interpolate_scalar(fewer))) != acks[0].public_key


async def test_a_part_of_the_pool_can_make_a_key(make_devnet):
    """The others know nothing of it."""
    devnet = await make_devnet(2, 5)
    async with connect_all(devnet) as nodes:
        acks = await Keygen(nodes=nodes[1:4], t=2).run()
    assert [ack.operator for ack in acks] == [node.operator for node in nodes[1:4]]
    holders = [node for node in devnet.nodes if node.reveal_share(acks[0].key_id) is not None]
    assert len(holders) == 3


@pytest.mark.parametrize("revision", ["0.1", "0.3", "1"])
async def test_the_owner_may_sign_in_any_revision(devnet, revision):
    """The nodes check the typed data of the revision that the request names."""
    acks = await keygen_on(devnet, 2, revision=revision, permissions='{"limit":1}')
    assert len(acks) == 3


async def test_the_same_request_again_gives_the_same_acknowledgement(devnet):
    """A lost reply never makes a second key."""
    async with connect_all(devnet) as nodes:
        keygen = Keygen(nodes=nodes, t=2)
        first = await keygen.run()
        assert await keygen.send() == first


async def test_the_same_request_at_the_same_time_is_one_request(devnet):
    """Whoever asks while the work is under way waits for the same key."""
    async with connect_all(devnet) as nodes:
        keygen = Keygen(nodes=nodes, t=2)
        await keygen.prepare()
        answers = await asyncio.gather(*(keygen.send() for _ in range(5)))
    assert all(answer == answers[0] for answer in answers)


async def test_each_request_has_its_own_key(devnet):
    """Also for the same owner, ephemeral key and permissions."""
    async with connect_all(devnet) as nodes:
        first = Keygen(nodes=nodes, t=2)
        await first.run()
        (one, *_) = await first.send()
        again = Keygen(nodes=nodes, t=2, signer=first.signer, key=first.key)
        (two, *_) = await again.run()
    assert one.public_key != two.public_key
    assert one.key_id != two.key_id


async def test_fifty_at_once(devnet):
    """Fifty key generations over the same three connections, each with its own key, each agreed on by all."""
    async with connect_all(devnet) as nodes:
        results = await asyncio.gather(*(Keygen(nodes=nodes, t=2).run() for _ in range(50)))
    assert all(len({ack.claims for ack in acks}) == 1 for acks in results)
    assert len({acks[0].public_key for acks in results}) == 50


async def test_a_client_that_leaves_does_not_stop_the_work(devnet):
    """The other parties count on it; whoever asks again gets the key."""
    async with connect_all(devnet) as nodes:
        keygen = Keygen(nodes=nodes, t=2)
        params = fields.encode(await keygen.prepare())
        for node in nodes:
            await node.websocket.send_str(
                f'{{"jsonrpc":"2.0","id":1,"method":"dan_keygen","params":{params}}}'
            )
    async with connect_all(devnet) as nodes:
        keygen.nodes = nodes
        acks = await keygen.send()
    assert len({ack.claims for ack in acks}) == 1


async def test_arithmetic_does_not_run_on_the_event_loop(devnet, monkeypatch):
    """All four steps of every party run on the thread that is there for it."""
    threads = {}

    class Watched(DkgParty):
        def _begin(self, name):
            threads.setdefault(name, set()).add(threading.current_thread().name)
            super()._begin(name)

    monkeypatch.setattr("dan_async.devnet.mpc.dkg.DkgParty", Watched)
    await keygen_on(devnet, 2)
    assert threads.keys() == {"commit", "open", "verify", "finish"}
    assert {name.partition("_")[0] for names in threads.values() for name in names} == {
        "dan-devnet-arithmetic"
    }


async def test_nothing_is_left_behind():
    """No task and no socket after a key generation and a stop."""
    async with no_leaks(), Devnet(2, 3) as devnet:
        await keygen_on(devnet, 2)
