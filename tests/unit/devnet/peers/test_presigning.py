"""One node's rounds of a presignature with signers that the test plays: what it sends, whom it blames, whom it bans."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time

import pytest

from dan_async.devnet.context import NodeLimits, Workers
from dan_async.devnet.faults.in_force import NodeFaults
from dan_async.devnet.faults.kinds import CrashInSigning, NodeCrashed
from dan_async.devnet.mpc.threshold_ecdsa import Presignature, SigningParty
from dan_async.devnet.node.rpc import RefusalError, refusing
from dan_async.devnet.peers.presigning import (
    PairSetups,
    PairStore,
    PresignJob,
    PresignSessions,
    UnreadyPairError,
)
from dan_async.devnet.peers.sessions import AbortNotice, Kind, PeerMessage, PeerSessions
from dan_async.devnet.share_store import BanList, MemoryShareStore
from dan_async.errors import NodeCode
from tests.helpers import assert_runs_under
from tests.unit.devnet.mpc.dkg_group import Group
from tests.unit.devnet.mpc.signing_group import all_pairs, finish
from tests.unit.devnet.node_context import node_context
from tests.unit.devnet.peers.played_peers import IDENTITIES, OPERATORS, Links

SESSION = b"\x0a" * 32
REQUEST = "0x" + "0b" * 32
ME, A, B = OPERATORS


class Bench:
    """The node under test is signer 1 of three; the others are played."""

    def __init__(self, workers, **limits):
        self.shares = Group(3, 3).run()
        self.states = all_pairs((1, 2, 3))
        self.links = Links()
        self.disk = MemoryShareStore()
        self.bans = BanList()
        self.store = PairStore(self.disk, self.bans)
        for index, operator in ((2, A), (3, B)):
            self.store.put(operator, self.states[1][index])
        self.limits = NodeLimits(**limits)
        beat_s = self.limits.sign_quiet_s / 5
        sessions = self.peer_sessions = PeerSessions(
            self.links, early_s=5, early_bytes=1_000_000, beat_s=beat_s
        )
        self.faults = NodeFaults()
        self.crashes = []
        context = node_context(
            identity=IDENTITIES[0],
            workers=workers,
            limits=self.limits,
            faults=self.faults,
            on_crash=self.crashes.append,
        )
        self.setups = PairSetups(context, links=self.links, sessions=sessions, store=self.store)
        self.sessions = PresignSessions(context, sessions, self.setups)
        for operator in (A, B):
            self.tell(operator)
        self.peers = {
            index: SigningParty(
                session_id=SESSION,
                share=self.shares[index],
                signers=(1, 2, 3),
                operators=OPERATORS,
                sign=IDENTITIES[index - 1].sign,
                pairs=self.states[index],
            )
            for index in (2, 3)
        }

    def tell(self, operator, setup_id=None):
        """A peer says which set-up it has: the right one unless said otherwise."""
        state = self.store.get(operator)
        message = PeerMessage(Kind.PAIR_STATUS, setup_id or state.setup_id, 0, b"")
        self.setups.on_message(operator, message)

    def start(self, session_id=SESSION):
        self.running = asyncio.create_task(self.sessions.run(self.job(session_id)))

    def job(self, session_id):
        return PresignJob(
            request_id=REQUEST,
            session_id=session_id,
            share=self.shares[1],
            participants=OPERATORS,
            signers=OPERATORS,
        )

    def say(self, operator, body, *, round_=Kind.PRESIGN, kind=Kind.PRESIGN):
        self.peer_sessions.on_message(operator, PeerMessage(kind, SESSION, round_, body))

    def abort(self, operator, **notice):
        self.say(operator, AbortNotice(**{"reason": "because", **notice}).encode(), kind=Kind.ABORT)

    async def mine(self, round_):
        """What the node sends in a round, by recipient's index."""
        return {
            index: (await self.links.wait_for(Kind.PRESIGN, operator, round_)).body
            for index, operator in ((2, A), (3, B))
        }

    async def commit(self):
        """Start, and play round 1; gives all messages by sender and recipient."""
        self.start()
        sent = {1: await self.mine(1), **{index: party.commit() for index, party in self.peers.items()}}
        self.say(A, sent[2][1], round_=1)
        self.say(B, sent[3][1], round_=1)
        return sent

    async def multiply(self):
        """Play round 1, and round 2 up to what the others send."""
        commits = await self.commit()
        return {
            index: party.multiply(
                {other: messages[index] for other, messages in commits.items() if other != index}
            )
            for index, party in self.peers.items()
        }

    async def refusal(self):
        async with asyncio.timeout(10):
            with pytest.raises(RefusalError) as caught, refusing(NodeCode.SIGNING_FAILED, "signing"):
                await self.running
        assert caught.value.code == NodeCode.SIGNING_FAILED
        return caught.value

    def stored(self, operator):
        again = PairStore(self.disk, self.bans)
        again.load()
        return again.get(operator)


