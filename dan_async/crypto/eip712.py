"""
EIP-712: the digest of typed data, as ``eth_signTypedData_v4`` wallets compute it.

Types are compiled once into encoders and kept in a bounded cache, since the authorisation of a key generation has the same
type every time; the domain's hash is kept likewise. Strangers send types too: their number, size and references are limited,
so that compiling takes milliseconds. Where wallets disagree about a document, or would sign it under a guess, it is refused:
a digest that only some wallets arrive at is of no use. So values have the one form on which wallets agree: numbers as whole
numbers or as decimal or 0x text, bytes and addresses as 0x text.

Two points that EIP-712 leaves open follow ``eth_signTypedData_v4``: a null in place of a struct counts as 32 zero bytes
(that is how a recursive struct ends), and members of a message that its type does not declare are not covered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import chain
from operator import itemgetter
from typing import Any, NoReturn, TypeAlias

from dan_async._values import check_instance, check_mapping
from dan_async.crypto.address import parse_address
from dan_async.crypto.hashes import keccak256
from dan_async.errors import InvalidFieldError
from dan_async.types import TypedData

_DOMAIN = "EIP712Domain"

_TOP_LEVEL = {"types", "primaryType", "domain", "message"}

#: The members a domain may have, in the one order in which they are hashed (EIP-712, "Definition of domainSeparator").
_DOMAIN_MEMBERS = {
    "name": "string",
    "version": "string",
    "chainId": "uint256",
    "verifyingContract": "address",
    "salt": "bytes32",
}

#: Levels of structs and arrays in a message, and dimensions of an array: far more than a person could read.
_DEEPEST = 64

#: Most types of one document, and members of all of them together: the largest documents in use have a tenth of that.
MAX_TYPES = 128
MAX_MEMBERS = 1024

#: Most characters in the names and types of all members.
MAX_TYPE_TEXT = 32 * 1024

#: Most characters of encodeType, which repeats the members of each type for all that refer to it: with as many types as
#: characters to spend, that is quadratic.
MAX_ENCODED_TYPES = 512 * 1024

#: So many documents keep their compiled types, if these are small: 64 KiB each at most, whatever a stranger chooses.
_KEPT_DOCUMENTS = 64
_KEPT_PARTS = 96
_KEPT_TEXT = 4 * 1024

#: Turns one value, and its depth in the message, into a 32-byte word.
Encoder: TypeAlias = Callable[[Any, int], bytes]

#: (name, type) of each member.
_Members: TypeAlias = tuple[tuple[str, str], ...]

#: (name, members) of each type.
_Types: TypeAlias = tuple[tuple[str, _Members], ...]


def typed_data_digest(typed_data: TypedData) -> bytes:
    """
    Return the 32-byte digest that the owner signs.

    Args:
        typed_data: types, primaryType, domain and message, with values as JSON carries them. ``EIP712Domain`` may be
            left out of the types; it is then derived from the members that the domain has.

    Raises:
        InvalidFieldError: It is not well-formed typed data, or a value does not fit its type. The error names the
            path, for example ``message.setup.metadata[0].tag``; it never repeats the value.
    """
    if type(typed_data) is FilledForm:
        digest = typed_data.form.digest_of(typed_data)
        if digest is not None:
            return digest
    if not isinstance(typed_data, Mapping) or not typed_data.keys() >= _TOP_LEVEL:
        raise InvalidFieldError("typed_data", "must be an object with types, primaryType, domain and message")
    types, primary, domain = typed_data["types"], typed_data["primaryType"], typed_data["domain"]
    check_instance("primaryType", primary, str, "text")
    frozen = _freeze_types(types)
    check_mapping("domain", domain, "an object")
    prefix = b"\x19\x01" + _domain_separator(dict(frozen).get(_DOMAIN), domain)
    if primary == _DOMAIN:  # nothing but the domain is signed then
        return keccak256(prefix)
    try:
        return keccak256(prefix + _compile(primary, frozen)(typed_data["message"], 0))
    except RefusedError as error:
        _refuse("message", error)


class FilledForm(dict[str, Any]):
    """Typed data that a ``TypedDataForm`` made: a plain dictionary, but for knowing its form."""

    __slots__ = ("form",)

    def __init__(self, form: TypedDataForm, /, **parts: Any) -> None:
        super().__init__(parts)
        self.form = form

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        return dict, (dict(self),)  # a form is not pickled


class TypedDataForm:
    """Typed data of which only the message changes: types and domain, both complete, are checked and hashed once."""

    __slots__ = ("_domain", "_encode", "_prefix", "_primary", "_types")

    def __init__(self, types: Mapping[str, Any], domain: Mapping[str, Any], primary: str) -> None:
        frozen = _freeze_types(types)
        self._types = {name: [{"name": m, "type": kind} for m, kind in members] for name, members in frozen}
        self._domain = dict(domain)
        self._primary = primary
        self._prefix = b"\x19\x01" + _domain_separator(dict(frozen).get(_DOMAIN), domain)
        self._encode = _compile(primary, frozen)

    def fill(self, message: dict[str, Any]) -> FilledForm:
        """Return the typed data of a message, with dictionaries and lists of its own: wallets may change them."""
        return FilledForm(
            self,
            types={name: list(map(dict.copy, members)) for name, members in self._types.items()},
            domain=self._domain.copy(),
            primaryType=self._primary,
            message=message,
        )

    def digest_of(self, typed_data: FilledForm) -> bytes | None:
        """Return the digest of typed data of this form; None if anything but its message was changed meanwhile."""
        if (
            typed_data.get("types") != self._types
            or typed_data.get("domain") != self._domain
            or typed_data.get("primaryType") != self._primary
            or "message" not in typed_data
        ):
            return None
        try:
            return keccak256(self._prefix + self._encode(typed_data["message"], 0))
        except RefusedError as error:
            _refuse("message", error)


class RefusedError(Exception):
    """A value that cannot be encoded. On its way up it collects the path, innermost step first."""

    def __init__(self, problem: str, *path: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.path = list(path)


def _refuse(root: str, error: RefusedError) -> NoReturn:
    path = root
    for step in reversed(error.path):
        path += step if step.startswith("[") else f".{step}"
    raise InvalidFieldError(path, error.problem) from None


_NAME_AND_TYPE = itemgetter("name", "type")


def _freeze_types(types: object) -> _Types:
    """Make the types hashable, so that they can be the key of the cache."""
    types = check_mapping("types", types, "an object")
    if len(types) > MAX_TYPES:
        raise InvalidFieldError("types", f"must be at most {MAX_TYPES}, not {len(types)}")
    try:
        frozen = tuple([(name, tuple(map(_NAME_AND_TYPE, members))) for name, members in types.items()])
        hash(frozen)
    except (TypeError, ValueError, KeyError, IndexError):
        raise InvalidFieldError("types", "must be lists of objects with name and type, by name") from None
    return frozen


# --- the domain ------------------------------------------------------------------------------------------------------


def _domain_separator(spelled: _Members | None, domain: Mapping[str, Any]) -> bytes:
    values = tuple(domain.items())
    # Only plain text and whole numbers may be looked up: True would find the entry for 1. Long ones are not kept.
    for name, value in values:
        length = len(value) if type(value) is str else value.bit_length() if type(value) is int else None
        if length is None or length > _LONGEST_KEPT or name not in _DOMAIN_MEMBERS:
            return _hash_domain(spelled, values)
    return _cached_hash_domain(spelled, values)


def _hash_domain(spelled: _Members | None, values: tuple[tuple[str, Any], ...]) -> bytes:
    """
    Hash the domain by the members that it has; EIP712Domain, where it is spelled out, must say the same.

    Some wallets hash by the spelled-out type, others by the members that are present: where the two differ, so would
    the digests.
    """
    domain = dict(values)
    if not domain.keys() <= _DOMAIN_MEMBERS.keys():
        raise InvalidFieldError("domain", f"may have {', '.join(_DOMAIN_MEMBERS)}, and nothing else")
    present = tuple((name, kind) for name, kind in _DOMAIN_MEMBERS.items() if name in domain)
    if spelled is not None and spelled != present:
        raise InvalidFieldError(
            "types.EIP712Domain",
            "must list exactly the members that the domain has, with the types and in the order of EIP-712",
            hint=f"The order: {', '.join(f'{kind} {name}' for name, kind in _DOMAIN_MEMBERS.items())}",
        )
    try:
        return _compile(_DOMAIN, ((_DOMAIN, present),))(domain, 0)
    except RefusedError as error:
        _refuse("domain", error)


_LONGEST_KEPT = 256
_cached_hash_domain = lru_cache(maxsize=64)(_hash_domain)


# --- structs and arrays ----------------------------------------------------------------------------------------------


_IDENTIFIER = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]{0,255}\Z")
_ARRAY = re.compile(r"(.+)\[(|0|[1-9][0-9]{0,8})\]\Z")
_NULL_STRUCT = bytes(32)


class _TooLargeError(Exception):
    """Carries an encoder past the cache, which keeps what is returned and not what is raised."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder


