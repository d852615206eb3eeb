"""Requests for the permission tests: user operations of both versions around given call data."""

from __future__ import annotations

import json
from typing import Any

from dan_async.protocols.sign_request import RequestType, SignRequest

ACCOUNT = "0xca7746cA393578aae76D6D4575064a4387dE7b98"
TOKEN = "0x1234567890123456789012345678901234567890"
SPENDER = "0x2B5AD5c4795c026514f8317c7a215E218DcCD6cF"
OTHER_ADDRESS = "0x6813Eb9362372EEF6200f3b1dbC3f819671cBA69"
ENTRY_POINTS = {
    "v0.6.0": "0x5FF137D4b0FDCD49DcA30c7CF57E578a026d2789",
    "v0.7.0": "0x0000000071727De22E5E9d8BAf0edAc6f37da032",
}
CHAIN = 80002
NOW = 1_800_000_000.0

GAS = {
    "callGasLimit": "0x18473",
    "verificationGasLimit": "0x18473",
    "preVerificationGas": "66768",
    "maxFeePerGas": "0x1",
    "maxPriorityFeePerGas": "0x1",
}


def request(
    call_data: bytes,
    *,
    version: str = "v0.6.0",
    chain_id: int = CHAIN,
    entry_point: str | None = None,
    **members: Any,
) -> SignRequest:
    """A request to sign a user operation; *members* are added to it or replace its own, None takes away."""
    operation = {"sender": ACCOUNT, "nonce": "0x7", "callData": "0x" + call_data.hex(), **GAS}
    operation = {name: value for name, value in (operation | members).items() if value is not None}
    message = {
        "userOperation": operation,
        "entryPointVersion": version,
        "entryPointAddress": entry_point or ENTRY_POINTS[version],
        "chainId": chain_id,
    }
    return SignRequest(request_type=RequestType.USER_OPERATION, message=json.dumps(message))
