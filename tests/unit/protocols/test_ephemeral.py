"""What an ephemeral key signs."""

import json

import pytest
from hypothesis import given, settings

from dan_async.errors import InvalidFieldError
from dan_async.protocols.fields import decode_base64, encode_base64
from dan_async.protocols.gateway_1 import REVISION_1
from tests import strategies

CHALLENGE = "ab" * 32


def test_payload_holds_the_setup_exactly_as_sent():
    """Spaces and order are kept: the text is not parsed and written again."""
    payload = REVISION_1.ephemeral_payload('{ "t": 2, "a":"€" }', CHALLENGE)
    assert payload == ('{"setup":{ "t": 2, "a":"€" },"challenge":"' + CHALLENGE + '"}').encode()
    assert json.loads(payload)["challenge"] == CHALLENGE


@pytest.mark.parametrize(
    ("setup", "challenge", "named"),
    [
        ("", CHALLENGE, "setup"),
        ("\ud800", CHALLENGE, "lone surrogate"),
        (None, CHALLENGE, "setup"),
        ("{}", '","x":"', "challenge"),
        ("{}", None, "challenge"),
        ("x" * (4 * 1024 * 1024 + 1), CHALLENGE, "setup"),
    ],
)
def test_payload_of_anything_else_is_refused(setup, challenge, named):
    """Neither part can be made to look like the other."""
    with pytest.raises(InvalidFieldError, match=named):
        REVISION_1.ephemeral_payload(setup, challenge)


@settings(max_examples=50)
@given(text=strategies.texts())
def test_base64_gives_back_the_text(text):
    """Of every text that UTF-8 can carry."""
    assert decode_base64("message", encode_base64("message", text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "YQ",
        "YQ==\n",
        " YQ==",
        "YR==",  # the bits behind the text are not zero: a second form of "a"
        "YQ=",
        "YQ===",
        "_-8=",
        "/w==",  # not UTF-8
        "é",
        None,
        1,
    ],
)
def test_base64_has_one_form(text):
    """Another form of the same bytes would be signed as another text."""
    with pytest.raises(InvalidFieldError, match="message"):
        decode_base64("message", text)


@pytest.mark.parametrize(("text", "problem"), [(1, "must be text"), ("A" * 1024 * 1024 + "AAAA", "long")])
def test_what_is_no_text_within_bounds_says_so(text, problem):
    """It is not called bad Base64."""
    with pytest.raises(InvalidFieldError, match=problem):
        decode_base64("message", text)


def test_lone_surrogate_is_not_encoded():
    """UTF-8 has no bytes for it, and JavaScript would send something else."""
    with pytest.raises(InvalidFieldError, match="lone surrogate"):
        encode_base64("message", "\ud800")
