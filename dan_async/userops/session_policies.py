"""
Sessions of Biconomy's Smart Account V2, as bytes: policies, leaves, trees, module signatures, the store's JSON.

Follows SessionKeyManagerModule, ERC20SessionValidationModule, ABISessionValidationModule and BatchedSessionRouterModule of
Biconomy's contracts (scw-contracts), and the forms that @biconomy/account 4.5.4 stores and sends. Pure: no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self, TypeAlias

from attrs import field, frozen

from dan_async._json import dump, load
from dan_async._values import check_int, check_list, check_mapping, check_text, from_hex, required, to_hex
from dan_async.crypto.abi import decode_arguments, encode_arguments, function_selector
from dan_async.crypto.address import parse_address, to_checksum_address
from dan_async.crypto.hashes import keccak256
from dan_async.errors import InvalidFieldError, PermissionDeniedError, ProtocolError
from dan_async.permissions.rules import Bound
from dan_async.session import DanModuleInfo
from dan_async.types import Address, Hex
from dan_async.user_operation import Call, UserOperationV06, normalise_addresses

#: The contract's numbers of conditions, in its order; they compare unsigned words.
_CONDITIONS = ("==", "<=", "<", ">=", ">", "!=")

_WORD, _SELECTOR = 32, 4
_UINT16, _UINT48, _UINT128, _UINT256 = (2**bits - 1 for bits in (16, 48, 128, 256))

#: A signature of DAN's form for the estimation of gas: it recovers to some address.
DUMMY_SESSION_SIGNATURE = bytes.fromhex(
    "73c3ac716c487ca34bb858247b5ccf1dc354fbaabdd089af3b2ac8e78ba85a49"
    "59a2d76250325bd67c11771c31fccda87c33ceec17cc0de912690521bb95ffcb1b"
)


@frozen(kw_only=True)
class SessionContracts:
    """
    The contracts that check sessions; Biconomy's own deployments, which have the same addresses on every chain.

    Args:
        manager: The session key manager, which keeps an account's root.
        router: The batched session router, for several calls in one operation.
        abi: The module that checks an ``AbiPolicy``.
        erc20: The module that checks an ``Erc20Policy``; the one whose key data are four words.
    """

    manager: Address = field(default=Address("0x000002FbFfedd9B33F4E7156F2DE8D48945E7489"), converter=Address)
    router: Address = field(default=Address("0x00000D09967410f8C76752A104c9848b57ebba55"), converter=Address)
    abi: Address = field(default=Address("0x000006bC2eCdAe38113929293d241Cf252D91861"), converter=Address)
    erc20: Address = field(default=Address("0x000000D50C68705bd6897B2d17c7de32FB519fDA"), converter=Address)

    def __attrs_post_init__(self) -> None:
        normalise_addresses(self, "manager", "router", "abi", "erc20")


def _module(value: object) -> Address:
    return parse_address("sessionValidationModule", value)


def _session_key(value: object) -> Address:
    return parse_address("sessionPublicKey", value)


# --- policies ---------------------------------------------------------------------------------------------------------


def _condition(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(_CONDITIONS):
        return _CONDITIONS[value]
    found = "==" if value == "=" else value
    if found not in _CONDITIONS:
        raise InvalidFieldError("condition", f"must be one of {' '.join(_CONDITIONS)}, or its number")
    return str(found)


def _word_text(value: object) -> str:
    """Return a word's 64 hex digits: ints, hex (to the right, as numbers stand), addresses, or 32 bytes as they are."""
    if isinstance(value, bytes):
        if len(value) != _WORD:
            raise InvalidFieldError(
                "value", f"must hold {_WORD} bytes as bytes; give a number or hex text otherwise"
            )
        return value.hex()
    if isinstance(value, str):
        raw = from_hex(value, field="value", prefix=True)
        if not 1 <= len(raw) <= _WORD:
            raise InvalidFieldError("value", f"must hold 1 to {_WORD} bytes, not {len(raw)}")
        digits = parse_address("value", value)[2:] if len(raw) == 20 else raw.hex()
        return digits.rjust(2 * _WORD, "0")
    return check_int("value", value, least=0, most=_UINT256).to_bytes(_WORD).hex()


