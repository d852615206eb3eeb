"""
Whether permissions allow a request. Pure: the nodes ask before they sign, and a client may ask earlier.

Nothing is remembered between requests: limits hold for each call or each operation, never for the sum over time.
"""

from __future__ import annotations

from typing import Any

from dan_async.crypto.abi import decode_arguments, function_selector
from dan_async.crypto.address import parse_address
from dan_async.errors import InvalidFieldError, PermissionDeniedError
from dan_async.models.call import Call
from dan_async.models.user_operation import (
    PackedUserOperation,
    UserOperation,
    UserOperationV06,
    UserOperationV07,
    user_operation_from_dict,
)
from dan_async.permissions.calls import decode_calls
from dan_async.permissions.rules import CallRule, Conditions, Erc20Rule, Permissions, Rule, parse_permissions
from dan_async.types import Address
from dan_async.wire.members import load_text
from dan_async.wire.sign_request import RequestType, SignRequest

__all__ = ["check_permissions", "find_refusal"]

_ERC20_ARGUMENTS = "(address,uint256)"
_ERC20_SELECTORS = {
    method: function_selector(f"{method}{_ERC20_ARGUMENTS}") for method in ("transfer", "approve")
}
_SELECTOR_LENGTH = 4
_ADDRESS_LENGTH = 20

#: How much of the verification gas EntryPoint v0.6 reserves when a paymaster's code runs besides the account's.
_V06_PAYMASTER_FACTOR = 3


def find_refusal(permissions: str | None, request: SignRequest, *, now: float) -> str | None:
    """
    Tell why a request may not be signed, or that it may. What nodes ask, in one place, before anything is signed.

    Args:
        permissions: The key's permissions as its owner gave them; None for no limits.
        request: The request.
        now: The time, in Unix seconds.

    Returns:
        The reason, fit to be shown to whoever asked; None if the request is allowed.
    """
    if permissions is None:
        return None
    try:
        check_permissions(parse_permissions(permissions), request, now=now)
    except PermissionDeniedError as denied:
        return denied.message
    except InvalidFieldError as error:
        # Permissions that cannot be read, or a user operation that cannot: nothing is allowed that is not understood.
        return f"the permissions or the request cannot be read: {error.message}"
    return None


def check_permissions(permissions: Permissions, request: SignRequest, *, now: float) -> None:
    """
    Check that the permissions allow a request.

    Args:
        permissions: What the owner allows.
        request: The request. Only user operations can be allowed: a signature over a text or a digest of the caller's
            choice could authorise anything, a user operation outside the permissions included.
        now: The time, in Unix seconds.

    Raises:
        PermissionDeniedError: They do not; ``rule`` says which part of them.
        InvalidFieldError: The request's user operation has not the form of its version.
    """
    if request.request_type is not RequestType.USER_OPERATION:
        raise PermissionDeniedError(
            "requestType",
            f"{request.request_type} could sign anything",
            hint="Under permissions only user operations are signed (accountAbstractionTx)",
        )
    found: dict[str, Any] = load_text(request.message)
    operation = user_operation_from_dict(found["userOperation"], version=found["entryPointVersion"])
    chain_id: int = found["chainId"]
    entry_point = parse_address("entryPointAddress", found["entryPointAddress"])
    _check_conditions(permissions.conditions, "", chain_id, now)
    if permissions.entry_points is not None and entry_point not in permissions.entry_points:
        raise PermissionDeniedError("entryPoint", "the entry point is another one")
    _check_operation(permissions, operation)
    calls = decode_calls(operation.call_data)
    if len(calls) > permissions.most_calls:
        raise PermissionDeniedError("callLimit", f"there are more than {permissions.most_calls} calls")
    if permissions.value_limit is not None and sum(call.value for call in calls) > permissions.value_limit:
        raise PermissionDeniedError("valueLimit", "the calls together send more wei")
    for position, call in enumerate(calls, 1):
        where = f"call {position} of {len(calls)}"
        if call.target == operation.sender:
            raise PermissionDeniedError(
                "permissions",
                f"{where} is to the account itself, which could change its owner or hide further calls",
            )
        _check_call(permissions.rules, call, where, chain_id, now)


def _check_conditions(conditions: Conditions, prefix: str, chain_id: int, now: float) -> None:
    if conditions.chain_ids is not None and chain_id not in conditions.chain_ids:
        raise PermissionDeniedError(f"{prefix}chainId", f"the request is for chain {chain_id}")
    if conditions.valid_after is not None and now < conditions.valid_after:
        raise PermissionDeniedError(f"{prefix}validAfter", "it is too early")
    if conditions.valid_until is not None and int(now) > conditions.valid_until:
        raise PermissionDeniedError(f"{prefix}validUntil", "it is too late")