def _compile(primary: str, types: _Types) -> Encoder:
    """Return hashStruct of *primary*, made once unless its types are large."""
    try:
        return _kept_encoder(primary, types)
    except _TooLargeError as made:
        return made.encoder


@lru_cache(maxsize=_KEPT_DOCUMENTS)
def _kept_encoder(primary: str, types: _Types) -> Encoder:
    encoder = _make_encoder(primary, types)
    texts = [text for name, members in types for text in (name, *chain.from_iterable(members))]
    joined = "".join([text for text in texts if isinstance(text, str)])
    # Each member is an encoder of its own, as is each dimension of an array.
    parts = len(texts) // 2 + joined.count("[")
    if parts > _KEPT_PARTS or len(joined) > _KEPT_TEXT or not all(isinstance(text, str) for text in texts):
        raise _TooLargeError(encoder)
    return encoder


def _make_encoder(primary: str, types: _Types) -> Encoder:
    """Return hashStruct of *primary*. Of types that it does not refer to, only the name is checked."""
    _check_size(types)
    defined = dict(types)
    if primary not in defined:
        raise InvalidFieldError("primaryType", "is not one of the types")
    for name in defined:
        if not isinstance(name, str) or not _IDENTIFIER.match(name) or RESERVED_NAME.match(name):
            raise InvalidFieldError(
                "types", "has a name that is not an identifier, or that is a type of EIP-712's own"
            )
    references: dict[str, set[str]] = {}
    pending = [primary]
    while pending:
        name = pending.pop()
        if name not in references:
            references[name] = _check_members(name, defined)
            pending += references[name]
    structs: dict[str, Encoder] = {}
    signatures = {
        n: f"{n}({','.join([f'{kind} {member}' for member, kind in defined[n]])})" for n in references
    }
    left = MAX_ENCODED_TYPES
    # Those that are referred to come first, unless structs refer to each other.
    for name in reversed(references):
        encoded = _encode_type(name, signatures, references)
        left -= len(encoded)
        if left < 0:
            raise InvalidFieldError(
                "types",
                f"refer to each other so much that their encoding is longer than {MAX_ENCODED_TYPES} characters",
            )
        members = [(member, _encoder_of(kind, structs)) for member, kind in defined[name]]
        structs[name] = _struct_encoder(keccak256(encoded.encode()), members)
    return structs[primary]


