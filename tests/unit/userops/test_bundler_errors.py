"""Codes of bundlers, paymasters and entry points in plain words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dan_async.errors import BundlerError, PaymasterError, RpcError
from dan_async.userops.service import bundler_error, explanations

ENTRY_POINT_CODES = {code: known for code, known in explanations().items() if code.startswith("AA")}
RPC_CODES = {int(code): known for code, known in explanations().items() if code not in ENTRY_POINT_CODES}

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "bundler-errors.md").read_text()

#: Every code that the contracts v0.6 and v0.7 can revert with.
OF_THE_CONTRACTS = {
    *("AA10", "AA13", "AA14", "AA15", "AA20", "AA21", "AA22", "AA23", "AA24", "AA25", "AA26"),
    *("AA30", "AA31", "AA32", "AA33", "AA34", "AA36", "AA40", "AA41", "AA50", "AA51"),
    *("AA90", "AA91", "AA92", "AA93", "AA94", "AA95", "AA96"),
}


def translate(code: int, message: str, *, service: str = "bundler") -> BundlerError:
    """The error that an answer becomes."""
    return bundler_error(RpcError(code, message), service=service, method="eth_sendUserOperation")


def test_every_code_of_the_contracts_is_explained() -> None:
    """None is left out, and none is made up."""
    assert set(ENTRY_POINT_CODES) == OF_THE_CONTRACTS


@pytest.mark.parametrize("code", sorted(OF_THE_CONTRACTS))
def test_a_code_in_a_text_becomes_plain_words(code: str) -> None:
    """The message says what happened, the hint what to do, and the code is kept."""
    error = translate(-32500, f"UserOperation reverted with reason: {code} something")
    assert ENTRY_POINT_CODES[code].meaning in error.message
    assert error.hint == ENTRY_POINT_CODES[code].hint
    assert (error.code, error.entry_point_code) == (-32500, code)
    assert f"{code} something" in error.message


@pytest.mark.parametrize("code", RPC_CODES)
def test_a_code_of_json_rpc_becomes_plain_words(code: int) -> None:
    """Where the entry point says nothing, the JSON-RPC code does."""
    error = translate(code, "no")
    assert RPC_CODES[code].meaning in error.message
    assert error.hint == RPC_CODES[code].hint
    assert error.entry_point_code is None


def test_an_unknown_code_is_told_in_the_services_words() -> None:
    """Nothing is invented about a code that is not known."""
    error = translate(-31999, "the moon is wrong")
    assert "error -31999" in error.message
    assert "the moon is wrong" in error.message


@pytest.mark.parametrize(
    ("code", "message", "service", "is_paymaster"),
    [
        (-32500, "AA31 paymaster deposit too low", "bundler", True),
        (-32500, "AA50 postOp revert", "bundler", True),
        (-32501, "no", "bundler", True),
        (-32508, "no", "bundler", True),
        (-32602, "no", "paymaster", True),
        (-32500, "AA21 didn't pay prefund", "bundler", False),
        (-32507, "no", "bundler", False),
    ],
)
def test_the_paymasters_doing(code: int, message: str, service: str, is_paymaster: bool) -> None:
    """What only the paymaster can mend is a PaymasterError."""
    assert isinstance(translate(code, message, service=service), PaymasterError) is is_paymaster


@pytest.mark.parametrize("text", ["XAA21", "AA213", "aa21", "AA2"])
def test_what_only_looks_like_a_code_is_none(text: str) -> None:
    """A code is a word of its own."""
    assert translate(-32500, text).entry_point_code is None


def test_a_reason_in_the_data_counts() -> None:
    """Some bundlers put the code into the error's data."""
    found = bundler_error(
        RpcError(-32500, "no", {"reason": "AA25 invalid account nonce"}), service="bundler", method="m"
    )
    assert found.entry_point_code == "AA25"


def test_long_texts_are_cut() -> None:
    """A service cannot fill a log."""
    assert len(str(translate(-32500, "x" * 10_000))) < 600


def test_the_page_has_the_tables() -> None:
    """docs/reference/bundler-errors.md explains the same codes in the same words."""
    rows = {
        cells[0].strip(" `"): cells for cells in (line.strip("| ").split(" | ") for line in PAGE.splitlines())
    }
    for code, explanation in ENTRY_POINT_CODES.items():
        assert explanation.meaning[1:] in rows[code][1]
        assert explanation.hint in rows[code][2]
    for number, explanation in RPC_CODES.items():
        assert explanation.hint in rows[f"−{-number}"][2]
    assert set(re.findall(r"^\| `(AA[0-9]{2})`", PAGE, re.MULTILINE)) == set(ENTRY_POINT_CODES)
