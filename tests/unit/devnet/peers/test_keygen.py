"""One node's key generation against peers that the test plays: what it sends, whom it believes, whom it blames."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from dan_async.config import Threshold
from dan_async.devnet.context import NodeIdentity, NodeLimits, Workers
from dan_async.devnet.mpc.dkg import ProvingParty, Session
from dan_async.devnet.mpc.framing import join_parts, split_parts
from dan_async.devnet.node.rpc import RefusalError, refusing
from dan_async.devnet.peers.keygen import KeygenSession
from dan_async.devnet.peers.sessions import AbortNotice, Kind, PeerMessage, PeerSessions
from dan_async.errors import NodeCode
from tests.unit.devnet.node_context import node_context

SESSION = b"\x0a" * 32
REQUEST = "0x" + "0b" * 32
IDENTITIES = sorted((NodeIdentity.from_hex(f"{n:064x}") for n in (1, 2, 3)), key=lambda i: i.operator.lower())
OPERATORS = tuple(identity.operator for identity in IDENTITIES)
THRESHOLD = Threshold(2, 3)
ME, A, B = OPERATORS
AGREED = Session(session_id=SESSION, threshold=THRESHOLD, identities=OPERATORS)


class Links:
    """Stands where ``PeerLinks`` would: keeps what is sent, and can be down."""

    def __init__(self):
        self.sent = []
        self.needed = []
        self.is_up = True
        self.refused = 0

    @contextlib.contextmanager
    def wanted(self, peers):
        self.needed.append(tuple(peers))
        yield
        self.needed.pop()

    def send(self, peer, frame):
        if self.is_up:
            self.sent.append((peer, PeerMessage.decode(frame)))
        else:
            self.refused += 1
        return self.is_up

    def aborts(self):
        return [(peer, AbortNotice.decode(m.body)) for peer, m in self.sent if m.kind is Kind.ABORT]


class Bench:
    """The node under test, and its two peers as the test drives them."""

    def __init__(self, workers, round_s):
        self.links = Links()
        self.peer_sessions = PeerSessions(self.links, early_s=5, early_bytes=100_000)
        limits = NodeLimits(round_s=round_s)
        self.context = node_context(identity=IDENTITIES[0], workers=workers, limits=limits)
        self.peers = {OPERATORS[i]: ProvingParty(AGREED, i + 1, IDENTITIES[i].sign) for i in (1, 2)}

    def start(self):
        self.session = KeygenSession(self.context, self.peer_sessions, AGREED, REQUEST)
        self.running = asyncio.create_task(self.session.run())

    async def until_the_echo(self):
        """Come to the last round, in which the node has nothing from anybody; gives the certificate and the echoes."""
        openings = await self.open()
        for i, opening in openings.items():
            self.say(OPERATORS[i - 1], opening[1], round_=2)
        sent = await self.verify(openings)
        self.peers[A].finish({1: await self.mine(3), 3: sent[3]})
        return self.peers[A].dkg.certificate, sent

    async def verify(self, openings):
        """Have the peers check what they are sent in round 2; gives their echoes."""
        return {
            i: self.peers[peer].verify({1: await self.mine(2, peer), other: openings[other][i]})
            for i, other, peer in ((2, 3, A), (3, 2, B))
        }

    def say(self, peer, body, *, round_=Kind.KEYGEN, kind=Kind.KEYGEN):
        self.peer_sessions.on_message(peer, PeerMessage(kind, SESSION, round_, body))

    def abort(self, peer, **notice):
        self.say(peer, AbortNotice(**{"reason": "because", **notice}).encode(), kind=Kind.ABORT)

    async def mine(self, round_, peer=A):
        """What the node sends to a peer in a round."""
        async with asyncio.timeout(5):
            while True:
                for to, message in self.links.sent:
                    if (to, message.kind, message.round) == (peer, Kind.KEYGEN, round_):
                        return message.body
                await asyncio.sleep(0.001)

    async def commit(self):
        bodies = {2: self.signed(A), 3: self.signed(B)}
        self.start()
        bodies[1] = await self.mine(1)
        self.say(A, bodies[2], round_=1)
        self.say(B, bodies[3], round_=1)
        return bodies

    def signed(self, peer, party=None):
        """What a peer sends in round 1."""
        return (party or self.peers[peer]).commit()

    async def open(self):
        commitments = await self.commit()
        return {
            i: self.peers[OPERATORS[i - 1]].open({j: c for j, c in commitments.items() if j != i})
            for i in (2, 3)
        }

    async def refusal(self):
        async with asyncio.timeout(5):
            with pytest.raises(RefusalError) as caught, refusing(NodeCode.KEYGEN_FAILED, "key generation"):
                await self.running
        assert caught.value.code == NodeCode.KEYGEN_FAILED
        return caught.value


@pytest.fixture
def workers():
    with Workers() as made:
        yield made


@pytest.fixture
def bench(workers):
    return Bench(workers, round_s=5)


async def test_a_whole_key_generation(bench):
    """Three rounds with well-behaved peers end with a share; links are wanted meanwhile, and no longer."""
    openings = await bench.open()
    assert bench.links.needed == [(A, B)]
    for i, opening in openings.items():
        bench.say(OPERATORS[i - 1], opening[1], round_=2)
    mine = {peer: await bench.mine(2, peer) for peer in (A, B)}
    opened = {peer: mine[peer][4 : 4 + int.from_bytes(mine[peer][:4], "big")] for peer in mine}
    shares = {peer: mine[peer][8 + len(opened[peer]) :] for peer in mine}
    assert opened[A] == opened[B]
    assert shares[A] != shares[B]
    echoes = await bench.verify(openings)
    for i, echo in echoes.items():
        bench.say(OPERATORS[i - 1], echo, round_=3)
    (share,) = await bench.running
    (theirs,) = bench.peers[A].finish({1: await bench.mine(3), 3: echoes[3]})
    assert share.public_key == theirs.public_key
    assert share.transcript_hash == theirs.transcript_hash
    assert bench.links.needed == []
    assert bench.links.aborts() == []


def asked_for_certificates(bench):
    return [peer for peer, message in bench.links.sent if message.kind is Kind.CERTIFICATE]


async def test_a_certificate_ends_the_last_round(bench):
    """The node has one echo only; it asks the others, and what one of them passes on will do."""
    certificate, echoes = await bench.until_the_echo()
    bench.say(A, echoes[2], round_=3)
    async with asyncio.timeout(5):
        while not asked_for_certificates(bench):
            await asyncio.sleep(0.01)
    assert sorted(asked_for_certificates(bench)) == [A, B]
    assert await bench.session.certify(certificate[:-1]) is None
    assert await bench.session.certify(certificate) is None  # it is the running session's
    (share,) = await bench.running
    assert share.transcript_hash
    assert bench.session.certificate == certificate
    assert bench.links.aborts() == []


@pytest.mark.parametrize("spoil", ["aborted", "echoed badly"])
async def test_what_has_failed_in_the_last_round_is_certified_later(bench, spoil):
    """A dishonest peer gives up, or sends a bad echo to this node alone: no share yet, but none that is lost."""
    certificate, echoes = await bench.until_the_echo()
    bench.say(A, echoes[2], round_=3)
    if spoil == "aborted":
        bench.abort(B, culprits=(3,))
    else:
        bench.say(B, echoes[2], round_=3)
    assert (await bench.refusal()).data["culprits"] == [B]
    assert sorted(asked_for_certificates(bench)) == [A, B]
    assert bench.session.may_be_certified
    assert await bench.session.certify(bytes(195)) is None
    (share,) = await bench.session.certify(certificate)
    assert share.public_shares
    assert await bench.session.certify(certificate) is None  # once


async def test_what_has_failed_earlier_is_never_certified(bench):
    """There is no share to release."""
    bench.start()
    bench.abort(A)
    await bench.refusal()
    assert not bench.session.may_be_certified
    assert await bench.session.certify(bytes(195)) is None


async def test_silence_is_blamed_on_the_silent_only(workers):
    """And the other parties are told."""
    bench = Bench(workers, round_s=0.2)
    bench.say(A, bench.signed(A), round_=1)
    bench.start()
    refusal = await bench.refusal()
    assert refusal.data == {"culprits": [B], "evidence": "silence"}
    assert {(peer, notice.culprits) for peer, notice in bench.links.aborts()} == {(A, (3,)), (B, (3,))}


async def test_a_proof_of_equivocation_convinces(bench):
    """Also a node that has not seen both commitments itself, and whoever brings the proof."""
    other = ProvingParty(AGREED, 3, IDENTITIES[2].sign)
    bench.start()
    proof = b"\xe0" + join_parts((bench.signed(B), bench.signed(B, other)))
    bench.abort(A, complaint=proof)
    assert (await bench.refusal()).data == {"culprits": [B], "evidence": "proof", "abortedBy": A}
    assert {notice.complaint for _, notice in bench.links.aborts()} == {proof}


async def test_a_commitment_that_its_sender_did_not_sign_is_blamed_on_it(bench):
    """Nobody could show it to the others later."""
    bench.start()
    bench.say(A, ProvingParty(AGREED, 2, IDENTITIES[2].sign).commit(), round_=1)
    bench.say(B, bench.signed(B), round_=1)
    assert (await bench.refusal()).data == {"culprits": [A]}


async def test_two_different_messages_in_a_round_are_blamed_on_their_sender(bench):
    """Whichever was the true one."""
    bench.start()
    bench.say(A, b"one", round_=1)
    bench.say(A, b"two", round_=1)
    assert (await bench.refusal()).data == {"culprits": [A]}


async def test_garbage_is_blamed_on_its_sender(bench):
    """As the arithmetic notices."""
    bench.start()
    bench.say(A, b"garbage", round_=1)
    bench.say(B, bench.signed(B), round_=1)
    refusal = await bench.refusal()
    assert refusal.data == {"culprits": [A]}
    assert "malformed" in refusal.message


async def test_parts_that_do_not_add_up_are_blamed_on_their_sender(bench):
    """An opening without a share."""
    openings = await bench.open()
    bench.say(A, join_parts(split_parts(openings[2][1], 2)[:1]), round_=2)
    bench.say(B, openings[3][1], round_=2)
    assert (await bench.refusal()).data == {"culprits": [A]}


async def test_somebody_elses_share_is_blamed_on_its_sender(bench):
    """A share says whom it was dealt to."""
    openings = await bench.open()
    bench.say(A, openings[2][3], round_=2)
    bench.say(B, openings[3][1], round_=2)
    assert (await bench.refusal()).data == {"culprits": [A]}


@pytest.mark.parametrize(
    ("culprits", "believed"),
    [((2,), [A]), ((1,), []), ((), []), ((9,), []), ((2, 3), [A])],
    ids=["itself", "this node", "nobody", "no party", "itself and another"],
)
async def test_an_abort_by_itself_shows_only_its_senders_own_fault(bench, culprits, believed):
    """Nobody else is blamed for it."""
    bench.start()
    bench.abort(A, culprits=culprits)
    refusal = await bench.refusal()
    assert refusal.data == {"culprits": believed, "abortedBy": A}
    assert "because" in refusal.message


async def test_an_accused_is_named_if_it_is_silent_at_this_nodes_own_limit(workers):
    """That nothing has come yet is true of everybody at a round's start."""
    bench = Bench(workers, round_s=0.3)
    bench.start()
    bench.abort(A, culprits=(3,))
    began = time.monotonic()
    refusal = await bench.refusal()
    assert refusal.data == {"culprits": [B], "evidence": "silence", "abortedBy": A}
    assert time.monotonic() - began > 0.2


