"""Scripted nodes that sign: a key that the test deals, presignatures that it makes, shares that add up."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from dan_async._json import load
from dan_async._values import from_hex
from dan_async.config import Threshold
from dan_async.crypto import curve
from dan_async.crypto.address import public_key_to_address
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.errors import NodeCode, RpcError
from dan_async.protocols import fields
from dan_async.protocols import node as node_1
from dan_async.protocols.gateway_1 import REVISION_1
from dan_async.protocols.node import PresignatureOffer, SignatureShare, SignatureShares
from dan_async.protocols.sign_request import sign_request_digest
from dan_async.session import DanModuleInfo
from dan_async.types import MpcKeyId, OperatorAddress
from tests.fake_nodes import FakeNetwork, Identity, altered, resigned, scalar

KEY_ID = MpcKeyId("5e" * 32)


def split(total: int, parts: int) -> list[int]:
    """Numbers that add up to *total* modulo the group order."""
    found = [scalar() for _ in range(parts - 1)]
    return [*found, (total - sum(found)) % curve.ORDER]


def point(number: int) -> bytes:
    """A multiple of the generator."""
    return curve.encode(curve.base_multiply(number))


class FakePresignature:
    """A presignature of the key *secret*: all numbers are dealt by the test, and ``numbers`` may be changed by it."""

    def __init__(self, signers: tuple[OperatorAddress, ...], secret: int) -> None:
        self.signers = signers
        self.secret = secret
        self.nonce = scalar()
        self.nonce_point = point(self.nonce)
        self.public_key = point(secret)
        self.id = node_1.presignature_id(secrets.token_bytes(32), self.nonce_point)
        masks = [scalar() for _ in signers]
        us, vs = (split(number * sum(masks), len(signers)) for number in (self.nonce, secret))
        #: Each signer's φ, u and v.
        self.numbers = dict(zip(signers, zip(masks, us, vs, strict=True), strict=True))
        #: The logarithms of P and Q, antisymmetric, of each signer with each other.
        self.terms = self._exchanged()
        #: Numbers whose points a signer adds to its commitments, where none belong.
        self.surplus: dict[OperatorAddress, tuple[int, ...]] = {}
        self._made: dict[OperatorAddress, bytes] = {}
        self.spent_by: set[OperatorAddress] = set()

    def _exchanged(self) -> dict[OperatorAddress, dict[OperatorAddress, tuple[int, int]]]:
        terms: dict[OperatorAddress, dict[OperatorAddress, tuple[int, int]]] = {s: {} for s in self.signers}
        *rest, last = self.signers
        for place, one in enumerate(rest):
            for other in rest[place + 1 :]:
                terms[one][other] = scalar(), scalar()
                terms[other][one] = tuple(-number for number in terms[one][other])  # type: ignore[assignment]
            mask, u, v = self.numbers[one]
            sums = [sum(pair) for pair in zip((0, 0), *terms[one].values(), strict=True)]
            terms[one][last] = u - mask * self.nonce - sums[0], v - mask * self.secret - sums[1]
            terms[last][one] = tuple(-number for number in terms[one][last])  # type: ignore[assignment]
        return terms

    def commitments(self, signer: OperatorAddress) -> bytes:
        """One signer's commitments, made from its ``numbers`` and ``terms`` as they are now."""
        numbers = self.numbers[signer]
        known = [n for other in self.signers if other != signer for n in self.terms[signer][other]]
        points = b"".join(map(point, (*numbers, *known, *self.surplus.get(signer, ()))))
        k = scalar()
        challenge = node_1.proof_challenge(
            presignature_id=self.id,
            public_key=self.public_key,
            nonce_point=self.nonce_point,
            points=points,
            announcements=[curve.base_multiply(number) for number in (k, k * self.nonce, k * self.secret)],
        )
        response = (k + int.from_bytes(challenge, "big") * numbers[0]) % curve.ORDER
        return points + challenge + response.to_bytes(32, "big")

    def offer(self, signer: OperatorAddress, *, expires_at: int = 2**32 - 1) -> PresignatureOffer:
        """What a signer offers, which fixes its commitments."""
        return PresignatureOffer(
            presignature_id=self.id,
            nonce_point=self.nonce_point,
            public_key=self.public_key,
            commitment=node_1.commitments_hash(self.id, self._opened(signer)),
            expires_at=expires_at,
        )

    def share(self, signer: OperatorAddress, digest: bytes) -> SignatureShare:
        """One signer's share."""
        shift = node_1.nonce_shift(
            presignature_id=self.id, public_key=self.public_key, digest=digest, signers=self.signers
        )
        shifted = node_1.shift_nonce(self.nonce_point, shift)
        assert shifted is not None
        mask, u, v = self.numbers[signer]
        return SignatureShare(
            presignature_id=self.id,
            nonce_point=self.nonce_point,
            commitments=self._opened(signer),
            digest=digest,
            u=(u + shift * mask) % curve.ORDER,
            w=(int.from_bytes(digest, "big") * mask + int.from_bytes(shifted[1:], "big") * v) % curve.ORDER,
        )

    def _opened(self, signer: OperatorAddress) -> bytes:
        return self._made.setdefault(signer, self.commitments(signer))


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
            return self.presign(identity, params)
        return fields.to_json(self.sign(identity, params))

    def presign(self, identity: Identity, value: Any) -> Any:
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
        made = self.presignatures.setdefault(params.request_id, FakePresignature(params.signers, self.secret))
        self.by_id[made.id] = made
        ends = min(self.presign_ends, params.expires_at)
        return fields.to_json(made.offer(identity.operator, expires_at=ends))

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
            shares.append(made.share(identity.operator, digest))
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
            made = self.presignatures.setdefault(name, FakePresignature(params.signers, self.secret))
            self.by_id[made.id] = made
            found.append(made.id)
        return tuple(found)

    def resigned(self, identity: Identity, honest: SignatureShares, **changes: Any) -> SignatureShares:
        """The same shares, changed, and signed by the operator all the same."""
        return resigned(altered(honest, **changes), identity)


def raw(text: str) -> bytes:
    """Bytes of hex text."""
    return from_hex(text, field="text")
