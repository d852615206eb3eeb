"""
Messages as frozen attrs classes: each field names its member and its form, and is read and written by that.

    request_id: Annotated[RequestId, wire("requestId", REQUEST_ID)]

Reading is strict: no member may be missing, unknown or of another form. No value from outside is repeated in an error.
The gateway's texts, which are no such objects, are taken apart with the functions at the end.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from itertools import repeat
from typing import Any, Generic, TypeVar, cast, get_type_hints

import attrs
from attrs import frozen

from dan_async._json import MAX_DEPTH, check_extent, dump, load, quote
from dan_async._values import check_int, check_text, from_hex, to_hex
from dan_async.crypto.address import parse_address
from dan_async.errors import InvalidFieldError, ProtocolError
from dan_async.types import Json, MpcKeyId, OperatorAddress, RequestId

T = TypeVar("T")

#: Printable ASCII but for the marks of the grammar of results.
PRINTABLE = "[!-9<>-~]{1,256}"

_TOKEN = re.compile(PRINTABLE)

#: 32 bytes as we write them: a request id, and without 0x a key id.
_32_BYTES = re.compile(r"0x[0-9a-f]{64}\Z")
_KEY_ID = re.compile(r"[0-9a-f]{64}\Z")

_HEX = re.compile(r"0x[0-9a-f]*\Z")


def write_hex(data: bytes) -> str:
    """Write bytes as a JSON string: 0x and lower-case hex digits."""
    return f'"0x{data.hex()}"'


@frozen(eq=False, repr=False)
class Form(Generic[T]):
    """How a value stands on the wire. Reading takes the member's name first, for the error, as the checks do."""

    read: Callable[[str, Json], T]
    #: Returns the JSON text of a value.
    write: Callable[[T], str] = dump
    #: Matches the usual form of bytes in hex, which then need no more checks.
    is_hex: Callable[[str], object] | None = None
    #: A Python expression for *value*: whether it is a usual one, which stays as it is and needs no more checks.
    is_usual: str = ""


@frozen(eq=False, repr=False)
class Wire:
    """Where a field stands on the wire. An optional member is left out for None, and never null."""

    name: str
    form: Form[Any]
    optional: bool = False


def wire(name: str, form: Form[Any], *, optional: bool = False) -> Wire:
    """Declare the member of a field; for ``Annotated``. The first of a message is not optional."""
    return Wire(name, form, optional)


# --- messages ---------------------------------------------------------------------------------------------------------


class Message:
    """Base of the messages. Two of one class are equal if their fields are: attrs would compile that for each class."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and _values_of(other) == _values_of(self)

    def __hash__(self) -> int:
        return hash(_values_of(self))


def _values_of(message: Any) -> tuple[Any, ...]:
    return attrs.astuple(message, recurse=False)


def _declared(kind: type[Any]) -> list[tuple[str, Wire]]:
    hints = get_type_hints(kind, include_extras=True)
    found = []
    for field in attrs.fields(kind):
        (at,) = getattr(hints[field.name], "__metadata__", (None,))
        if not isinstance(at, Wire):
            raise TypeError(f"{kind.__name__}.{field.name} declares no form")
        found.append((field.name, at))
    return found


def _generate(kind: type[T], fields: Sequence[tuple[str, Wire]]) -> Form[T]:
    """Write the reader and the writer of a class out, as attrs writes its methods: a loop over the fields takes longer."""
    members = {at.name: at for _, at in fields}
    scope: dict[str, Any] = {
        "kind": kind,
        "names": frozenset(members),
        "check": _check_members,
        "members": members,
    }
    read, written = [], []
    for number, (field, at) in enumerate(fields):
        scope[f"read{number}"], scope[f"write{number}"] = at.form.read, at.form.write
        value = f"read{number}({at.name!r}, value[{at.name!r}])"
        if at.form.is_usual:
            value = f"(value[{at.name!r}] if {at.form.is_usual.replace('value', f'value[{at.name!r}]')} else {value})"
        if at.form.is_hex is not None:
            scope[f"is_hex{number}"] = at.form.is_hex
            is_usual = f"type(text := value[{at.name!r}]) is str and is_hex{number}(text)"
            value = f"(bytes.fromhex(text[2:]) if {is_usual} else {value})"
        text = f"write{number}(message.{field})"
        if at.form.write is write_hex:
            text = f"'\"0x' + message.{field}.hex() + '\"'"
        text = f"""'{"," if number else ""}"{at.name}":' + {text}"""
        if at.optional:
            read.append(f"{field}={value} if {at.name!r} in value else None")
            text = f"('' if message.{field} is None else {text})"
        else:
            read.append(f"{field}={value}")
        written.append(text)
    source = f"""
def read(name, value):
    if type(value) is not dict or value.keys() != names:
        check(name, value, members)
    return kind({", ".join(read)})

def write(message):
    return '{{' + {" + ".join(written)} + '}}'
