"""``dan-async demo``: a network, a key, two signatures, explained line by line as it goes."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any

from dan_async.cli.options import DEVNET_CHAIN_ID
from dan_async.cli.screen import log_lines, result, run_until_signal

if TYPE_CHECKING:
    from dan_async.client import DanClient
    from dan_async.devnet.cluster import Devnet
    from dan_async.session import DanSessionKeyPayload

_MESSAGE = "hello from a key that nobody holds"


def demo() -> None:
    """
    Show DAN at work on your own machine: three nodes make one key that none of them holds, and sign with it.

    Nothing leaves the machine, and nothing is kept.
    """
    with log_lines(held_back=True):
        run_until_signal(_demonstrate())


async def _demonstrate() -> None:
    from dan_async.client import DanClient
    from dan_async.devnet.cluster import Devnet

    started = time.perf_counter()
    async with Devnet(threshold=2, parties=3) as net:
        result(
            "1. Three nodes are up on loopback, each with an identity, a port and a share store of its own:"
        )
        for node in net.nodes:
            result(f"     {node.operator}")
        async with DanClient(net) as dan:
            session = await _make_key(dan)
            await _sign_text(dan, session)
            await _sign_operation(dan, session)
            await _sign_without_one_node(net, dan, session)
    seconds = time.perf_counter() - started
    result(f"Done in {seconds:.1f} s. Next: dan-async keygen --help, and README.md for the same in Python.")


async def _make_key(dan: DanClient) -> DanSessionKeyPayload:
    from dan_async.wallets.local_key import LocalWallet

    wallet = LocalWallet(secrets.token_hex(32))
    started = time.perf_counter()
    session = await dan.generate_session_key(wallet=wallet, chain_id=DEVNET_CHAIN_ID, duration=600)
    result(f"2. An owner, {wallet.address}, signs once (EIP-712).")
    result(
        f"   The nodes then make a key together, in {_took(started)}. Each has a share; the key itself is nowhere."
    )
    result(f"     its address: {session.session_key_eoa}")
    result("   This program keeps an ephemeral key, which may use it for ten minutes. It is no share of it.")
    return session


async def _sign_text(dan: DanClient, session: DanSessionKeyPayload) -> None:
    from dan_async.crypto.signature import personal_message_digest, recover_address

    started = time.perf_counter()
    signature = await dan.sign_message(_MESSAGE, session)
    result(f'3. Two of the three sign "{_MESSAGE}", in {_took(started)}. No wallet is asked.')
    result(f"     {signature}")
    signer = recover_address(personal_message_digest(_MESSAGE.encode()), signature)
    result(f"   Anyone who has the text can recover the signer from it: {signer}.")


async def _sign_operation(dan: DanClient, session: DanSessionKeyPayload) -> None:
    from dan_async.crypto.signature import personal_message_digest, recover_address
    from dan_async.user_operation import ENTRY_POINTS, UserOperationV07, user_operation_hash

    operation = UserOperationV07(
        sender=session.eoa_address,
        nonce=0,
        call_data=bytes.fromhex("b61d27f6"),
        call_gas_limit=100_000,
        verification_gas_limit=100_000,
        pre_verification_gas=50_000,
        max_fee_per_gas=10**9,
        max_priority_fee_per_gas=10**9,
    )
    request: dict[str, Any] = {
        "userOperation": operation,
        "entryPointVersion": "v0.7.0",
        "entryPointAddress": ENTRY_POINTS["v0.7.0"],
        "chainId": DEVNET_CHAIN_ID,
    }
    started = time.perf_counter()
    signature = await dan.sign_message(request, session)
    found = user_operation_hash(
        operation, entry_point=ENTRY_POINTS["v0.7.0"], chain_id=DEVNET_CHAIN_ID, version="v0.7.0"
    )
    result(
        f"4. They sign a user operation (ERC-4337), in {_took(started)}. Its hash, as EntryPoint v0.7 computes it:"
    )
    result(f"     0x{found.hex()}")
    signer = recover_address(personal_message_digest(found), signature)
    result(f"   Signed by {signer}, as a smart account with this session key checks it.")


async def _sign_without_one_node(net: Devnet, dan: DanClient, session: DanSessionKeyPayload) -> None:
    await net.nodes[0].stop()
    started = time.perf_counter()
    await dan.sign_message("one node down", session)
    result(f"5. One node is stopped; the other two go on signing, in {_took(started)}.")


def _took(started: float) -> str:
    return f"{(time.perf_counter() - started) * 1000:.0f} ms"
