"""
Which calls a smart account will make, read from the call data of a user operation.

Known are the functions by which common accounts are told to call others:

- SimpleAccount (eth-infinitism, v0.6 to v0.8), and the accounts that took over its functions;
- Biconomy V2 (SmartAccount.sol), with the two functions whose names were chosen for cheap selectors;
- ERC-7579 accounts: ``execute(bytes32 mode, bytes)`` in its single and batch call types.

Anything else is refused, and so is every encoding but the canonical one: the account must not read other calls than were
seen here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dan_async.crypto.abi import decode_arguments, function_selector
from dan_async.crypto.address import to_checksum_address
from dan_async.errors import InvalidFieldError, PermissionDeniedError
from dan_async.models.call import Call

__all__ = ["decode_calls"]

_SELECTOR_LENGTH = 4
_ADDRESS_LENGTH = 20
_WORD = 32

#: What follows the first two bytes of an ERC-7579 mode: nothing here gives a meaning to any of it, so it must be zero.
_REST_OF_MODE = bytes(30)

#: Most calls of one operation that are looked at.
_MOST_CALLS = 256


def decode_calls(call_data: bytes) -> tuple[Call, ...]:
    """
    Give the calls that a smart account makes when the entry point calls it so; one at least.

    Args:
        call_data: The call data of the user operation.

    Raises:
        PermissionDeniedError: It is not the canonical encoding of a call to one of the known functions.
    """
    selector = call_data[:_SELECTOR_LENGTH]
    decode = _DECODERS.get(selector) if len(selector) == _SELECTOR_LENGTH else None
    if decode is None:
        raise PermissionDeniedError(
            "callData",
            "is not a call to a function whose effects can be read",
            hint="Readable: execute and executeBatch of SimpleAccount, Biconomy V2 and ERC-7579 accounts",
        )
    try:
        calls = decode(call_data[_SELECTOR_LENGTH:])
    except InvalidFieldError as error:
        raise PermissionDeniedError(
            "callData", f"cannot be read without doubt: {error.message.removeprefix('data ')}"
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
    if exec_type not in (0x00, 0x01):  # revert as a whole, or go on after a failed call
        raise InvalidFieldError("data", "has an execution type that is not known")
    if mode[2:] != _REST_OF_MODE:
        raise InvalidFieldError("data", "has an execution mode that is not known")
    if call_type == 0x00:
        return _erc7579_single(execution)
    if call_type == 0x01:
        return _batch_of_tuples(execution)
    name = {0xFE: "a static call", 0xFF: "a delegate call"}.get(call_type, "an unknown type of call")
    raise InvalidFieldError("data", f"has {name}; single and batch are allowed")


def _erc7579_single(execution: bytes) -> tuple[Call, ...]:
    head = _ADDRESS_LENGTH + _WORD
    if len(execution) < head:
        raise InvalidFieldError("data", "has a call that is cut short")
    target = to_checksum_address(execution[:_ADDRESS_LENGTH])
    return (Call(target, int.from_bytes(execution[_ADDRESS_LENGTH:head]), execution[head:]),)


#: Function -> how its arguments tell the calls.
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
