"""
Revision 1, the 1.x line of the TypeScript clients: how it differs from the rest.

Claims, setups and results name their algorithm, and keygen takes several setups at once, one for each algorithm of the
distributed key; so frames name the slot of everything they hold. Besides challenge and response there is a one-shot form.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from dan_async._json import dump, load, quote
from dan_async._values import check_text, shown
from dan_async.errors import ChallengeError, InvalidFieldError, ProtocolError
from dan_async.protocols.fields import load_text, members
from dan_async.protocols.gateway import (
    GatewayProtocol,
    Operation,
    Revision,
    check_challenge,
    is_challenge,
    read_authentication,
    write_authentication,
)
from dan_async.protocols.setups import (
    MOST_SETUP,
    TAG_CLAIM,
    TAG_KEY_ID,
    EphemeralKeySetup,
    UserAuthentication,
    decode_metadata,
    metadata_members,
)
from dan_async.protocols.sign_request import SignRequest, decode_keyed, encode_keyed
from dan_async.types import Json, KeyAlgorithm

#: Most setups in one frame: one for each algorithm of the distributed key.
_MOST_SETUPS = 2

_GAP = re.compile(r"[ \t\n\r,]*")

_SCANNER = json.JSONDecoder()


class Gateway1(GatewayProtocol):
    """Named frames for several setups at once, one-shot requests, secp256k1 ephemeral keys, revoking, passkeys."""

    revision = Revision.V1
    methods = {  # noqa: RUF012 - a ClassVar of the base
        Operation.KEYGEN: ("eoa", "passkey"),
        Operation.SIGNGEN: ("ephemeral",),
        Operation.ADD_EPHEMERAL_KEY: ("eoa", "passkey", "ephemeral"),
        Operation.REVOKE_EPHEMERAL_KEY: ("eoa", "passkey", "ephemeral"),
        Operation.REGISTER_PASSKEY: ("passkey",),
    }
    api_versions = ("v1", "v2")
    ephemeral_algorithms = ("secp256k1", "ed25519")
    sign_algorithms = ("secp256k1", "ed25519")
    has_names = True
    change_type = "MetadataSetupOpts"

    def _change_members(self, setup: EphemeralKeySetup) -> dict[str, Any]:
        if setup.n is not None or setup.key_id is not None:
            raise InvalidFieldError("key_id" if setup.n is None else "n", "is not on the wire in revision 1")
        return {"metadata": metadata_members(setup.metadata)}

    def _read_change(self, value: Json) -> EphemeralKeySetup:
        found = members(value, "setup", ("metadata",))
        return EphemeralKeySetup(
            metadata=decode_metadata(found["metadata"], required=(TAG_KEY_ID, TAG_CLAIM))
        )

    def encode_message(self, requests: Sequence[SignRequest]) -> str:
        return encode_keyed(requests)

    def decode_message(self, text: str, sign_alg: KeyAlgorithm = "secp256k1") -> tuple[SignRequest, ...]:
        return decode_keyed(text, sign_alg=sign_alg)

    def encode_ephemeral_signature(self, signature: str, message: str | None) -> str:
        """Write the JSON text that the signature stands in, beside the setup's message if that has one."""
        repeated = {} if message is None else {"base64Message": message}
        return dump({**repeated, "signature": signature})

    def read_ephemeral_signature(self, auth: UserAuthentication, message: str | None) -> str:
        repeated = () if message is None else ("base64Message",)
        found = members(load_text(auth.signature), "signature", (*repeated, "signature"))
        if message is not None and found["base64Message"] != message:
            raise InvalidFieldError("base64Message", "is not the setup's message")
        return check_text("signature", found["signature"])

    # --- frames -------------------------------------------------------------------------------------------------------

    def join_setups(self, operation: str, texts: Sequence[str]) -> str:
        """Write the setup frame: an array of setups for keygen, else the one setup."""
        if operation == Operation.KEYGEN:
            return f"[{','.join(texts)}]"
        return super().join_setups(operation, texts)

    def split_setups(self, operation: str, frame: str) -> tuple[str, ...]:
        whole = super().split_setups(operation, frame)
        if operation != Operation.KEYGEN:
            return whole
        values = load_text(frame)
        if not isinstance(values, list) or not 1 <= len(values) <= _MOST_SETUPS:
            raise InvalidFieldError("setup of keygen", "must be an array of one setup for each algorithm")
        # The frame is good JSON now: find where each setup begins and ends in it.
        texts, end = [], frame.index("[") + 1
        for _ in values:
            gap = _GAP.match(frame, end)
            begin = gap.end() if gap else end
            _, end = _SCANNER.raw_decode(frame, begin)
            texts.append(frame[begin:end])
        return tuple(texts)

    def encode_challenges(self, operation: str, challenges: Mapping[str, str]) -> str:
        if operation == Operation.KEYGEN:
            return dump({name: check_challenge(challenge) for name, challenge in challenges.items()})
        return super().encode_challenges(operation, challenges)

    def decode_challenges(self, operation: str, frame: str, slots: Collection[str]) -> dict[str, str]:
        if operation != Operation.KEYGEN:
            return super().decode_challenges(operation, frame, slots)
        try:
            found = load(frame) if isinstance(frame, str) else None
        except ProtocolError:
            found = None
        if (
            not isinstance(found, dict)
            or set(found) != set(slots)
            or not all(map(is_challenge, found.values()))
        ):
            raise ChallengeError(
                f"the challenge is not a JSON object with 64 hex digits for each of {', '.join(slots)}: "
                f"the gateway sent {shown(frame)}",
                hint="Check the gateway's URL and revision; nothing was signed",
            )
        # One signature would do for two keys otherwise: the typed data does not name the algorithm.
        if len(found) > 1 and len({value.lower() for value in found.values()}) != len(found):
            raise ChallengeError(
                "the gateway gave two algorithms the same challenge", hint="Nothing was signed"
            )
        return {slot: found[slot] for slot in slots}

    def encode_authentications(self, operation: str, found: Mapping[str, UserAuthentication]) -> str:
        del operation
        written = [f"{quote(slot)}:{write_authentication(auth)}" for slot, auth in found.items()]
        return f"{{{','.join(written)}}}"

    def decode_authentications(
        self, operation: str, frame: str, slots: Collection[str]
    ) -> dict[str, UserAuthentication]:
        return self.read_authentications(operation, load_text(frame), slots)

    def read_authentications(
        self, operation: str, value: Json, slots: Collection[str]
    ) -> dict[str, UserAuthentication]:
        """Read the decoded value of an authentication frame."""
        found = members(value, f"authentications of {operation}", slots)
        return {slot: read_authentication(found[slot]) for slot in slots}

    # --- one-shot: no challenge from the server -----------------------------------------------------------------------

    def oneshot_challenge(self, setup_text: str) -> str:
        """Return the challenge of a one-shot request: the double SHA-256 of the setup's exact text, in hex without 0x."""
        text = check_text("setup", setup_text, most=MOST_SETUP).encode()
        return hashlib.sha256(hashlib.sha256(text).digest()).hexdigest()

    def encode_oneshot(
        self, operation: str, texts: Sequence[str], found: Mapping[str, UserAuthentication]
    ) -> str:
        """Write the one frame: the setup frame as a string, and the authentication frame."""
        signatures = self.encode_authentications(operation, found)
        return f'{{"setupOpts":{quote(self.join_setups(operation, texts))},"userSigs":{signatures}}}'

    def decode_oneshot(self, frame: str) -> tuple[str, Json]:
        """Return the setup frame, for ``split_setups``, and the authentications, for ``read_authentications``."""
        found = members(load_text(frame), "request", ("setupOpts", "userSigs"))
        return check_text("setupOpts", found["setupOpts"], most=MOST_SETUP), found["userSigs"]


REVISION_1 = Gateway1()
