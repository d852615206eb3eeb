"""A devnet with each node in a process of its own, started by a process that is not the client's."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

from benchmarks.peers import serve_until_eof


async def _open(config: dict[str, Any], stack: AsyncExitStack) -> dict[str, Any]:
    from dan_async.devnet import Devnet

    net = await stack.enter_async_context(Devnet(config["t"], config["n"], processes=True))
    return dict(net.describe())


if __name__ == "__main__":
    serve_until_eof(_open)
