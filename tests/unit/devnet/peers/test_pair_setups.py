"""One node's set-ups with a peer that the test plays: who begins, when a pair is ready, and what is never forgotten."""

from __future__ import annotations

import asyncio
import errno

import pytest

from dan_async.devnet.context import NodeLimits, Urgency, Workers
from dan_async.devnet.mpc.pairwise_setup import PairSetup
from dan_async.devnet.peers.presigning import BannedPairError, PairSetups, PairStore, UnreadyPairError
from dan_async.devnet.peers.sessions import AbortNotice, Kind, PeerMessage, PeerSessions
from dan_async.devnet.share_store import BanList, MemoryShareStore
from tests.unit.devnet.mpc.signing_group import dealt_pair
from tests.unit.devnet.node_context import node_context
from tests.unit.devnet.peers.played_peers import IDENTITIES, OPERATORS, Links

NONE = bytes(32)


class Bench:
    """The node under test, and its peer as the test drives it. The lower of the two begins set-ups."""

    def __init__(self, workers, *, begins, **limits):
        own, peer = (0, 1) if begins else (1, 0)
        self.own, self.peer = OPERATORS[own], OPERATORS[peer]
        self.links = Links()
        self.sessions = PeerSessions(self.links, early_s=5, early_bytes=1_000_000)
        self.disk = MemoryShareStore()
        self.bans = BanList()
        self.store = PairStore(self.disk, self.bans)
        self.setups = PairSetups(
            node_context(identity=IDENTITIES[own], workers=workers, limits=NodeLimits(**limits)),
            links=self.links,
            sessions=self.sessions,
            store=self.store,
        )

    def say(self, kind, session_id, round_, body=b""):
        message = PeerMessage(kind, session_id, round_, body)
        if kind is not Kind.PAIR_STATUS:
            self.sessions.on_message(self.peer, message)
        self.setups.on_message(self.peer, message)

    def status(self, setup_id, *, asks=False):
        self.say(Kind.PAIR_STATUS, setup_id, int(asks))

    def begun(self):
        """The set-ups that the node has begun, by their session ids."""
        return list(dict.fromkeys(m.session_id for m in self.links.of(Kind.PAIR_SETUP)))

    async def play(self, session_id, *, rounds=5):
        """Play the peer's side of a set-up; gives its state."""
        side = PairSetup(session_id=session_id, own=self.peer, peer=self.own)
        message = side.start()
        steps = (side.choose, side.challenge, side.respond, side.open, side.finish)
        for round_, step in enumerate(steps[:rounds], 1):
            self.say(Kind.PAIR_SETUP, session_id, round_, message)
            message = step((await self.links.wait_for(Kind.PAIR_SETUP, self.peer, round_)).body)
        return message

    def ready(self):
        return asyncio.create_task(self.setups.ready(self.peer))

    async def first_begun(self):
        return (await self.links.wait_for(Kind.PAIR_SETUP, self.peer, 1)).session_id

    def give(self):
        """Let the node have a set-up already; gives both sides."""
        mine, theirs = dealt_pair()
        self.store.put(self.peer, mine)
        return mine, theirs


@pytest.fixture
def workers():
    with Workers() as made:
        yield made


@pytest.fixture
async def make(workers):
    """Makes benches, and closes them."""
    made = []

    def bench(**options):
        made.append(Bench(workers, **options))
        return made[-1]

    yield bench
    for one in made:
        await one.setups.aclose()


async def settled():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_lower_operator_begins(make):
    """The pair is ready when both sides are stored, and the peer has said so."""
    bench = make(begins=True)
    waiting = bench.ready()
    theirs = await bench.play(await bench.first_begun())
    async with asyncio.timeout(5):
        while bench.store.get(bench.peer) is None:
            await asyncio.sleep(0.001)
    await settled()
    assert not waiting.done()
    bench.status(theirs.setup_id)
    mine = await waiting
    assert mine.setup_id == theirs.setup_id
    assert bench.links.wants == []
    again = PairStore(bench.disk, bench.bans)
    again.load()
    assert again.get(bench.peer).setup_id == theirs.setup_id


async def test_the_higher_operator_asks_and_answers(make):
    """It says that it has none and wants one, and takes part when the other begins."""
    bench = make(begins=False)
    waiting = bench.ready()
    await settled()
    (asked,) = bench.links.of(Kind.PAIR_STATUS)
    assert (asked.session_id, asked.round) == (NONE, 1)
    assert bench.begun() == []
    theirs = await bench.play(b"\7" * 32)
    bench.status(theirs.setup_id)
    assert (await waiting).setup_id == theirs.setup_id