def _check_size(types: _Types) -> None:
    count = sum([len(members) for _, members in types])
    if count > MAX_MEMBERS:
        raise InvalidFieldError("types", f"must have at most {MAX_MEMBERS} members together, not {count}")
    texts = [text for _, members in types for member in members for text in member if isinstance(text, str)]
    if sum(map(len, texts)) > MAX_TYPE_TEXT:
        raise InvalidFieldError("types", f"must have at most {MAX_TYPE_TEXT} characters in their members")


def _check_members(name: str, defined: dict[str, _Members]) -> set[str]:
    """Check a struct's members and return the structs that they refer to."""
    if len({member for member, _ in defined[name]}) != len(defined[name]):
        raise InvalidFieldError(f"types.{name}", "has two members of one name")
    found = set()
    for position, (member, kind) in enumerate(defined[name]):
        where = f"types.{name}[{position}]"
        if not isinstance(member, str) or not _IDENTIFIER.match(member):
            raise InvalidFieldError(where, "must have a name that is an identifier")
        if not isinstance(kind, str):
            raise InvalidFieldError(where, "must have a type that is text")
        base = _base_type(kind)
        if base in defined:
            found.add(base)
        elif atomic_encoder(base) is None:
            raise InvalidFieldError(where, "has a type that is neither one of EIP-712 nor one of the types")
    return found