@frozen
class AbiRule:
    """
    A condition on one word of a call's arguments.

    Args:
        offset: Where the word begins, in bytes after the selector, 0 to 65535: 32 times the position for arguments of one
            word.
        condition: One of ``== <= < >= > !=``, or the contract's number of it, 0 to 5. Words are compared as unsigned
            numbers.
        value: What to compare with: a number from 0 to 2**256 - 1, an address, other ``0x`` hex (a number), or the 32 bytes
            of the word.
    """

    offset: int = field(validator=required(check_int, least=0, most=_UINT16))
    condition: str = field(converter=_condition)
    value: str = field(converter=_word_text, eq=str.lower)

    def find_objection(self, arguments: bytes) -> str | None:
        """
        Return why the arguments break the rule, or None.

        Args:
            arguments: The call data behind the function's selector.
        """
        word = arguments[self.offset : self.offset + _WORD]
        if len(word) < _WORD:
            return f"there is no argument at byte {self.offset}"
        if Bound(self.condition, int(self.value, 16)).allows(int.from_bytes(word)):
            return None
        return f"the argument at byte {self.offset} is not {self.condition} 0x{self.value.lstrip('0') or '0'}"


def _rules(value: object) -> tuple[AbiRule, ...]:
    found = check_list("rules", value)
    if not all(isinstance(rule, AbiRule) for rule in found) or len(found) > _UINT16:
        raise InvalidFieldError("rules", f"must be AbiRules, at most {_UINT16}")
    return found


def _function(value: object) -> bytes:
    if isinstance(value, bytes):
        if len(value) != _SELECTOR:
            raise InvalidFieldError("function", f"must hold {_SELECTOR} bytes as bytes")
        return value
    return function_selector(check_text("function", value), field="function")


@frozen(kw_only=True)
class _Policy:
    #: The fields that are addresses.
    _addresses: ClassVar[tuple[str, ...]]

    valid_after: int = field(default=0, validator=required(check_int, least=0, most=_UINT48))
    valid_until: int = field(default=0, validator=required(check_int, least=0, most=_UINT48))

    def __attrs_post_init__(self) -> None:
        normalise_addresses(self, *self._addresses)
        if 0 < self.valid_until < self.valid_after:
            raise InvalidFieldError("valid_until", "is before valid_after, so nothing is ever allowed")

    def key_data(self, session_key: str) -> Hex:
        """
        Return the session key data of the module that checks the policy.

        Args:
            session_key: The session key's address.
        """
        raise NotImplementedError

    @classmethod
    def from_key_data(cls, data: bytes, **validity: int) -> Self:
        """
        Return the policy that session key data stand for.

        Args:
            data: The session key data of a leaf.
            **validity: *valid_after* and *valid_until*, in Unix seconds.

        Raises:
            InvalidFieldError: The data do not have the module's form.
        """
        raise NotImplementedError

    def find_objection(self, call: Call) -> tuple[str, str] | None:
        """
        Return the part of the policy that a call breaks and the problem, as the contract sees it; None if none.

        Args:
            call: The call.
        """
        raise NotImplementedError

    def permissions(self) -> list[dict[str, Any]]:
        """Return rules for the nodes that allow what the policy does, as far as they can tell."""
        raise NotImplementedError