async def test_who_is_asked_begins(make):
    """Once, however often it is asked meanwhile; and never towards a lower operator."""
    bench = make(begins=True)
    for _ in range(3):
        bench.status(NONE, asks=True)
        await settled()
    await bench.first_begun()
    assert len(bench.begun()) == 1
    higher = make(begins=False)
    higher.status(NONE, asks=True)
    await settled()
    assert higher.begun() == []


async def test_many_who_wait_share_one_set_up(make):
    """Ten presignatures at once need the pair once."""
    bench = make(begins=True)
    waiting = [bench.ready() for _ in range(10)]
    theirs = await bench.play(await bench.first_begun())
    bench.status(theirs.setup_id)
    assert {state.setup_id for state in await asyncio.gather(*waiting)} == {theirs.setup_id}
    assert len(bench.begun()) == 1


async def test_a_pair_that_both_have_is_ready_at_once(make):
    """Nothing is sent; not before the peer has said what it has."""
    bench = make(begins=True)
    mine, _ = bench.give()
    waiting = bench.ready()
    await settled()
    assert not waiting.done()
    bench.status(mine.setup_id)
    assert await waiting is mine
    sent = len(bench.links.sent)
    assert await bench.setups.ready(bench.peer) is mine
    assert len(bench.links.sent) == sent


@pytest.mark.parametrize("told", [NONE, b"\5" * 32])
async def test_a_peer_that_has_another_set_up_gets_a_new_one(make, told):
    """It has lost its own, or has an old one: what this node has is replaced, and nobody is banned."""
    bench = make(begins=True)
    old, _ = bench.give()
    waiting = bench.ready()
    bench.status(told)
    theirs = await bench.play(await bench.first_begun())
    bench.status(theirs.setup_id)
    state = await waiting
    assert state.setup_id == theirs.setup_id != old.setup_id
    assert not state.ban.is_set


async def test_what_a_peer_said_before_its_link_broke_is_forgotten(make):
    """It may have been restarted without its set-up."""
    bench = make(begins=True)
    mine, _ = bench.give()
    bench.status(mine.setup_id)
    assert await bench.setups.ready(bench.peer) is mine
    bench.links.up = False
    waiting = bench.ready()
    await settled()
    assert not waiting.done()
    bench.links.up = True
    bench.setups.on_linked(bench.peer)
    await settled()
    assert not waiting.done()
    bench.status(mine.setup_id)
    assert await waiting is mine


async def test_a_link_that_comes_up_is_told_what_there_is(make):
    """With a question if somebody waits for it."""
    bench = make(begins=False)
    mine, _ = bench.give()
    bench.setups.on_linked(bench.peer)
    waiting = bench.ready()
    await settled()
    bench.links.sent.clear()
    bench.setups.on_linked(bench.peer)
    (message,) = bench.links.of(Kind.PAIR_STATUS)
    assert (message.session_id, message.round) == (mine.setup_id, 1)
    waiting.cancel()


async def test_a_doubt_is_settled_by_asking_again(make):
    """What the peer said turned out to be wrong in the middle of a signature."""
    bench = make(begins=True)
    mine, _ = bench.give()
    bench.status(mine.setup_id)
    bench.setups.doubt(bench.peer)
    waiting = bench.ready()
    await settled()
    assert not waiting.done()
    bench.status(NONE)
    await bench.first_begun()
    waiting.cancel()


@pytest.mark.parametrize("begins", [True, False])
@pytest.mark.parametrize("up", [True, False])
async def test_a_peer_that_is_gone_is_named(make, begins, up):
    """When it has given no sign of life for so long, link or no link, and not only after a round's time."""
    bench = make(begins=begins, sign_round_s=30, sign_quiet_s=0.1)
    bench.links.up = up
    async with asyncio.timeout(5):
        with pytest.raises(UnreadyPairError) as caught:
            await bench.setups.ready(bench.peer)
    assert caught.value.peer == bench.peer
    assert bench.links.wants == []


async def test_a_peer_that_is_there_but_does_nothing_is_named(make):
    """After a round's time, however often it says what it has."""
    bench = make(begins=False, sign_round_s=0.3, sign_quiet_s=0.1)
    waiting = bench.ready()
    while not waiting.done():
        bench.status(b"\5" * 32)
        await asyncio.sleep(0.02)
    with pytest.raises(UnreadyPairError):
        await waiting


