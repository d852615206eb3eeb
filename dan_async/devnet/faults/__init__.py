"""
What a devnet node can be made to do wrong, so that software can be tested against a network that misbehaves.

A fault is a frozen value; ``net.faults[index] = fault`` puts it in force at ``net.nodes[index]``, also while requests are
running, several at once as a list, and None takes all away. ``methods`` limits a fault to some RPC methods, ``times``
to so many uses.
"""

from __future__ import annotations

from dan_async.devnet.faults.base import Fault, NodeCrashed, RequestDropped
from dan_async.devnet.faults.board import FaultBoard, Faults
from dan_async.devnet.faults.in_force import NodeFaults
from dan_async.devnet.faults.kinds import (
    AcknowledgeOtherKey,
    Crash,
    DealWrongShare,
    Delay,
    Disconnect,
    DropReply,
    DropRequest,
    Equivocate,
    ExpireNonces,
    FallSilent,
    ForgeShares,
    ForgeSignature,
    HttpError,
    RefuseConnections,
    SendGarbage,
    Trickle,
)
from dan_async.devnet.faults.signing import (
    CheatInSigning,
    CrashInSigning,
    SilentInSigning,
    WrongSignatureShare,
)

__all__ = [
    "AcknowledgeOtherKey",
    "CheatInSigning",
    "Crash",
    "CrashInSigning",
    "DealWrongShare",
    "Delay",
    "Disconnect",
    "DropReply",
    "DropRequest",
    "Equivocate",
    "ExpireNonces",
    "FallSilent",
    "Fault",
    "FaultBoard",
    "Faults",
    "ForgeShares",
    "ForgeSignature",
    "HttpError",
    "NodeCrashed",
    "NodeFaults",
    "RefuseConnections",
    "RequestDropped",
    "SendGarbage",
    "SilentInSigning",
    "Trickle",
    "WrongSignatureShare",
]
