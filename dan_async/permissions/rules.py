"""
A session's permissions: their form, and how their JSON is read. See docs/how-to/permissions.md for the table.

The form with ``"type": "erc20"`` is the one that the public clients send; the rest is built around it in its manner. Every
member is read strictly: an unknown restriction must not be passed over.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, TypeAlias, TypeVar

from attrs import frozen

from dan_async._json import is_too_deep
from dan_async._values import (
    MAX_PERMISSIONS_LENGTH,
    MAX_SAFE_INT,
    check_instance,
    check_int,
    check_text,
    number_of,
    shown_name,
)
from dan_async.crypto.abi import function_selector
from dan_async.crypto.address import parse_address
from dan_async.errors import InvalidFieldError
from dan_async.types import Address

T = TypeVar("T")

_MAX_DEPTH = 64
_MOST_ITEMS = 256
_SELECTOR = re.compile(r"0x(?:[0-9a-fA-F]{8})?\Z")
_read_amount = number_of(256)

#: Most that gas may cost in one operation if the permissions do not say: one whole unit of the chain's currency.
DEFAULT_GAS_COST = 10**18

_COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
    "==": operator.eq,
    ">=": operator.ge,
    ">": operator.gt,
    "!=": operator.ne,
}

#: ERC-20 method -> names of its argument that is an address: the standard's, and one that many tokens use.
_COUNTERPARTIES = {"transfer": ("to", "recipient"), "approve": ("spender",)}


@frozen(kw_only=True)
class Conditions:
    """Where and when something holds: the chains, the first and the last second in Unix time; None for no limit."""

    chain_ids: frozenset[int] | None = None
    valid_after: int | None = None
    valid_until: int | None = None


@frozen
class Bound:
    """A limit to an amount: one of ``< <= = == >= > !=``, and the value to compare with."""

    comparison: str
    value: int

    def allows(self, amount: int) -> bool:
        """Return whether the amount keeps the limit."""
        return _COMPARISONS[self.comparison](amount, self.value)


@frozen(kw_only=True)
class Erc20Rule:
    """
    Allows calls of one method of ERC-20 tokens.

    *path* is where the rule stands, for errors, and *counterparty_name* the owner's name for the argument that is an
    address. None stands for any counterparty, and for any amount.
    """

    path: str
    conditions: Conditions
    tokens: frozenset[Address]
    method: str
    counterparty_name: str
    counterparties: frozenset[Address] | None
    amount: Bound | None


@frozen(kw_only=True)
class CallRule:
    """
    Allows calls of contracts by target and function.

    *path* is where the rule stands, for errors. *selectors* is None for any function; an empty selector stands for no call
    data. *value_limit* is the most wei that each call may send.
    """

    path: str
    conditions: Conditions
    targets: frozenset[Address]
    selectors: frozenset[bytes] | None
    value_limit: int


Rule: TypeAlias = Erc20Rule | CallRule


@frozen(kw_only=True)
class Permissions:
    """
    Everything that the owner allows.

    Args:
        rules: Each call of an operation must be allowed by one of these.
        conditions: Where and when anything is allowed at all.
        entry_points: The entry points; None for the well-known one of the operation's version.
        accounts: The smart accounts that may be the sender; None for any.
        factories: The factories that may deploy the account.
        paymasters: The paymasters that may pay for gas; None for any, empty for none but the account itself.
        value_limit: Maximum wei that all calls of one operation may send together; None for no limit but the rules'.
        most_gas_cost: Maximum wei that the gas of one operation may cost.
        most_calls: Maximum number of calls in one operation.
    """

    rules: tuple[Rule, ...]
    conditions: Conditions = Conditions()
    entry_points: frozenset[Address] | None = None
    accounts: frozenset[Address] | None = None
    factories: frozenset[Address] = frozenset()
    paymasters: frozenset[Address] | None = None
    value_limit: int | None = None
    most_gas_cost: int = DEFAULT_GAS_COST
    most_calls: int = 256


_CONDITIONS = ("chainId", "validAfter", "validUntil")

_TOP = (
    "permissions",
    *_CONDITIONS,
    *("entryPoint", "account", "factory", "paymasters", "valueLimit", "gasCostLimit", "callLimit"),
)

_ERC20 = ("type", "method", "to", "args", *_CONDITIONS)

_CALL = ("type", "to", "selectors", "valueLimit", *_CONDITIONS)


def parse_permissions(text: str) -> Permissions:
    """
    Return the permissions that the owner set at key generation, read and checked.

    Args:
        text: The JSON text: an object, or just the list of its rules.

    Raises:
        InvalidFieldError: It does not have the documented form; the error has the path of the wrong member.
    """
    return _parsed(check_instance("permissions", text, str))


@lru_cache(maxsize=8)  # every key of a batch has the same text, and every signature of a session
def _parsed(text: str) -> Permissions:
    found = _load(text)
    if isinstance(found, list):
        found = {"permissions": found}
    found = _read_object("permissions", found, _TOP, ())
    if "permissions" not in found:
        raise InvalidFieldError(
            "permissions", 'must be a list of rules, or an object with that list as "permissions"'
        )

    return Permissions(
        rules=_read_list("permissions", found["permissions"], _read_rule),
        conditions=_read_conditions(found, ""),
        entry_points=_if_there(found, "entryPoint", _read_addresses),
        accounts=_if_there(found, "account", _read_addresses),
        factories=_if_there(found, "factory", _read_addresses) or frozenset(),
        paymasters=_if_there(found, "paymasters", partial(_read_set, read=parse_address)),
        value_limit=_if_there(found, "valueLimit", _read_amount),
        most_gas_cost=_read_amount("gasCostLimit", found.get("gasCostLimit", DEFAULT_GAS_COST)),
        most_calls=_read_amount("callLimit", found.get("callLimit", 256)),
    )


def _read_conditions(found: Mapping[str, Any], prefix: str) -> Conditions:
    read_chain_ids = partial(_read_one_or_list, read=partial(check_int, least=1, most=MAX_SAFE_INT))
    read_time = partial(check_int, least=0, most=2**48 - 1)
    conditions = Conditions(
        chain_ids=_if_there(found, "chainId", read_chain_ids, prefix),
        valid_after=_if_there(found, "validAfter", read_time, prefix),
        valid_until=_if_there(found, "validUntil", read_time, prefix),
    )
    if (conditions.valid_after or 0) > (2**48 if conditions.valid_until is None else conditions.valid_until):
        raise InvalidFieldError(f"{prefix}validUntil", "is before validAfter, so nothing is ever allowed")
    return conditions


def _read_rule(path: str, value: Any) -> Rule:
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "erc20":
        return _read_erc20(path, value)
    if kind == "call":
        return _read_call(path, value)
    raise InvalidFieldError(f"{path}.type", "must be erc20 or call")


def _read_erc20(path: str, value: Any) -> Erc20Rule:
    found = _read_object(path, value, _ERC20, ("method", "to"))
    method = found["method"]
    if not isinstance(method, str) or method not in _COUNTERPARTIES:
        raise InvalidFieldError(f"{path}.method", f"must be one of {', '.join(_COUNTERPARTIES)}")
    names, args_path = _COUNTERPARTIES[method], f"{path}.args"
    args = _read_object(args_path, found.get("args", {}), (*names, "value", "eq"), ())
    given = [name for name in names if name in args]
    if len(given) > 1:
        raise InvalidFieldError(f"{args_path}.{given[1]}", f"is the same as {given[0]}")
    if ("value" in args) is not ("eq" in args):
        missing = "eq" if "value" in args else "value"
        raise InvalidFieldError(f"{args_path}.{missing}", "is missing: value and eq belong together")
    bound = None
    if "value" in args:
        if not isinstance(args["eq"], str) or args["eq"] not in _COMPARISONS:
            raise InvalidFieldError(f"{args_path}.eq", f"must be one of {' '.join(_COMPARISONS)}")
        bound = Bound(args["eq"], _read_amount(f"{args_path}.value", args["value"]))
    return Erc20Rule(
        path=path,
        conditions=_read_conditions(found, f"{path}."),
        tokens=_read_addresses(f"{path}.to", found["to"]),
        method=method,
        counterparty_name=(given or names)[0],
        counterparties=_if_there(args, given[0], _read_addresses, f"{args_path}.") if given else None,
        amount=bound,
    )


def _read_call(path: str, value: Any) -> CallRule:
    found = _read_object(path, value, _CALL, ("to",))
    read_selectors = partial(_read_set, read=_read_selector, least=1)
    return CallRule(
        path=path,
        conditions=_read_conditions(found, f"{path}."),
        targets=_read_addresses(f"{path}.to", found["to"]),
        selectors=_if_there(found, "selectors", read_selectors, f"{path}."),
        value_limit=_read_amount(f"{path}.valueLimit", found.get("valueLimit", 0)),
    )


def permissions_text(value: str | Mapping[str, Any] | Sequence[Any] | None) -> str | None:
    """Return permissions as the JSON text for the wire: text exactly as it is, an object or list written compactly."""
    if value is None:
        return None
    if isinstance(value, str):
        text = check_text("permissions", value, most=MAX_PERMISSIONS_LENGTH)
        if is_too_deep(text, _MAX_DEPTH):
            raise InvalidFieldError("permissions", f"must not be nested more than {_MAX_DEPTH} levels deep")
        try:
            parsed = json.loads(text, parse_constant=_refuse_constant)
        except ValueError:
            raise InvalidFieldError("permissions", "is not JSON text") from None
        if not isinstance(parsed, dict | list):
            raise InvalidFieldError("permissions", "must be a JSON object or list")
        return text
    if not isinstance(value, Mapping | Sequence) or isinstance(value, bytes | bytearray):
        raise InvalidFieldError("permissions", f"must be JSON text or an object, not {type(value).__name__}")
    if _is_nested(value, _MAX_DEPTH):
        raise InvalidFieldError("permissions", f"must not be nested more than {_MAX_DEPTH} levels deep")
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise InvalidFieldError("permissions", "holds something that JSON cannot carry") from None
    return check_text("permissions", text, most=MAX_PERMISSIONS_LENGTH)


def _is_nested(value: object, most: int) -> bool:
    """Whether it is nested deeper: with the recursion limit that some libraries set, the JSON encoder would crash."""
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return most < 0 or any(_is_nested(each, most - 1) for each in inner)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _load(text: str) -> Any:
    """Read the JSON text: repeated members and numbers that are not whole are refused."""
    permissions_text(text)  # length, depth, and that it is JSON at all
    return json.loads(text, object_pairs_hook=_refuse_repeated, parse_float=_refuse_float)


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InvalidFieldError("permissions", "has an object with a member given twice")
    return found


def _refuse_float(_: str) -> Any:
    raise InvalidFieldError(
        "permissions", "holds a number that is not whole", hint="Give large numbers as text"
    )


def _read_object(path: str, value: Any, known: Iterable[str], required: Iterable[str]) -> Mapping[str, Any]:
    """Check an object's members."""
    known = tuple(known)
    if not isinstance(value, dict):
        raise InvalidFieldError(path, "must be a JSON object")
    for name in required:
        if name not in value:
            raise InvalidFieldError(f"{path}.{name}", "is missing")
    for name in value:
        if name not in known:
            found = shown_name(name, otherwise="a member")
            raise InvalidFieldError(
                path, f"has {found}, which is not known here", hint=f"Members: {', '.join(known)}"
            )
    return value


