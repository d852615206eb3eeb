"""Permissions and requests: what is allowed is allowed, and nothing else in any disguise."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dan_async.crypto.abi import encode_call, function_selector
from dan_async.errors import PermissionDeniedError
from dan_async.permissions import check_permissions, find_refusal, parse_permissions
from dan_async.protocols.sign_request import RequestType, SignRequest
from tests.unit.permissions.requests import (
    ACCOUNT,
    CHAIN,
    ENTRY_POINTS,
    NOW,
    OTHER_ADDRESS,
    SPENDER,
    TOKEN,
    request,
)

#: The form that the public TypeScript clients document and send, letter for letter.
OF_THE_CLIENTS = (
    '{"permissions":[{"type":"erc20","method":"approve","to":"0x1234567890123456789012345678901234567890",'
    '"args":{"spender":"0x1234567890123456789012345678901234567890","value":10000,"eq":"<"}}]}'
)


def erc20(method: str = "approve", **changes: Any) -> dict[str, Any]:
    """An erc20 rule for the token, at most 9999."""
    name = "spender" if method == "approve" else "to"
    args = {name: SPENDER, "value": 10000, "eq": "<"}
    return {"type": "erc20", "method": method, "to": TOKEN, "args": args} | changes


def execute(target: str, data: bytes, value: int = 0) -> bytes:
    """One call by a SimpleAccount."""
    return encode_call("execute(address,uint256,bytes)", target, value, data)


def batch(*calls: tuple[str, int, bytes]) -> bytes:
    """Several calls by a SimpleAccount v0.7."""
    columns = [list(column) for column in zip(*calls, strict=True)]
    return encode_call("executeBatch(address[],uint256[],bytes[])", *columns)


def approve(spender: str = SPENDER, amount: int = 9999) -> bytes:
    """An ERC-20 approval."""
    return encode_call("approve(address,uint256)", spender, amount)


def transfer(to: str = SPENDER, amount: int = 9999) -> bytes:
    """An ERC-20 transfer."""
    return encode_call("transfer(address,uint256)", to, amount)


def check(permissions: Any, what: SignRequest, *, now: float = NOW) -> str | None:
    """Give the rule that denies, or None."""
    text = permissions if isinstance(permissions, str) else json.dumps(permissions)
    refusal = find_refusal(text, what, now=now)
    if refusal is None:
        check_permissions(parse_permissions(text), what, now=now)
        return None
    with pytest.raises(PermissionDeniedError) as caught:
        check_permissions(parse_permissions(text), what, now=now)
    assert refusal == caught.value.message
    return caught.value.rule


def allow(*rules: Any, **top: Any) -> dict[str, Any]:
    """Permissions with these rules."""
    return {"permissions": list(rules), **top}


APPROVAL = request(execute(TOKEN, approve()))


@pytest.mark.parametrize(
    ("amount", "spender", "rule"),
    [
        (9999, TOKEN, None),
        (0, TOKEN, None),
        (10000, TOKEN, "permissions[0].args.value"),
        (2**256 - 1, TOKEN, "permissions[0].args.value"),
        (1, SPENDER, "permissions[0].args.spender"),
    ],
)
@pytest.mark.parametrize("account", ["execute", "execute_ncC"])
def test_the_public_clients_form(amount: int, spender: str, rule: str | None, account: str) -> None:
    """The documented example of the public clients works as it stands, on SimpleAccount and on Biconomy V2."""
    call = encode_call(f"{account}(address,uint256,bytes)", TOKEN, 0, approve(spender, amount))
    assert check(OF_THE_CLIENTS, request(call)) == rule


@pytest.mark.parametrize("version", ["v0.6.0", "v0.7.0"])
def test_both_versions(version: str) -> None:
    """Operations of both entry point versions are read."""
    assert check(allow(erc20()), request(execute(TOKEN, approve()), version=version)) is None
    too_much = request(execute(TOKEN, approve(amount=10000)), version=version)
    assert check(allow(erc20()), too_much) == "permissions[0].args.value"


def test_a_bare_list_of_rules() -> None:
    """A list stands for an object with this list."""
    assert check([erc20()], APPROVAL) is None
    assert check([], APPROVAL) == "permissions"


def test_no_permissions_no_limits() -> None:
    """A key whose owner gave no permissions signs everything."""
    assert find_refusal(None, SignRequest(request_type="rawBytes", message="00" * 32), now=NOW) is None


@pytest.mark.parametrize("name", ["to", "recipient"])
def test_a_transfer_by_either_name_of_its_argument(name: str) -> None:
    """The receiver is called to in the standard and recipient in many tokens."""
    rule = erc20("transfer", args={name: SPENDER, "value": 5, "eq": "<="})
    assert check(allow(rule), request(execute(TOKEN, transfer(amount=5)))) is None
    assert check(allow(rule), request(execute(TOKEN, transfer(amount=6)))) == "permissions[0].args.value"
    other = request(execute(TOKEN, transfer(OTHER_ADDRESS, 5)))
    assert check(allow(rule), other) == f"permissions[0].args.{name}"


@pytest.mark.parametrize(
    ("eq", "allowed"),
    [("<", {9}), ("<=", {9, 10}), ("=", {10}), ("==", {10}), (">=", {10, 11}), (">", {11}), ("!=", {9, 11})],
)
def test_every_comparison(eq: str, allowed: set[int]) -> None:
    """Each comparison means what it says."""
    rule = erc20(args={"value": "10", "eq": eq})
    found = {n for n in (9, 10, 11) if check(allow(rule), request(execute(TOKEN, approve(amount=n)))) is None}
    assert found == allowed


def test_a_rule_without_args_allows_any() -> None:
    """Without args the token and the method are all that counts."""
    rule = {"type": "erc20", "method": "approve", "to": [TOKEN, SPENDER]}
    assert check(allow(rule), request(execute(TOKEN, approve(OTHER_ADDRESS, 2**256 - 1)))) is None
    assert check(allow(rule), request(execute(OTHER_ADDRESS, approve()))) == "permissions[0].to"
    assert check(allow(rule), request(execute(TOKEN, transfer()))) == "permissions[0].method"


@pytest.mark.parametrize(
    "data",
    [
        approve()[:4],
        approve()[:-1],
        approve() + b"\0",
        approve() + bytes(32),
        approve()[:4] + b"\x01" + approve()[5:],
    ],
    ids=["selector", "short", "long", "word", "padding"],
)
def test_token_arguments_are_read_without_doubt(data: bytes) -> None:
    """Cut, trailing and dirty arguments are refused even by a rule that takes any."""
    rule = {"type": "erc20", "method": "approve", "to": TOKEN}
    assert check(allow(rule), request(execute(TOKEN, data))) == "permissions[0].args"


def test_a_token_call_sends_no_wei() -> None:
    """Value beside a token call would be a transfer that no rule limits."""
    assert check(allow(erc20()), request(execute(TOKEN, approve(), 1))) == "permissions[0].method"


def test_each_call_of_a_batch_needs_a_rule() -> None:
    """One call that nothing allows refuses the operation, wherever it stands; two rules may share a batch."""
    good, bad = (TOKEN, 0, approve()), (OTHER_ADDRESS, 0, approve())
    both = allow(erc20(), erc20("transfer"))
    assert check(both, request(batch(good, (TOKEN, 0, transfer())))) is None
    for calls in ((bad, good), (good, bad), (good, good, bad)):
        assert check(allow(erc20()), request(batch(*calls))) == "permissions[0].to"


def test_the_reason_names_the_call_and_the_closest_rule() -> None:
    """Of several rules the one that failed last is told, with the call's place."""
    refusal = find_refusal(
        json.dumps(allow(erc20("transfer"), erc20())),
        request(batch((TOKEN, 0, approve()), (TOKEN, 0, approve(amount=10**6)))),
        now=NOW,
    )
    assert refusal is not None
    assert "permissions[1].args.value" in refusal
    assert "call 2 of 2" in refusal


