"""The public TypeScript clients, unmodified, against the devnet's gateway."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
from pathlib import Path
from typing import Any

import pytest
from coincurve import PrivateKey

from dan_async import DanClient, DanModuleInfo, EphemeralKey, LocalWallet
from dan_async.crypto.address import public_key_to_address
from dan_async.devnet import Devnet
from tests.interpolation import interpolate_scalar

HERE = Path(__file__).parent
NODE = shutil.which("node")
IS_READY = NODE is not None and (HERE / "node_modules" / "sdk-0.3.0").is_dir()

pytestmark = [
    pytest.mark.interop,
    # On a developer's machine Node may be missing; in CI a missing tool is a failure, see test_the_tools_are_there.
    pytest.mark.skipif(
        not IS_READY and os.environ.get("CI") != "true",
        reason="needs Node.js 20 and `npm ci` in tests/interop",
    ),
]

OWNER = LocalWallet("0x" + "00" * 31 + "07")
OWNER_KEY = "0x" + "00" * 31 + "07"


def test_the_tools_are_there() -> None:
    """In CI nothing may be skipped for a missing tool."""
    assert IS_READY


async def run_client(**job: Any) -> Any:
    """Run one job in the public client and give its result."""
    assert NODE is not None
    full = {"ownerKey": OWNER_KEY, "lifetime": 3600, "ephId": "eph-ts"} | job
    process = await asyncio.create_subprocess_exec(
        NODE,
        "client.mjs",
        cwd=HERE,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(json.dumps(full).encode()), 45)
    lines = [line for line in out.decode().splitlines() if line.startswith("@@")]
    assert lines, out.decode() + err.decode()
    return json.loads(lines[-1][2:])


def address_held_by(net: Devnet, key_id: str, t: int) -> str:
    """The address of the key whose shares t of the nodes hold."""
    shares = [node.reveal_share(key_id) for node in net.nodes]
    secret = interpolate_scalar({share.index: share.secret_share for share in shares[:t]})
    return public_key_to_address(PrivateKey(secret.to_bytes(32, "big")).public_key.format())


@pytest.mark.parametrize(("t", "n"), [(2, 3), (3, 5)])
@pytest.mark.parametrize("revision", ["0.1", "0.3"])
async def test_they_generate_keys(revision: str, t: int, n: int) -> None:
    """The address that the client computes is that of the key whose shares our nodes hold."""
    permissions = '{"permissions":[]}'
    async with Devnet(threshold=t, parties=n) as net:
        said = await run_client(
            revision=revision,
            url=net.gateway_url,
            t=t,
            n=n,
            ephemeralKey="0x" + secrets.token_hex(32),
            permissions=permissions,
        )
        assert "error" not in said, said
        made = said["result"]
        assert made["address"] == address_held_by(net, made["keyId"], t)


async def test_a_wrong_request_is_refused() -> None:
    """What the network does not do ends in the client's own error, not in a key."""
    async with Devnet(threshold=2, parties=3) as net:
        said = await run_client(
            revision="0.3", url=net.gateway_url, t=2, n=9, ephemeralKey="0x" + secrets.token_hex(32)
        )
    assert "error" in said


async def test_an_ephemeral_key_added_by_typescript_to_a_python_session() -> None:
    """A payload made by Python is usable by TypeScript."""
    async with Devnet(threshold=2, parties=3) as net, DanClient(net) as dan:
        session = await dan.generate_session_key(wallet=OWNER, chain_id=80002)
        said = await run_client(
            revision="0.3",
            operation="addEphemeralKey",
            url=net.gateway_url,
            t=session.threshold,
            n=session.parties_number,
            keyId=session.mpc_key_id,
            ephemeralKey="0x" + secrets.token_hex(32),
        )
        assert said.get("result") == {"status": "ok"}, said
        records = [node.ephemeral_key_ids(session.mpc_key_id) for node in net.nodes]
        assert all({session.eph_id, "eph-ts"} == set(keys) for keys in records)


async def test_an_ephemeral_key_added_by_python_to_a_typescript_session() -> None:
    """What TypeScript stored is usable by Python."""
    secret = secrets.token_hex(32)
    async with Devnet(threshold=2, parties=3) as net, DanClient(net) as dan:
        said = await run_client(revision="0.3", url=net.gateway_url, t=2, n=3, ephemeralKey="0x" + secret)
        made = said["result"]
        session = DanModuleInfo.from_dict(
            {
                "publicKey": made["publicKey"],
                "keyId": made["keyId"],
                "sessionPublicKey": made["address"],
                "ephSK": "0x" + secret,
                "ephId": "eph-ts",
            }
        )
        added = await dan.add_ephemeral_key(session, wallet=OWNER)
        assert added.session_key_eoa == made["address"]
        key = EphemeralKey.from_hex(added.hex_eph_sk_without_0x, added.eph_alg)
        records = [node.ephemeral_key_ids(made["keyId"]) for node in net.nodes]
        assert all({"eph-ts", key.default_id} == set(keys) for keys in records)
