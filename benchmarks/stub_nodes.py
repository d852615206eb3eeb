"""
Nodes that make no key: n WebSocket servers in one process which sign true acknowledgements of a key dealt beforehand.

They speak dan-node/1 well enough for the real client to accept every answer, at next to no cost of their own. What is
measured against them is the client, not a network: there is no key generation, and whoever started them knows the key.
They sign with it as well, with presignatures that one of them deals to all signers.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import lru_cache
from typing import Any

from benchmarks.peers import serve_until_eof, start_site
from dan_async._json import dump
from dan_async._values import to_hex
from dan_async.config import Threshold
from dan_async.crypto import curve
from dan_async.crypto.address import public_key_to_address
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.crypto.signature import SigningKey, sign_digest, signing_key
from dan_async.errors import NodeCode
from dan_async.protocols import fields
from dan_async.protocols.gateway_1 import REVISION_1
from dan_async.protocols.node import (
    PROTOCOL,
    Acknowledgement,
    KeygenClaims,
    PresignParams,
    SignatureClaims,
    SignatureShares,
    SignParams,
    compute_key_id,
    identity_digest,
)
from dan_async.protocols.sign_request import sign_request_digest
from dan_async.types import MpcKeyId, OperatorAddress, RequestId
from tests.fake_signing import KEY_ID, FakePresignature

__all__ = ["DealtKey", "StubNode"]

_FAR_AWAY = 2**40

#: Presignatures that are kept.
_MOST_KEPT = 100_000


def _scalar() -> int:
    return secrets.randbelow(curve.ORDER - 1) + 1


class DealtKey:
    """
    A key with n shares, dealt by whoever runs the benchmark, and the identities of the n nodes.

    Args:
        t: How many shares make the key.
        n: How many shares there are.
    """

    def __init__(self, t: int, n: int) -> None:
        identities = [signing_key(_scalar().to_bytes(32, "big")) for _ in range(n)]
        by_operator = {
            OperatorAddress(public_key_to_address(identity.public_key.format())): identity
            for identity in identities
        }
        self.identities = {operator: by_operator[operator] for operator in sorted(by_operator, key=str.lower)}
        self.participants = tuple(self.identities)
        self.threshold = Threshold(t, n)
        coefficients = [_scalar() for _ in range(t)]
        self.secret = coefficients[0]
        #: Those made last, by the id of the request for each, and by its own.
        self.asked: dict[RequestId, FakePresignature] = {}
        self.presignatures: dict[bytes, FakePresignature] = {}
        shares = [sum(c * i**k for k, c in enumerate(coefficients)) % curve.ORDER for i in range(1, n + 1)]
        self.public_key = curve.encode(curve.base_multiply(coefficients[0]))
        self.public_shares = tuple(curve.encode(curve.base_multiply(share)) for share in shares)
        self.transcript_hash = secrets.token_bytes(32)

    @lru_cache(maxsize=1024)  # noqa: B019 - the key lives as long as the process
    def key_id(self, request_id: RequestId, owner_id: str) -> MpcKeyId:
        """Give the key's id under one request; all n nodes are asked for it."""
        return compute_key_id(
            public_key=self.public_key,
            t=self.threshold.t,
            participants=self.participants,
            owner_id=owner_id,
            request_id=request_id,
        )

    def presignature(self, params: PresignParams) -> FakePresignature:
        """Give the presignature of a request, the same to each signer."""
        made = self.asked.get(params.request_id)
        if made is None:
            made = self.asked[params.request_id] = FakePresignature(params.signers, self.secret)
            self.presignatures[made.id] = made
            if len(self.asked) > _MOST_KEPT:
                del self.presignatures[self.asked.pop(next(iter(self.asked))).id]
        return made

    def session(self) -> dict[str, Any]:
        """Give a session that these nodes sign for, whatever its ephemeral key."""
        return {
            "sessionKeyEOA": public_key_to_address(self.public_key),
            "mpcKeyId": KEY_ID,
            "hexEphSKWithout0x": EphemeralKey.generate().to_hex(),
            "partiesNumber": self.threshold.n,
            "threshold": self.threshold.t,
        }