def test_a_rule_that_comes_less_close_does_not_take_over_the_reason() -> None:
    """The order of the rules does not decide what is told."""
    other = erc20(to=OTHER_ADDRESS)
    too_much = request(execute(TOKEN, approve(amount=10**6)))
    assert check(allow(erc20(), other), too_much) == "permissions[0].args.value"
    assert check(allow(other, erc20()), too_much) == "permissions[1].args.value"


@pytest.mark.parametrize(
    "kind",
    [
        ("rawBytes", "00" * 32),
        ("EIP191", "00" * 32),
        ("EIP712", '{"types":{},"domain":{},"primaryType":"A","message":{}}'),
        ("eddsa", "text"),
    ],
    ids=lambda kind: kind[0],
)
def test_other_requests_are_refused(kind: tuple[str, str]) -> None:
    """A signature over a text or digest of the caller's choice could be a user operation's."""
    what = SignRequest(request_type=RequestType(kind[0]), message=kind[1])
    assert check(allow(erc20()), what) == "requestType"


@pytest.mark.parametrize("text", ["{}", '{"a":1}', '["x"]', '[{"type":"any"}]', "not json", "[1.5]"])
def test_permissions_that_cannot_be_read_allow_nothing(text: str) -> None:
    """Nothing is signed under permissions that nobody understands."""
    refusal = find_refusal(text, APPROVAL, now=NOW)
    assert refusal is not None
    assert "cannot be read" in refusal


