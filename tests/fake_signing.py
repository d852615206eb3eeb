"""Scripted nodes that sign: a key that the test deals, presignatures that it makes, shares that add up."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from dan_async._json import load
from dan_async._values import from_hex, to_hex
from dan_async.config import Threshold
from dan_async.crypto import curve
from dan_async.crypto.address import public_key_to_address
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.errors import NodeCode, RpcError
from dan_async.protocols import fields
from dan_async.protocols import node as node_1
from dan_async.protocols.gateway_1 import REVISION_1
from dan_async.protocols.node import SignatureShare, SignatureShares
from dan_async.protocols.sign_request import sign_request_digest
from dan_async.session import DanModuleInfo
from dan_async.types import MpcKeyId, OperatorAddress
from tests.fake_nodes import FakeNetwork, Identity, altered, resigned, scalar

KEY_ID = MpcKeyId("5e" * 32)


def split(total: int, parts: int) -> list[int]:
    """Numbers that add up to *total* modulo the group order."""
    found = [scalar() for _ in range(parts - 1)]
    return [*found, (total - sum(found)) % curve.ORDER]


class FakePresignature:
    """A nonce, a mask, and who may use it; the shares are dealt by the test when it is used."""

    def __init__(self, signers: tuple[OperatorAddress, ...]) -> None:
        self.signers = signers
        self.nonce = scalar()
        self.mask = scalar()
        self.nonce_point = curve.encode(curve.base_multiply(self.nonce))
        self.id = node_1.presignature_id(secrets.token_bytes(32), self.nonce_point)
        self.u = dict(zip(signers, split(self.nonce * self.mask, len(signers)), strict=True))
        self.w: dict[bytes, dict[OperatorAddress, int]] = {}
        self.spent_by: set[OperatorAddress] = set()

    def shares(self, operator: OperatorAddress, digest: bytes, secret: int) -> SignatureShare:
        """One signer's share; spends it for that signer."""
        r = int.from_bytes(self.nonce_point[1:], "big")
        total = self.mask * (int.from_bytes(digest, "big") + r * secret)
        w = self.w.setdefault(digest, dict(zip(self.signers, split(total, len(self.signers)), strict=True)))
        return SignatureShare(
            presignature_id=self.id,
            nonce_point=self.nonce_point,
            digest=digest,
            u=self.u[operator],
            w=w[operator],
        )


Special = Callable[[str, Any], Awaitable[Any]]


