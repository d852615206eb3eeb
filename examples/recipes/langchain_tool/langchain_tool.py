"""
A session as LangChain tools: an agent signs and sends with a key that it never sees.

    python examples/recipes/langchain_tool/langchain_tool.py
"""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import Any

from langchain_core.tools import BaseTool, ToolException, tool

from dan_async import DanClient, DanError, DanSessionKeyPayload, LocalWallet
from dan_async.devnet import Devnet
from dan_async.types import Address
from dan_async.userops import Call, SmartAccountClient


def session_tools(
    dan: DanClient, session: DanSessionKeyPayload, account: SmartAccountClient | None = None
) -> list[BaseTool]:
    """Return the tools for an agent; with a smart account of the session's, one that sends."""

    @tool
    async def sign_message(message: str) -> str:
        """Sign a personal message (EIP-191) with the session's key. Returns the signature."""
        try:
            return await dan.sign_message(message, session)
        except DanError as error:
            raise refusal(error) from error

    @tool
    async def send_call(to: str, value: int = 0, data: str = "0x") -> str:
        """Make a call from the session's smart account: value in wei, data as hex. Returns the transaction's hash."""
        assert account is not None
        try:
            sent = await account.send_user_operation(
                Call(Address(to), value, bytes.fromhex(data.removeprefix("0x")))
            )
            return (await account.wait_for_receipt(sent)).transaction_hash
        except (DanError, ValueError) as error:
            raise refusal(error) from error

    tools: list[BaseTool] = [sign_message] if account is None else [sign_message, send_call]
    for one in tools:
        one.handle_tool_error = True  # a refusal is the tool's answer, not the end of the agent
    return tools


def refusal(error: Exception) -> ToolException:
    """Return an error as the agent reads it: what happened, and what to do. Errors of dan_async hold no secrets."""
    said: dict[str, Any] = {"error": type(error).__name__, "message": str(error)}
    if isinstance(error, DanError):
        said |= {"message": error.message, "hint": error.hint, "retryable": error.retryable}
    return ToolException(json.dumps(said))


async def main() -> None:
    """Call the tool as a model does, within what the session may do and beyond it."""
    owner = LocalWallet(secrets.token_hex(32))  # a throwaway owner
    async with DanClient(Devnet(threshold=2, parties=3)) as dan:
        free = await dan.generate_session_key(wallet=owner, chain_id=80002)
        limited = await dan.generate_session_key(
            wallet=owner,
            chain_id=80002,
            permissions=[{"type": "call", "to": owner.address, "selectors": ["0x"]}],
        )
        for session in (free, limited):
            (sign,) = session_tools(dan, session)
            call = {"type": "tool_call", "id": "1", "name": "sign_message", "args": {"message": "hello"}}
            answer = await sign.ainvoke(call)
            print(f"{answer.status}: {answer.content}")


if __name__ == "__main__":
    asyncio.run(main())
