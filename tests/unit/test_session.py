"""Payloads: TypeScript's camelCase both ways, and errors that name the field but never a secret."""

from __future__ import annotations

import copy
import json
import logging
import pickle
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dan_async import DanModuleInfo, DanSessionKeyPayload
from dan_async.errors import DanError, InvalidFieldError

SECRET = "5ec7e7" * 10 + "abcd"
SEED = {
    "sessionKeyEOA": "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf",
    "mpcKeyId": "620303c1dba1215c0c8391c38612cf88f4d6d68584ea892aa5cc42948fe3dcff",
    "hexEphSKWithout0x": SECRET,
    "partiesNumber": 5,
    "threshold": 3,
    "eoaAddress": "0x2B5AD5c4795c026514f8317c7a215E218DcCD6cF",
    "chainId": 80002,
}
EXTENDED = SEED | {
    "publicKey": "0x02" + "11" * 32,
    "ephId": "eph-1",
    "ephAlg": "secp256k1",
    "expiresAt": 1_800_000_000,
}


def test_seven_fields_there_and_back() -> None:
    """from_dict and to_dict speak the TypeScript form exactly."""
    assert DanSessionKeyPayload.from_dict(SEED).to_dict() == SEED


def test_extended_there_and_back() -> None:
    """The extended form carries four fields more; the default form leaves them out."""
    payload = DanSessionKeyPayload.from_dict(EXTENDED)
    assert payload.to_dict(extended=True) == EXTENDED
    assert payload.to_dict() == SEED
    assert json.loads(json.dumps(payload.to_dict(extended=True))) == EXTENDED


def test_a_payload_is_module_info() -> None:
    """Whatever takes DanModuleInfo takes a payload."""
    assert isinstance(DanSessionKeyPayload.from_dict(SEED), DanModuleInfo)


@pytest.mark.parametrize(
    "stored",
    [
        SEED,
        {("jwt" if k == "hexEphSKWithout0x" else k): v for k, v in SEED.items()},
        {
            "publicKey": "0x02" + "11" * 32,
            "keyId": SEED["mpcKeyId"],
            "sessionPublicKey": SEED["sessionKeyEOA"],
            "ephSK": "0x" + SECRET,
            "ephId": "eph-1",
        },
    ],
    ids=["seed", "jwt", "decorators"],
)
def test_what_the_typescript_clients_stored(stored: dict[str, Any]) -> None:
    """All three shapes in use load into the same fields."""
    info = DanModuleInfo.from_dict(stored)
    assert info.session_key_eoa == SEED["sessionKeyEOA"]
    assert info.mpc_key_id == SEED["mpcKeyId"]
    assert info.hex_eph_sk_without_0x == SECRET


@pytest.mark.parametrize("field", SEED)
def test_a_missing_field_is_named(field: str) -> None:
    """Each of the seven must be there."""
    with pytest.raises(InvalidFieldError, match=f"{field} is missing"):
        DanSessionKeyPayload.from_dict({k: v for k, v in SEED.items() if k != field})
    with pytest.raises(InvalidFieldError, match=f"{field} is missing"):
        DanSessionKeyPayload.from_dict(SEED | {field: None})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sessionKeyEOA", "0x12"),
        ("sessionKeyEOA", 5),
        ("sessionKeyEOA", "0x7E5F4552091A69125d5DfCb7b8C2659029395BdF"),
        ("mpcKeyId", ""),
        ("mpcKeyId", 5),
        ("mpcKeyId", "x" * 300),
        ("hexEphSKWithout0x", "0x" + SECRET),
        ("hexEphSKWithout0x", SECRET[:-2]),
        ("hexEphSKWithout0x", SECRET[:-2] + "zz"),
        ("hexEphSKWithout0x", 5),
        ("hexEphSKWithout0x", SECRET + "\n"),
        ("partiesNumber", 2),
        ("partiesNumber", "5"),
        ("partiesNumber", True),
        ("threshold", 6),
        ("threshold", 1),
        ("threshold", 3.0),
        ("eoaAddress", "eoa"),
        ("chainId", 0),
        ("chainId", True),
        ("chainId", "1"),
        ("publicKey", 5),
        ("ephId", ""),
        ("ephAlg", "rsa"),
        ("expiresAt", -1),
        ("expiresAt", 1.5),
    ],
)
def test_a_wrong_field_is_named_and_not_repeated(field: str, value: Any) -> None:
    """The error has the name as it stood in the data, and no part of a secret."""
    with pytest.raises(InvalidFieldError) as caught:
        DanSessionKeyPayload.from_dict(EXTENDED | {field: value})
    assert field in str(caught.value) or (field == "partiesNumber" and "threshold" in str(caught.value))
    assert "5ec7e7" not in str(caught.value) + repr(caught.value) + repr(caught.value.__cause__)


@pytest.mark.parametrize("extra", ["privateKey", "__class__", "danger zone", "x" * 100, 7, None])
def test_unknown_fields_are_refused(extra: Any) -> None:
    """A field that is not known is refused; it is shown only if it looks like a name."""
    with pytest.raises(InvalidFieldError, match="is not a field of a session") as caught:
        DanSessionKeyPayload.from_dict({**SEED, extra: "5ec7e7"})
    assert "5ec7e7" not in str(caught.value)


def test_the_same_field_under_two_names() -> None:
    """jwt and hexEphSKWithout0x together are ambiguous."""
    with pytest.raises(InvalidFieldError, match="given twice"):
        DanModuleInfo.from_dict(SEED | {"jwt": SECRET})


@pytest.mark.parametrize("data", [None, [], "text", 5, b"\x80\x04", pickle.dumps(SEED)])
def test_only_mappings_are_read(data: Any) -> None:
    """Pickles, lists and texts are refused."""
    with pytest.raises(InvalidFieldError, match="must be a JSON object"):
        DanSessionKeyPayload.from_dict(data)


def test_the_secret_is_masked(caplog: pytest.LogCaptureFixture) -> None:
    """repr, str, format, logging and attrs errors never show the ephemeral private key."""
    payload = DanSessionKeyPayload.from_dict(EXTENDED)
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("test").debug("%s %r %s", payload, payload, [payload])
    shown = f"{payload} {payload!r} {payload!s} {[payload]}" + caplog.text
    assert "5ec7e7" not in shown
    assert "***" in shown


def test_a_notebook_shows_a_table() -> None:
    """With the secret masked, and nothing that a page would take for its own."""
    table = DanSessionKeyPayload.from_dict(EXTENDED | {"mpcKeyId": "<b>&"})._repr_html_()
    assert "<th>hexEphSKWithout0x</th><td>***</td>" in table
    assert "<th>mpcKeyId</th><td>&lt;b&gt;&amp;</td>" in table
    assert "5ec7e7" not in table


def test_payloads_are_frozen_values() -> None:
    """Equal by value, hashable, and not to be changed."""
    one, two = DanSessionKeyPayload.from_dict(SEED), DanSessionKeyPayload.from_dict(SEED)
    assert one == two
    assert hash(one) == hash(two)
    assert copy.copy(one) == one
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        one.threshold = 2  # type: ignore[misc]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150)
@given(changes=st.dictionaries(st.sampled_from([*EXTENDED, "jwt", "other"]), JSON, max_size=4))
def test_any_json_gives_a_payload_or_our_error(changes: dict[str, Any]) -> None:
    """Whatever a file holds, the result is a payload that gives it back, or a DanError."""
    try:
        payload = DanSessionKeyPayload.from_dict(EXTENDED | changes)
    except DanError:
        return
    assert DanSessionKeyPayload.from_dict(payload.to_dict(extended=True)) == payload