def test_an_operation_that_cannot_be_read_is_refused() -> None:
    """A member that the form does not know, or one that is missing."""
    for what in (request(b"", callGasLimit=None), request(b"", surprise="0x"), request(b"", nonce="-1")):
        refusal = find_refusal(json.dumps(allow(erc20())), what, now=NOW)
        assert refusal is not None
        assert "cannot be read" in refusal


@pytest.mark.parametrize("call_data", [b"", b"\0\0\x18\x9a", bytes(36)])
def test_call_data_that_cannot_be_decoded_is_refused(call_data: bytes) -> None:
    """The vectors' own user operations, for example, call nothing that can be read."""
    assert check(allow(erc20()), request(call_data)) == "callData"


def test_a_call_to_the_account_itself_is_refused() -> None:
    """Not even a rule for that target lets an account change its owner or run a hidden batch."""
    rule = {"type": "call", "to": [ACCOUNT, TOKEN]}
    nested = execute(ACCOUNT, execute(OTHER_ADDRESS, b"", 1))
    assert check(allow(rule), request(nested)) == "permissions"
    assert check(allow(rule), request(batch((TOKEN, 0, b""), (ACCOUNT, 0, b"")))) == "permissions"
    assert check(allow(rule), request(execute(TOKEN, b""))) is None


@pytest.mark.parametrize("sender", [ACCOUNT, ACCOUNT.lower(), "0x" + ACCOUNT[2:].upper()])
def test_the_account_is_known_in_any_spelling(sender: str) -> None:
    """Capital letters do not make another account."""
    rule = {"type": "call", "to": ACCOUNT}
    assert check(allow(rule), request(execute(ACCOUNT, b""), sender=sender)) == "permissions"
    assert (
        check(allow(erc20(), account=ACCOUNT.lower()), request(execute(TOKEN, approve()), sender=sender))
        is None
    )


def test_targets_selectors_and_value_of_a_call() -> None:
    """A call rule: who, which function, how many wei."""
    rule = {
        "type": "call",
        "to": [TOKEN, SPENDER],
        "selectors": ["mint(uint256)", "0x12345678", "0x"],
        "valueLimit": "7",
    }
    mint = encode_call("mint(uint256)", 1)
    assert check(allow(rule), request(execute(TOKEN, mint, 7))) is None
    assert check(allow(rule), request(execute(SPENDER, bytes.fromhex("12345678") + b"more"))) is None
    assert check(allow(rule), request(execute(SPENDER, b"", 7))) is None
    assert check(allow(rule), request(execute(OTHER_ADDRESS, mint))) == "permissions[0].to"
    assert check(allow(rule), request(execute(TOKEN, transfer()))) == "permissions[0].selectors"
    assert check(allow(rule), request(execute(TOKEN, mint, 8))) == "permissions[0].valueLimit"


@pytest.mark.parametrize("data", [b"\x12", b"\x12\x34\x56"])
def test_a_cut_selector_is_no_selector(data: bytes) -> None:
    """One to three bytes reach a fallback function, not a plain transfer."""
    rule = {"type": "call", "to": TOKEN, "selectors": ["0x", "0x12345678"]}
    assert check(allow(rule), request(execute(TOKEN, data))) == "permissions[0].selectors"
    assert check(allow({"type": "call", "to": TOKEN}), request(execute(TOKEN, data))) is None


def test_no_value_unless_allowed() -> None:
    """A call rule without a limit allows no wei."""
    rule = {"type": "call", "to": TOKEN}
    assert check(allow(rule), request(execute(TOKEN, b"", 1))) == "permissions[0].valueLimit"


