"""What stands where a node's links would be, and a peer that the test plays."""

from __future__ import annotations

import asyncio
import contextlib

from dan_async.devnet.context import NodeIdentity
from dan_async.devnet.peers.sessions import AbortNotice, Kind, PeerMessage

__all__ = ["IDENTITIES", "OPERATORS", "Links"]

IDENTITIES = sorted((NodeIdentity.from_hex(f"{n:064x}") for n in (1, 2, 3)), key=lambda i: i.operator.lower())
OPERATORS = tuple(identity.operator for identity in IDENTITIES)


class Links:
    """Keeps what is sent, and can be down."""

    def __init__(self):
        self.sent = []
        self.wants = []
        self.up = True

    @contextlib.contextmanager
    def wanted(self, peers):
        self.wants.extend(peers)
        try:
            yield
        finally:
            for peer in peers:
                self.wants.remove(peer)

    def is_up(self, peer):
        return self.up

    def send(self, peer, frame):
        if self.up:
            self.sent.append((peer, PeerMessage.decode(frame)))
        return self.up

    def of(self, kind, peer=None):
        """What was sent of a kind, to one peer or to all."""
        return [m for to, m in self.sent if m.kind is kind and peer in (None, to)]

    def aborts(self, peer):
        return [AbortNotice.decode(message.body) for message in self.of(Kind.ABORT, peer)]

    async def wait_for(self, kind, peer, round_):
        """Wait until a round's message to a peer was sent; gives it."""
        async with asyncio.timeout(5):
            while True:
                for message in self.of(kind, peer):
                    if message.round == round_:
                        return message
                await asyncio.sleep(0.001)
