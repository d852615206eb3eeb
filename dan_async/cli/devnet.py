"""``dan-async devnet``: nodes on loopback that run until they are stopped."""

from __future__ import annotations

import asyncio
import errno
import json
import secrets
import shlex
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer
from attrs import asdict

from dan_async.cli.options import DEVNET_CHAIN_ID, DevnetOptions
from dan_async.cli.screen import Stopped, log_lines, mask_keys, note, progress, result, run_until_signal
from dan_async.cli.session_file import write_new
from dan_async.errors import ConfigurationError, DanError
from dan_async.network_file import NetworkFile

if TYPE_CHECKING:
    from dan_async.devnet.cluster import Devnet
    from dan_async.devnet.faults.kinds import Fault
    from dan_async.devnet.local_chain import LocalChain

#: Prints a private key that is kept nowhere, for a command that reads one from standard input.
_THROWAWAY = "python3 -c 'import secrets; print(secrets.token_hex(32))'"

#: How often to look whether the nodes still run, in seconds.
_LOOK_EVERY_S = 0.5


def devnet(
    *,
    network: DevnetOptions,
    processes: Annotated[
        bool,
        typer.Option("--processes", help="Give each node a process of its own instead of sharing this one."),
    ] = False,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NODE=FAULT",
            help="Make a node misbehave; repeatable. NODE is its number as printed, from 0. FAULT is one of "
            "delay:2s±500ms, drop-request, drop-reply:1, disconnect, refuse, crash:round=2,restart=1s, garbage, "
            "trickle:100ms, http:503,retry-after=2s, expired-nonces, forged-signature, forged-shares, other-key, "
            "other-threshold, wrong-share, bad-opening, equivocate, silent:round=2, accuse:round=2, withhold-echo, "
            "squat-session, signing-crash, signing-silent, signing-accuse, signing-cheat, "
            "signing-contradiction, forged-commitments, wrong-signature-share. Most also take times=N and methods=M+M: "
            "0=delay:2s,methods=dan_keygen,times=1.",
        ),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            help="Let web pages of this origin connect to nodes and gateway, such as http://localhost:5173; "
            "repeatable. All others are refused.",
        ),
    ] = None,
) -> None:
    """
    Run a DAN network on loopback until Ctrl-C, and print a command that makes a session key on it.

    For development, demos and tests. It is not custody software: keys made on it protect nothing of value.

    SIGINT and SIGTERM stop it cleanly, with exit code 0.
    """
    agreed = network.choose()
    faults = _read_faults(fault or (), agreed.n)
    from dan_async.devnet.cluster import Devnet
    from dan_async.devnet.listening import check_origins

    origins = check_origins("--allow-origin", allow_origin or ())
    net = Devnet(
        agreed.t,
        agreed.n,
        processes=processes,
        storage=network.storage,
        port=network.port,
        faults=faults,
        allow_origins=origins,
    )
    run_until_stopped(net, None, network)


def _read_faults(texts: Sequence[str], nodes: int) -> dict[int, list[Fault]]:
    """Read the values of --fault, each ``NODE=FAULT``, and return the faults by node."""
    faults: dict[int, list[Fault]] = {}
    if not texts:
        return faults
    from dan_async.devnet.faults.spelling import parse_node_fault

    for place, text in enumerate(texts, start=1):
        which = f"--fault number {place}" if place > 1 else "--fault"
        try:
            node, parsed = parse_node_fault(text)
        except ConfigurationError as error:
            raise ConfigurationError(f"{which}: {error.message}", hint=error.hint) from None
        if node >= nodes:
            raise ConfigurationError(
                f"{which}: there is no such node", hint=f"The nodes are 0 to {nodes - 1}"
            )
        faults.setdefault(node, []).append(parsed)
    return faults


