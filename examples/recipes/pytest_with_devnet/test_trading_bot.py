"""
Tests of software that uses DAN, against a real network on loopback.

    python -m pytest examples/recipes/pytest_with_devnet
"""

from __future__ import annotations

from dan_async import DanClient, LocalWallet, QuorumError
from dan_async.crypto.signature import personal_message_digest, recover_address
from dan_async.devnet import Devnet

OWNER = LocalWallet(
    "0x4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"
)  # well known: for tests only


class Bot:
    """The software under test: it signs orders, and says whether the network could."""

    def __init__(self, dan: DanClient) -> None:
        self.dan = dan

    async def start(self) -> None:
        """Make a session."""
        self.session = await self.dan.generate_session_key(wallet=OWNER, chain_id=80002)

    async def order(self, text: str) -> str | None:
        """Sign an order; None if the nodes cannot."""
        try:
            return await self.dan.sign_message(text, self.session, timeout=5)
        except QuorumError:
            return None


async def test_an_order_is_signed_by_the_session(devnet: Devnet) -> None:
    """The fixture devnet is a running 2-of-3 network."""
    async with DanClient(devnet) as dan:
        bot = Bot(dan)
        await bot.start()
        signature = await bot.order("buy")
        assert signature is not None
        assert recover_address(personal_message_digest(b"buy"), signature) == bot.session.session_key_eoa


async def test_the_bot_outlives_one_node_and_notices_two(devnet: Devnet) -> None:
    """Two of three sign; with one left nobody does, and the bot goes on."""
    async with DanClient(devnet) as dan:
        bot = Bot(dan)
        await bot.start()
        await devnet.nodes[0].stop()
        assert await bot.order("buy") is not None
        await devnet.nodes[1].stop()
        assert await bot.order("sell") is None