class SigningNetwork(FakeNetwork):
    """n scripted nodes, all of which hold one key of which t must sign."""

    def __init__(self, t: int, n: int, *, others: int = 0) -> None:
        super().__init__(t, n + others)
        self.n = n
        self.secret = scalar()
        self.public_key = curve.encode(curve.base_multiply(self.secret))
        self.address = public_key_to_address(self.public_key)
        self.ephemeral = EphemeralKey.generate()
        self.eph_id = ""
        self.presignatures: dict[str, FakePresignature] = {}
        self.by_id: dict[bytes, FakePresignature] = {}
        self.presign_ends = 2**32 - 1
        self.holders = self.identities[:n]
        self.now = 1_800_000_000.0

    def session(self, **changes: Any) -> DanModuleInfo:
        """The session of this key."""
        values: Mapping[str, Any] = {
            "session_key_eoa": self.address,
            "mpc_key_id": KEY_ID,
            "hex_eph_sk_without_0x": self.ephemeral.to_hex(),
            "parties_number": self.n,
            "threshold": self.t,
        }
        return DanModuleInfo(**{**values, **changes})

    def network(self, **options: Any) -> Any:
        return super().network(
            **{"threshold": Threshold(self.t, self.n), "clock": lambda: self.now, **options}
        )

    def _handler(self, identity: Identity) -> Special:
        usual = super()._handler(identity)

        async def handle(method: str, params: Any) -> Any:
            if method not in {"dan_presign", "dan_sign"}:
                return await usual(method, params)
            params = load(params) if isinstance(params, str) else params
            self.calls.append((identity.operator, method, params))
            special = self.misbehaviour.get(identity.operator)
            if special is not None:
                answer = await special(method, params)
                if answer is not None:
                    return answer
            await asyncio.sleep(0)
            return self.answer(identity, method, params)

        return handle

    def answer(self, identity: Identity, method: str, params: Any) -> Any:
        """What an honest node answers."""
        if identity not in self.holders:
            raise RpcError(NodeCode.UNKNOWN_KEY, "no such key")
        signers = set(params["signers"])
        assert len(signers) == self.t
        assert identity.operator in signers
        if not signers <= {holder.operator for holder in self.holders}:
            raise RpcError(NodeCode.WRONG_PARTICIPANTS, "a signer is not of this key")
        if method == "dan_presign":
            return self.presign(params)
        return fields.to_json(self.sign(identity, params))

    def presign(self, value: Any) -> Any:
        """Make a presignature, or give the one that was made for the request."""
        params = fields.decode(node_1.PresignParams, value)
        if params.eph_id != (self.eph_id or self.ephemeral.default_id):
            raise RpcError(NodeCode.EPHEMERAL_KEY_REFUSED, "the ephemeral key is not registered")
        digest = node_1.presign_digest(
            request_id=params.request_id,
            key_id=params.key_id,
            eph_id=params.eph_id,
            signers=params.signers,
            expires_at=params.expires_at,
        )
        assert params.signature == self.ephemeral.sign_message(digest)
        made = self.presignatures.setdefault(params.request_id, FakePresignature(params.signers))
        self.by_id[made.id] = made
        return {
            "presignatureId": to_hex(made.id),
            "noncePoint": to_hex(made.nonce_point),
            "publicKey": to_hex(self.public_key),
            "expiresAt": min(self.presign_ends, params.expires_at),
        }

    def sign(self, identity: Identity, value: Any, **changes: Any) -> SignatureShares:
        """An honest node's shares, changed before they are signed."""
        params = fields.decode(node_1.SignParams, value)
        setup = REVISION_1.decode_setup("signgen", params.setup)
        digests = [sign_request_digest(request) for request in REVISION_1.sign_requests(setup)]
        shares = []
        ids = params.presignature_ids or self.made_for(params, len(digests))
        for presignature_id, digest in zip(ids, digests, strict=True):
            made = self.by_id.get(presignature_id)
            if made is None or made.signers != params.signers:
                raise RpcError(NodeCode.PRESIGNATURE_UNKNOWN, "no such presignature")
            if identity.operator in made.spent_by:
                raise RpcError(NodeCode.PRESIGNATURE_SPENT, "the presignature was used already")
            made.spent_by.add(identity.operator)
            shares.append(made.shares(identity.operator, digest, self.secret))
        operators = [holder.operator for holder in self.holders]
        claims = node_1.SignatureClaims(
            request_id=params.request_id, key_id=KEY_ID, public_key=self.public_key, shares=tuple(shares)
        )
        index = operators.index(identity.operator) + 1
        honest = SignatureShares.make(
            claims, operator=identity.operator, party_index=index, sign=identity.sign
        )
        return self.resigned(identity, honest, **changes)

    def made_for(self, params: node_1.SignParams, count: int) -> tuple[bytes, ...]:
        """The presignatures that the signers make for a request that comes without: the same at all of them."""
        found = []
        for place in range(count):
            name = f"{params.request_id} {params.signers} {place}"
            made = self.presignatures.setdefault(name, FakePresignature(params.signers))
            self.by_id[made.id] = made
            found.append(made.id)
        return tuple(found)

    def resigned(self, identity: Identity, honest: SignatureShares, **changes: Any) -> SignatureShares:
        """The same shares, changed, and signed by the operator all the same."""
        return resigned(altered(honest, **changes), identity)


def raw(text: str) -> bytes:
    """Bytes of hex text."""
    return from_hex(text, field="text")