def run_until_stopped(net: Devnet, chain: LocalChain | None, options: DevnetOptions) -> None:
    """Run a devnet, and a chain beside it, until a signal; the owner's key is written before, unless it is there."""
    owner_key = options.owner_key
    if owner_key is not None and not owner_key.exists():
        write_new(owner_key, f"0x{secrets.token_hex(32)}\n", what="--owner-key: the key")
    with log_lines(held_back=False), suppress(Stopped):
        run_until_signal(_serve(net, chain, options))
    note("stopped")


async def _serve(net: Devnet, chain: LocalChain | None, options: DevnetOptions) -> None:
    try:
        with progress(f"Starting {net.threshold.n} nodes …"):
            await _start(net, options.port)
        if chain is not None:
            with progress("Starting Anvil and Alto …"):
                await chain.start()
        _announce(net, chain, options)
        running = [True] * net.threshold.n
        ended: tuple[str, ...] = ()
        while True:  # until it is cancelled
            await asyncio.sleep(_LOOK_EVERY_S)
            for node in net.nodes:
                if running[node.index] and not node.is_running:
                    note(f"node {node.index} has stopped: its process ended")
                running[node.index] = node.is_running
            if chain is not None and chain.stopped_programs != ended:
                ended = chain.stopped_programs
                note(f"{ended[-1]} has stopped: its process ended")
    finally:
        try:
            if chain is not None:
                await chain.aclose()
        finally:
            await net.aclose()


async def _start(net: Devnet, port: int | None) -> None:
    try:
        await net.start()
    except DanError:
        raise  # some are OSErrors as well
    except OSError as error:
        if port is not None and error.errno == errno.EADDRINUSE:
            raise ConfigurationError(
                f"--port: one of the ports {port} to {port + net.threshold.n} is in use",
                hint="Name another one",
            ) from error
        raise DanError(f"the devnet could not start: {error.strerror}") from error


def _announce(net: Devnet, chain: LocalChain | None, options: DevnetOptions) -> None:
    """Write the network file, if one is asked for, and print the addresses and a command to begin with."""
    write, endpoints = options.write, None if chain is None else chain.endpoints
    if write is not None:
        text = NetworkFile(nodes=net.endpoints, threshold=net.threshold, chain=endpoints).to_toml()
        try:
            write.write_text(text)
        except OSError as error:
            raise ConfigurationError(
                f"--write: cannot write {mask_keys(str(write))}: {error.strerror}"
            ) from None
    if options.as_json:
        described = {**net.describe(), **({} if endpoints is None else {"chain": asdict(endpoints)})}
        result(json.dumps(described, separators=(",", ":")))
        return
    from dan_async.devnet.faults.spelling import spell_fault

    result(f"DAN devnet, {net.threshold}: for development only, it protects nothing of value.\n")
    for node in net.nodes:
        faults = "".join(f"  fault {spell_fault(fault)}" for fault in net.faults[node.index])
        result(f"  node {node.index}  {node.url}  operator {node.operator}{faults}")
    if gateway := net.describe().get("gateway"):
        result(f"  {gateway}  gateway in front of them")
    if endpoints is not None:
        result(f"  {endpoints.rpc_url}  Anvil, chain {endpoints.id}; its first account has 10,000 ether")
        result(f"  {endpoints.bundler_url}  Alto, a bundler for entry points v0.6 and v0.7")
    if write is not None:
        named = [f"--network {shlex.quote(str(write))}"]
    else:
        named = [f"--node {endpoint.url}={endpoint.operator}" for endpoint in net.endpoints]
        named.append(f"--threshold {net.threshold.t}")
    owner = "-" if options.owner_key is None else shlex.quote(str(options.owner_key))
    named.append(f"--private-key-file {owner}")
    has_chain = write is not None and endpoints is not None  # in the file, so that it need not be said
    words = "dan-async keygen" if has_chain else f"dan-async keygen --chain-id {DEVNET_CHAIN_ID}"
    command = " \\\n    ".join([words, *named])
    if options.owner_key is None:
        result(f"\nA session key from it, for a throwaway owner:\n\n  {_THROWAWAY} \\\n    | {command}\n")
    else:
        result(f"\nA session key from it:\n\n  {command}\n")
    note("Ctrl-C stops it.")
