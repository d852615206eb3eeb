"""
The contract ABI, as far as user operations need it: selectors, and arguments of fixed and variable length.

Decoding takes the canonical encoding only, the one that every encoder writes: each offset points right behind the part
before, padding is zero, nothing is left over. Decoders are free in these points (Solidity's documentation, "Contract ABI
Specification", requires it of encoders only), so two of them may read two meanings out of one text; where the reading
decides what gets signed, that must not be. Decoded values encode to the very same bytes again.

Types: address (as an EIP-55 text), bool, uint8 … uint256, bytes1 … bytes32, bytes, T[] and (T,…).
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeAlias

from attrs import frozen

from dan_async.crypto.address import parse_address, to_checksum_address
from dan_async.crypto.hashes import keccak256
from dan_async.errors import InvalidFieldError, require_extra

_WORD = 32
_ADDRESS_LENGTH = 20

_SIGNATURE = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]{0,255}\(([A-Za-z0-9,()\[\]]{0,1024})\)\Z")


@frozen(repr=False)
class _Atom:
    """A type of one word: kind is address, bool, uint (size in bits) or bytes (size in bytes)."""

    kind: str
    size: int


@frozen(repr=False)
class _Bytes:
    """The type bytes."""


@frozen(repr=False)
class _Array:
    """T[]."""

    member: _Type


@frozen(repr=False)
class _Tuple:
    """(T,…), and the arguments of a function."""

    members: tuple[_Type, ...]


_Type: TypeAlias = _Atom | _Bytes | _Array | _Tuple


def function_selector(signature: str, *, field: str = "signature") -> bytes:
    """Return the four bytes that calls of a function begin with: of ``transfer(address,uint256)``, say."""
    if not isinstance(signature, str) or not _SIGNATURE.match(signature):
        raise InvalidFieldError(field, "must be a function's, such as transfer(address,uint256)")
    return keccak256(signature.encode())[:4]


def encode_call(signature: str, *arguments: Any) -> bytes:
    """Return the call data of a function call: texts for addresses, ints, bools, bytes, sequences."""
    return function_selector(signature) + encode_arguments(signature[signature.index("(") :], arguments)


def encode_call_of_any_types(signature: str, arguments: Sequence[Any]) -> bytes:
    """Return the call data of a call of the user's own: eth-abi encodes it, which knows every type."""
    eth_abi: Any = require_extra("eth_abi", extra="eth-account", purpose="Encoding a call")
    grammar: Any = importlib.import_module("eth_abi.grammar")
    from eth_utils.abi import function_signature_to_4byte_selector  # eth-abi has loaded it by now

    function_selector(signature)  # checks it
    full = grammar.normalize(signature)  # uint is short for uint256: the selector is that of the whole name
    whole = full[full.index("(") :]
    try:
        types = [] if whole == "()" else [kind.to_type_str() for kind in grammar.parse(whole).components]
    except eth_abi.exceptions.ParseError:
        types = [whole]
    if not all(map(eth_abi.is_encodable_type, types)):
        raise InvalidFieldError("signature", "has a type that is not one of the ABI")
    if len(arguments) != len(types):
        raise InvalidFieldError("arguments", f"must be {len(types)}, not {len(arguments)}")
    for place, (kind, argument) in enumerate(zip(types, arguments, strict=True), start=1):
        if not eth_abi.is_encodable(kind, argument):
            raise InvalidFieldError("arguments", f"must fit {full}: number {place} is not a valid {kind}")
    return function_signature_to_4byte_selector(full) + bytes(eth_abi.encode(types, arguments))


def encode_arguments(types: str, values: Sequence[Any]) -> bytes:
    """Encode the arguments of a function, or its result; *types* are ``(type,…)``."""
    return _encode(_parse(types), values, types)


def decode_arguments(types: str, data: bytes) -> tuple[Any, ...]:
    """Decode arguments, without selector, or a function's result; the canonical encoding only."""
    values, length = _decode(_parse(types), data, 0)
    if length != len(data):
        raise _not_canonical("has bytes left over")
    assert isinstance(values, tuple)
    return values


@lru_cache(maxsize=256)
def _parse(types: str) -> _Type:
    parsed, rest = _parse_one(types)
    if rest or not isinstance(parsed, _Tuple):
        raise InvalidFieldError("types", "must be types of the ABI within parentheses")
    return parsed


def _parse_one(text: str) -> tuple[_Type, str]:
    found: _Type
    if text.startswith("("):
        members, text = [], text[1:]
        while not text.startswith(")"):
            member, text = _parse_one(text)
            members.append(member)
            if not text.startswith((",", ")")) or text.startswith(",)"):
                raise InvalidFieldError("types", "must be types of the ABI, separated by commas")
            text = text.removeprefix(",")
        found, text = _Tuple(tuple(members)), text[1:]
    else:
        name = re.match(r"[a-z]+[0-9]*", text)
        found, text = _parse_name(name[0] if name else ""), text[name.end() if name else 0 :]
    while text.startswith("[]"):
        if _head_length(found) == 0:
            raise InvalidFieldError("types", "has an array of nothing")
        found, text = _Array(found), text[2:]
    return found, text


