"""Hypothesis strategies for EIP-712 typed data with values as JSON carries them."""

import string

from eth_utils import to_checksum_address
from hypothesis import strategies as st

MEMBER_NAMES = st.text(string.ascii_letters + string.digits + "_", min_size=1, max_size=6).map(
    lambda s: "m" + s
)
STRUCT_NAMES = st.text(string.ascii_letters + string.digits, min_size=1, max_size=6).map(lambda s: "T" + s)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
BITS = st.integers(1, 32).map(lambda n: 8 * n)
ATOMIC = st.one_of(
    st.sampled_from(["bool", "address", "string", "bytes"]),
    BITS.map(lambda n: f"uint{n}"),
    BITS.map(lambda n: f"int{n}"),
    st.integers(1, 32).map(lambda n: f"bytes{n}"),
)
DOMAIN_TYPES = {
    "name": "string",
    "version": "string",
    "chainId": "uint256",
    "verifyingContract": "address",
    "salt": "bytes32",
}
DEEPEST = 3


def hex_bytes(least, most):
    """0x text of so many bytes."""
    return st.binary(min_size=least, max_size=most).map(lambda data: "0x" + data.hex())


def integers(least, most):
    """A whole number in one of the forms that JSON carries it in."""
    number = st.integers(least, most)
    return st.one_of(number, number.map(str), st.integers(max(least, 0), most).map(hex))


ADDRESSES = st.binary(min_size=20, max_size=20).flatmap(
    lambda raw: st.sampled_from(["0x" + raw.hex(), to_checksum_address(raw)])
)


def atomic_values(kind):
    """Values of an atomic or dynamic type."""
    if kind == "bool":
        return st.booleans()
    if kind == "address":
        return ADDRESSES
    if kind == "string":
        return TEXT
    if kind == "bytes":
        return hex_bytes(0, 40)
    if kind.startswith("bytes"):
        return hex_bytes(int(kind[5:]), int(kind[5:]))
    if kind.startswith("uint"):
        return integers(0, 2 ** int(kind[4:]) - 1)
    bits = int(kind[3:])
    return integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


@st.composite
def struct_types(draw):
    """
    Struct types, and the primary one.

    eth-account wants a primary type that no other type refers to, and no type that is not used.
    """
    names = draw(st.lists(STRUCT_NAMES, min_size=1, max_size=4, unique=True))
    types = {}
    for position, name in enumerate(names):
        # Itself, those after it, and (recursively) any but the primary one.
        allowed = [name, *names[1:]] if position else names
        base = st.one_of(ATOMIC, ATOMIC, st.sampled_from(allowed))
        kind = st.tuples(base, st.sampled_from(["", "", "", "[]", "[2]", "[][2]", "[1][]"])).map("".join)
        members = draw(
            st.lists(st.tuples(MEMBER_NAMES, kind), min_size=1, max_size=4, unique_by=lambda m: m[0])
        )
        types[name] = [{"name": member, "type": kind} for member, kind in members]
    used, pending = set(), [names[0]]
    while pending:
        name = pending.pop()
        if name not in used:
            used.add(name)
            pending += [m["type"].split("[")[0] for m in types[name] if m["type"].split("[")[0] in types]
    return {name: members for name, members in types.items() if name in used}, names[0]


def values(types, kind, depth=0):
    """Values of any type; a struct deep down is null, which is how recursive types end."""
    if kind.endswith("]"):
        item, _, length = kind[:-1].rpartition("[")
        least, most = (int(length), int(length)) if length else (0, 0 if depth > DEEPEST else 2)
        return st.lists(values(types, item, depth + 1), min_size=least, max_size=most)
    if kind not in types:
        return atomic_values(kind)
    if depth > DEEPEST:
        return st.none()
    members = st.deferred(
        lambda: st.fixed_dictionaries({m["name"]: values(types, m["type"], depth + 1) for m in types[kind]})
    )
    return members if depth == 0 else st.one_of(members, st.none())


@st.composite
def typed_data(draw):
    """Typed data that eth-account takes, EIP712Domain spelled out or left out."""
    types, primary = draw(struct_types())
    message = draw(values(types, primary))
    present = draw(st.lists(st.sampled_from(list(DOMAIN_TYPES)), unique=True))
    domain = {name: draw(atomic_values(DOMAIN_TYPES[name])) for name in present}
    if draw(st.booleans()):
        spelled = [{"name": name, "type": kind} for name, kind in DOMAIN_TYPES.items() if name in domain]
        types = {"EIP712Domain": spelled, **types}
    return {"types": types, "primaryType": primary, "domain": domain, "message": message}
