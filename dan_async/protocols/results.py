"""
The grammar of result frames: ``key=value`` pairs joined by ``:``, results joined by ``;``.

Read strictly: the keys must be the expected ones, in their order, once each. A lenient reader can be
made to see another key or signature than the next reader sees.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import starmap

from attrs import evolve, field, frozen

from dan_async._values import check_algorithm, check_int, from_hex, required, shown
from dan_async.crypto.curve import compress
from dan_async.errors import InvalidFieldError, ProtocolError
from dan_async.protocols.fields import PRINTABLE, Message, check_token
from dan_async.types import KeyAlgorithm, MpcKeyId

#: The only word that the gateway answers when an operation has no other result.
STATUS_OK = "ok"

#: More results than any request has.
_MOST_RESULTS = 64

_MOST_LENGTH = 64 * 1024

_HEX = re.compile(r"[0-9a-fA-F]+\Z")

_SIGNATURE_DIGITS = 128

_ED25519_LENGTH = 32

#: Length of a SEC1 point by its first byte.
_SEC1_LENGTHS = {2: 33, 3: 33, 4: 65}


@frozen(kw_only=True, eq=False, repr=False)
class KeygenResult(Message):
    """
    One generated key. A client reads it compressed; a server may also name an uncompressed secp256k1 key.

    Revisions before 1 do not say the algorithm: secp256k1.
    """

    key_id: MpcKeyId
    public_key: bytes
    sign_alg: KeyAlgorithm = "secp256k1"

    def __attrs_post_init__(self) -> None:
        check_token("key_id", self.key_id)
        check_algorithm("sign_alg", self.sign_alg)
        raw = self.public_key
        if not isinstance(raw, bytes):
            raise InvalidFieldError("publicKey", "must be bytes")
        if self.sign_alg == "ed25519":
            if len(raw) != _ED25519_LENGTH:
                raise InvalidFieldError("publicKey", "must hold 32 bytes for ed25519")
        elif not raw or _SEC1_LENGTHS.get(raw[0]) != len(raw):
            raise InvalidFieldError(
                "publicKey", "must be a SEC1 point: 33 bytes that begin with 02 or 03, or 65 with 04"
            )


@frozen(kw_only=True, eq=False, repr=False)
class SigngenResult(Message):
    """One signature: r and s, 64 bytes. Whether it holds is for the caller to check. Only revision 1 names the message."""

    signature: bytes = field(repr=False)
    recovery_id: int = field(validator=required(check_int, least=0, most=1))
    transaction_id: str | None = None

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.signature, bytes) or 2 * len(self.signature) != _SIGNATURE_DIGITS:
            raise InvalidFieldError("signature", "must be 64 bytes: r and s")
        if self.transaction_id is not None:
            check_token("transaction_id", self.transaction_id)

    def to_bytes(self) -> bytes:
        """Return the 65-byte form that users want: r, s and 27 or 28."""
        return self.signature + bytes((27 + self.recovery_id,))


# --- writing ----------------------------------------------------------------------------------------------------------


def encode_keygen_results(results: Sequence[KeygenResult], *, has_names: bool) -> str:
    return ";".join(
        f"keyId={result.key_id}:publicKey={result.public_key.hex()}"
        + (f":signAlg={result.sign_alg}" if has_names else "")
        for result in results
    )


def encode_signgen_results(results: Sequence[SigngenResult]) -> str:
    return ";".join(
        f"sign={result.signature.hex()}:recid={result.recovery_id}"
        + (f":transactionId={result.transaction_id}" if result.transaction_id is not None else "")
        for result in results
    )


# --- reading ----------------------------------------------------------------------------------------------------------


def _broken(kind: str, problem: str, frame: object) -> ProtocolError:
    return ProtocolError(
        f"the {kind} result breaks the protocol: {problem}; the gateway sent {shown(frame)}",
        hint="Check the gateway's URL and revision",
    )


def _split(kind: str, frame: object, keys: tuple[str, ...]) -> Sequence[Sequence[str]]:
    """Split a frame into results and those into values, by the grammar."""
    if not isinstance(frame, str) or not frame:
        raise _broken(kind, "it is empty or not text", frame)
    if len(frame) > _MOST_LENGTH or frame.count(";") >= _MOST_RESULTS:
        raise _broken(kind, "it is too long", frame)
    parts = frame.split(";")
    found = [match.groups() for match in map(_grammar(keys).match, parts) if match]
    return found if len(found) == len(parts) else _split_in_steps(kind, frame, keys)


@lru_cache(maxsize=8)
def _grammar(keys: tuple[str, ...]) -> re.Pattern[str]:
    """Return the grammar of one result."""
    return re.compile(":".join(rf"{key}=({PRINTABLE})" for key in keys) + r"\Z")


def _split_in_steps(kind: str, frame: str, keys: tuple[str, ...]) -> list[list[str]]:
    """Do the same in the slow way, which finds the error and its place."""
    results = []
    for part in frame.split(";"):
        pairs = [pair.partition("=") for pair in part.split(":")]
        names = [name for name, _, _ in pairs]
        for key in keys:
            if key not in names:
                raise _broken(kind, f"{key} is missing", frame)
            if names.count(key) > 1:
                raise _broken(kind, f"{key} is repeated", frame)
        if len(names) > len(keys):
            raise _broken(kind, "it has a field that this revision does not know", frame)
        for key, name in zip(keys, names, strict=True):
            if key != name:
                raise _broken(kind, f"{key} is not in its place", frame)
        values = [value for _, _, value in pairs]
        for key, value in zip(keys, values, strict=True):
            if re.fullmatch(PRINTABLE, value) is None:
                raise _broken(kind, f"{key} must be 1 to 256 printable characters", frame)
        results.append(values)
    return results


def decode_keygen_results(frame: object, *, has_names: bool) -> tuple[KeygenResult, ...]:
    """Return the keys in the frame's order, public keys compressed; the error of a broken frame names the field."""
    found = _split(
        "keygen", frame, ("keyId", "publicKey", "signAlg") if has_names else ("keyId", "publicKey")
    )
    if len(found) > 1 and not has_names:
        raise _broken("keygen", "it has more than one key", frame)
    try:
        results = tuple(starmap(_keygen_result, found))
    except InvalidFieldError as error:
        raise _broken("keygen", error.message, frame) from None
    if len(results) == 1:
        return results
    if len({result.sign_alg for result in results}) != len(results):
        raise _broken("keygen", "signAlg has the same algorithm for two keys", frame)
    if len({result.key_id for result in results}) != len(results):
        raise _broken("keygen", "keyId is the same for two keys", frame)
    return results


