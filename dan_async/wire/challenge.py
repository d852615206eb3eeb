"""The form of a challenge: 64 hex digits without 0x, alike in all revisions."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection

from dan_async.errors import ChallengeError, InvalidFieldError, ProtocolError
from dan_async.models._fields import check_text
from dan_async.wire.json_text import load
from dan_async.wire.shown import shown

__all__ = ["check_challenge", "decode_challenge_object", "decode_plain_challenge", "double_sha256"]

_CHALLENGE = re.compile(r"[0-9a-fA-F]{64}\Z")


def check_challenge(value: object) -> str:
    """
    Check a challenge that we are about to send or sign.

    Raises:
        InvalidFieldError: It is not 64 hex digits without 0x.
    """
    if not isinstance(value, str) or _CHALLENGE.match(value) is None:
        raise InvalidFieldError("challenge", "must be 64 hex digits without 0x")
    return value


def decode_plain_challenge(frame: object) -> str:
    """
    Read a challenge frame that is the challenge itself.

    Raises:
        ChallengeError: It is anything else, so that no wallet is asked to sign it.
    """
    if not isinstance(frame, str) or _CHALLENGE.match(frame) is None:
        raise ChallengeError(
            f"the challenge is not 64 hex digits: the gateway sent {shown(frame)}",
            hint="Check the gateway's URL and revision; nothing was signed",
        )
    return frame


def decode_challenge_object(frame: object, names: Collection[str]) -> dict[str, str]:
    """
    Read a challenge frame that is a JSON object with one challenge for each name.

    Args:
        frame: What the gateway sent.
        names: The names that must be in it, and no others.

    Raises:
        ChallengeError: It is anything else, or two challenges in it are equal.
    """
    try:
        found = load(frame) if isinstance(frame, str) else None
    except ProtocolError:
        found = None
    if (
        not isinstance(found, dict)
        or set(found) != set(names)
        or not all(isinstance(value, str) and _CHALLENGE.match(value) for value in found.values())
    ):
        raise ChallengeError(
            f"the challenge is not a JSON object with 64 hex digits for each of {', '.join(names)}: "
            f"the gateway sent {shown(frame)}",
            hint="Check the gateway's URL and revision; nothing was signed",
        )
    if len({value.lower() for value in found.values()}) != len(found):
        raise ChallengeError("the gateway gave two algorithms the same challenge", hint="Nothing was signed")
    return {name: found[name] for name in names}


def double_sha256(setup: str) -> str:
    """
    Give the challenge of a one-shot request: SHA-256 of the SHA-256 of the setup's text, in hex without 0x.

    Raises:
        InvalidFieldError: UTF-8 cannot carry the text.
    """
    text = check_text("setup", setup, most=4 * 1024 * 1024).encode()
    return hashlib.sha256(hashlib.sha256(text).digest()).hexdigest()
