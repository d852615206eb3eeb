"""
The frames of revision 1: every frame names what it holds, one slot per setup.

A slot is the algorithm of the distributed key for keygen and signgen, and ``main`` for the other operations.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence

from dan_async.errors import InvalidFieldError
from dan_async.models._fields import check_text
from dan_async.models.authentication import UserAuthentication
from dan_async.types import Json
from dan_async.wire import results
from dan_async.wire.authentication import encode_authentication, read_authentication
from dan_async.wire.challenge import (
    check_challenge,
    decode_challenge_object,
    decode_plain_challenge,
    double_sha256,
)
from dan_async.wire.json_text import dump, quote
from dan_async.wire.members import load_text, members, only
from dan_async.wire.results import KeygenResult, SigngenResult

__all__ = [
    "decode_authentications",
    "decode_challenges",
    "decode_keygen_results",
    "decode_oneshot",
    "decode_signgen_results",
    "encode_authentications",
    "encode_challenges",
    "encode_keygen_results",
    "encode_oneshot",
    "encode_signgen_results",
    "join_setups",
    "oneshot_challenge",
    "read_authentications",
    "read_ephemeral_signature",
    "split_setups",
]

#: Longest setup frame, in characters.
_MOST_FRAME = 4 * 1024 * 1024

#: Most setups in one frame: one for each algorithm of the distributed key.
_MOST_SETUPS = 2

_GAP = re.compile(r"[ \t\n\r,]*")
_SCANNER = json.JSONDecoder()


def join_setups(operation: str, setups: Sequence[str]) -> str:
    """Give the setup frame: an array of setups for keygen, else the one setup."""
    if operation == "keygen":
        return f"[{','.join(setups)}]"
    return only(setups, f"setups of {operation}")


def split_setups(operation: str, frame: str) -> tuple[str, ...]:
    """
    Give the setup texts of a setup frame, each exactly as it was sent.

    Raises:
        ProtocolError: The frame is not JSON.
        InvalidFieldError: It is not an array of one setup per algorithm.
    """
    check_text(f"setup of {operation}", frame, most=_MOST_FRAME)
    if operation != "keygen":
        return (frame,)
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


def encode_challenges(operation: str, challenges: Mapping[str, str]) -> str:
    """Write the challenge frame: an object of algorithm and challenge for keygen, else 64 hex digits."""
    if operation == "keygen":
        return dump({name: check_challenge(challenge) for name, challenge in challenges.items()})
    return check_challenge(only(tuple(challenges.values()), f"challenges of {operation}"))


def decode_challenges(operation: str, frame: str, slots: Collection[str]) -> dict[str, str]:
    """
    Read the challenge frame.

    Raises:
        ChallengeError: It is not one challenge for each slot.
    """
    if operation == "keygen":
        return decode_challenge_object(frame, slots)
    return {only(tuple(slots), f"setups of {operation}"): decode_plain_challenge(frame)}


def encode_authentications(operation: str, authentications: Mapping[str, UserAuthentication]) -> str:
    """Write the authentication frame: slot and authentication object."""
    del operation
    members_of = [f"{quote(slot)}:{encode_authentication(auth)}" for slot, auth in authentications.items()]
    return f"{{{','.join(members_of)}}}"


def decode_authentications(
    operation: str, frame: str, slots: Collection[str]
) -> dict[str, UserAuthentication]:
    """
    Read the authentication frame.

    Raises:
        ProtocolError: It is not JSON.
        InvalidFieldError: A member is missing, unknown or wrong.
    """
    return read_authentications(operation, load_text(frame), slots)


def read_authentications(
    operation: str, value: Json, slots: Collection[str]
) -> dict[str, UserAuthentication]:
    """
    Read the decoded value of an authentication frame.

    Raises:
        InvalidFieldError: A member is missing, unknown or wrong.
    """
    found = members(value, f"authentications of {operation}", slots)
    return {slot: read_authentication(found[slot]) for slot in slots}


def oneshot_challenge(setup: str) -> str:
    """Give the challenge of a one-shot request: the double SHA-256 of the setup's exact text, in hex."""
    return double_sha256(setup)


def encode_oneshot(
    operation: str, setups: Sequence[str], authentications: Mapping[str, UserAuthentication]
) -> str:
    """Write the one frame of a one-shot request: the setup frame as a string, and the authentication frame."""
    setup_frame = join_setups(operation, setups)
    return f'{{"setupOpts":{quote(setup_frame)},"userSigs":{encode_authentications(operation, authentications)}}}'


def decode_oneshot(frame: str) -> tuple[str, Json]:
    """
    Read the one frame of a one-shot request.

    Returns:
        The setup frame, for ``split_setups``, and the authentications, for ``read_authentications``.

    Raises:
        ProtocolError: It is not JSON.
        InvalidFieldError: A member is missing, unknown or wrong.
    """
    found = members(load_text(frame), "request", ("setupOpts", "userSigs"))
    return check_text("setupOpts", found["setupOpts"], most=_MOST_FRAME), found["userSigs"]


def read_ephemeral_signature(auth: UserAuthentication, message: str | None) -> str:
    """
    Give the ephemeral key's signature out of the JSON text it stands in.

    Args:
        auth: The authentication object.
        message: The setup's message, which must be the one repeated there; None for a setup without one.

    Raises:
        ProtocolError: The member is not JSON.
        InvalidFieldError: A member is missing, unknown or wrong, or the message is another.
    """
    repeated = () if message is None else ("base64Message",)
    found = members(load_text(auth.signature), "signature", (*repeated, "signature"))
    if message is not None and found["base64Message"] != message:
        raise InvalidFieldError("base64Message", "is not the setup's message")
    return check_text("signature", found["signature"])


def encode_keygen_results(found: Sequence[KeygenResult]) -> str:
    """Write the keygen result frame."""
    return results.encode_keygen_results(found, with_algorithm=True)


def decode_keygen_results(frame: str) -> tuple[KeygenResult, ...]:
    """
    Read the keygen result frame.

    Raises:
        ProtocolError: It breaks the grammar, or a public key is not on the curve.
    """
    return results.decode_keygen_results(frame, with_algorithm=True)


def encode_signgen_results(found: Sequence[SigngenResult]) -> str:
    """Write the signgen result frame."""
    return results.encode_signgen_results(found)


def decode_signgen_results(frame: str) -> tuple[SigngenResult, ...]:
    """
    Read the signgen result frame.

    Raises:
        ProtocolError: It breaks the grammar.
    """
    return results.decode_signgen_results(frame, with_transaction_id=True)