"""
    exec(source, scope)  # noqa: S102 - made of names in our own classes
    return Form(scope["read"], scope["write"])


def _check_members(name: str, value: Json, members: Mapping[str, Wire]) -> None:
    if not isinstance(value, dict):
        raise InvalidFieldError(name, "must be an object")
    for member, at in members.items():
        if member not in value and not at.optional:
            raise InvalidFieldError(member, "is missing")
    if not value.keys() <= members.keys():
        raise InvalidFieldError(name, "has members that the protocol does not know")


#: The form of a message, made when it is first asked for.
form_of = cast("Callable[[type[T]], Form[T]]", cache(lambda kind: _generate(kind, _declared(kind))))


# --- forms ------------------------------------------------------------------------------------------------------------


def string(most: int, *, least: int = 1) -> Form[str]:
    """Text of so many characters, which UTF-8 can carry."""
    is_usual = f"type(value) is str and {least} <= len(value) <= {most} and value.isascii()"
    return Form(partial(check_text, least=least, most=most), quote, is_usual=is_usual)


def number(least: int, most: int) -> Form[int]:
    """A whole number within bounds."""
    is_usual = f"type(value) is int and {least} <= value <= {most}"
    return Form(partial(check_int, least=least, most=most), str, is_usual=is_usual)


def hex_bytes(*lengths: int) -> Form[bytes]:
    """0x and hex digits of one of these numbers of bytes."""
    is_hex = re.compile("|".join(f"0x(?:[0-9a-f]{{{2 * length}}})" for length in lengths)).fullmatch
    length = lengths[0] if len(lengths) == 1 else None
    wanted = " or ".join(map(str, lengths))

    def read(name: str, value: Json) -> bytes:
        if type(value) is str and is_hex(value):
            return bytes.fromhex(value[2:])
        # In capitals, or from_hex() says what is wrong.
        found = from_hex(value, field=name, length=length, prefix=True)
        if len(found) not in lengths:
            raise InvalidFieldError(name, f"must hold {wanted} bytes")
        return found

    return Form(read, write_hex, is_hex)


def hex_up_to(most: int) -> Form[bytes]:
    """0x and hex digits of so many bytes, or fewer."""

    def read(name: str, value: Json) -> bytes:
        if type(value) is str and len(value) <= 2 + 2 * most and not len(value) % 2 and _HEX.match(value):
            return bytes.fromhex(value[2:])
        found = from_hex(value, field=name, prefix=True)
        if len(found) > most:
            raise InvalidFieldError(name, f"must hold at most {most} bytes")
        return found

    return Form(read, write_hex)


def hex_text(*lengths: int) -> Form[str]:
    """As ``hex_bytes``, for a value that stays text."""
    checked = hex_bytes(*lengths)

    def read(name: str, value: Json) -> str:
        checked.read(name, value)
        return str(value)

    return Form(read, quote)


def scalar(below: int) -> Form[int]:
    """32 bytes in hex that are a number below a bound."""

    def read(name: str, value: Json) -> int:
        is_usual = type(value) is str and _32_BYTES.match(value)
        found = int(value if is_usual else from_hex(value, field=name, length=32, prefix=True).hex(), 16)
        if found >= below:
            raise InvalidFieldError(name, "must be below the group order")
        return found

    return Form(read, '"0x{:064x}"'.format)


def one_of(*values: str) -> Form[Any]:
    """One of a few texts."""
    known = ", ".join(values)

    def read(name: str, value: Json) -> Any:
        if value not in values:
            raise InvalidFieldError(
                name, f"must be one of {known}" if len(values) > 1 else f"must be {known}"
            )
        return value

    return Form(read, quote)


def list_of(entry: Form[T], least: int, most: int) -> Form[tuple[T, ...]]:
    """A list of so many entries, all of one form; an error in an entry has the list's name."""
    read_entry = entry.read

    def read(name: str, value: Json) -> tuple[T, ...]:
        if not isinstance(value, list) or not least <= len(value) <= most:
            raise InvalidFieldError(name, f"must be a list of {least} to {most} entries")
        return tuple(map(read_entry, repeat(name), value))

    return Form(read, _write_list(entry.write))


def _write_list(write: Callable[[Any], str]) -> Callable[[Iterable[Any]], str]:
    if write is write_hex:  # the longest lists are of points
        return lambda values: "[" + ",".join(['"0x' + value.hex() + '"' for value in values]) + "]"
    return lambda values: "[" + ",".join(map(write, values)) + "]"


def set_of(entry: Form[T], least: int, most: int) -> Form[tuple[T, ...]]:
    """A list without repetitions, in an order that means something."""
    entries = list_of(entry, least, most)

    def read(name: str, value: Json) -> tuple[T, ...]:
        found = entries.read(name, value)
        if len(set(found)) != len(found):
            raise InvalidFieldError(name, "must be different from one another")
        return found

    return Form(read, entries.write)


def operators(least: int, most: int) -> Form[tuple[OperatorAddress, ...]]:
    """A list of addresses, strictly ascending as numbers, so that each set has one form."""
    entries = list_of(ADDRESS, least, most)

    def read(name: str, value: Json) -> tuple[OperatorAddress, ...]:
        found = entries.read(name, value)
        lower = list(map(str.lower, found))
        if lower != sorted(set(lower)):
            raise InvalidFieldError(name, "must be strictly ascending")
        return found

    return Form(read, entries.write)