@pytest.fixture
def workers():
    with Workers() as made:
        yield made


@pytest.fixture
async def bench(workers):
    made = Bench(workers)
    yield made
    await made.setups.aclose()


async def test_a_whole_presignature(bench):
    """Two rounds with well-behaved peers; all three sign with what they leave."""
    multiplies = await bench.multiply()
    mine = await bench.mine(2)
    bench.say(A, multiplies[2][1], round_=2)
    bench.say(B, multiplies[3][1], round_=2)
    presignatures = {
        1: await bench.running,
        2: bench.peers[2].presign({1: mine[2], 3: multiplies[3][2]}),
        3: bench.peers[3].presign({1: mine[3], 2: multiplies[2][3]}),
    }
    assert isinstance(presignatures[1], Presignature)
    assert len(finish(presignatures, secrets.token_bytes(32))) == 65
    assert bench.links.aborts(A) == []
    assert bench.links.wants == []


async def test_a_session_runs_once(bench):
    """Its id is known from when it begins."""
    assert not bench.sessions.has_run(SESSION)
    await bench.commit()
    assert bench.sessions.has_run(SESSION)
    bench.running.cancel()


@pytest.mark.parametrize("limits", [{"sign_round_s": 0.3}, {"sign_quiet_s": 0.3}], ids=["round", "quiet"])
@pytest.mark.parametrize("round_", [1, 2])
async def test_who_is_silent_is_named(workers, round_, limits):
    """Those whose message did not come in time, and only those; the other signers are told."""
    bench = Bench(workers, **limits)
    if round_ == 1:
        bench.start()
        bench.say(A, bench.peers[2].commit()[1], round_=1)
    else:
        bench.say(A, (await bench.multiply())[2][1], round_=2)
    refusal = await bench.refusal()
    assert refusal.data == {"culprits": [B], "evidence": "silence"}
    assert f"round {round_}" in refusal.message
    assert bench.links.aborts(A)[0].culprits == (3,)


async def test_silence_is_no_warning(workers, caplog):
    """A client that has its signature leaves the others' presignatures: whoever is silent may never have been asked."""
    bench = Bench(workers, sign_quiet_s=0.3)
    bench.start()
    with caplog.at_level(logging.INFO):
        await bench.refusal()
    assert [one.levelname for one in caplog.records if "no message in round" in one.message] == ["INFO"]


async def test_who_is_busy_has_a_rounds_time(workers):
    """As long as it gives signs of life in this session; who gives none is named, and nobody else."""
    bench = Bench(workers, sign_quiet_s=0.3)
    bench.start()
    await bench.mine(1)
    for _ in range(10):
        bench.peer_sessions.on_message(B, PeerMessage(Kind.ALIVE, SESSION, Kind.PRESIGN, b""))
        bench.peer_sessions.on_message(A, PeerMessage(Kind.ALIVE, b"\1" * 32, Kind.PRESIGN, b""))
        await asyncio.sleep(0.05)
    assert (await bench.refusal()).data == {"culprits": [A], "evidence": "silence"}


async def test_who_is_alive_does_not_keep_the_others_waiting(workers):
    """When half of the others are there, signs of life help for some seconds more, not for the whole time of a round."""
    bench = Bench(workers, sign_quiet_s=0.3)
    bench.start()
    bench.say(A, bench.peers[2].commit()[1], round_=1)
    with assert_runs_under(5):
        while not bench.running.done():
            bench.peer_sessions.on_message(B, PeerMessage(Kind.ALIVE, SESSION, Kind.PRESIGN, b""))
            await asyncio.sleep(0.05)
    assert (await bench.refusal()).data == {"culprits": [B], "evidence": "silence"}


