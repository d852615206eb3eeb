"""Signing among as many dishonest nodes as there may be, of every fault that a devnet's nodes can have, and mixtures."""

from __future__ import annotations

import asyncio
from itertools import cycle
from typing import Any

import pytest

from dan_async import DanClient, LocalWallet
from dan_async.crypto.signature import personal_message_digest, recover_address
from dan_async.devnet import (
    AccuseInSigning,
    CheatInSigning,
    ContradictInSigning,
    CrashInSigning,
    Delay,
    Devnet,
    DropRequest,
    Fault,
    ForgeCommitments,
    NodeLimits,
    RefuseConnections,
    SendGarbage,
    SilentInSigning,
    WrongSignatureShare,
)
from dan_async.nodes.health import rank

WALLET = LocalWallet("0x" + "00" * 31 + "07")

FAULTS: dict[str, Fault] = {
    "accuse at the start": AccuseInSigning(round=1),
    "accuse": AccuseInSigning(round=2),
    "silent": SilentInSigning(round=2),
    "cheat": CheatInSigning(),
    "wrong share": WrongSignatureShare(),
    "wrong commitments": ForgeCommitments(),
    "contradict": ContradictInSigning(),
    "crash": CrashInSigning(at_round=2),
    "no presignature": DropRequest(methods=["dan_presign"]),
    "no share": Delay(seconds=600, methods=["dan_sign"]),
    "garbage": SendGarbage(form="json", methods=["dan_presign"]),
    "refuse": RefuseConnections(),
}

#: Two or three of different kinds each.
MIXTURES = [
    ("accuse at the start", "wrong share", "silent"),
    ("accuse", "cheat", "no share"),
    ("wrong share", "accuse", "no presignature"),
    ("garbage", "accuse at the start", "crash"),
    ("contradict", "wrong commitments", "accuse"),
]


async def sign_among(t: int, n: int, faults: list[Fault], *, messages: int = 3) -> None:
    """
    Sign some messages, each within the client's usual deadline, where those that are asked first are faulty.

    Which these are is known when the key has been used once. Twenty nodes in one process get more time: they have one
    processor between them, and a node that waits for its turn must not pass for a silent one.
    """
    quiet_s, timeout_s = (1.0, 30.0) if n < 20 else (5.0, 150.0)
    limits = NodeLimits(sign_quiet_s=quiet_s, stop_grace_s=0.05)
    async with Devnet(t, n, limits=limits, gateway=False) as net:
        async with DanClient(net.network()) as dan:
            session = await dan.generate_session_key(wallet=WALLET, chain_id=1, threshold=t, parties_number=n)
            await dan.sign_message("first", session, timeout=120)
            await pairs_ready(net)
            first = [node.operator for node in rank(dan.network.pool.nodes)][: min(t - 1, n - t)]
            for operator, fault in zip(first, cycle(faults), strict=False):
                net.faults[next(node for node in net.nodes if node.operator == operator).index] = fault
            for number in range(messages):
                signature = await dan.sign_message(f"message {number}", session, timeout=timeout_s)
                digest = personal_message_digest(f"message {number}".encode())
                assert recover_address(digest, bytes.fromhex(signature[2:])) == session.session_key_eoa


async def pairs_ready(net: Devnet) -> None:
    """Wait for the set-ups of all pairs, which honest nodes make once: a first signature of theirs is no quick one."""
    async with asyncio.timeout(180):
        while any(len(stored(node)) < len(net.nodes) - 1 for node in net.nodes):
            await asyncio.sleep(0.05)


def stored(node: Any) -> Any:
    return node._runner._last.signing.pairs


@pytest.mark.timeout(150)
@pytest.mark.parametrize("name", FAULTS)
async def test_two_of_five_stop_nothing(name: str) -> None:
    """Both with the same fault."""
    await sign_among(3, 5, [FAULTS[name]])


@pytest.mark.timeout(150)
@pytest.mark.parametrize(
    "names",
    [*MIXTURES[:2], *(pytest.param(each, marks=pytest.mark.long) for each in MIXTURES[2:])],
    ids=" + ".join,
)
async def test_three_of_seven_with_different_faults_stop_nothing(names: tuple[str, ...]) -> None:
    """However they add up."""
    await sign_among(4, 7, [FAULTS[name] for name in names])


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "names", [("accuse at the start",), ("accuse", "cheat", "silent", "no share")], ids=" + ".join
)
async def test_nine_of_twenty_stop_nothing(names: tuple[str, ...]) -> None:
    """Nor here, where exactly one set of eleven is honest."""
    await sign_among(11, 20, [FAULTS[name] for name in names], messages=2)