def test_the_value_limit_of_an_operation_counts_all_calls() -> None:
    """Parts below the limit of a rule do not add up beyond that of the operation; sums do not overflow."""
    rule = {"type": "call", "to": TOKEN, "valueLimit": hex(2**256 - 1)}
    permissions = allow(rule, valueLimit=10)
    assert check(permissions, request(batch((TOKEN, 5, b""), (TOKEN, 5, b"")))) is None
    assert check(permissions, request(batch((TOKEN, 5, b""), (TOKEN, 6, b"")))) == "valueLimit"
    half = 2**255
    assert check(permissions, request(batch((TOKEN, half, b""), (TOKEN, half, b"")))) == "valueLimit"


def test_the_number_of_calls_is_limited() -> None:
    """callLimit bounds a batch."""
    calls = [(TOKEN, 0, approve())] * 3
    assert check(allow(erc20(), callLimit=3), request(batch(*calls))) is None
    assert check(allow(erc20(), callLimit=2), request(batch(*calls))) == "callLimit"


@pytest.mark.parametrize("chains", [CHAIN, [1, CHAIN]])
def test_the_chain(chains: Any) -> None:
    """Another chain's operation is refused, whether the limit stands above or in the rule."""
    elsewhere = request(execute(TOKEN, approve()), chain_id=137)
    assert check(allow(erc20(), chainId=chains), APPROVAL) is None
    assert check(allow(erc20(), chainId=chains), elsewhere) == "chainId"
    assert check(allow(erc20(chainId=chains)), elsewhere) == "permissions[0].chainId"


@pytest.mark.parametrize(
    ("now", "rule"), [(99.9, "validAfter"), (100, None), (200.9, None), (201, "validUntil")]
)
def test_the_validity_window(now: float, rule: str | None) -> None:
    """Both ends belong to the window, whether it stands above or in the rule."""
    window = {"validAfter": 100, "validUntil": 200}
    assert check(allow(erc20(), **window), APPROVAL, now=now) == rule
    assert check(allow(erc20(**window)), APPROVAL, now=now) == (rule and f"permissions[0].{rule}")


def test_the_entry_point() -> None:
    """An operation for an entry point that is not named is refused."""
    assert check(allow(erc20(), entryPoint=ENTRY_POINTS["v0.6.0"]), APPROVAL) is None
    assert check(allow(erc20(), entryPoint=[ENTRY_POINTS["v0.7.0"]]), APPROVAL) == "entryPoint"


def test_an_entry_point_is_well_known_or_named_and_never_another_versions() -> None:
    """What an operation means is decided by its entry point: an unknown one could read anything into it."""
    approval = execute(TOKEN, approve())
    unknown = request(approval, entry_point=OTHER_ADDRESS)
    crossed = request(approval, entry_point=ENTRY_POINTS["v0.7.0"])
    assert check(allow(erc20()), unknown) == "entryPoint"
    assert check(allow(erc20(), entryPoint=OTHER_ADDRESS), unknown) is None
    assert check(allow(erc20()), crossed) == "entryPoint"
    assert check(allow(erc20(), entryPoint=list(ENTRY_POINTS.values())), crossed) == "entryPoint"


@pytest.mark.parametrize("kind", ["rawBytes", "EIP712"])
def test_transactions_authorisations_and_typed_data_are_never_allowed(kind: str) -> None:
    """They reach nodes as a digest or as typed data, on whatever chain."""
    typed = {"types": {"A": []}, "primaryType": "A", "domain": {"chainId": CHAIN}, "message": {}}
    message = json.dumps(typed) if kind == "EIP712" else "0x" + "ab" * 32
    what = SignRequest(request_type=kind, message=message)
    assert check(allow(erc20(), chainId=CHAIN), what) == "requestType"


def test_the_account() -> None:
    """A session that owns several accounts can be held to one."""
    assert check(allow(erc20(), account=[ACCOUNT]), APPROVAL) is None
    assert check(allow(erc20(), account=OTHER_ADDRESS), APPROVAL) == "account"


@pytest.mark.parametrize(
    ("version", "members"),
    [("v0.6.0", {"initCode": SPENDER + "aabb"}), ("v0.7.0", {"factory": SPENDER, "factoryData": "0xaabb"})],
)
def test_a_deployment_needs_its_factory(version: str, members: dict[str, str]) -> None:
    """Deploying is refused unless the factory is named."""
    what = request(execute(TOKEN, approve()), version=version, **members)
    assert check(allow(erc20()), what) == "factory"
    assert check(allow(erc20(), factory=OTHER_ADDRESS), what) == "factory"
    assert check(allow(erc20(), factory=SPENDER), what) is None