def _parse_name(name: str) -> _Type:
    if name == "bytes":
        return _Bytes()
    if name == "address":
        return _Atom("address", _ADDRESS_LENGTH)
    if name == "bool":
        return _Atom("bool", 1)
    kind, size = re.sub("[0-9]+", "", name), int(re.sub("[a-z]+", "", name) or 0)
    if (kind == "uint" and 8 <= size <= 256 and size % 8 == 0) or (kind == "bytes" and 1 <= size <= _WORD):
        return _Atom(kind, size)
    raise InvalidFieldError("types", "has an unknown type")


def _is_dynamic(kind: _Type) -> bool:
    if isinstance(kind, _Tuple):
        return any(map(_is_dynamic, kind.members))
    return not isinstance(kind, _Atom)


def _head_length(kind: _Type) -> int:
    if isinstance(kind, _Tuple) and not _is_dynamic(kind):
        return sum(map(_head_length, kind.members))
    return _WORD


def _encode(kind: _Type, value: Any, name: str) -> bytes:
    if isinstance(kind, _Atom):
        return _encode_atom(kind, value, name)
    if isinstance(kind, _Bytes):
        if not isinstance(value, bytes):
            raise InvalidFieldError(name, f"needs bytes, not {type(value).__name__}")
        return len(value).to_bytes(_WORD) + value + bytes(-len(value) % _WORD)
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise InvalidFieldError(name, f"needs a sequence, not {type(value).__name__}")
    if isinstance(kind, _Array):
        return len(value).to_bytes(_WORD) + _encode_members((kind.member,) * len(value), value, name)
    if len(value) != len(kind.members):
        raise InvalidFieldError(name, f"needs {len(kind.members)} values, not {len(value)}")
    return _encode_members(kind.members, value, name)


def _encode_members(kinds: Sequence[_Type], values: Sequence[Any], name: str) -> bytes:
    offset = sum(map(_head_length, kinds))
    heads, tails = [], []
    for kind, value in zip(kinds, values, strict=True):
        encoded = _encode(kind, value, name)
        if _is_dynamic(kind):
            heads.append(offset.to_bytes(_WORD))
            tails.append(encoded)
            offset += len(encoded)
        else:
            heads.append(encoded)
    return b"".join(heads + tails)


def _encode_atom(kind: _Atom, value: Any, name: str) -> bytes:
    if kind.kind == "address":
        return bytes.fromhex(parse_address(name, value)[2:]).rjust(_WORD, b"\0")
    if kind.kind == "bytes":
        if not isinstance(value, bytes) or len(value) != kind.size:
            raise InvalidFieldError(name, f"needs {kind.size} bytes for bytes{kind.size}")
        return value.ljust(_WORD, b"\0")
    if not isinstance(value, int) or isinstance(value, bool) is not (kind.kind == "bool"):
        raise InvalidFieldError(name, f"needs a {kind.kind}, not {type(value).__name__}")
    if not 0 <= value < 1 << kind.size:
        raise InvalidFieldError(name, f"needs a number from 0 to 2**{kind.size} - 1")
    return int(value).to_bytes(_WORD)


def _decode(kind: _Type, data: bytes, start: int) -> tuple[Any, int]:
    """Return the value that begins at *start*, and its length there."""
    if isinstance(kind, _Atom):
        return _decode_atom(kind, _word(data, start)), _WORD
    if isinstance(kind, _Tuple):
        return _decode_members(kind.members, data, start)
    count = int.from_bytes(_word(data, start))
    left = len(data) - start - _WORD
    if isinstance(kind, _Bytes):
        if count > left:
            raise _not_canonical("is cut short")
        end = start + _WORD + count
        padding = -count % _WORD
        if data[end : end + padding] != bytes(padding):
            raise _not_canonical("has padding that is not zero, or is cut short")
        return data[start + _WORD : end], _WORD + count + padding
    if count * _head_length(kind.member) > left:
        raise _not_canonical("is cut short")
    values, length = _decode_members((kind.member,) * count, data, start + _WORD)
    return values, _WORD + length


def _decode_members(kinds: Sequence[_Type], data: bytes, start: int) -> tuple[tuple[Any, ...], int]:
    tail = sum(map(_head_length, kinds))
    head, values = start, []
    for kind in kinds:
        if _is_dynamic(kind):
            if int.from_bytes(_word(data, head)) != tail:
                raise _not_canonical("has an offset that points elsewhere")
            value, length = _decode(kind, data, start + tail)
            tail += length
        else:
            value, _ = _decode(kind, data, head)
        head += _head_length(kind)
        values.append(value)
    return tuple(values), tail


def _decode_atom(kind: _Atom, word: bytes) -> Any:
    number = int.from_bytes(word)
    if kind.kind == "bytes":
        if word[kind.size :] != bytes(_WORD - kind.size):
            raise _not_canonical("has padding that is not zero")
        return word[: kind.size]
    if kind.kind == "address":
        if word[: _WORD - _ADDRESS_LENGTH] != bytes(_WORD - _ADDRESS_LENGTH):
            raise _not_canonical("has an address with padding that is not zero")
        return to_checksum_address(word[_WORD - _ADDRESS_LENGTH :])
    if number >> kind.size:
        raise _not_canonical(f"has a number beyond its {kind.size} bits")
    return bool(number) if kind.kind == "bool" else number


def _word(data: bytes, start: int) -> bytes:
    word = data[start : start + _WORD]
    if len(word) != _WORD:
        raise _not_canonical("is cut short")
    return word


def _not_canonical(problem: str) -> InvalidFieldError:
    return InvalidFieldError("data", f"{problem}, so it is not the ABI encoding of these types")