async def test_an_accused_whose_message_comes_is_not_blamed(bench):
    """However early the abort came."""
    bench.start()
    bench.abort(A, culprits=(3,))
    await asyncio.sleep(0.05)
    assert not bench.running.done()
    bench.say(B, bench.signed(B), round_=1)
    assert (await bench.refusal()).data == {"culprits": [], "abortedBy": A}


async def test_an_abort_cannot_blame_who_has_sent_its_message(bench):
    """This node knows better."""
    bench.start()
    bench.say(B, bench.signed(B), round_=1)
    bench.abort(A, culprits=(3,))
    assert (await bench.refusal()).data == {"culprits": [], "abortedBy": A}


async def test_a_complaint_that_proves_nothing_is_blamed_on_who_made_it(bench):
    """Evidence that is none is a lie."""
    bench.start()
    bench.abort(A, culprits=(3,), complaint=b"no evidence")
    assert (await bench.refusal()).data == {"culprits": [A], "abortedBy": A}


async def test_an_abort_that_cannot_be_read_is_blamed_on_its_sender(bench):
    """It broke the protocol, too."""
    bench.start()
    bench.say(A, b"no notice", kind=Kind.ABORT)
    assert (await bench.refusal()).data == {"culprits": [A], "abortedBy": A}


async def test_an_abort_is_passed_on(bench):
    """The party that gave up may have told this node only; the others would call this node silent."""
    bench.start()
    bench.abort(A, culprits=(2,))
    await bench.refusal()
    assert {peer for peer, _ in bench.links.aborts()} == {A, B}