def _check_operation(permissions: Permissions, operation: UserOperation) -> None:
    if permissions.accounts is not None and operation.sender not in permissions.accounts:
        raise PermissionDeniedError("account", "the sender is another account")
    factory = _first_address("factory", operation.init_code)
    if factory is not None and factory not in permissions.factories:
        raise PermissionDeniedError(
            "factory", "the account is to be deployed by a factory that is not among them"
        )
    paymaster = _first_address("paymaster", operation.paymaster_and_data)
    if (
        paymaster is not None
        and permissions.paymasters is not None
        and paymaster not in permissions.paymasters
    ):
        raise PermissionDeniedError("paymasters", "the paymaster is not among them")
    if _gas_cost(operation) > permissions.most_gas_cost:
        raise PermissionDeniedError(
            "gasCostLimit", f"the gas could cost more than {permissions.most_gas_cost} wei"
        )


def _first_address(name: str, value: bytes) -> Address | None:
    return parse_address(name, "0x" + value[:_ADDRESS_LENGTH].hex()) if value else None


def _gas_cost(operation: UserOperation) -> int:
    """Give the most that the entry point may take for gas: what it reserves before it begins."""
    if isinstance(operation, UserOperationV06):
        factor = _V06_PAYMASTER_FACTOR if operation.paymaster_and_data else 1
        gas = (
            operation.call_gas_limit
            + operation.verification_gas_limit * factor
            + operation.pre_verification_gas
        )
        return gas * operation.max_fee_per_gas
    if isinstance(operation, PackedUserOperation):
        operation = UserOperationV07.from_packed(operation)
    gas = (
        operation.call_gas_limit
        + operation.verification_gas_limit
        + (operation.paymaster_verification_gas_limit or 0)
        + (operation.paymaster_post_op_gas_limit or 0)
        + operation.pre_verification_gas
    )
    return gas * operation.max_fee_per_gas


def _check_call(rules: tuple[Rule, ...], call: Call, where: str, chain_id: int, now: float) -> None:
    """Raise the objection of the rule that came closest, unless one has none."""
    closest, objection = -1, ("permissions", "there is no rule")
    for rule in rules:
        steps = _check_erc20(rule, call) if isinstance(rule, Erc20Rule) else _check_target(rule, call)
        found = next(
            ((step, path, problem) for step, (ok, path, problem) in enumerate(steps) if not ok), None
        )
        if found is None:
            try:
                _check_conditions(rule.conditions, f"{rule.path}.", chain_id, now)
            except PermissionDeniedError as denied:
                closest, objection = len(steps), (denied.rule, denied.problem)
                continue
            return
        step, path, problem = found
        if step > closest:
            closest, objection = step, (f"{rule.path}.{path}", problem)
    rule_path, problem = objection
    raise PermissionDeniedError(rule_path, f"{where}: {problem}")


def _check_target(rule: CallRule, call: Call) -> list[tuple[bool, str, str]]:
    has_selector = len(call.data) >= _SELECTOR_LENGTH or not call.data
    return [
        (call.target in rule.targets, "to", "the target is another one"),
        (
            rule.selectors is None or (has_selector and call.selector in rule.selectors),
            "selectors",
            "the function is not among them",
        ),
        (call.value <= rule.value_limit, "valueLimit", "it sends more wei"),
    ]


def _check_erc20(rule: Erc20Rule, call: Call) -> list[tuple[bool, str, str]]:
    steps = [
        (call.target in rule.tokens, "to", "the token is another one"),
        (call.selector == _ERC20_SELECTORS[rule.method], "method", f"it is not {rule.method}"),
    ]
    if not all(ok for ok, _, _ in steps):
        return steps
    try:
        counterparty, amount = decode_arguments(_ERC20_ARGUMENTS, call.data[_SELECTOR_LENGTH:])
    except InvalidFieldError:
        return [*steps, (False, "args", "they cannot be read without doubt")]
    name = rule.counterparty_name
    is_known = rule.counterparties is None or counterparty in rule.counterparties
    steps.append((call.value == 0, "method", "it sends wei, which ERC-20 has no use for"))
    steps.append((is_known, f"args.{name}", f"the {name} is another one"))
    if rule.amount is not None:
        problem = f"the amount is not {rule.amount.comparison} {rule.amount.value}"
        steps.append((rule.amount.allows(amount), "args.value", problem))
    return steps