def _base_type(kind: str) -> str:
    """Return an array's innermost type; too many dimensions are left on it, and so it is no type at all."""
    for _ in range(_DEEPEST):
        match = _ARRAY.match(kind)
        if not match:
            break
        kind = match[1]
    return kind


def _encode_type(name: str, signatures: dict[str, str], references: dict[str, set[str]]) -> str:
    """Return encodeType: the struct's own signature, then those of all it refers to, sorted by name."""
    reachable = {name}
    pending = [name]
    while pending:
        new = references[pending.pop()] - reachable
        reachable |= new
        pending += new
    return "".join([signatures[n] for n in (name, *sorted(reachable - {name}))])


def _encoder_of(kind: str, structs: dict[str, Encoder]) -> Encoder:
    if match := _ARRAY.match(kind):
        return _array_encoder(_encoder_of(match[1], structs), int(match[2]) if match[2] else None)
    atomic = atomic_encoder(kind)
    if atomic is not None:
        return atomic

    made = structs.get(kind)
    if made is not None:
        return made

    def encode(value: Any, depth: int) -> bytes:
        # Looked up when used: structs may refer to each other, and to themselves.
        return structs[kind](value, depth)

    return encode


def _struct_encoder(type_hash: bytes, members: list[tuple[str, Encoder]]) -> Encoder:
    def encode(value: Any, depth: int) -> bytes:
        if value is None and depth:
            return _NULL_STRUCT
        if depth > _DEEPEST:
            raise RefusedError("is nested too deeply")
        if type(value) is not dict and not isinstance(value, Mapping):
            raise RefusedError(f"must be an object, not {type(value).__name__}")
        words = [type_hash]
        for name, encode_member in members:
            if name not in value:
                raise RefusedError("is missing", name)
            try:
                words.append(encode_member(value[name], depth + 1))
            except RefusedError as error:
                error.path.append(name)
                raise
        return keccak256(b"".join(words))

    return encode


def _array_encoder(encode_item: Encoder, length: int | None) -> Encoder:
    def encode(value: Any, depth: int) -> bytes:
        if not isinstance(value, list | tuple):
            raise RefusedError(f"must be a list, not {type(value).__name__}")
        if length is not None and len(value) != length:
            raise RefusedError(f"must have {length} items, not {len(value)}")
        words = []
        for position, item in enumerate(value):
            try:
                words.append(encode_item(item, depth + 1))
            except RefusedError as error:
                error.path.append(f"[{position}]")
                raise
        return keccak256(b"".join(words))

    return encode


# --- single values ---------------------------------------------------------------------------------------------------


_DECIMAL = re.compile(r"-?[0-9]{1,80}\Z")
_HEX_NUMBER = re.compile(r"0x[0-9a-fA-F]{1,64}\Z")
_HEX_BYTES = re.compile(r"0x(?:[0-9a-fA-F]{2})*\Z")
_INTEGERS = re.compile(r"(u?)int([1-9][0-9]{0,2})\Z")
_FIXED_BYTES = re.compile(r"bytes([1-9]|[12][0-9]|3[0-2])\Z")

_TRUE = (1).to_bytes(32, "big")
_FALSE = bytes(32)
_MOST_BITS = 256

