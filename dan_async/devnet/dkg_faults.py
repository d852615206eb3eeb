"""What a node with a fault sends to the others in a key generation, instead of what it should."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import evolve

from dan_async.devnet.dkg_evidence import sign_commitment
from dan_async.devnet.faults import DealWrongShare, Equivocate, FallSilent, Fault
from dan_async.devnet.identity import NodeIdentity
from dan_async.devnet.mpc.dkg import DkgParty
from dan_async.devnet.mpc.messages import ShareMessage
from dan_async.devnet.mpc.session import Session
from dan_async.devnet.peer_messages import join_parts, split_parts
from dan_async.types import OperatorAddress

__all__ = ["DkgFaults"]

_COMMIT, _OPEN = 1, 2

Bodies = Mapping[OperatorAddress, bytes]


class DkgFaults:
    """
    The faults of one node in one session. The victim of a fault that has one is the last of the other parties.

    Args:
        faults: Those in force when the session begins.
        identity: The node.
        session: What the parties agree on.
        new_party: Makes another party in the node's name, for a node with two faces.
    """

    def __init__(
        self,
        faults: tuple[Fault, ...],
        *,
        identity: NodeIdentity,
        session: Session,
        new_party: Callable[[], DkgParty],
    ) -> None:
        self._identity = identity
        self._session = session
        self._silent_from = min(
            (fault.round for fault in faults if isinstance(fault, FallSilent)), default=99
        )
        self._deals_wrong = any(isinstance(fault, DealWrongShare) for fault in faults)
        self._other_face = new_party() if any(isinstance(fault, Equivocate) for fault in faults) else None
        self._victim = [peer for peer in session.identities if peer != identity.operator][-1]

    def outgoing(self, round_: int, bodies: Bodies, commitments: Mapping[int, bytes]) -> Bodies:
        """
        Change what the node is about to send.

        Args:
            round_: The round.
            bodies: What it should send to each peer.
            commitments: What the peers have committed to, once they have.
        """
        if round_ >= self._silent_from:
            return {}
        changed = dict(bodies)
        if round_ == _COMMIT and self._other_face is not None:
            changed[self._victim] = sign_commitment(
                self._session, self._other_face.commit(), self._identity.sign
            )
        if round_ == _OPEN and self._other_face is not None:
            opening = self._other_face.open(commitments)
            share = opening.shares[self._session.identities.index(self._victim) + 1]
            changed[self._victim] = join_parts((opening.broadcast, share))
        if round_ == _OPEN and self._deals_wrong:
            opened, share = split_parts(changed[self._victim], 2)
            changed[self._victim] = join_parts((opened, self._wrong(share)))
        return changed

    def _wrong(self, share: bytes) -> bytes:
        """Change a share and sign it again, so that nothing but the commitments tells that it is wrong."""
        context = self._session.context
        message = ShareMessage.decode(share, context)
        message = evolve(message, share=message.share[:-1] + bytes((message.share[-1] ^ 1,)))
        digest = ShareMessage.digest(
            context,
            sender=message.sender,
            recipient=message.recipient,
            share=message.share,
            commitment=message.commitment,
        )
        return evolve(message, signature=self._identity.sign(digest)).encode(context)