@frozen(kw_only=True)
class AbiPolicy(_Policy):
    """
    Allows calls of one function of one contract, with conditions on its arguments; checked by the ABI module.

    Args:
        target: The contract.
        function: The function, as ``transfer(address,uint256)``, or its selector of 4 bytes.
        rules: Conditions, all of which must hold.
        value_limit: Most wei that each call may send, 0 to 2**128 - 1.
        valid_after: The first second, in Unix time, 0 to 2**48 - 1.
        valid_until: The last second; 0 for no end.
    """

    _addresses = ("target",)

    target: Address = field(converter=Address)
    function: bytes = field(converter=_function)
    rules: tuple[AbiRule, ...] = field(default=(), converter=_rules)
    value_limit: int = field(default=0, validator=required(check_int, least=0, most=_UINT128))

    def key_data(self, session_key: str) -> Hex:
        # Packed.
        rules = (f"{r.offset:04x}{_CONDITIONS.index(r.condition):02x}{r.value}" for r in self.rules)
        head = (
            f"{session_key}{self.target[2:]}{self.function.hex()}{self.value_limit:032x}{len(self.rules):04x}"
        )
        return head + "".join(rules)

    @classmethod
    def from_key_data(cls, data: bytes, **validity: int) -> Self:
        # The key stands before them.
        target, selector, rules = data[20:40], data[40:44], data[62:]
        if len(data) < 62 or len(rules) != 35 * int.from_bytes(data[60:62]):
            raise InvalidFieldError("sessionKeyData", "is not of the ABI module's form")
        return cls(
            target=to_checksum_address(target),
            function=selector,
            value_limit=int.from_bytes(data[44:60]),
            rules=[
                AbiRule(int.from_bytes(rules[at : at + 2]), rules[at + 2], rules[at + 3 : at + 35])
                for at in range(0, len(rules), 35)
            ],
            **validity,
        )

    def find_objection(self, call: Call) -> tuple[str, str] | None:
        if call.target != self.target:
            return "target", "the target is another one"
        if call.selector != self.function:
            return "function", "the function is another one"
        if call.value > self.value_limit:
            return "value_limit", f"it sends more than {self.value_limit} wei"
        for position, rule in enumerate(self.rules):
            problem = rule.find_objection(call.data[_SELECTOR:])
            if problem:
                return f"rules[{position}]", problem
        return None

    def permissions(self) -> list[dict[str, Any]]:
        # Nodes know no conditions on arguments.
        rule = {"type": "call", "to": self.target, "selectors": [to_hex(self.function)]}
        return [rule | {"valueLimit": str(self.value_limit)}]


_ERC20_DATA = "(address,address,address,uint256)"
_ERC20_ARGUMENTS = 2 * _WORD


@frozen(kw_only=True)
class Erc20Policy(_Policy):
    """
    Allows moving one token to one recipient, so much with each call; checked by the ERC-20 module.

    The contract does not look at the function: any that begins with an address and an amount is allowed, ``approve`` too.
    So is it here. Nothing is cumulative.

    Args:
        token: The token.
        recipient: The recipient, or the spender.
        max_amount: Most that each call may move, in the token's smallest units, 1 to 2**256 - 1.
        valid_after: The first second, in Unix time, 0 to 2**48 - 1.
        valid_until: The last second; 0 for no end.
    """

    _addresses = ("token", "recipient")

    token: Address = field(converter=Address)
    recipient: Address = field(converter=Address)
    max_amount: int = field(validator=required(check_int, least=1, most=_UINT256))

    def key_data(self, session_key: str) -> Hex:
        return to_hex(
            encode_arguments(_ERC20_DATA, (session_key, self.token, self.recipient, self.max_amount))
        )

    @classmethod
    def from_key_data(cls, data: bytes, **validity: int) -> Self:
        _, token, recipient, most = decode_arguments(_ERC20_DATA, data)
        return cls(token=token, recipient=recipient, max_amount=most, **validity)

    def find_objection(self, call: Call) -> tuple[str, str] | None:
        if call.target != self.token:
            return "token", "the token is another one"
        if call.value:
            return "token", "it sends wei"
        arguments = call.data[_SELECTOR:]
        # The contract's decoder refuses an address with anything before its 20 bytes.
        if len(arguments) < _ERC20_ARGUMENTS or any(arguments[:12]):
            return "recipient", "the arguments are no address and amount"
        if to_checksum_address(arguments[12:_WORD]) != self.recipient:
            return "recipient", "the recipient is another one"
        if int.from_bytes(arguments[_WORD:_ERC20_ARGUMENTS]) > self.max_amount:
            return "max_amount", f"it moves more than {self.max_amount}"
        return None

    def permissions(self) -> list[dict[str, Any]]:
        args = {"value": str(self.max_amount), "eq": "<="}
        rule = {"type": "erc20", "to": self.token}
        return [
            rule | {"method": "transfer", "args": args | {"to": self.recipient}},
            rule | {"method": "approve", "args": args | {"spender": self.recipient}},
        ]