def nested(kind: type[T], *members: Wire) -> Form[T]:
    """An object of its own: a message, or a class that declares nothing, with the members named as its fields."""
    return _generate(kind, [(at.name, at) for at in members]) if members else form_of(kind)


def _read_request_id(name: str, value: Json) -> RequestId:
    if type(value) is str and _32_BYTES.match(value):
        return RequestId(value)
    return RequestId(to_hex(from_hex(value, field=name, length=32, prefix=True)))


def new_request_id() -> RequestId:
    """Return a random id for a new request."""
    return RequestId("0x" + secrets.token_hex(32))


def _read_key_id(name: str, value: Json) -> MpcKeyId:
    if type(value) is str and _KEY_ID.match(value):
        return MpcKeyId(value)
    return MpcKeyId(from_hex(value, field=name, length=32, prefix=False).hex())


def decode_key_id(value: Json) -> MpcKeyId:
    """Check a key id: 64 hex digits without 0x."""
    return KEY_ID.read("keyId", value)


REQUEST_ID: Form[RequestId] = Form(_read_request_id, quote)
KEY_ID: Form[MpcKeyId] = Form(_read_key_id, quote)
ADDRESS: Form[OperatorAddress] = Form(cast("Callable[[str, Json], OperatorAddress]", parse_address), quote)
#: For a class that checks its fields itself, when it is made.
CHECKED_BY_CLASS: Form[Any] = Form(lambda _, value: value)
HASH = hex_bytes(32)
POINT = hex_bytes(33)
#: r, s and v.
SIGNATURE = hex_bytes(65)


# --- reading and writing ----------------------------------------------------------------------------------------------


def encode(message: object) -> str:
    """Return a message as JSON text, in its one canonical form: its members in the order of the fields."""
    return form_of(type(message)).write(message)


def to_json(message: object) -> dict[str, Json]:
    """Return a message as a JSON object."""
    found: dict[str, Json] = json.loads(encode(message))
    return found


def decode(kind: type[T], value: Json, name: str = "params") -> T:
    return form_of(kind).read(name, value)


def decode_canonical(kind: type[T], content: str, name: str) -> T:
    """Read a message from the very text that ``encode`` makes of it, and from no other: one content has one text."""
    try:
        check_extent(content, name, MAX_DEPTH)
        value = json.loads(content)  # what ``load`` would refuse besides is not in its canonical form either
    except (ProtocolError, ValueError):
        raise InvalidFieldError(name, "are no text of this protocol") from None
    message = form_of(kind).read(name, value)
    if encode(message) != content:
        raise InvalidFieldError(name, "are not in their canonical form")
    return message


# --- what the gateway's revisions share ---------------------------------------------------------------------------------


def encode_base64(field: str, text: str) -> str:
    """Return standard Base64 of the UTF-8 text. Done once: the encoded form is signed, as it is sent."""
    return base64.b64encode(check_text(field, text, least=0, most=512 * 1024).encode()).decode()


def decode_base64(field: str, text: object) -> str:
    """Read standard Base64 of UTF-8 text, in its one canonical form."""
    encoded = check_text(field, text, least=0, most=1024 * 1024)
    try:
        raw = base64.b64decode(encoded, validate=True)
        decoded = raw.decode()
    except ValueError:  # not ASCII, not Base64, or not UTF-8
        raise InvalidFieldError(field, "must be standard Base64 of UTF-8 text") from None
    if base64.b64encode(raw).decode() != encoded:
        raise InvalidFieldError(field, "must be Base64 in its canonical form")
    return decoded


def check_token(name: str, value: object) -> str:
    """Check an opaque value (key id, transaction id) that the grammar of results can carry."""
    if not isinstance(value, str) or _TOKEN.fullmatch(value) is None:
        raise InvalidFieldError(
            name, "must be 1 to 256 printable ASCII characters other than ':', ';' and '='"
        )
    return value


def load_text(text: object) -> Json:
    """Read a JSON text frame; a ``ProtocolError`` if it is binary, or not a JSON text that we would write."""
    if not isinstance(text, str):
        raise ProtocolError(f"the frame must be text, not {type(text).__name__}")
    return load(text)


def members(
    value: Json, name: str, required: Iterable[str], optional: Iterable[str] = ()
) -> Mapping[str, Any]:
    """Check that a value is an object with these members and no others, in any order; no unknown name is repeated."""
    if not isinstance(value, dict):
        raise InvalidFieldError(name, "must be a JSON object")
    known = 0
    for key in required:
        if key not in value:
            raise InvalidFieldError(f"{name}.{key}", "is missing")
        known += 1
    known += sum(key in value for key in optional)
    if len(value) != known:
        raise InvalidFieldError(name, "has members that this revision does not know")
    return value


def only(values: Sequence[T], name: str) -> T:
    """Return the one value there must be, in revisions that take one setup at a time."""
    if len(values) != 1:
        raise InvalidFieldError(name, "must be exactly one in this revision")
    return values[0]