async def test_a_broken_set_up_bans_nobody(make):
    """The peer's message is malformed: it is told, and may try again."""
    bench = make(begins=True)
    waiting = bench.ready()
    first = await bench.first_begun()
    bench.say(Kind.PAIR_SETUP, first, 1, b"rubbish")
    async with asyncio.timeout(5):
        while len(bench.begun()) < 2:
            await asyncio.sleep(0.01)
    assert "malformed" in bench.links.aborts(bench.peer)[0].reason
    second = bench.begun()[1]
    for message in bench.links.of(Kind.PAIR_SETUP):
        if message.session_id == first:
            bench.links.sent.remove((bench.peer, message))
    theirs = await bench.play(second)
    bench.status(theirs.setup_id)
    assert not (await waiting).ban.is_set


async def test_a_peer_that_gives_up_ends_the_set_up(make):
    """Nobody waits out the round."""
    bench = make(begins=False)
    bench.say(Kind.PAIR_SETUP, b"\7" * 32, 1, b"")
    await settled()
    bench.say(Kind.ABORT, b"\7" * 32, Kind.PAIR_SETUP, AbortNotice("no").encode())
    await settled()
    assert bench.store.get(bench.peer) is None


async def test_an_abort_is_answered_and_rests(make):
    """The peer is told that this node gives up as well; whoever needs the pair waits a moment before the next attempt."""
    bench = make(begins=True)
    waiting = bench.ready()
    first = await bench.first_begun()
    bench.say(Kind.ABORT, first, Kind.PAIR_SETUP, AbortNotice("no").encode())
    await asyncio.sleep(0.1)
    assert bench.links.aborts(bench.peer)[0].reason == "no"
    assert bench.begun() == [first]
    async with asyncio.timeout(5):
        while len(bench.begun()) < 2:
            await asyncio.sleep(0.01)
    waiting.cancel()


async def test_a_set_up_that_cannot_be_stored_tells_the_peer(make, monkeypatch):
    """Nobody signs with what is not kept; the error itself is this node's own matter."""

    def fail(*_):
        raise OSError("the disk is full")

    bench = make(begins=True)
    monkeypatch.setattr(bench.store, "put", fail)
    waiting = bench.ready()
    await bench.play(await bench.first_begun())
    async with asyncio.timeout(5):
        while not bench.links.aborts(bench.peer):
            await asyncio.sleep(0.001)
    assert "failed" in bench.links.aborts(bench.peer)[0].reason
    assert bench.store.get(bench.peer) is None
    waiting.cancel()


async def test_a_restarted_peer_begins_anew(make):
    """Its earlier attempt, which will never end, is dropped."""
    bench = make(begins=False)
    waiting = bench.ready()
    await bench.play(b"\1" * 32, rounds=2)
    bench.links.sent.clear()
    theirs = await bench.play(b"\2" * 32)
    bench.status(theirs.setup_id)
    assert (await waiting).setup_id == theirs.setup_id


async def test_a_repeated_message_begins_nothing(make):
    """Links repeat messages after a break, also of a set-up that has ended."""
    bench = make(begins=False)
    waiting = bench.ready()
    theirs = await bench.play(b"\1" * 32)
    bench.status(theirs.setup_id)
    mine = await waiting
    bench.links.sent.clear()
    bench.say(Kind.PAIR_SETUP, b"\1" * 32, 1, b"again")
    await settled()
    assert bench.links.of(Kind.PAIR_SETUP) == []
    assert await bench.setups.ready(bench.peer) is mine


async def test_a_higher_operator_does_not_begin(make):
    """Were both to begin, there would be two set-ups at a time."""
    bench = make(begins=True)
    bench.say(Kind.PAIR_SETUP, b"\7" * 32, 1, b"")
    await settled()
    assert bench.links.sent == []


@pytest.mark.parametrize("begins", [True, False])
async def test_a_banned_peer_is_refused_for_good(make, begins):
    """At once, also after a restart; it gets no new set-up, whatever it says that it has."""
    bench = make(begins=begins)
    mine, _ = bench.give()
    bench.status(mine.setup_id)
    await bench.setups.ready(bench.peer)
    await bench.setups.ban(bench.peer)
    with pytest.raises(BannedPairError) as caught:
        await bench.setups.ready(bench.peer)
    assert caught.value.peer == bench.peer
    bench.status(NONE, asks=True)
    bench.say(Kind.PAIR_SETUP, b"\7" * 32, 1, b"")
    await settled()
    assert bench.links.of(Kind.PAIR_SETUP) == []
    again = PairStore(bench.disk, bench.bans)
    again.load()
    assert again.get(bench.peer).ban.is_set


