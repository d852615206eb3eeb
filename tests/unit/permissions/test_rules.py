"""The JSON of permissions: strict, and errors that have the path of what is wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dan_async.errors import InvalidFieldError
from dan_async.permissions import parse_permissions, rules
from tests.unit.permissions.requests import SPENDER, TOKEN

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "permissions.md"
ERC20: dict[str, Any] = {"type": "erc20", "method": "approve", "to": TOKEN}
CALL: dict[str, Any] = {"type": "call", "to": TOKEN}


def wrong(value: Any) -> str:
    """The path at which permissions are refused."""
    with pytest.raises(InvalidFieldError) as caught:
        parse_permissions(value if isinstance(value, str) else json.dumps(value))
    return caught.value.field


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({}, "permissions"),
        ({"permissions": {}}, "permissions"),
        ({"permissions": [], "allow": 1}, "permissions"),
        ([1], "permissions[0].type"),
        ([ERC20, {"type": "erc721"}], "permissions[1].type"),
        ([{"type": "erc20", "to": TOKEN}], "permissions[0].method"),
        ([ERC20 | {"method": "transferFrom"}], "permissions[0].method"),
        ([ERC20 | {"method": ["approve"]}], "permissions[0].method"),
        ([{"type": "erc20", "method": "approve"}], "permissions[0].to"),
        ([ERC20 | {"to": []}], "permissions[0].to"),
        ([ERC20 | {"to": [TOKEN, "0x1"]}], "permissions[0].to[1]"),
        ([ERC20 | {"to": SPENDER.replace("B", "b")}], "permissions[0].to"),
        ([ERC20 | {"valueLimit": 1}], "permissions[0]"),
        ([ERC20 | {"args": []}], "permissions[0].args"),
        ([ERC20 | {"args": {"to": TOKEN}}], "permissions[0].args"),
        ([ERC20 | {"args": {"spender": None}}], "permissions[0].args.spender"),
        ([ERC20 | {"args": {"value": 1}}], "permissions[0].args.eq"),
        ([ERC20 | {"args": {"eq": "<"}}], "permissions[0].args.value"),
        ([ERC20 | {"args": {"value": 1, "eq": "lt"}}], "permissions[0].args.eq"),
        ([ERC20 | {"args": {"value": -1, "eq": "<"}}], "permissions[0].args.value"),
        ([ERC20 | {"args": {"value": True, "eq": "<"}}], "permissions[0].args.value"),
        ([ERC20 | {"args": {"value": "", "eq": "<"}}], "permissions[0].args.value"),
        ([ERC20 | {"args": {"value": 2**256, "eq": "<"}}], "permissions[0].args.value"),
        (
            [ERC20 | {"method": "transfer", "args": {"to": TOKEN, "recipient": TOKEN}}],
            "permissions[0].args.recipient",
        ),
        ([{"type": "call"}], "permissions[0].to"),
        ([CALL | {"args": {}}], "permissions[0]"),
        ([CALL | {"selectors": []}], "permissions[0].selectors"),
        ([CALL | {"selectors": "0x12345678"}], "permissions[0].selectors"),
        ([CALL | {"selectors": ["0x123456"]}], "permissions[0].selectors[0]"),
        ([CALL | {"selectors": ["0x", "12345678"]}], "permissions[0].selectors[1]"),
        ([CALL | {"selectors": ["0x12 34 56"]}], "permissions[0].selectors[0]"),
        ([CALL | {"selectors": ["mint(uint256 amount)"]}], "permissions[0].selectors[0]"),
        ([CALL | {"selectors": [7]}], "permissions[0].selectors[0]"),
        ([CALL | {"valueLimit": "a"}], "permissions[0].valueLimit"),
        ([CALL | {"chainId": 0}], "permissions[0].chainId"),
        ([CALL | {"validAfter": "1"}], "permissions[0].validAfter"),
        ([CALL | {"validAfter": 2, "validUntil": 1}], "permissions[0].validUntil"),
        ({"permissions": [], "chainId": []}, "chainId"),
        ({"permissions": [], "chainId": ["80002"]}, "chainId[0]"),
        ({"permissions": [], "validUntil": -1}, "validUntil"),
        ({"permissions": [], "validAfter": 9, "validUntil": 8}, "validUntil"),
        ({"permissions": [], "entryPoint": "0x"}, "entryPoint"),
        ({"permissions": [], "account": 1}, "account"),
        ({"permissions": [], "factory": [TOKEN, 1]}, "factory[1]"),
        ({"permissions": [], "paymasters": TOKEN}, "paymasters"),
        ({"permissions": [], "valueLimit": None}, "valueLimit"),
        ({"permissions": [], "gasCostLimit": [1]}, "gasCostLimit"),
        ({"permissions": [], "callLimit": -1}, "callLimit"),
        ('{"permissions":[],"permissions":[]}', "permissions"),
        ('{"permissions":[],"valueLimit":1.0}', "permissions"),
        ('{"permissions":[],"valueLimit":1e3}', "permissions"),
        ("[" * 100 + "]" * 100, "permissions"),
        ([CALL] * 257, "permissions"),
        ("3", "permissions"),
    ],
)
def test_what_is_wrong_is_named(value: Any, path: str) -> None:
    """A restriction that is not understood is never passed over; the error says where it stands."""
    assert wrong(value) == path


def test_a_misspelt_member_is_named() -> None:
    """Beside the members that there are."""
    with pytest.raises(InvalidFieldError, match=r"^permissions\[0\].args has valu, which .*value"):
        parse_permissions(json.dumps([ERC20 | {"args": {"valu": 1}}]))


def test_what_is_no_name_is_not_repeated() -> None:
    """It may be anything."""
    with pytest.raises(InvalidFieldError) as caught:
        parse_permissions('{"permissions":[],"5ec7e7":1}')
    assert "5ec7e7" not in str(caught.value)


def test_amounts_are_exact() -> None:
    """Whole numbers of any size, decimal and hex texts."""
    large = 2**200 + 1
    for written in (large, str(large), hex(large)):
        (rule,) = parse_permissions(json.dumps([ERC20 | {"args": {"value": written, "eq": "<"}}])).rules
        assert isinstance(rule, rules.Erc20Rule)
        assert rule.amount == rules.Bound("<", large)


def _schema() -> Any:
    (block,) = re.findall(r"```json\n(\{\n +\"\$schema\".*?)\n```", PAGE.read_text(), re.DOTALL)
    return json.loads(block)


def test_the_schema_on_the_page_knows_the_same_members() -> None:
    """docs/how-to/permissions.md lists what is read here, nothing more and nothing less."""
    schema = _schema()
    found = schema["$defs"]
    assert set(found["object"]["properties"]) == set(rules._TOP)
    assert set(found["erc20"]["properties"]) == set(rules._ERC20)
    assert set(found["call"]["properties"]) == set(rules._CALL)
    assert set(found["bound"]["properties"]["eq"]["enum"]) == set(rules._COMPARISONS)


def test_the_examples_on_the_page_are_read() -> None:
    """Every other JSON block of the page is a valid example."""
    blocks = re.findall(r"```json\n(.*?)\n```", PAGE.read_text(), re.DOTALL)
    examples = [block for block in blocks if "$schema" not in block]
    assert len(examples) >= 2
    for example in examples:
        assert parse_permissions(example).rules
