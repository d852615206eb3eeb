"""``dan-async dev``: a devnet, a chain and a bundler that run until they are stopped, and one network file for them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dan_async.cli.devnet import run_until_stopped
from dan_async.cli.options import DevnetOptions

_USUAL = DevnetOptions(nodes=3, write=Path("dev.toml"), owner_key=Path("dev-owner.key"))


def dev(
    *,
    network: DevnetOptions = _USUAL,
    node_modules: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The node_modules folder with Anvil and Alto; by default searched for here and in the folders above.",
        ),
    ] = None,
) -> None:
    """
    Run everything that a session needs on this machine until Ctrl-C: nodes, gateway, chain (Anvil) and bundler (Alto).

    Writes one network file, which --network FILE and DanClient.connect(FILE) take, and which names the chain as well.
    Both entry points and the factories of SimpleAccount are at their usual addresses.

    For development only. SIGINT and SIGTERM stop everything cleanly, with exit code 0.
    """
    from dan_async.devnet.cluster import Devnet
    from dan_async.devnet.local_chain import LocalChain

    agreed, storage, port = network.choose(), network.storage, network.port
    chain = LocalChain(
        node_modules=node_modules,
        port=None if port is None else port + agreed.n + 1,
        state=None if storage is None else storage / "chain.json",
    )
    net = Devnet(agreed.t, agreed.n, storage=storage, port=port)
    run_until_stopped(net, chain, network)
