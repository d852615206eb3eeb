"""
Whether permissions allow a request. Pure: the nodes ask before they sign, and a client may ask earlier.

Nothing is remembered between requests: limits hold for each call or each operation, never for the sum over time.

The calls that a smart account will make are read from the call data of a user operation, by the functions through which
common accounts are told to call others:

- SimpleAccount (eth-infinitism, v0.6 to v0.8), and the accounts that took over its functions;
- Biconomy V2 (SmartAccount.sol), with the two functions whose names were chosen for cheap selectors;
- ERC-7579 accounts: ``execute(bytes32 mode, bytes)`` in the plain single and batch modes.

Anything else is refused, and so is every encoding but the canonical one: the account must not read other calls than were
seen here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dan_async._values import check_instance
from dan_async.crypto.abi import decode_arguments, function_selector
from dan_async.crypto.address import parse_address, to_checksum_address
from dan_async.errors import InvalidFieldError, PermissionDeniedError
from dan_async.permissions.rules import CallRule, Conditions, Erc20Rule, Permissions, Rule, parse_permissions
from dan_async.protocols.sign_request import RequestType, SignRequest
from dan_async.types import Address
from dan_async.user_operation import (
    ENTRY_POINTS,
    Call,
    PackedUserOperation,
    UserOperation,
    UserOperationV07,
    user_operation_from_dict,
)

#: How much of the verification gas EntryPoint v0.6 reserves when a paymaster's code runs besides the account's.
_V06_PAYMASTER_FACTOR = 3

_ERC20_ARGUMENTS = "(address,uint256)"

_ERC20_SELECTORS = {
    method: function_selector(f"{method}{_ERC20_ARGUMENTS}") for method in ("transfer", "approve")
}

_SELECTOR_LENGTH = 4
_ADDRESS_LENGTH = 20
_WORD = 32
_NO_ADDRESS = "0x" + "00" * _ADDRESS_LENGTH


def find_refusal(permissions: str | None, request: SignRequest, *, now: float) -> str | None:
    """
    Return why a request may not be signed, fit to be shown, or None if it may. Nodes ask this before they sign anything.

    Args:
        permissions: The key's permissions, in the owner's own text; None for no limits.
        request: The request.
        now: The time, in Unix seconds.
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
        permissions: The owner's permissions.
        request: The request. Only user operations can be allowed: a signature over a text or a digest of the caller's
            choice could authorise anything, a user operation outside the permissions included.
        now: The time, in Unix seconds.

    Raises:
        PermissionDeniedError: They do not; ``rule`` says which part of them.
        InvalidFieldError: The request's user operation does not have the form of its version.
    """
    check_instance("request", request, SignRequest)
    if request.request_type is not RequestType.USER_OPERATION:
        raise PermissionDeniedError(
            "requestType",
            f"{request.request_type} could sign anything",
            hint="Under permissions only user operations are signed (accountAbstractionTx)",
        )
    found: dict[str, Any] = request.content
    operation = user_operation_from_dict(found["userOperation"], version=found["entryPointVersion"])
    chain_id: int = found["chainId"]
    entry_point = parse_address("entryPointAddress", found["entryPointAddress"])
    _check_conditions(permissions.conditions, "", chain_id, now)
    known = {ENTRY_POINTS[operation.version]}
    if entry_point not in (known if permissions.entry_points is None else permissions.entry_points):
        raise PermissionDeniedError("entryPoint", "the entry point is not an allowed one")
    if entry_point in set(ENTRY_POINTS.values()) - known:
        raise PermissionDeniedError("entryPoint", "the entry point is that of another version")
    _check_operation(permissions, operation)
    calls = decode_calls(operation.call_data)
    if len(calls) > permissions.most_calls:
        raise PermissionDeniedError("callLimit", f"there are more than {permissions.most_calls} calls")
    if permissions.value_limit is not None and sum(call.value for call in calls) > permissions.value_limit:
        raise PermissionDeniedError("valueLimit", "the calls together send too much wei")
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
        raise PermissionDeniedError("account", "the sender is not an allowed account")
    factory = _first_address("factory", operation.init_code)
    if factory is not None and factory not in permissions.factories:
        raise PermissionDeniedError(
            "factory", "the factory that would deploy the account is not an allowed one"
        )
    paymaster = _first_address("paymaster", operation.paymaster_and_data)
    if (
        paymaster is not None
        and permissions.paymasters is not None
        and paymaster not in permissions.paymasters
    ):
        raise PermissionDeniedError("paymasters", "the paymaster is not an allowed one")
    if gas_cost(operation) > permissions.most_gas_cost:
        raise PermissionDeniedError(
            "gasCostLimit", f"the gas could cost more than {permissions.most_gas_cost} wei"
        )


def _first_address(name: str, value: bytes) -> Address | None:
    return parse_address(name, "0x" + value[:_ADDRESS_LENGTH].hex()) if value else None


def gas_cost(operation: UserOperation) -> int:
    """Return the most that the entry point may take for gas: the sum it reserves before it begins."""
    if isinstance(operation, PackedUserOperation):
        operation = UserOperationV07.from_packed(operation)
    verification = operation.verification_gas_limit
    if isinstance(operation, UserOperationV07):
        verification += operation.paymaster_verification_gas_limit or 0
        verification += operation.paymaster_post_op_gas_limit or 0
    elif operation.paymaster_and_data:
        verification *= _V06_PAYMASTER_FACTOR
    gas = operation.call_gas_limit + verification + operation.pre_verification_gas
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
        return [*steps, (False, "args", "they cannot be decoded safely")]
    name = rule.counterparty_name
    is_known = rule.counterparties is None or counterparty in rule.counterparties
    steps.append((call.value == 0, "method", "it sends wei, which ERC-20 has no use for"))
    steps.append((is_known, f"args.{name}", f"the {name} is another one"))
    if rule.amount is not None:
        problem = f"the amount is not {rule.amount.comparison} {rule.amount.value}"
        steps.append((rule.amount.allows(amount), "args.value", problem))
    return steps


#: Most calls of one operation that are looked at.
_MOST_CALLS = 256


def decode_calls(call_data: bytes) -> tuple[Call, ...]:
    """
    Return the calls that a smart account makes when the entry point calls it; one at least.

    Args:
        call_data: The call data of the user operation.

    Raises:
        PermissionDeniedError: It is not the canonical encoding of a call to one of the known functions.
    """
    selector = check_instance("call_data", call_data, bytes)[:_SELECTOR_LENGTH]
    decode = _DECODERS.get(selector) if len(selector) == _SELECTOR_LENGTH else None
    if decode is None:
        raise PermissionDeniedError(
            "callData",
            "is not a call to a function that can be decoded",
            hint="Readable: execute and executeBatch of SimpleAccount, Biconomy V2 and ERC-7579 accounts",
        )
    try:
        calls = decode(call_data[_SELECTOR_LENGTH:])
    except InvalidFieldError as error:
        raise PermissionDeniedError(
            "callData", f"cannot be decoded safely: {error.message.removeprefix('data ')}"
        ) from error
    if not 1 <= len(calls) <= _MOST_CALLS:
        raise PermissionDeniedError("callData", f"must hold 1 to {_MOST_CALLS} calls")
    return calls


def _single(data: bytes) -> tuple[Call, ...]:
    return (Call(*decode_arguments("(address,uint256,bytes)", data)),)


def _batch_without_values(data: bytes) -> tuple[Call, ...]:
    targets, datas = decode_arguments("(address[],bytes[])", data)
    return _zip(targets, (0,) * len(targets), datas)


def _batch(data: bytes) -> tuple[Call, ...]:
    targets, values, datas = decode_arguments("(address[],uint256[],bytes[])", data)
    # SimpleAccount v0.7 takes an empty list of values for all zeros; other accounts revert.
    return _zip(targets, values or (0,) * len(targets), datas)


def _zip(targets: tuple[Any, ...], values: tuple[Any, ...], datas: tuple[Any, ...]) -> tuple[Call, ...]:
    if not len(targets) == len(values) == len(datas):
        raise InvalidFieldError("data", "has lists of different lengths")
    return tuple(map(Call, targets, values, datas))


def _batch_of_tuples(data: bytes) -> tuple[Call, ...]:
    (calls,) = decode_arguments("((address,uint256,bytes)[])", data)
    return tuple(Call(*call) for call in calls)


def _erc7579(data: bytes) -> tuple[Call, ...]:
    mode, execution = decode_arguments("(bytes32,bytes)", data)
    call_type, exec_type = mode[0], mode[1]
    if exec_type == 0x01:  # half a batch may be what no rule meant to allow: an approval whose swap failed
        raise InvalidFieldError("data", "goes on after a call that failed (try mode)")
    if exec_type != 0x00:
        raise InvalidFieldError("data", "has an execution type that is not known")
    if any(mode[2:]):  # nothing here gives the rest a meaning
        raise InvalidFieldError("data", "has an execution mode that is not known")
    calls: tuple[Call, ...]
    if call_type == 0x00:
        head = _ADDRESS_LENGTH + _WORD
        if len(execution) < head:
            raise InvalidFieldError("data", "has a call that is cut short")
        target = to_checksum_address(execution[:_ADDRESS_LENGTH])
        calls = (Call(target, int.from_bytes(execution[_ADDRESS_LENGTH:head]), execution[head:]),)
    elif call_type == 0x01:
        calls = _batch_of_tuples(execution)
    else:
        name = {0xFE: "a static call", 0xFF: "a delegate call"}.get(call_type, "an unknown type of call")
        raise InvalidFieldError("data", f"has {name}; single and batch are allowed")
    if any(call.target == _NO_ADDRESS for call in calls):
        raise InvalidFieldError("data", "calls the zero address, which some accounts take for themselves")
    return calls


#: Function -> the reader of its arguments.
_FUNCTIONS: dict[str, Callable[[bytes], tuple[Call, ...]]] = {
    # SimpleAccount v0.6 and v0.7, Biconomy V2
    "execute(address,uint256,bytes)": _single,
    # SimpleAccount v0.6
    "executeBatch(address[],bytes[])": _batch_without_values,
    # SimpleAccount v0.6 (later releases) and v0.7, Biconomy V2
    "executeBatch(address[],uint256[],bytes[])": _batch,
    # SimpleAccount v0.8
    "executeBatch((address,uint256,bytes)[])": _batch_of_tuples,
    # Biconomy V2: selectors 0x0000189a and 0x00004680
    "execute_ncC(address,uint256,bytes)": _single,
    "executeBatch_y6U(address[],uint256[],bytes[])": _batch,
    # ERC-7579
    "execute(bytes32,bytes)": _erc7579,
}

_DECODERS = {function_selector(name): decode for name, decode in _FUNCTIONS.items()}