async def test_who_is_busy_says_so(workers):
    """While a session runs for longer than a moment, to its signers, and no longer than that."""
    bench = Bench(workers, sign_quiet_s=0.3)
    bench.start()
    while len(bench.links.of(Kind.ALIVE)) < 4:
        await asyncio.sleep(0.01)
    for operator in (A, B):
        assert {m.session_id for m in bench.links.of(Kind.ALIVE, operator)} == {SESSION}
    bench.running.cancel()
    await asyncio.wait([bench.running])
    await asyncio.sleep(0.1)
    said = len(bench.links.of(Kind.ALIVE))
    await asyncio.sleep(0.1)
    assert len(bench.links.of(Kind.ALIVE)) == said


async def test_two_messages_for_a_round_name_their_sender(bench):
    """Links repeat messages, but only the same."""
    bench.say(A, b"one", round_=2)  # before it begins, so that no time limit has any part in it
    bench.say(A, b"one", round_=2)
    bench.say(A, b"two", round_=2)
    bench.start()
    refusal = await bench.refusal()
    assert refusal.data == {"culprits": [A]}
    assert "two different messages" in refusal.message


async def test_a_malformed_message_names_its_sender_and_bans_nobody(bench):
    """It may be an honest mistake."""
    bench.start()
    bench.say(A, b"rubbish", round_=1)
    bench.say(B, bench.peers[3].commit()[1], round_=1)
    refusal = await bench.refusal()
    assert refusal.data == {"culprits": [A]}
    assert "malformed" in refusal.message
    assert not bench.stored(A).ban.is_set


def spoilt(message):
    """Change the hash that the multiplication is checked by."""
    return message[:-1] + bytes((message[-1] ^ 1,))


async def test_a_failed_check_bans_before_anybody_hears_of_it(bench):
    """When the others are told, the ban is in the store already; only the cheat's pair is banned."""
    multiplies = await bench.multiply()
    seen = []
    send = bench.links.send

    def watch(peer, frame):
        if PeerMessage.decode(frame).kind is Kind.ABORT:
            seen.append(bench.stored(A).ban.is_set)
        return send(peer, frame)

    bench.links.send = watch
    bench.say(A, spoilt(multiplies[2][1]), round_=2)
    bench.say(B, multiplies[3][1], round_=2)
    refusal = await bench.refusal()
    assert refusal.data == {"culprits": [A]}
    assert seen == [True, True]
    assert not bench.stored(B).ban.is_set
    bench.start(b"\x0c" * 32)
    again = await bench.refusal()
    assert again.data == {"culprits": [A]}
    assert "never signs with" in again.message


async def test_a_ban_is_kept_although_the_node_is_stopping(bench):
    """Stopping in the very moment in which the check fails does not let the cheat off."""
    multiplies = await bench.multiply()
    await bench.mine(2)
    bench.say(A, spoilt(multiplies[2][1]), round_=2)
    bench.say(B, multiplies[3][1], round_=2)
    while not bench.running.done() and not bench.store.get(A).ban.is_set:
        await asyncio.sleep(0)
    bench.running.cancel()
    await asyncio.wait([bench.running])
    assert bench.stored(A).ban.is_set


async def test_another_set_up_is_named_and_bans_nobody(bench):
    """The peer has lost its own, has an old one, or lies: the client must know which two cannot sign together for now."""
    bench.start()
    commit = bench.peers[2].commit()[1]
    at = 35  # behind the header: the id of the pair's set-up
    bench.say(A, commit[:at] + bytes(32) + commit[at + 32 :], round_=1)
    bench.say(B, bench.peers[3].commit()[1], round_=1)
    refusal = await bench.refusal()
    assert refusal.data == {"culprits": [A]}
    assert not bench.stored(A).ban.is_set
    asked = len(bench.links.of(Kind.PAIR_STATUS, A))
    waiting = asyncio.create_task(bench.setups.ready(A))
    await asyncio.sleep(0.01)
    assert not waiting.done()  # what the peer said before does not count any more
    assert len(bench.links.of(Kind.PAIR_STATUS, A)) > asked
    waiting.cancel()


async def test_a_pair_that_does_not_get_ready_is_named(workers):
    """And the other signers are told, who would wait for this node."""
    bench = Bench(workers, sign_round_s=0.3)
    bench.setups.doubt(B)
    bench.start()
    refusal = await bench.refusal()
    assert refusal.data == {"culprits": [B], "evidence": "silence"}
    assert bench.links.aborts(A)[0].culprits == (3,)
    with pytest.raises(UnreadyPairError):
        await bench.setups.ready(B)


