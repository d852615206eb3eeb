"""What an ephemeral key signs, and the setup of a signature: alike in all revisions but for the algorithm's name."""

from __future__ import annotations

import base64

from dan_async.errors import InvalidFieldError
from dan_async.models._fields import check_text
from dan_async.wire.challenge import check_challenge
from dan_async.wire.json_text import quote

__all__ = ["decode_base64", "encode_base64", "ephemeral_payload"]

#: Longest setup text that is signed.
_MOST = 4 * 1024 * 1024


def encode_base64(field: str, text: str) -> str:
    """
    Give standard Base64 of the UTF-8 text. Done once: what is signed is the encoded form, as it is sent.

    Raises:
        InvalidFieldError: UTF-8 cannot carry the text.
    """
    return base64.b64encode(check_text(field, text, least=0, most=512 * 1024).encode()).decode()


def decode_base64(field: str, text: object) -> str:
    """
    Read standard Base64 of UTF-8 text, in its one canonical form.

    Raises:
        InvalidFieldError: It is not that.
    """
    encoded = check_text(field, text, least=0, most=1024 * 1024)
    try:
        raw = base64.b64decode(encoded, validate=True)
        decoded = raw.decode()
    except ValueError:  # not ASCII, not Base64, or not UTF-8
        raise InvalidFieldError(field, "must be standard Base64 of UTF-8 text") from None
    if base64.b64encode(raw).decode() != encoded:
        raise InvalidFieldError(field, "must be Base64 in its canonical form")
    return decoded


def ephemeral_payload(setup: str, challenge: str) -> bytes:
    """
    Give the bytes that an ephemeral key signs: the JSON of setup and challenge.

    Args:
        setup: The setup's text exactly as it is sent; it is not parsed and written again.
        challenge: 64 hex digits without 0x.

    Raises:
        InvalidFieldError: The challenge has another form, or UTF-8 cannot carry the setup.
    """
    check_text("setup", setup, most=_MOST)
    return f'{{"setup":{setup},"challenge":{quote(check_challenge(challenge))}}}'.encode()
