"""What a peer sent, as our messages show it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dan_async._values import shown

SECRET = "0123456789abcdef" * 4


def test_short_text_is_quoted_whole():
    """Nothing is taken from a short text."""
    assert shown("no such operation") == "'no such operation'"


def test_long_text_is_cut_at_80_characters():
    """The rest is replaced by one character that says so."""
    assert shown("x" * 81) == "'" + "x" * 80 + "…'"
    assert shown("x" * 80) == "'" + "x" * 80 + "'"


def test_ten_megabytes_are_cut_as_well():
    """A huge frame does not become a huge message."""
    assert shown("y" * 10_000_000) == "'" + "y" * 80 + "…'"


@pytest.mark.parametrize("text", [SECRET, "0x" + SECRET, SECRET.upper(), SECRET * 2, f"key={SECRET};"])
def test_64_or_more_hex_digits_are_masked(text):
    """Keys, shares, digests and signatures never get into a message."""
    assert "[hex masked]" in shown(text)
    assert SECRET[:16] not in shown(text).lower()


def test_fewer_hex_digits_are_shown():
    """An address is no secret."""
    assert shown("ab" * 31) == "'" + "ab" * 31 + "'"


@pytest.mark.parametrize("before", range(0, 100, 7))
def test_hex_digits_across_the_cut_are_masked(before):
    """A run that begins before the cut and ends behind it does not show its beginning."""
    assert SECRET[:8] not in shown("z" * before + SECRET)


def test_control_characters_and_lone_surrogates_are_escaped():
    """A message can be printed and encoded whatever was sent."""
    assert shown("a\nb\x1b[2J\ud800") == "'a\\nb\\x1b[2J\\ud800'"


@pytest.mark.parametrize("data", [b"12345", bytearray(5), memoryview(b"12345")])
def test_binary_data_is_only_counted(data):
    """Its bytes are not shown."""
    assert shown(data) == "5 bytes of binary data"


def test_anything_else_is_named_by_its_type():
    """What is no frame at all is not printed."""
    assert shown(None) == "NoneType"


@settings(max_examples=50)
@given(st.text(st.characters(), max_size=400))
def test_every_text_gives_a_short_printable_one(text):
    """No text makes it fail, grow or break a line."""
    result = shown(text)
    assert result.isprintable()
    assert len(result) <= 80 * len("\\U00000000") + 3