#: Names that a struct must not take: every atomic and dynamic type, and the aliases and types that EIP-712 leaves out.
RESERVED_NAME = re.compile(
    r"(?:u?int[0-9]*|u?fixed(?:[0-9]+x[0-9]+)?|bytes[0-9]*|bool|address|string|function)\Z"
)


def atomic_encoder(type_name: str) -> Encoder | None:
    """Return the encoder of an atomic or dynamic type; None if that is no name of one."""
    named = _NAMED.get(type_name)
    if named is not None:
        return named
    if match := _INTEGERS.match(type_name):
        bits = int(match[2])
        if bits % 8 == 0 and bits <= _MOST_BITS:
            return _unsigned(bits) if match[1] else _signed(bits)
    if match := _FIXED_BYTES.match(type_name):
        return _fixed_bytes(int(match[1]))
    return None


def _whole_number(value: object) -> int:
    if isinstance(value, str):
        if _DECIMAL.match(value):
            return int(value)
        if _HEX_NUMBER.match(value):
            return int(value, 16)
        raise RefusedError("must be a whole number, or one as decimal or 0x text")
    if isinstance(value, bool) or not isinstance(value, int):
        raise RefusedError(f"must be a whole number, not {type(value).__name__}")
    return value


def _unsigned(bits: int) -> Encoder:
    limit = 1 << bits
    problem = f"must be a uint{bits}: from 0 to 2**{bits} - 1"

    def encode(value: Any, _depth: int) -> bytes:
        number: int = value if type(value) is int else _whole_number(value)
        if not 0 <= number < limit:
            raise RefusedError(problem)
        return number.to_bytes(32, "big")

    return encode


def _signed(bits: int) -> Encoder:
    limit = 1 << (bits - 1)
    problem = f"must be an int{bits}: from -2**{bits - 1} to 2**{bits - 1} - 1"

    def encode(value: Any, _depth: int) -> bytes:
        number = _whole_number(value)
        if not -limit <= number < limit:
            raise RefusedError(problem)
        return number.to_bytes(32, "big", signed=True)

    return encode


def _bytes_of(value: object) -> bytes:
    if not isinstance(value, str):
        raise RefusedError(f"must be bytes as 0x text, not {type(value).__name__}")
    if not _HEX_BYTES.match(value):
        raise RefusedError("must be bytes as text: 0x and an even number of hex digits")
    return bytes.fromhex(value[2:])


def _fixed_bytes(length: int) -> Encoder:
    def encode(value: Any, _depth: int) -> bytes:
        data = _bytes_of(value)
        if len(data) != length:
            raise RefusedError(f"must hold {length} bytes, not {len(data)}")
        return data.ljust(32, b"\0")

    return encode


def _dynamic_bytes(value: Any, _depth: int) -> bytes:
    return keccak256(_bytes_of(value))


class SpelledValue(str):
    """The text that stands for bytes or a number on the wire. Where the type is string, a caller meant something else."""

    __slots__ = ()


def _string(value: Any, _depth: int) -> bytes:
    if isinstance(value, SpelledValue):
        raise RefusedError("must be text, not bytes or a number")
    if not isinstance(value, str):
        raise RefusedError(f"must be text, not {type(value).__name__}")
    try:
        return keccak256(value.encode())
    except UnicodeEncodeError:
        raise RefusedError("has a lone surrogate, which UTF-8 cannot carry") from None


def _bool(value: Any, _depth: int) -> bytes:
    if value is True:
        return _TRUE
    if value is False:
        return _FALSE
    raise RefusedError(f"must be true or false, not {type(value).__name__}")


def _address(value: Any, _depth: int) -> bytes:
    try:
        address = parse_address("value", value)
    except InvalidFieldError as error:
        raise RefusedError(error.problem) from None
    return bytes(12) + bytes.fromhex(address[2:])


_NAMED: dict[str, Encoder] = {"address": _address, "bool": _bool, "bytes": _dynamic_bytes, "string": _string}