def _keygen_result(key_id: str, public_key_hex: str, algorithm: str = "secp256k1") -> KeygenResult:
    check_algorithm("signAlg", algorithm)
    public_key = from_hex(public_key_hex, field="publicKey")
    result = KeygenResult(
        key_id=MpcKeyId(key_id),
        public_key=public_key,
        sign_alg=algorithm,  # type: ignore[arg-type]  # checked above
    )
    if algorithm != "secp256k1":
        return result
    try:
        compressed = compress(public_key)
    except InvalidFieldError:
        raise InvalidFieldError("publicKey", "is not a point on the curve") from None
    return result if compressed == public_key else evolve(result, public_key=compressed)


def decode_signgen_results(frame: object, *, has_names: bool) -> tuple[SigngenResult, ...]:
    """Return the signatures in the frame's order; the error of a broken frame names the field."""
    found = _split("signgen", frame, ("sign", "recid", "transactionId") if has_names else ("sign", "recid"))
    if len(found) > 1 and not has_names:
        raise _broken("signgen", "it has more than one signature", frame)
    results = []
    for values in found:
        if len(values[0]) != _SIGNATURE_DIGITS or _HEX.match(values[0]) is None:
            raise _broken("signgen", "sign must be 128 hex digits", frame)
        if values[1] not in {"0", "1"}:
            raise _broken("signgen", "recid must be 0 or 1", frame)
        results.append(
            SigngenResult(
                signature=bytes.fromhex(values[0]),
                recovery_id=int(values[1]),
                transaction_id=values[2] if has_names else None,
            )
        )
    if len(results) > 1 and len({result.transaction_id for result in results}) != len(results):
        raise _broken("signgen", "transactionId is the same for two signatures", frame)
    return tuple(results)


def decode_status(frame: object) -> None:
    """Read the result of an operation that has none but its success."""
    if frame != STATUS_OK:
        raise ProtocolError(
            f"the gateway did not answer {STATUS_OK!r} but {shown(frame)}",
            hint="The operation may not have been done",
        )