Policy: TypeAlias = AbiPolicy | Erc20Policy


def node_permissions(policies: Sequence[Policy], *, account: Address, chain_id: int) -> dict[str, Any]:
    """Return permissions for the nodes that allow what the policies do, and as little more as nodes can tell apart."""
    rules = []
    for policy in policies:
        times = {"validAfter": policy.valid_after} if policy.valid_after else {}
        times |= {"validUntil": policy.valid_until} if policy.valid_until else {}
        rules += [rule | times for rule in policy.permissions()]
    return {"chainId": chain_id, "account": account, "permissions": rules}


# --- leaves -----------------------------------------------------------------------------------------------------------

#: Fields of a leaf -> the published package's names of them, which must be there.
_LEAF_NAMES = {
    "valid_until": "validUntil",
    "valid_after": "validAfter",
    "module": "sessionValidationModule",
    "session_key": "sessionPublicKey",
    "key_data": "sessionKeyData",
}
_MORE_LEAF_NAMES = ("danModuleInfo", "preferredSessionId", "sessionID", "status")


@frozen(kw_only=True)
class SessionLeaf:
    """
    A leaf of an account's tree: one policy for one session key, with its entry in the published package's store.

    Args:
        valid_until: The last second; 0 for no end.
        valid_after: The first second.
        module: The contract that checks calls.
        session_key: The session key's address.
        key_data: The session key data, as ``0x`` hex whose case is kept.
        session_id: Its name in the store.
        is_named: Whether the name was the caller's (``preferredSessionId``).
        status: The published package's word: ``PENDING`` from beginning to end.
        session: The DAN session; None for a key that is kept elsewhere. Secret; masked in repr.
    """

    valid_until: int = field(validator=required(check_int, least=0, most=_UINT48))
    valid_after: int = field(validator=required(check_int, least=0, most=_UINT48))
    module: Address = field(converter=_module)
    session_key: Address = field(converter=_session_key)
    key_data: Hex = field(repr=False, validator=required(check_text, most=2**20))
    session_id: str = field(default="", validator=required(check_text, least=0, most=200))
    is_named: bool = False
    status: str = field(default="PENDING", validator=required(check_text, most=40))
    session: DanModuleInfo | None = field(default=None)

    @classmethod
    def of(cls, policy: Policy, session_key: Address, contracts: SessionContracts, **entry: Any) -> Self:
        """
        Return the leaf of a policy for a key.

        Args:
            policy: The policy.
            session_key: The session key's address.
            contracts: The addresses of the modules.
            **entry: Other fields of the leaf.
        """
        return cls(
            valid_until=policy.valid_until,
            valid_after=policy.valid_after,
            module=contracts.abi if isinstance(policy, AbiPolicy) else contracts.erc20,
            session_key=session_key,
            key_data=policy.key_data(session_key),
            **entry,
        )

    @property
    def data(self) -> bytes:
        """The session key data."""
        return from_hex(self.key_data, field="sessionKeyData", prefix=True)

    @property
    def hash(self) -> bytes:
        """The leaf as it stands in the tree."""
        validity = self.valid_until.to_bytes(6) + self.valid_after.to_bytes(6)
        return keccak256(validity + bytes.fromhex(self.module[2:]) + self.data)

    def policy(self, contracts: SessionContracts) -> Policy | None:
        """
        Return the policy, read from the key data; None if another module checks it.

        Args:
            contracts: The addresses of the modules.

        Raises:
            InvalidFieldError: The key data do not have the module's form.
        """
        kinds: dict[Address, type[Policy]] = {contracts.abi: AbiPolicy, contracts.erc20: Erc20Policy}
        kind = kinds.get(self.module)
        if kind is None:
            return None
        return kind.from_key_data(self.data, valid_after=self.valid_after, valid_until=self.valid_until)

    def check_call(self, call: Call, contracts: SessionContracts, *, now: float) -> None:
        """
        Check that the contracts will take a call under this leaf.

        Args:
            call: The call.
            contracts: The addresses of the modules.
            now: The time, in Unix seconds.

        Raises:
            PermissionDeniedError: They will not; ``rule`` says which part of the policy it breaks.
        """
        if now < self.valid_after:
            raise PermissionDeniedError("valid_after", f"the session begins at {self.valid_after}")
        if self.valid_until and now > self.valid_until:
            raise PermissionDeniedError("valid_until", f"the session ended at {self.valid_until}")
        policy = self.policy(contracts)
        objection = policy.find_objection(call) if policy else None
        if objection:
            raise PermissionDeniedError(*objection)

    @classmethod
    def from_dict(cls, value: Any) -> Self:
        """
        Read a leaf of the published package's store.

        Args:
            value: The leaf, as ``json.loads`` returns it.

        Raises:
            InvalidFieldError: A member is missing, unknown or wrong.
        """
        found = check_mapping("leafNodes", value)
        if not set(found) <= {*_LEAF_NAMES.values(), *_MORE_LEAF_NAMES}:
            raise InvalidFieldError("leafNodes", "has a member that is not known here")
        missing = next((name for name in _LEAF_NAMES.values() if name not in found), None)
        if missing:
            raise InvalidFieldError(missing, "is missing")
        module_info = found.get("danModuleInfo")
        session = None
        if module_info is not None:
            named = {"sessionKeyEOA": _session_key(found["sessionPublicKey"])}
            session = DanModuleInfo.from_dict(named | dict(check_mapping("danModuleInfo", module_info)))
        preferred = found.get("preferredSessionId")
        leaf = cls(
            **{ours: found[name] for ours, name in _LEAF_NAMES.items()},
            session_id=found.get("sessionID", preferred or ""),
            is_named=preferred is not None,
            status=found.get("status", "PENDING"),
            session=session,
        )
        from_hex(leaf.key_data, field="sessionKeyData", prefix=True)
        return leaf

    def to_dict(self, *, extended: bool = False) -> dict[str, Any]:
        """
        Return the leaf as the published package stores it, the session's secret included.

        Args:
            extended: Also include the members of a session that the published package does not know.
        """
        found: dict[str, Any] = {
            "validUntil": self.valid_until,
            "validAfter": self.valid_after,
            "sessionValidationModule": self.module.lower(),
            "sessionPublicKey": self.session_key.lower(),
            "sessionKeyData": self.key_data,
        }
        if self.session is not None:
            info = self.session.to_dict(extended=extended)
            del info["sessionKeyEOA"]
            found["danModuleInfo"] = info
        if self.is_named:
            found["preferredSessionId"] = self.session_id
        return found | {"sessionID": self.session_id, "status": self.status}