async def test_a_ban_that_the_disk_does_not_take_holds_and_is_stored_later(make, monkeypatch):
    """The peer is refused meanwhile; each attempt to sign with it, and closing, tries to store the ban again."""
    bench = make(begins=True)
    mine, _ = bench.give()
    bench.status(mine.setup_id)
    store = bench.bans.ban
    broken = [True, True, False]

    def ban(operator):
        if broken.pop(0):
            raise OSError(errno.EIO, "the disk is broken")
        store(operator)

    monkeypatch.setattr(bench.bans, "ban", ban)
    await bench.setups.ban(bench.peer)
    with pytest.raises(BannedPairError):
        await bench.setups.ready(bench.peer)
    assert not bench.bans.find(bench.peer)
    await bench.setups.aclose()
    assert bench.bans.find(bench.peer)
    assert broken == []


async def test_a_ban_ends_the_wait(make):
    """Whoever waits for the pair just now is told."""
    bench = make(begins=False)
    bench.give()
    waiting = bench.ready()
    await settled()
    await bench.setups.ban(bench.peer)
    with pytest.raises(BannedPairError):
        await waiting


async def test_a_peer_gets_so_many_set_ups(make, caplog):
    """Each costs arithmetic; there is no reason to want many."""
    bench = make(begins=False)
    for number in range(20):
        bench.say(Kind.PAIR_SETUP, bytes((number,)) * 32, 1, b"")
        await settled()
    refused = [record for record in caplog.records if "a set-up is refused" in record.message]
    assert 10 <= len(refused) < 20


async def test_the_background_makes_what_is_missing_once(make):
    """Where this node is the one to begin, and has none."""
    bench = make(begins=True)
    bench.setups.prepare([bench.peer])
    bench.setups.prepare([bench.peer])
    theirs = await bench.play(await bench.first_begun())
    bench.status(theirs.setup_id)
    assert len(bench.begun()) == 1
    higher, equipped = make(begins=False), make(begins=True)
    equipped.give()
    for other in (higher, equipped):
        other.setups.prepare([other.peer])
    await asyncio.sleep(0.3)
    assert higher.links.sent == equipped.links.sent == []


async def test_the_background_asks_a_silent_peer_again(make):
    """A peer that was too busy to answer gets its set-up before a signature needs it."""
    bench = make(begins=True, sign_quiet_s=0.1)
    bench.setups.prepare([bench.peer])
    await bench.first_begun()
    bench.links.sent.clear()
    theirs = await bench.play(await bench.first_begun())
    bench.status(theirs.setup_id)
    async with asyncio.timeout(5):
        while bench.store.get(bench.peer) is None:
            await asyncio.sleep(0.001)
    assert bench.store.get(bench.peer).setup_id == theirs.setup_id


async def test_closing_ends_everything(make):
    """Peers are told; nothing begins any more."""
    bench = make(begins=True)
    waiting = bench.ready()
    await bench.first_begun()
    await bench.setups.aclose()
    assert "stopping" in bench.links.aborts(bench.peer)[0].reason
    sent = len(bench.links.sent)
    bench.status(NONE, asks=True)
    bench.setups.prepare([bench.peer])
    await settled()
    assert len(bench.links.sent) == sent
    waiting.cancel()


async def test_only_who_waits_to_sign_is_urgent(make, monkeypatch):
    """In the background a set-up lets everything else go first; it gets urgent when a signature needs it."""
    bench = make(begins=True)
    seen = []
    compute = Workers.compute

    async def watched(workers, step, *arguments, urgency):
        seen.append(urgency)
        return await compute(workers, step, *arguments, urgency=urgency)

    monkeypatch.setattr(Workers, "compute", watched)
    bench.setups.prepare([bench.peer])
    session_id = await bench.first_begun()
    assert set(seen) == {Urgency.NEW}
    waiting = bench.ready()
    theirs = await bench.play(session_id)
    bench.status(theirs.setup_id)
    await waiting
    assert seen[-1] is Urgency.AWAITED


async def test_a_peer_that_waits_to_sign_is_urgent(make, monkeypatch):
    """The node that begins set-ups need not be the one that is in a hurry."""
    bench = make(begins=True)
    seen = []
    compute = Workers.compute

    async def watched(workers, step, *arguments, urgency):
        seen.append(urgency)
        return await compute(workers, step, *arguments, urgency=urgency)

    monkeypatch.setattr(Workers, "compute", watched)
    bench.status(NONE, asks=True)
    await bench.first_begun()
    assert set(seen) == {Urgency.AWAITED}
