"""
An agent's side of dan-async mcp: it starts the server over stdio, makes a session, signs, and is refused.

    python examples/recipes/mcp_agent/mcp_agent.py
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import tempfile
from pathlib import Path

from mcp import Client, StdioServerParameters, stdio_client

#: What the owner allows every session that the agent makes.
PERMISSIONS = [{"type": "call", "to": "0x9c5754De1443984659E1b3a8d1931D83475ba29C", "selectors": ["0x"]}]


async def main(folder: Path) -> None:
    """Play the agent."""
    key = folder / "owner.key"
    key.touch(mode=0o600)
    key.write_text(secrets.token_hex(32))  # a throwaway owner
    arguments = ["-m", "dan_async", "mcp", "--devnet", "2-of-3", "--store", f"sqlite:///{folder}/keys.db"]
    arguments += ["--private-key-file", str(key), "--max-duration", "600"]
    for limits in ([], ["--permissions", json.dumps(PERMISSIONS)]):
        server = StdioServerParameters(command=sys.executable, args=arguments + limits)
        async with Client(stdio_client(server)) as agent:
            print("tools:", ", ".join(tool.name for tool in (await agent.list_tools()).tools))
            made = (await agent.call_tool("make_session", {"duration": 300})).structured_content
            print("session:", made["address"], "lives", made["secondsLeft"], "s")
            signed = await agent.call_tool("sign_message", {"session": made["session"], "message": "hello"})
            print("refused:" if signed.is_error else "signed:", json.dumps(signed.structured_content))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(main(Path(name)))
