"""The JSON schema of docs/how-to/permissions.md and the client agree on what permissions are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from dan_async.errors import InvalidFieldError
from dan_async.permissions import parse_permissions

pytestmark = pytest.mark.recipes

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "permissions.md"
TOKEN = "0x1234567890123456789012345678901234567890"


def erc20(method: str = "transfer", **members: Any) -> dict[str, Any]:
    return {"type": "erc20", "method": method, "to": TOKEN} | members


def call(**members: Any) -> dict[str, Any]:
    return {"type": "call", "to": TOKEN} | members


def are_accepted(permissions: Any) -> bool:
    try:
        parse_permissions(json.dumps(permissions))
    except InvalidFieldError:
        return False
    return True


@pytest.mark.parametrize(
    ("permissions", "is_right"),
    [
        ([], True),
        ({"permissions": []}, True),
        ({}, False),
        ({"permissions": [], "more": 1}, False),
        ({"permissions": [], "chainId": [1, 2**53 - 1]}, True),
        ({"permissions": [], "chainId": 2**53}, False),
        ({"permissions": [], "chainId": []}, False),
        ({"permissions": [], "validUntil": 2**48}, False),
        ({"permissions": [], "gasCostLimit": "0x10", "callLimit": 3, "paymasters": []}, True),
        ({"permissions": [], "valueLimit": -1}, False),
        ([erc20(args={"to": [TOKEN], "value": "5", "eq": "<="})], True),
        ([erc20(args={"recipient": TOKEN})], True),
        ([erc20(args={"spender": TOKEN})], False),
        ([erc20("approve", args={"spender": TOKEN})], True),
        ([erc20("approve", args={"to": TOKEN})], False),
        ([erc20("approve", args={"recipient": TOKEN})], False),
        ([erc20("mint")], False),
        ([erc20(args={"value": 5})], False),
        ([erc20(args={"value": 1.5, "eq": "<"})], False),
        ([call(selectors=["0x", "0xa0712d68", "mint(uint256)", "f((uint256,address)[])"])], True),
        ([call(selectors=["mint"])], False),
        ([call(selectors=["0xa0"])], False),
        ([call(selectors=[])], False),
        ([call(args={})], False),
    ],
)
def test_the_schema_and_the_client_agree(permissions: Any, *, is_right: bool) -> None:
    """On every member, and on what belongs to one method only."""
    (schema,) = (b for b in re.findall(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL) if "$schema" in b)
    fits = jsonschema.Draft202012Validator(json.loads(schema)).is_valid(permissions)
    assert (fits, are_accepted(permissions)) == (is_right, is_right)
