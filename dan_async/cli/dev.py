"""``dan-async dev``: a devnet, a chain and a bundler that run until they are stopped, and one network file for them."""

from __future__ import annotations

import secrets
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from dan_async.cli.devnet import announce, serve
from dan_async.cli.options import check_threshold, whole_number, write_new
from dan_async.cli.screen import Stopped, log_lines, note, run_until_signal
from dan_async.config import MAX_PARTIES


def dev(
    *,
    nodes: Annotated[
        int,
        typer.Option(
            parser=whole_number(2, MAX_PARTIES), metavar="N", help="How many nodes to run, 2 to 20."
        ),
    ] = 3,
    threshold: Annotated[
        int | None,
        typer.Option(
            parser=whole_number(2, MAX_PARTIES),
            metavar="T",
            help="How many of them must sign together unless a client says otherwise, 2 to N; a majority by default.",
        ),
    ] = None,
    storage: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Keep shares and the chain's state in this folder, so that a later run still has them; in memory if not "
            "given.",
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            parser=whole_number(1, 65_535 - MAX_PARTIES - 2),
            metavar="PORT",
            help="The gateway's port; the nodes', Anvil's and Alto's follow. Free ones by default.",
        ),
    ] = None,
    write: Annotated[
        Path, typer.Option(metavar="FILE", help="The network file to write; an existing one is replaced.")
    ] = Path("dev.toml"),
    owner_key: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="Where the owner's private key is; a new one is written unless it is there. For tests only.",
        ),
    ] = Path("dev-owner.key"),
    node_modules: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The node_modules folder with Anvil and Alto; by default searched for here and in the folders above.",
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON object on one line when all listen."),
    ] = False,
) -> None:
    """
    Run everything that a session needs on this machine until Ctrl-C: nodes, gateway, chain (Anvil) and bundler (Alto).

    Writes one network file, which --network FILE and DanClient.connect(FILE) take, and which names the chain as well.
    Both entry points and the factories of SimpleAccount are at their usual addresses.

    For development only. SIGINT and SIGTERM stop everything cleanly, with exit code 0.
    """
    from dan_async.devnet.local_chain import LocalChain

    agreed = check_threshold(threshold, nodes, parties_option="--nodes")
    chain = LocalChain(
        node_modules=node_modules,
        port=None if port is None else port + agreed.n + 1,
        state=None if storage is None else storage / "chain.json",
    )
    if not owner_key.exists():
        write_new(owner_key, f"0x{secrets.token_hex(32)}\n", what="--owner-key: the key")
    tell = partial(announce, write=write, owner_key=owner_key, as_json=as_json)
    with log_lines(held_back=False), suppress(Stopped):
        run_until_signal(
            serve(
                agreed,
                tell,
                processes=False,
                storage=storage,
                port=port,
                faults={},
                allow_origins=(),
                chain=chain,
            )
        )
    note("stopped")
