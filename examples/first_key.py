"""
A session key on your own network: five nodes on loopback, any three of which can sign.

    python examples/first_key.py
"""

from __future__ import annotations

import asyncio
import secrets

from dan_async import DanClient, LocalWallet
from dan_async.devnet import Devnet


async def main() -> None:
    owner = LocalWallet(secrets.token_hex(32))  # a throwaway key
    async with DanClient(Devnet(threshold=3, parties=5)) as dan:
        session = await dan.generate_session_key(wallet=owner, chain_id=80002, duration=900)
    print(f"session key  {session.session_key_eoa}, held {session.threshold}-of-{session.parties_number}")
    print(f"owner        {session.eoa_address}")
    print(f"key id       {session.mpc_key_id}")
    print(f"ends at      {session.expires_at} (Unix seconds)")
    # session.to_dict() has the ephemeral private key in it: keep it where you keep keys.


if __name__ == "__main__":
    asyncio.run(main())