async def test_an_aborts_reason_writes_no_lines_of_its_own_into_the_log(bench, caplog):
    """Nor does it command a terminal that shows the log."""
    bench.start()
    bench.abort(A, culprits=(2,), reason="\x1b[2J\nERROR a forged line")
    refusal = await bench.refusal()
    for text in (refusal.message, *(record.getMessage() for record in caplog.records)):
        assert "\x1b" not in text
        assert "\n" not in text
    assert "a forged line" in caplog.text


async def test_an_abort_that_came_early_counts(bench):
    """The session is over before it begins."""
    bench.abort(A, culprits=(2,))
    bench.start()
    assert (await bench.refusal()).data == {"culprits": [A], "abortedBy": A}


async def test_what_was_sent_is_sent_again_over_a_new_link(bench):
    """The link was down when the round began."""
    bench.links.is_up = False
    bench.start()
    async with asyncio.timeout(5):
        while bench.links.refused < 2:
            await asyncio.sleep(0.001)
    bench.links.is_up = True
    bench.peer_sessions.resend(A)
    assert [(peer, message.round) for peer, message in bench.links.sent] == [(A, 1)]
    bench.abort(A, culprits=(2,))
    await bench.refusal()
    before = len(bench.links.sent)
    bench.peer_sessions.resend(A)
    assert len(bench.links.sent) == before


async def test_a_cancelled_session_tells_the_others(bench):
    """It names itself, so that they need not wait and nobody else is blamed."""
    bench.start()
    await bench.mine(1)
    bench.running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await bench.running
    assert {(peer, notice.culprits) for peer, notice in bench.links.aborts()} == {(A, (1,)), (B, (1,))}


async def test_a_session_that_fails_by_accident_tells_the_others(bench, monkeypatch):
    """As a cancelled one does; the error itself goes on."""

    def fail(*_, **__):
        raise RuntimeError("a mistake in this program")

    monkeypatch.setattr(KeygenSession, "_new_party", fail)
    bench.start()
    with pytest.raises(RuntimeError):
        await bench.running
    assert {notice.culprits for _, notice in bench.links.aborts()} == {(1,)}


async def test_a_session_runs_once(bench):
    """Its id is known from the moment it begins."""
    assert not bench.peer_sessions.has_run(Kind.KEYGEN, SESSION)
    bench.start()
    await bench.mine(1)
    assert bench.peer_sessions.has_run(Kind.KEYGEN, SESSION)
    bench.abort(A)
    await bench.refusal()
    assert bench.peer_sessions.has_run(Kind.KEYGEN, SESSION)
