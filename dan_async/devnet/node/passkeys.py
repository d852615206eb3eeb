"""
The passkeys that a node knows, and its checks of one: real WebAuthn, verified by ``webauthn`` (extra *passkeys*).

Registration and assertion are verified as Web Authentication Level 3 says in sections 7.1 and 7.2: the challenge, the page's
origin, the relying party, that the person was verified, the signature, and that the counter went up.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from attrs import evolve, field, frozen

from dan_async._values import check_int, check_text, from_hex, required
from dan_async.devnet.node.keys import signed
from dan_async.devnet.node.rpc import RefusalError, invalid_params, reading
from dan_async.devnet.share_store import ShareStore, StoredRecord, read_all
from dan_async.errors import InvalidFieldError, MissingExtraError, NodeCode, require_extra
from dan_async.protocols.fields import CHECKED_BY_CLASS, HASH, Form, wire, write_hex
from dan_async.protocols.node import PasskeyReceipt
from dan_async.protocols.setups import PasskeySignature, UserAuthentication, decode_passkey_signature

#: Anyone may register a passkey, so there is an end to it.
_MOST_PASSKEYS = 10_000

_ANY_BYTES = Form(lambda name, value: from_hex(value, field=name, prefix=True), write_hex)


@frozen(kw_only=True)
class PasskeyRecord(StoredRecord):
    """One registered passkey."""

    KIND = "passkey"
    VERSION = 2

    #: Hash of the request that registered it.
    content: Annotated[bytes, wire("content", HASH)]
    receipt: Annotated[PasskeyReceipt, wire("receipt", signed(PasskeyReceipt))]
    #: In COSE form.
    public_key: Annotated[bytes, wire("publicKey", _ANY_BYTES)]
    #: The authenticator's counter when it signed last; 0 if it does not count.
    sign_count: Annotated[int, wire("signCount", CHECKED_BY_CLASS)] = field(
        validator=required(check_int, least=0, most=2**32 - 1)
    )
    rp_id: Annotated[str, wire("rpId", CHECKED_BY_CLASS)] = field(validator=required(check_text, most=255))
    #: The page that made it, the only one it may sign on.
    origin: Annotated[str, wire("origin", CHECKED_BY_CLASS)] = field(validator=required(check_text))

    @property
    def credential_id(self) -> str:
        return self.receipt.claims.credential_id

    @property
    def name(self) -> str:
        return f"passkey-{hashlib.sha256(self.credential_id.encode()).hexdigest()}"


class PasskeyRegistry:
    """A node's passkeys, in memory for quick answers and in the store for the next start."""

    def __init__(self, store: ShareStore, *, most: int = _MOST_PASSKEYS) -> None:
        self._store = store
        self._most = most
        self._records: dict[str, PasskeyRecord] = {}
        self._writing = threading.Lock()

    def __len__(self) -> int:
        return len(self._records)

    def load(self) -> None:
        for data in read_all(self._store, "passkey"):
            record = PasskeyRecord.decode(data)
            self._records[record.credential_id] = record

    def find(self, credential_id: str) -> PasskeyRecord | None:
        return self._records.get(credential_id)

    def add(self, record: PasskeyRecord) -> None:
        """Add a new passkey; ``save`` it before the receipt leaves."""
        if record.credential_id in self._records:
            raise RefusalError(NodeCode.REQUEST_CONFLICT, "the passkey is registered already")
        if len(self._records) >= self._most:
            raise RefusalError(NodeCode.UNSUPPORTED, "this node takes no more passkeys")
        self._records[record.credential_id] = record

    def count(self, credential_id: str, sign_count: int) -> None:
        """Note a passkey's counter, in memory at once; ``save`` it before the request is answered."""
        self._records[credential_id] = evolve(self._records[credential_id], sign_count=sign_count)

    def save(self, credential_id: str) -> None:
        """Write a passkey as it is now, durably. Blocks; may be called from any thread."""
        with self._writing:  # so that an older counter is never written over a newer one
            record = self._records.get(credential_id)
            if record is not None:
                self._store.put(record.name, record.encode())


T = TypeVar("T")

#: COSE algorithms that a passkey may have: ES256, EdDSA, RS256.
_ALGORITHMS = (-7, -8, -257)

#: Lengths of a credential id in bytes (WebAuthn 4 and 7.1 step 25).
_SHORTEST_ID, _LONGEST_ID = 16, 1023


def load_webauthn() -> Any:
    """Import the package. The first time takes a while: call it off the event loop."""
    try:
        return require_extra("webauthn", extra="passkeys", purpose="Verifying a passkey")
    except MissingExtraError as error:
        raise RefusalError(NodeCode.UNSUPPORTED, f"this node does not do passkeys: {error}") from error


def verify_registration(
    authentication: UserAuthentication, challenge: str
) -> tuple[bytes, int, PasskeySignature]:
    webauthn = load_webauthn()
    if authentication.credentials:
        raise invalid_params(InvalidFieldError("credentials", "must be empty: a passkey vouches for nothing"))
    with reading("signature"):
        sent = decode_passkey_signature(authentication.signature)
    verified = _verify(
        webauthn.verify_registration_response,
        sent,
        challenge,
        supported_pub_key_algs=[
            webauthn.helpers.structs.COSEAlgorithmIdentifier(number) for number in _ALGORITHMS
        ],
    )
    if webauthn.helpers.bytes_to_base64url(verified.credential_id) != authentication.id:
        raise RefusalError(NodeCode.WRONG_OWNER, "the new passkey has another id")
    if not _SHORTEST_ID <= len(verified.credential_id) <= _LONGEST_ID:
        raise invalid_params(InvalidFieldError("id", f"must stand for {_SHORTEST_ID} to {_LONGEST_ID} bytes"))
    return bytes(verified.credential_public_key), int(verified.sign_count), sent


def check_assertion(authentication: UserAuthentication, challenge: str, passkeys: PasskeyRegistry) -> None:
    """Check that a registered passkey signed the challenge, and note its counter."""
    webauthn = load_webauthn()
    record = passkeys.find(authentication.id)
    if record is None:
        raise RefusalError(NodeCode.WRONG_OWNER, "no such passkey is registered with this node")
    with reading("signature"):
        sent = decode_passkey_signature(authentication.signature)
    if (sent.rp_id, sent.origin) != (record.rp_id, record.origin):
        raise RefusalError(NodeCode.WRONG_OWNER, "the passkey was registered by another page")
    verified = _verify(
        webauthn.verify_authentication_response,
        sent,
        challenge,
        credential_public_key=record.public_key,
        credential_current_sign_count=record.sign_count,
    )
    # The key already decides; but one that signs for an id of its own must not pass for another.
    if webauthn.helpers.bytes_to_base64url(verified.credential_id) != authentication.id:
        raise RefusalError(NodeCode.WRONG_OWNER, "the assertion is another passkey's")
    passkeys.count(record.credential_id, int(verified.new_sign_count))


def _verify(verify: Callable[..., T], sent: PasskeySignature, challenge: str, **arguments: Any) -> T:
    """Run one of webauthn's two verifications; whatever it raises, the passkey does not count."""
    try:
        return verify(
            credential=sent.raw_credential,
            expected_challenge=bytes.fromhex(challenge),
            expected_rp_id=sent.rp_id,
            expected_origin=sent.origin,
            require_user_verification=True,
            **arguments,
        )
    except Exception as error:
        # Parsers beneath it (CBOR, ASN.1) have exceptions of their own for what a client sends. Their texts may quote it.
        raise RefusalError(
            NodeCode.WRONG_OWNER, f"the passkey does not verify ({type(error).__name__})"
        ) from error