# --- trees ------------------------------------------------------------------------------------------------------------


class MerkleTree:
    """
    A tree of leaves in their order, each hashed once; pairs are sorted, and an odd node goes up as it is.

    Args:
        leaves: The leaves' hashes. Without any the root is zero, for which there is no proof.
    """

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self._layers = [tuple(leaves)]
        while len(self._layers[-1]) > 1:
            below = self._layers[-1]
            pairs = (sorted(below[at : at + 2]) for at in range(0, len(below), 2))
            self._layers.append(
                tuple(pair[0] if len(pair) == 1 else keccak256(b"".join(pair)) for pair in pairs)
            )

    @property
    def root(self) -> bytes:
        """The root: 32 bytes."""
        return self._layers[-1][0] if self._layers[-1] else bytes(_WORD)

    def proof(self, leaf: bytes) -> tuple[bytes, ...]:
        """
        Return the siblings of a leaf and its parents, from the bottom.

        Raises:
            ValueError: It is not in the tree.
        """
        at, found = self._layers[0].index(leaf), []
        for layer in self._layers[:-1]:
            if at ^ 1 < len(layer):
                found.append(layer[at ^ 1])
            at //= 2
        return tuple(found)


def root_of(leaves: Iterable[SessionLeaf]) -> bytes:
    """Return the root of leaves in their order; zero if there are none."""
    return MerkleTree([leaf.hash for leaf in leaves]).root


