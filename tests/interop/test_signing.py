"""The public TypeScript clients sign through the devnet's gateway, and viem says whose signatures they are."""

from __future__ import annotations

import json
import secrets
from typing import Any

import pytest

from dan_async import DanClient, DanModuleInfo, GatewayNetwork
from dan_async.config import Timeouts
from dan_async.devnet import Devnet
from dan_async.types import KeyAlgorithm
from tests.interop.test_public_clients import OWNER, pytestmark, run_client

__all__ = ["pytestmark"]

PATIENT = Timeouts(total_s=40, attempt_s=20)
V06 = {
    "sender": "0x9c5754De1443984659E1b3a8d1931D83475ba29C",
    "nonce": "0x7",
    "initCode": "0x",
    "callData": "0xb61d27f6",
    "callGasLimit": "0x186a0",
    "verificationGasLimit": "0x186a0",
    "preVerificationGas": "0xc350",
    "maxFeePerGas": "0x3b9aca00",
    "maxPriorityFeePerGas": "0x3b9aca00",
    "paymasterAndData": "0x",
    "signature": "0x",
}
V07 = {name: V06[name] for name in V06 if name not in {"initCode", "paymasterAndData"}}
TYPED_DATA = {
    "types": {
        "EIP712Domain": [{"name": "name", "type": "string"}],
        "Order": [{"name": "amount", "type": "uint256"}, {"name": "note", "type": "string"}],
    },
    "domain": {"name": "é"},
    "primaryType": "Order",
    "message": {"amount": "1000000000000000000000", "note": "für Ада"},
}


def operation(user_operation: Any, version: str, entry_point: str) -> Any:
    """A user operation as the clients' callers give it."""
    return {
        "userOperation": user_operation,
        "entryPointVersion": version,
        "entryPointAddress": entry_point,
        "chainId": 80002,
    }


OPERATION_V06 = operation(V06, "v0.6.0", "0x5FF137D4b0FDCD49DcA30c7CF57E578a026d2789")
OPERATION_V07 = operation(V07, "v0.7.0", "0x0000000071727De22E5E9d8BAf0edAc6f37da032")
USER_OPERATIONS = {
    "v0.6": {"message": json.dumps(OPERATION_V06), "requestType": "accountAbstractionTx"},
    "v0.7": {"message": json.dumps(OPERATION_V07), "requestType": "accountAbstractionTx"},
}
ALL = USER_OPERATIONS | {
    "text": {"message": "Привет".encode().hex(), "requestType": "EIP191"},
    "typed data": {"message": json.dumps(TYPED_DATA), "requestType": "EIP712"},
}


@pytest.mark.parametrize(("revision", "messages"), [("0.1", USER_OPERATIONS), ("0.3", ALL)])
async def test_they_generate_and_then_sign(revision: str, messages: Any) -> None:
    """The address that the client computed at key generation is whose signatures viem finds them to be."""
    ephemeral = "0x" + secrets.token_hex(32)
    async with Devnet(threshold=2, parties=3) as net:
        common = {"revision": revision, "url": net.gateway_url, "t": 2, "n": 3, "ephemeralKey": ephemeral}
        made = (await run_client(**common))["result"]
        said = await run_client(**common, operation="sign", keyId=made["keyId"], messages=messages)
    assert "error" not in said, said
    assert said["result"]["recovered"] == dict.fromkeys(messages, made["address"])


@pytest.mark.parametrize("through", ["gateway", "nodes"])
async def test_a_session_of_python_signs_from_typescript(through: str) -> None:
    """With nothing but what the payload holds; over nodes its ephemeral key has to be of the kind that the client knows."""
    async with Devnet(threshold=2, parties=3) as net:
        gateway = GatewayNetwork(net.gateway_url, revision="0.3", threshold=net.threshold, timeouts=PATIENT)
        network = gateway if through == "gateway" else net.network(timeouts=PATIENT)
        async with DanClient(network, timeouts=PATIENT) as dan:
            alg: KeyAlgorithm | None = "ed25519" if through == "nodes" else None
            session = await dan.generate_session_key(wallet=OWNER, chain_id=80002, eph_alg=alg)
        said = await run_client(
            revision="0.3",
            operation="sign",
            url=net.gateway_url,
            t=session.threshold,
            n=session.parties_number,
            keyId=session.mpc_key_id,
            ephemeralKey="0x" + session.hex_eph_sk_without_0x,
            ephId=session.eph_id,
            messages=ALL,
        )
    assert "error" not in said, said
    assert said["result"]["recovered"] == dict.fromkeys(ALL, session.session_key_eoa)


@pytest.mark.parametrize("revision", ["0.1", "0.3"])
async def test_a_session_of_typescript_signs_from_python(revision: str) -> None:
    """From what TypeScript stored; viem finds the signatures to be the session's."""
    secret = secrets.token_hex(32)
    async with Devnet(threshold=2, parties=3) as net:
        common = {"revision": revision, "url": net.gateway_url, "t": 2, "n": 3, "ephemeralKey": "0x" + secret}
        said = await run_client(**common)
        made = said["result"]
        session = DanModuleInfo.from_dict(
            {
                "sessionKeyEOA": made["address"],
                "mpcKeyId": made["keyId"],
                "hexEphSKWithout0x": secret,
                "partiesNumber": 3,
                "threshold": 2,
                "eoaAddress": said["owner"],
                "chainId": 80002,
                "ephId": "eph-ts",
            }
        )
        network = GatewayNetwork(net.gateway_url, revision=revision, timeouts=PATIENT)
        async with DanClient(network, timeouts=PATIENT) as dan:
            signatures = {
                "v0.6": await dan.sign_message(OPERATION_V06, session),
                "v0.7": await dan.sign_message(OPERATION_V07, session),
            }
            if revision != "0.1":
                signatures["text"] = await dan.sign_message("Привет", session)
                signatures["typed data"] = await dan.sign_message(TYPED_DATA, session)
        messages = {name: ALL[name] for name in signatures}
        checked = await run_client(**common, operation="verify", signatures=signatures, messages=messages)
    assert "error" not in checked, checked
    assert checked["result"]["recovered"] == dict.fromkeys(messages, made["address"])


async def test_an_ephemeral_key_that_is_not_registered_signs_nothing() -> None:
    """Whoever knows the key id has nothing."""
    async with Devnet(threshold=2, parties=3) as net:
        common = {"revision": "0.3", "url": net.gateway_url, "t": 2, "n": 3}
        made = (await run_client(**common, ephemeralKey="0x" + secrets.token_hex(32)))["result"]
        said = await run_client(
            **common,
            operation="sign",
            keyId=made["keyId"],
            messages={"text": ALL["text"]},
            ephemeralKey="0x" + secrets.token_hex(32),
        )
    assert "error" in said
