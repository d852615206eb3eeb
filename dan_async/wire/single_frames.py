"""
The frames of revisions 0.1 and 0.3, which take one setup at a time: every frame is one thing, without a name.

``slots`` are the names under which revision 1 would send it; here there is one and it stays off the wire.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from dan_async.models._fields import check_text
from dan_async.models.authentication import UserAuthentication
from dan_async.wire import results
from dan_async.wire.authentication import encode_authentication, read_authentication
from dan_async.wire.challenge import check_challenge, decode_plain_challenge
from dan_async.wire.members import load_text, only
from dan_async.wire.results import KeygenResult, SigngenResult

__all__ = [
    "decode_authentications",
    "decode_challenges",
    "decode_keygen_results",
    "decode_signgen_results",
    "encode_authentications",
    "encode_challenges",
    "encode_keygen_results",
    "encode_signgen_results",
    "join_setups",
    "read_ephemeral_signature",
    "split_setups",
]

#: Longest setup frame.
_MOST = 4 * 1024 * 1024


def join_setups(operation: str, setups: Sequence[str]) -> str:
    """Give the setup frame: the one setup."""
    return only(setups, f"setups of {operation}")


def split_setups(operation: str, frame: str) -> tuple[str, ...]:
    """Give the setup texts of a setup frame: the frame itself, which is not looked into here."""
    return (check_text(f"setup of {operation}", frame, most=_MOST),)


def encode_challenges(operation: str, challenges: Mapping[str, str]) -> str:
    """Write the challenge frame: 64 hex digits."""
    return check_challenge(only(tuple(challenges.values()), f"challenges of {operation}"))


def decode_challenges(operation: str, frame: str, slots: Collection[str]) -> dict[str, str]:
    """
    Read the challenge frame.

    Raises:
        ChallengeError: It is not 64 hex digits.
    """
    return {only(tuple(slots), f"setups of {operation}"): decode_plain_challenge(frame)}


def encode_authentications(operation: str, authentications: Mapping[str, UserAuthentication]) -> str:
    """Write the authentication frame: the one object."""
    return encode_authentication(only(tuple(authentications.values()), f"authentications of {operation}"))


def decode_authentications(
    operation: str, frame: str, slots: Collection[str]
) -> dict[str, UserAuthentication]:
    """
    Read the authentication frame.

    Raises:
        ProtocolError: It is not JSON.
        InvalidFieldError: A member is missing, unknown or wrong.
    """
    return {only(tuple(slots), f"setups of {operation}"): read_authentication(load_text(frame))}


def read_ephemeral_signature(auth: UserAuthentication, message: str | None) -> str:
    """Give the ephemeral key's signature, which is the member itself: the message is not repeated."""
    del message
    return auth.signature


def encode_keygen_results(found: Sequence[KeygenResult]) -> str:
    """Write the keygen result frame."""
    return results.encode_keygen_results((only(found, "results"),), with_algorithm=False)


def decode_keygen_results(frame: str) -> tuple[KeygenResult, ...]:
    """
    Read the keygen result frame.

    Raises:
        ProtocolError: It breaks the grammar, or the public key is not on the curve.
    """
    return results.decode_keygen_results(frame, with_algorithm=False)


def encode_signgen_results(found: Sequence[SigngenResult]) -> str:
    """Write the signgen result frame."""
    return results.encode_signgen_results((only(found, "results"),))


def decode_signgen_results(frame: str) -> tuple[SigngenResult, ...]:
    """
    Read the signgen result frame.

    Raises:
        ProtocolError: It breaks the grammar.
    """
    return results.decode_signgen_results(frame, with_transaction_id=False)
