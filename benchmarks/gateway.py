"""
A keygen and a signature over a gateway in revision 0.3: our client, the floor, and the public TypeScript client's keygen.

``python -m benchmarks.gateway [--quick] [--readme]``. The TypeScript client needs Node.js and ``npm ci`` in tests/interop.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import shutil
import statistics
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
from coincurve import PrivateKey, PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from eth_hash.backends.pysha3 import keccak256

from benchmarks.measure import commit_facts, platform_facts, run_load, say
from benchmarks.peers import Peer
from benchmarks.report import facts_line
from dan_async import DanClient, LocalWallet
from dan_async.config import Threshold, Timeouts
from dan_async.gateway import GatewayNetwork

_HERE = Path(__file__).parent
_PACKAGES = _HERE.parent / "tests" / "interop"
_README = _HERE / "README.md"
_BEGIN, _END = "<!-- gateway: begin -->", "<!-- gateway: end -->"

#: For benchmarks only: known to everybody.
_OWNER_KEY = "0x" + "11" * 32
_CONCURRENCY = (1, 32)

#: The aims, as ratios of CPU time.
_MOST_TO_FLOOR, _MOST_TO_TYPESCRIPT = {"keygen": 1.25, "signature": 1.4}, 0.28
_TIMEOUTS = Timeouts(total_s=120.0, attempt_s=60.0)

Operation = Callable[[], Awaitable[object]]


async def _record(operation: Operation) -> tuple[str, str]:
    """Give the two frames that an operation sends, as the floor will send them."""
    frames: list[str] = []
    original = aiohttp.ClientWebSocketResponse.send_str

    async def listen(self: Any, text: str, *arguments: Any, **options: Any) -> None:
        frames.append(text)
        await original(self, text, *arguments, **options)

    aiohttp.ClientWebSocketResponse.send_str = listen  # type: ignore[method-assign]  # for one operation only
    try:
        await operation()
    finally:
        aiohttp.ClientWebSocketResponse.send_str = original  # type: ignore[method-assign]  # as it was
    setup, authentication = frames
    return setup, authentication


async def _our_client(url: str, session: dict[str, Any], stack: AsyncExitStack) -> dict[str, Operation]:
    network = GatewayNetwork(url, revision="0.3", threshold=Threshold(3, 5), timeouts=_TIMEOUTS)
    client = await stack.enter_async_context(DanClient(network, timeouts=_TIMEOUTS))
    wallet = LocalWallet(_OWNER_KEY)

    async def keygen() -> object:
        return await client.generate_session_key(wallet=wallet, chain_id=80002)

    async def signature() -> object:
        return await client.sign_message("hello", session)

    return {"keygen": keygen, "signature": signature}


async def _floors(
    url: str, key: dict[str, Any], ours: dict[str, Operation], stack: AsyncExitStack
) -> dict[str, Operation]:
    """Bare aiohttp exchanges of the same bytes, and the cryptography that cannot be left out."""
    session = await stack.enter_async_context(aiohttp.ClientSession())
    setup, authentication = await _record(ours["keygen"])
    sign_setup, sign_authentication = await _record(ours["signature"])
    owner = PrivateKey(bytes.fromhex(_OWNER_KEY[2:]))
    claim = json.loads(authentication)["credentials"]["credentials"].encode()
    # What EIP-712 hashes here, by length: challenge, claim, TaggedValue, TaggedValue[], KeygenSetupOpts, Request.
    hashed = (bytes(64), claim, bytes(96), bytes(32), bytes(128), bytes(96))
    ephemeral = bytes.fromhex(key["hexEphSKWithout0x"])

    async def keygen() -> object:
        Ed25519PrivateKey.generate().public_key().public_bytes_raw()
        async with session.ws_connect(f"{url}/keygen", compress=0) as ws:
            await ws.send_str(setup)
            await ws.receive()
            for data in hashed:
                keccak256(data)
            digest = keccak256(bytes(66))
            signature = owner.sign_recoverable(digest, hasher=None)
            signer = PublicKey.from_signature_and_message(signature, digest, hasher=None)
            keccak256(signer.format(compressed=False)[1:])
            await ws.send_str(authentication)
            result = await ws.receive()
        point = PublicKey(bytes.fromhex(result.data.rpartition("=")[2]))
        return keccak256(point.format(compressed=False)[1:])

    async def signature() -> object:
        digest = keccak256(bytes(33))
        private_key = Ed25519PrivateKey.from_private_bytes(ephemeral)
        private_key.public_key().public_bytes_raw()
        async with session.ws_connect(f"{url}/signgen", compress=0) as ws:
            await ws.send_str(sign_setup)
            challenge = await ws.receive()
            private_key.sign(f"{sign_setup}{challenge.data}".encode())
            await ws.send_str(sign_authentication)
            result = await ws.receive()
        made, recovery_id = result.data.removeprefix("sign=").split(":recid=")
        found = PublicKey.from_signature_and_message(
            bytes.fromhex(made) + bytes((int(recovery_id),)), digest, hasher=None
        )
        return keccak256(found.format(compressed=False)[1:])

    return {"keygen": keygen, "signature": signature}


async def _typescript(url: str, concurrency: int, rounds: int, keygens: int) -> list[dict[str, float]]:
    node = shutil.which("node")
    if node is None or not (_PACKAGES / "node_modules" / "sdk-0.3.0").is_dir():
        raise SystemExit("the TypeScript client needs Node.js and: npm ci --prefix tests/interop")
    job = {
        "packages": str(_PACKAGES.resolve()),
        "url": url,
        "ownerKey": _OWNER_KEY,
        "concurrency": concurrency,
        "rounds": rounds,
        "keygens": keygens,
        "warmUp": max(64, 2 * concurrency),
    }
    process = await asyncio.create_subprocess_exec(
        node, str(_HERE / "typescript_client.mjs"), json.dumps(job), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return [json.loads(line) for line in out.splitlines()]


async def run(*, quick: bool) -> dict[str, Any]:
    """Run everything, one after the other, so that the clients do not compete for the cores with each other."""
    rounds, turns, seconds = (3, 4, 0.3) if quick else (7, 5, 0.5)
    result: dict[str, Any] = {
        "effort": "quick" if quick else "full",
        **commit_facts(),
        "platform": platform_facts(),
        "entries": [],
    }
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(Peer("benchmarks.stub_gateway", {}))
        url, key = server.described["url"], server.described["session"]
        ours = await _our_client(url, key, stack)
        floors = await _floors(url, key, ours, stack)
        for name, concurrency in itertools.product(ours, _CONCURRENCY):
            for operation in (ours[name], floors[name]):
                await run_load(operation, concurrency=concurrency, seconds=0.0, at_least=2 * concurrency + 32)
            made: list[_Round] = []
            for number in range(rounds):
                say(f"{name} over the gateway, {concurrency} in flight, round {number + 1} of {rounds}")
                pairs = []
                for _ in range(turns):
                    mine = await run_load(ours[name], concurrency=concurrency, seconds=seconds)
                    base = await run_load(floors[name], concurrency=concurrency, seconds=seconds)
                    pairs.append((mine.cpu_ms, base.cpu_ms))
                theirs = None
                if name == "keygen":
                    [found] = await _typescript(url, concurrency, 1, 64 if quick else 192)
                    theirs = found["cpuMs"]
                made.append(_Round(pairs, theirs))
            result["entries"].append(_entry(name, concurrency, made))
    return result


class _Round(NamedTuple):
    """CPU time of one operation, in ms: of our client and the floor, turn by turn, and of the TypeScript client."""

    pairs: list[tuple[float, float]]
    typescript: float | None


def _entry(name: str, concurrency: int, rounds: list[_Round]) -> dict[str, Any]:
    median = statistics.median
    pairs = [pair for one in rounds for pair in one.pairs]
    entry = {
        "operation": name,
        "concurrency": concurrency,
        "client_cpu_ms": round(median(mine for mine, _ in pairs), 3),
        "floor_cpu_ms": round(median(base for _, base in pairs), 3),
        "to_floor": round(median(mine / base for mine, base in pairs), 3),
    }
    beside = [(median(mine for mine, _ in one.pairs), one.typescript) for one in rounds if one.typescript]
    if beside:
        entry["typescript_cpu_ms"] = round(median(theirs for _, theirs in beside), 3)
        entry["to_typescript"] = round(median(mine / theirs for mine, theirs in beside), 3)
    return entry


def _render(result: dict[str, Any]) -> str:
    rows = [
        "| | in flight | client, CPU ms | floor, CPU ms | TypeScript 0.3.0, CPU ms | client / floor | client / TypeScript |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    rows += [
        f"| {e['operation']} | {e['concurrency']} | {e['client_cpu_ms']:.2f} | {e['floor_cpu_ms']:.2f} "
        f"| {_shown(e, 'typescript_cpu_ms')} | {e['to_floor']:.2f} | {_shown(e, 'to_typescript')} |"
        for e in result["entries"]
    ]
    rows.append(f"\n{facts_line(result)}")
    return "\n".join(rows)


def _shown(entry: dict[str, Any], name: str) -> str:
    return f"{entry[name]:.2f}" if name in entry else ""


def _verdicts(result: dict[str, Any]) -> str:
    def said(ratio: float, most: float) -> str:
        return f"{ratio:.2f} (aim: at most {most:.2f}, {'met' if ratio <= most else 'NOT met'})"

    lines = []
    for e in result["entries"]:
        to_floor = said(e["to_floor"], _MOST_TO_FLOOR[e["operation"]])
        line = f"{e['operation']}, {e['concurrency']} in flight: client / floor {to_floor}"
        if "to_typescript" in e:
            line += f", client / TypeScript {said(e['to_typescript'], _MOST_TO_TYPESCRIPT)}"
        lines.append(line)
    return "\n".join(lines)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway")
    parser.add_argument(
        "--quick", action="store_true", help="three short rounds instead of seven longer ones"
    )
    parser.add_argument("--readme", action="store_true", help="put the table into benchmarks/README.md")
    options = parser.parse_args()
    result = asyncio.run(run(quick=options.quick))
    name = "gateway-quick.json" if options.quick else "gateway.json"
    (_HERE / "results" / name).write_text(json.dumps(result, indent=1) + "\n")
    text = _render(result)
    print(text, _verdicts(result), sep="\n\n")
    if options.readme:
        readme = _README.read_text()
        head, rest = readme.split(_BEGIN)
        _README.write_text(f"{head}{_BEGIN}\n{text}\n{_END}{rest.partition(_END)[2]}")


if __name__ == "__main__":
    main()