def _read_list(path: str, value: Any, read: Callable[[str, Any], T], *, least: int = 0) -> tuple[T, ...]:
    if not isinstance(value, list):
        raise InvalidFieldError(path, "must be a list")
    if not least <= len(value) <= _MOST_ITEMS:
        raise InvalidFieldError(path, f"must be a list of {least} to {_MOST_ITEMS}")
    return tuple(read(f"{path}[{index}]", item) for index, item in enumerate(value))


def _read_set(path: str, value: Any, read: Callable[[str, Any], T], *, least: int = 0) -> frozenset[T]:
    return frozenset(_read_list(path, value, read, least=least))


def _read_one_or_list(path: str, value: Any, read: Callable[[str, Any], T]) -> frozenset[T]:
    """Read one value, or a list of one or more."""
    if isinstance(value, list):
        return _read_set(path, value, read, least=1)
    return frozenset({read(path, value)})


_read_addresses = partial(_read_one_or_list, read=parse_address)


def _if_there(
    found: Mapping[str, Any], name: str, read: Callable[[str, Any], T], prefix: str = ""
) -> T | None:
    """Read a member that may be missing."""
    return read(prefix + name, found[name]) if name in found else None


def _read_selector(path: str, value: Any) -> bytes:
    """Read a selector: 0x and 8 hex digits, a function's signature, or 0x for no call data at all."""
    if isinstance(value, str) and "(" in value:
        try:
            return function_selector(value)
        except InvalidFieldError as error:
            raise InvalidFieldError(path, error.problem) from None
    if isinstance(value, str) and _SELECTOR.match(value):
        return bytes.fromhex(value[2:])
    raise InvalidFieldError(
        path, "must be a function's signature, 0x and 8 hex digits, or 0x for a transfer without call data"
    )
