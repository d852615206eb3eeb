"""Names for the strings that travel through the package, so that signatures say which one is meant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Literal, NewType, TypeAlias

__all__ = [
    "Address",
    "Clock",
    "EntryPointVersion",
    "Hex",
    "Json",
    "KeyAlgorithm",
    "MpcKeyId",
    "OperatorAddress",
    "RequestId",
    "TimeSpan",
    "TypedData",
]

#: An EIP-55 checksummed Ethereum address.
Address = NewType("Address", str)

#: The address of a node's identity key, EIP-55 checksummed.
OperatorAddress = NewType("OperatorAddress", str)

#: ``0x`` and an even number of hex digits.
Hex: TypeAlias = str

#: 32 bytes as ``0x`` hex: names a request on every node, and stays the same over its attempts.
RequestId = NewType("RequestId", str)

#: The distributed key's id, as the network assigns it (64 hex digits from dan-node/1, opaque from a gateway).
MpcKeyId = NewType("MpcKeyId", str)

#: Algorithm of an ephemeral key, or of the distributed key.
KeyAlgorithm: TypeAlias = Literal["secp256k1", "ed25519"]

#: The version of an ERC-4337 entry point, as the wire names it.
EntryPointVersion: TypeAlias = Literal["v0.6.0", "v0.7.0"]

#: A decoded JSON value.
Json: TypeAlias = Any

#: EIP-712 typed data as wallets take it: types, primaryType, domain, message.
TypedData: TypeAlias = Mapping[str, Any]

#: A time span: seconds, or a ``timedelta``.
TimeSpan: TypeAlias = float | timedelta

#: Wall clock: seconds since 1970 as a float. Injected so that tests need not wait.
Clock: TypeAlias = Callable[[], float]