@pytest.mark.parametrize(
    "notice", [{"culprits": (1,)}, {"culprits": (9,)}, {}], ids=["this node", "no party", "nobody"]
)
async def test_an_abort_that_accuses_nobody_ends_it_at_once(bench, notice):
    """Nothing can come of the session, and nobody is blamed for it; the peer is named as the one that gave up."""
    await bench.commit()
    await bench.mine(2)
    bench.abort(A, **notice)
    assert (await bench.refusal()).data == {"culprits": [], "abortedBy": A}


async def test_a_peer_may_accuse_itself(bench):
    """It knows best; nobody else that it names is waited for."""
    await bench.commit()
    await bench.mine(2)
    bench.abort(A, culprits=(2, 3))
    assert (await bench.refusal()).data == {"culprits": [A], "abortedBy": A}


async def test_an_accused_that_has_sent_nothing_yet_is_waited_for(bench):
    """At a round's start that is true of everybody. When its message is there, only the abort is left to be told."""
    multiplies = await bench.multiply()
    await bench.mine(2)
    bench.abort(A, culprits=(3,))
    await asyncio.sleep(0.05)
    assert not bench.running.done()
    bench.say(B, multiplies[3][1], round_=2)
    assert (await bench.refusal()).data == {"culprits": [], "abortedBy": A}


async def test_an_accused_that_gives_up_as_well_is_not_silent(bench):
    """It was told of the abort before this node could hear its message."""
    await bench.commit()
    await bench.mine(2)
    bench.abort(A, culprits=(3,))
    await asyncio.sleep(0.05)
    bench.abort(B)
    assert (await bench.refusal()).data == {"culprits": [], "abortedBy": A}


async def test_an_accused_that_stays_silent_is_named_at_this_nodes_own_limit(workers):
    """And nobody else, whoever else has been accused."""
    bench = Bench(workers, sign_quiet_s=0.3)
    await bench.commit()
    await bench.mine(2)
    bench.abort(A, culprits=(1, 3, 9))
    began = time.monotonic()
    refusal = await bench.refusal()
    assert refusal.data == {"culprits": [B], "evidence": "silence", "abortedBy": A}
    assert time.monotonic() - began > 0.25


async def test_a_false_accusation_is_not_believed(bench):
    """The accused has sent what it should."""
    multiplies = await bench.multiply()
    await bench.mine(2)
    bench.say(B, multiplies[3][1], round_=2)
    bench.abort(A, culprits=(3,))
    assert (await bench.refusal()).data == {"culprits": [], "abortedBy": A}


async def test_an_abort_that_cannot_be_read_names_its_sender(bench):
    """Nothing else can be said of it."""
    await bench.commit()
    bench.say(A, b"{", kind=Kind.ABORT)
    assert (await bench.refusal()).data == {"culprits": [A], "abortedBy": A}


async def test_a_crash_sends_nothing_more(bench):
    """The node dies before round 2, and tells nobody; whoever runs it is told."""
    bench.faults.set([CrashInSigning(at_round=2, restart_after=3)])
    await bench.commit()
    with pytest.raises(NodeCrashed):
        await bench.running
    assert bench.crashes == [3]
    assert {message.round for _, message in bench.links.sent if message.kind is Kind.PRESIGN} == {1}
    assert bench.links.aborts(A) == []


async def test_a_node_that_stops_names_itself(bench):
    """Nobody waits out the round."""
    await bench.commit()
    await bench.mine(2)
    bench.running.cancel()
    await asyncio.wait([bench.running])
    assert bench.running.cancelled()
    (notice,) = bench.links.aborts(A)
    assert notice.culprits == (1,)


async def test_only_so_many_at_a_time(workers):
    """What is beyond that is refused before anything was sent."""
    bench = Bench(workers, max_presigns=1)
    bench.start()
    await bench.mine(1)
    with pytest.raises(RefusalError) as caught, refusing(NodeCode.SIGNING_FAILED, "signing"):
        await bench.sessions.run(bench.job(b"\x0c" * 32))
    assert caught.value.code == NodeCode.RATE_LIMITED
    assert not bench.sessions.has_run(b"\x0c" * 32)
    bench.running.cancel()