@pytest.mark.parametrize(
    ("version", "members"),
    [
        ("v0.6.0", {"paymasterAndData": SPENDER + "aabb"}),
        ("v0.7.0", {"paymaster": SPENDER}),
        ("v0.7.0", {"paymasterAndData": SPENDER + "00" * 32}),
    ],
)
def test_paymasters(version: str, members: dict[str, str]) -> None:
    """Any paymaster unless some are named; an empty list means none."""
    what = request(execute(TOKEN, approve()), version=version, **members)
    assert check(allow(erc20()), what) is None
    assert check(allow(erc20(), paymasters=[SPENDER]), what) is None
    assert check(allow(erc20(), paymasters=[OTHER_ADDRESS]), what) == "paymasters"
    assert check(allow(erc20(), paymasters=[]), what) == "paymasters"
    assert check(allow(erc20(), paymasters=[]), APPROVAL) is None


@pytest.mark.parametrize(
    ("version", "members", "cost"),
    [
        ("v0.6.0", {}, 1 + 10 + 100),
        ("v0.6.0", {"paymasterAndData": SPENDER}, 1 + 3 * 10 + 100),
        ("v0.7.0", {}, 1 + 10 + 100),
        (
            "v0.7.0",
            {"paymaster": SPENDER, "paymasterVerificationGasLimit": 1000, "paymasterPostOpGasLimit": 10000},
            11111,
        ),
    ],
)
def test_the_cost_of_gas(version: str, members: dict[str, Any], cost: int) -> None:
    """What the entry point may take for gas at most is what it reserves; every part of it counts."""
    gas = {"callGasLimit": 1, "verificationGasLimit": 10, "preVerificationGas": 100, "maxFeePerGas": 7}
    what = request(execute(TOKEN, approve()), version=version, **gas, **members)
    assert check(allow(erc20(), gasCostLimit=7 * cost), what) is None
    assert check(allow(erc20(), gasCostLimit=7 * cost - 1), what) == "gasCostLimit"


def test_a_packed_operation_is_checked_alike() -> None:
    """The packed form hides no gas and no paymaster."""
    members: dict[str, Any] = dict.fromkeys(
        ["callGasLimit", "verificationGasLimit", "maxFeePerGas", "maxPriorityFeePerGas"]
    )
    members |= {"accountGasLimits": "0x" + "00" * 15 + "01" + "00" * 15 + "02", "preVerificationGas": 3}
    members |= {"gasFees": "0x" + "00" * 31 + "05", "paymasterAndData": SPENDER + "00" * 32}
    what = request(execute(TOKEN, approve()), version="v0.7.0", **members)
    assert check(allow(erc20(), gasCostLimit=30), what) is None
    assert check(allow(erc20(), gasCostLimit=29), what) == "gasCostLimit"
    assert check(allow(erc20(), paymasters=[]), what) == "paymasters"


def test_gas_is_limited_by_default() -> None:
    """Without a limit of the owner's, gas may cost one unit of the chain's currency: a drain must not look like gas."""
    at_most = request(
        execute(TOKEN, approve()),
        preVerificationGas=0,
        callGasLimit=0,
        verificationGasLimit=1,
        maxFeePerGas=hex(10**18),
    )
    beyond = request(
        execute(TOKEN, approve()),
        preVerificationGas=1,
        callGasLimit=0,
        verificationGasLimit=1,
        maxFeePerGas=hex(10**18),
    )
    assert check(allow(erc20()), at_most) is None
    assert check(allow(erc20()), beyond) == "gasCostLimit"


@given(
    prefix=st.sampled_from(
        [b"", *map(function_selector, ("execute(address,uint256,bytes)", "execute(bytes32,bytes)"))]
    ),
    data=st.binary(max_size=300),
    permissions=st.sampled_from([OF_THE_CLIENTS, json.dumps(allow({"type": "call", "to": TOKEN}))]),
)
def test_random_call_data_is_refused(prefix: bytes, data: bytes, permissions: str) -> None:
    """No random bytes get through, and none crash."""
    assert find_refusal(permissions, request(prefix + data), now=NOW) is not None


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=9),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["permissions", "type", "to", "args", "method", "erc20"]), inner, max_size=4
            )
        ),
        max_leaves=12,
    )
)
def test_random_permissions_never_crash_nor_allow(value: Any) -> None:
    """Whatever stands for permissions, the answer is a refusal."""
    with contextlib.suppress(PermissionDeniedError):
        assert find_refusal(json.dumps(value), APPROVAL, now=NOW) is not None