# --- module signatures ------------------------------------------------------------------------------------------------

_SESSION = "uint48,uint48,address,bytes,bytes32[],bytes"


def wrap_for_module(module_signature: bytes, module: Address) -> bytes:
    """Return the signature of an operation that a module of the account checks."""
    return encode_arguments("(bytes,address)", (module_signature, module))


def session_signature(
    signature: bytes, leaf: SessionLeaf, proof: Sequence[bytes], contracts: SessionContracts
) -> bytes:
    """Return an operation's signature for the session key manager, for one call."""
    return wrap_for_module(
        encode_arguments(f"({_SESSION})", (*_proven(leaf, proof), signature)), contracts.manager
    )


def batch_session_signature(
    signature: bytes, proven: Sequence[tuple[SessionLeaf, Sequence[bytes]]], contracts: SessionContracts
) -> bytes:
    """Return an operation's signature for the batched session router: a leaf with its proof for each call, in order."""
    sessions = [(*_proven(leaf, proof), b"") for leaf, proof in proven]
    module_signature = encode_arguments(
        f"(address,({_SESSION})[],bytes)", (contracts.manager, sessions, signature)
    )
    return wrap_for_module(module_signature, contracts.router)


def _proven(leaf: SessionLeaf, proof: Sequence[bytes]) -> tuple[Any, ...]:
    return leaf.valid_until, leaf.valid_after, leaf.module, leaf.data, list(proof)


# --- texts ------------------------------------------------------------------------------------------------------------


def dan_message(operation: UserOperationV06, *, entry_point: Address, chain_id: int) -> str:
    """Return the text that the published package has DAN sign: bytes without 0x, the factory in its mixed case."""
    found = operation.to_dict()
    factory = operation.init_code[:20]
    init_code = to_checksum_address(factory)[2:] + operation.init_code[20:].hex() if factory else ""
    members = {
        "sender": operation.sender,
        "nonce": found["nonce"],
        "initCode": init_code,
        "callData": operation.call_data.hex(),
        "paymasterAndData": operation.paymaster_and_data.hex(),
    }
    gas = (
        "maxFeePerGas",
        "maxPriorityFeePerGas",
        "verificationGasLimit",
        "callGasLimit",
        "preVerificationGas",
    )
    return dump(
        {
            "userOperation": members | {name: found[name] for name in gas},
            "entryPointVersion": operation.version,
            "entryPointAddress": entry_point.lower(),
            "chainId": chain_id,
        }
    )


def read_sessions(text: str | bytes | Mapping[str, Any]) -> tuple[bytes | None, tuple[SessionLeaf, ...]]:
    """
    Read the sessions that the published package stores for an account: the root, if it has one, and the leaves.

    Raises:
        InvalidFieldError: It has another form.
    """
    try:
        found = text if isinstance(text, Mapping) else load(text)
    except (ProtocolError, AttributeError):
        raise InvalidFieldError("sessions", "is not JSON text") from None
    members = check_mapping("sessions", found)
    if set(members) != {"merkleRoot", "leafNodes"}:
        raise InvalidFieldError("sessions", "must have the members merkleRoot and leafNodes")
    root = members["merkleRoot"]
    return (
        from_hex(root, field="merkleRoot", length=_WORD, prefix=True) if root else None,
        tuple(map(SessionLeaf.from_dict, check_list("leafNodes", members["leafNodes"]))),
    )


def write_sessions(leaves: Sequence[SessionLeaf]) -> str:
    """Return leaves in the published package's JSON, in one line, secrets included."""
    root = to_hex(root_of(leaves)) if leaves else ""
    return dump({"merkleRoot": root, "leafNodes": [leaf.to_dict() for leaf in leaves]})
