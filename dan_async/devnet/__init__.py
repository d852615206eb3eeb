"""
A DAN network on loopback, for development, demos and tests.

This is not custody software. Its key generation and its links are real, but all nodes run on one machine and under one
user, who can read every share; arithmetic on secrets is not constant-time; nothing here was audited. Do not put
anything of value behind its keys.
"""

from __future__ import annotations

from dan_async.devnet.cluster import Devnet, DevnetNode
from dan_async.devnet.context import NodeLimits
from dan_async.devnet.faults.kinds import (
    Accuse,
    AccuseInSigning,
    AcknowledgeOtherKey,
    CheatInSigning,
    ClaimOtherThreshold,
    ContradictInSigning,
    Crash,
    CrashInSigning,
    DealBadOpening,
    DealWrongShare,
    Delay,
    Disconnect,
    DropReply,
    DropRequest,
    Equivocate,
    ExpireNonces,
    FallSilent,
    Fault,
    ForgeCommitments,
    ForgeShares,
    ForgeSignature,
    HttpError,
    RefuseConnections,
    SendGarbage,
    SilentInSigning,
    SquatSession,
    Trickle,
    WithholdEcho,
    WrongSignatureShare,
)

__all__ = [
    "Accuse",
    "AccuseInSigning",
    "AcknowledgeOtherKey",
    "CheatInSigning",
    "ClaimOtherThreshold",
    "ContradictInSigning",
    "Crash",
    "CrashInSigning",
    "DealBadOpening",
    "DealWrongShare",
    "Delay",
    "Devnet",
    "DevnetNode",
    "Disconnect",
    "DropReply",
    "DropRequest",
    "Equivocate",
    "ExpireNonces",
    "FallSilent",
    "Fault",
    "ForgeCommitments",
    "ForgeShares",
    "ForgeSignature",
    "HttpError",
    "NodeLimits",
    "RefuseConnections",
    "SendGarbage",
    "SilentInSigning",
    "SquatSession",
    "Trickle",
    "WithholdEcho",
    "WrongSignatureShare",
]
