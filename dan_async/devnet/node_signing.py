"""Everything of a node that is about signing, put together: set-ups with others, presignatures, signatures."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from dan_async.devnet.faults import NodeFaults
from dan_async.devnet.identity import NodeIdentity
from dan_async.devnet.key_record import KeyRing
from dan_async.devnet.limits import NodeLimits
from dan_async.devnet.nonce_desk import NonceDesk
from dan_async.devnet.pair_setups import PairSetups
from dan_async.devnet.pair_store import PairStore
from dan_async.devnet.peer_links import PeerLinks
from dan_async.devnet.peer_messages import PeerMessage
from dan_async.devnet.peer_session import PeerSessions
from dan_async.devnet.presign_service import PresignService
from dan_async.devnet.presign_session import PresignSessions
from dan_async.devnet.presignature_stock import PresignatureStock
from dan_async.devnet.share_store import ShareStore
from dan_async.devnet.sign_service import SignService
from dan_async.devnet.workers import Workers
from dan_async.permissions import find_refusal
from dan_async.types import Clock, Json, MpcKeyId, OperatorAddress
from dan_async.wire.node_signing import decode_presign, decode_sign, encode_presign_result, encode_sign_result

__all__ = ["NodeSigning"]


class NodeSigning:
    """
    Signing at one node.

    Args:
        identity: The node.
        ring: The keys it holds shares of.
        store: Where set-ups are kept.
        links: Its links to the others.
        sessions: Its sessions with the others.
        nonces: What it gave out.
        workers: Where arithmetic and disk writes run.
        limits: How much at a time, and for how long.
        faults: What it does wrong on purpose.
        clock: The wall clock.
        on_crash: Called when a fault kills the node, with the seconds until it is to come back, if it is.
    """

    def __init__(
        self,
        *,
        identity: NodeIdentity,
        ring: KeyRing,
        store: ShareStore,
        links: PeerLinks,
        sessions: PeerSessions,
        nonces: NonceDesk,
        workers: Workers,
        limits: NodeLimits,
        faults: NodeFaults,
        clock: Clock,
        on_crash: Callable[[float | None], None],
    ) -> None:
        self._identity = identity
        self._faults = faults
        self.pairs = PairStore(store)
        self.stock = PresignatureStock(most=limits.max_presignatures, clock=clock)
        self._setups = PairSetups(
            identity=identity,
            links=links,
            sessions=sessions,
            store=self.pairs,
            workers=workers,
            limits=limits,
        )
        rounds = PresignSessions(
            identity=identity,
            sessions=sessions,
            pairs=self._setups,
            workers=workers,
            limits=limits,
            faults=faults,
            on_crash=on_crash,
        )
        self._presigns = PresignService(
            identity=identity, ring=ring, sessions=rounds, stock=self.stock, limits=limits, clock=clock
        )
        self._signs = SignService(
            identity=identity,
            ring=ring,
            nonces=nonces,
            sessions=rounds,
            stock=self.stock,
            workers=workers,
            limits=limits,
            clock=clock,
            find_refusal=find_refusal,
        )

    def load(self) -> None:
        """
        Read from the store what was kept. Blocks.

        Raises:
            ShareStoreError: A record cannot be read.
        """
        self.pairs.load()

    async def presign(self, params: dict[str, Json]) -> Json:
        """
        Answer ``dan_presign``.

        Raises:
            InvalidFieldError: The parameters are malformed.
            RefusalError: The request is refused.
        """
        return encode_presign_result(await self._presigns.presign(decode_presign(params)))

    async def sign(self, params: dict[str, Json]) -> Json:
        """
        Answer ``dan_sign``.

        Raises:
            InvalidFieldError: The parameters are malformed.
            RefusalError: The request is refused.
        """
        shares = await self._signs.sign(decode_sign(params))
        return encode_sign_result(self._faults.forge_shares(shares, self._identity))

    def key_made(self, participants: Iterable[OperatorAddress]) -> None:
        """Get ready for signatures with a key that was made: in the background, once for each pair of nodes."""
        self._setups.prepare([operator for operator in participants if operator != self._identity.operator])

    def key_revoked(self, key_id: MpcKeyId, eph_id: str) -> None:
        """Throw away what an ephemeral key has ready."""
        self.stock.discard(key_id, eph_id)

    def on_linked(self, peer: OperatorAddress) -> None:
        """Take note of a link that has come up."""
        self._setups.on_linked(peer)

    def on_message(self, peer: OperatorAddress, message: PeerMessage) -> None:
        """Take note of a peer's message, which is in its mailbox already."""
        self._setups.on_message(peer, message)

    async def give_up(self) -> None:
        """Give up what is running, so that whoever waits is told."""
        await self._presigns.aclose()
        await self._signs.aclose()

    async def aclose(self) -> None:
        """Give up everything, and wait until it has ended."""
        await self.give_up()
        await self._setups.aclose()
