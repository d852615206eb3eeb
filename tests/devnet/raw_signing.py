"""Signing by hand, for tests: requests for presignatures and signatures in which every field can be made wrong."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Sequence
from typing import Any

from attrs import define, evolve, field

from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.devnet import Devnet
from dan_async.protocols import fields
from dan_async.protocols import node as node_1
from dan_async.protocols.exchange import protocol_for
from dan_async.protocols.gateway_1 import REVISION_1
from dan_async.protocols.node import (
    PRESIGN,
    SIGN,
    Acknowledgement,
    PresignatureOffer,
    PresignParams,
    SignatureShares,
    SignParams,
)
from dan_async.protocols.setups import EphemeralClaim
from dan_async.protocols.sign_request import RequestType, SignRequest
from dan_async.session import DanSessionKeyPayload
from dan_async.user_operation import ENTRY_POINTS
from tests.devnet.raw_client import Keygen, RawNode
from tests.unit.devnet.mpc.signing_group import assemble

__all__ = ["Signer", "signature_from", "text_request", "user_operation"]


def text_request(text: str = "hello", **options: Any) -> SignRequest:
    """A personal message."""
    return SignRequest(request_type=RequestType.EIP191, message=text.encode().hex(), **options)


def user_operation(target: str = "0x" + "33" * 20) -> SignRequest:
    """A user operation of v0.6 in which a SimpleAccount calls a target, without value or data."""
    words = (int(target, 16), 0, 0x60, 0)
    operation = {
        "sender": "0x" + "11" * 20,
        "nonce": "0x1",
        "initCode": "0x",
        "callData": "0xb61d27f6" + "".join(f"{word:064x}" for word in words),
        "callGasLimit": "0x5208",
        "verificationGasLimit": "0x5208",
        "preVerificationGas": "0x5208",
        "maxFeePerGas": "0x1",
        "maxPriorityFeePerGas": "0x1",
        "paymasterAndData": "0x",
    }
    message = {
        "userOperation": operation,
        "entryPointVersion": "v0.6.0",
        "entryPointAddress": ENTRY_POINTS["v0.6.0"],
        "chainId": 80002,
    }
    return SignRequest(request_type=RequestType.USER_OPERATION, message=json.dumps(message))


@define(kw_only=True)
class Signer:
    """Who holds an ephemeral key of a session key, and connections to its nodes in the order of participants."""

    nodes: list[RawNode]
    ack: Acknowledgement
    key: EphemeralKey
    eph_id: str
    owner: str
    revision: str = "1"
    expiry: int = field(factory=lambda: int(time.time()) + 3600)

    @classmethod
    async def after(cls, keygen: Keygen) -> Signer:
        """Run a key generation, and hold what it gave."""
        acks = await keygen.run()
        return cls(
            nodes=keygen.nodes,
            ack=acks[0],
            key=keygen.key,
            eph_id=keygen.claim.eph_id if keygen.revision != "0.1" else "0x" + keygen.key.public_key.hex(),
            owner=keygen.signer.operator,
            revision=keygen.revision,
            expiry=keygen.expiry,
        )

    @classmethod
    def of_session(cls, devnet: Devnet, nodes: list[RawNode], session: DanSessionKeyPayload) -> Signer:
        """Hold the session that the real client made."""
        record = devnet.nodes[0]._runner.reveal_record(session.mpc_key_id)
        return cls(
            nodes=nodes,
            ack=record.acknowledgement,
            key=EphemeralKey.from_hex(session.hex_eph_sk_without_0x, session.eph_alg),
            eph_id=session.eph_id,
            owner=session.eoa_address,
            expiry=session.expires_at,
        )

    def signers(self, indices: Sequence[int] | Sequence[str] | None = None) -> tuple[str, ...]:
        """The operators at these places, or these; the first t unless said otherwise."""
        if indices and isinstance(indices[0], str):
            return tuple(indices)
        chosen = range(self.ack.threshold.t) if indices is None else indices
        return tuple(self.ack.participants[i] for i in sorted(chosen))

    def chosen(self, signers: Sequence[str]) -> list[RawNode]:
        return [node for node in self.nodes if node.operator in signers]

    # --- presignatures ------------------------------------------------------------------------------------------------

    def presign_params(self, signers: Sequence[int] | None = None, **members: Any) -> PresignParams:
        """A request for a presignature, signed."""
        unsigned = PresignParams(
            **{
                "request_id": "0x" + secrets.token_hex(32),
                "key_id": self.ack.key_id,
                "eph_id": self.eph_id,
                "signers": self.signers(signers),
                "expires_at": int(time.time()) + 60,
                "signature": "",
                **members,
            }
        )
        digest = node_1.presign_digest(
            request_id=unsigned.request_id,
            key_id=unsigned.key_id,
            eph_id=unsigned.eph_id,
            signers=unsigned.signers,
            expires_at=unsigned.expires_at,
        )
        return unsigned if unsigned.signature else evolve(unsigned, signature=self.key.sign_message(digest))

    async def presign(self, params: PresignParams) -> PresignatureOffer:
        """Send it to the signers, who must all say the same."""
        text = fields.encode(params)
        answers = await asyncio.gather(*(node.call(PRESIGN, text) for node in self.chosen(params.signers)))
        offers = [node_1.PresignatureOffer.read(answer) for answer in answers]
        (same,) = {(offer.presignature_id, offer.nonce_point, offer.public_key) for offer in offers}
        assert same[2] == self.ack.public_key
        return offers[0]

    # --- signatures ---------------------------------------------------------------------------------------------------

    def setup(self, requests: Sequence[SignRequest], **members: Any) -> str:
        """The text of a signgen setup."""
        module = protocol_for(self.revision)
        if self.revision == "1":
            requests = [
                request if request.transaction_id else evolve(request, transaction_id=f"t{number}")
                for number, request in enumerate(requests)
            ]
        wanted = {"t": self.ack.threshold.t, "key_id": self.ack.key_id} | members
        return module.encode_setup(module.signgen_setup(**wanted, message=module.encode_message(requests)))

    def sign_params(
        self,
        setup: str,
        signers: Sequence[int] | None = None,
        presignature_ids: Sequence[bytes] = (),
        **members: Any,
    ) -> SignParams:
        """A request for signatures, signed: with presignatures, with participants and nonces, or one-shot."""
        digest = node_1.setup_hash(operation="signgen", revision=self.revision, setup=setup)
        params = SignParams(
            **{
                "request_id": "0x" + secrets.token_hex(32),
                "revision": self.revision,
                "setup": setup,
                "signers": self.signers(signers),
                "presignature_ids": tuple(presignature_ids),
                "user_authentication": None,
                **members,
            }
        )
        if params.presignature_ids:
            challenge = node_1.sign_challenge(
                request_id=params.request_id,
                setup_digest=digest,
                signers=params.signers,
                presignature_ids=params.presignature_ids,
            ).hex()
        elif params.participants:
            challenge = node_1.final_challenge(
                operation="signgen",
                request_id=params.request_id,
                setup_digest=digest,
                participants=params.participants,
                nonces=params.nonces,
            ).hex()
        else:
            params = evolve(params, request_id=node_1.oneshot_request_id(digest))
            challenge = REVISION_1.oneshot_challenge(setup)
        return self.authorised(params, challenge)

    def authorised(self, params: SignParams, challenge: str) -> SignParams:
        """Have the ephemeral key sign a request."""
        module = protocol_for(self.revision)
        setup = module.decode_setup("signgen", params.setup)
        claim = EphemeralClaim(
            eph_id=self.eph_id,
            eph_pk=self.key.public_key,
            expiry=0 if self.revision == "0.1" else self.expiry,
            sign_alg=self.key.algorithm,
        )
        signature = self.key.sign_message(module.ephemeral_payload(params.setup, challenge))
        return evolve(
            params,
            user_authentication=module.ephemeral_authentication(
                claim=claim, owner_id=self.owner, message=setup.message, signature=signature
            ),
        )

    async def send(self, params: SignParams) -> list[SignatureShares]:
        """Send it to the signers."""
        text = fields.encode(params)
        answers = await asyncio.gather(*(node.call(SIGN, text) for node in self.chosen(params.signers)))
        return [node_1.SignatureShares.read_whole(answer) for answer in answers]

    async def sign(self, request: SignRequest | None = None, signers: Sequence[int] | None = None) -> bytes:
        """Presign, sign, and put the signature together, which checks that it recovers to the key."""
        offer = await self.presign(self.presign_params(signers))
        setup = self.setup([request or text_request()])
        params = self.sign_params(setup, signers, [offer.presignature_id])
        return signature_from(await self.send(params))

    async def nonces(self, setup: str, request_id: str, nodes: Sequence[RawNode]) -> list[bytes]:
        """Ask these nodes for nonces."""
        digest = node_1.setup_hash(operation="signgen", revision=self.revision, setup=setup)
        asked = {
            "requestId": request_id,
            "operation": "signgen",
            "setupHash": "0x" + digest.hex(),
            "keyId": self.ack.key_id,
        }
        answers = await asyncio.gather(*(node.call("dan_challenge", asked) for node in nodes))
        return [node_1.ChallengeResult.read(answer).nonce for answer in answers]


def signature_from(answers: Sequence[SignatureShares], number: int = 0) -> bytes:
    """Put one signature together from all signers' answers."""
    shares = {answer.party_index: answer.claims.shares[number] for answer in answers}
    first, public_key = answers[0].claims.shares[number], answers[0].claims.public_key
    shift = node_1.nonce_shift(
        presignature_id=first.presignature_id,
        public_key=public_key,
        digest=first.digest,
        signers=sorted((answer.operator for answer in answers), key=str.lower),
    )
    return assemble(
        public_key=public_key,
        nonce_point=node_1.shift_nonce(first.nonce_point, shift),
        digest=first.digest,
        shares={index: (share.u, share.w) for index, share in shares.items()},
    )