class StubNode:
    """
    One node: an identity and its place among the participants.

    Args:
        key: The dealt key.
        operator: Which of its nodes this is.
    """

    def __init__(self, key: DealtKey, operator: OperatorAddress) -> None:
        self._key = key
        self._operator = operator
        self._identity: SigningKey = key.identities[operator]
        self._methods: dict[str, Callable[[Any], Any]] = {
            "dan_identify": self._identify,
            "dan_health": lambda _: {"time": time.time_ns() // 1_000_000},
            "dan_challenge": self._challenge,
            "dan_keygen": self._keygen,
            "dan_presign": self._presign,
            "dan_sign": self._sign,
        }

    def answer(self, text: str) -> str:
        """Answer one request."""
        request = json.loads(text)
        head = {"jsonrpc": "2.0", "id": request["id"]}
        method = self._methods.get(request["method"])
        if method is None:  # key generation in batches: such a node is asked one by one
            return dump({**head, "error": {"code": NodeCode.METHOD_NOT_FOUND, "message": "no such method"}})
        return dump({**head, "result": method(request["params"])})

    def _identify(self, params: Any) -> Any:
        time_ms, nonce = time.time_ns() // 1_000_000, bytes.fromhex(params["nonce"][2:])
        digest = identity_digest(operator=self._operator, nonce=nonce, time_ms=time_ms)
        return {
            "protocol": PROTOCOL,
            "operator": self._operator,
            "time": time_ms,
            "signature": to_hex(sign_digest(self._identity, digest)),
        }

    def _challenge(self, params: Any) -> Any:
        del params
        return {"nonce": to_hex(secrets.token_bytes(32)), "expiresAt": _FAR_AWAY}

    def _keygen(self, params: Any) -> Any:
        key = self._key
        claims = KeygenClaims(
            request_id=params["requestId"],
            key_id=key.key_id(params["requestId"], params["userAuthentication"]["id"]),
            t=key.threshold.t,
            n=key.threshold.n,
            public_key=key.public_key,
            public_shares=key.public_shares,
            participants=key.participants,
            transcript_hash=key.transcript_hash,
        )
        acknowledgement = Acknowledgement.make(
            claims,
            operator=self._operator,
            party_index=key.participants.index(self._operator) + 1,
            sign=lambda digest: sign_digest(self._identity, digest),
        )
        return fields.to_json(acknowledgement)

    def _presign(self, params: Any) -> Any:
        made = self._key.presignature(fields.decode(PresignParams, params))
        return fields.to_json(made.offer(self._operator))

    def _sign(self, params: Any) -> Any:
        key, asked = self._key, fields.decode(SignParams, params)
        requests = REVISION_1.sign_requests(REVISION_1.decode_setup("signgen", asked.setup))  # type: ignore[arg-type]
        shares = [
            key.presignatures[name].share(self._operator, sign_request_digest(request))
            for name, request in zip(asked.presignature_ids, requests, strict=True)
        ]
        claims = SignatureClaims(
            request_id=asked.request_id, key_id=KEY_ID, public_key=key.public_key, shares=tuple(shares)
        )
        made = SignatureShares.make(
            claims,
            operator=self._operator,
            party_index=key.participants.index(self._operator) + 1,
            sign=lambda digest: sign_digest(self._identity, digest),
        )
        return fields.to_json(made)


class _Barrier:
    """
    Keeps back the acknowledgements of key generations until so many are due.

    They follow each other then, a turn of the event loop for each: all in one turn would take seconds, in which a node that
    answers no ping is given up.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._waiting: list[asyncio.Future[None]] = []

    async def wait(self, text: str) -> None:
        if '"dan_keygen"' not in text:
            return
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        if len(self._waiting) < self._count:
            await place
            return
        due, self._waiting = self._waiting, []
        for place in due:
            place.set_result(None)
            await asyncio.sleep(0)


async def _open(config: dict[str, Any], stack: AsyncExitStack) -> dict[str, Any]:
    key = DealtKey(config["t"], config["n"])
    delay_s = config["delay_ms"] / 1e3
    nodes = []
    for operator in key.participants:
        hold = config.get("hold")
        stall = _Barrier(hold).wait if hold else None
        url = await start_site(StubNode(key, operator).answer, stack, delay_s=delay_s, stall=stall)
        nodes.append({"url": url, "operator": operator})
    described: dict[str, Any] = {"nodes": nodes, "session": key.session()}
    stall_s = config.get("stall_s")
    if stall_s:
        # The last node once more, at another address where its acknowledgements are late.
        async def late(text: str) -> None:
            if '"dan_keygen"' in text:
                await asyncio.sleep(stall_s)

        url = await start_site(StubNode(key, operator).answer, stack, delay_s=delay_s, stall=late)
        described["stalled"] = [*nodes[:-1], {"url": url, "operator": operator}]
    return described


if __name__ == "__main__":
    serve_until_eof(_open)
