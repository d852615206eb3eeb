"""Keygen and signgen setups."""

import json

import pytest
from attrs import evolve

from dan_async.config import Threshold
from dan_async.errors import InvalidFieldError, ProtocolError
from dan_async.protocols.gateway_0_3 import REVISION_0_1, REVISION_0_3
from dan_async.protocols.gateway_1 import REVISION_1
from dan_async.protocols.setups import (
    EphemeralClaim,
    EphemeralKeySetup,
    KeygenSetup,
    PasskeySetup,
    SigngenSetup,
    TaggedValue,
)

EVERY = pytest.mark.parametrize("module", [REVISION_0_1, REVISION_0_3, REVISION_1], ids=["0.1", "0.3", "1"])
CLAIM = EphemeralClaim(eph_id="id", eph_pk=b"\x01" * 32, expiry=7, sign_alg="ed25519")


def keygen(module, **changes):
    fields = {"threshold": Threshold(2, 3), "claim": CLAIM, **changes}
    return module.keygen_setup(**fields)


def keygen_object(module, **changes):
    """A keygen setup as decoded JSON, with some members changed; None leaves a member out."""
    value = json.loads(module.encode_setup(keygen(module))) | changes
    return json.dumps({key: inner for key, inner in value.items() if inner is not ...})


@EVERY
def test_key_label_stands_before_the_metadata(module):
    """And only if there is one."""
    assert list(json.loads(module.encode_setup(keygen(module, key_label="€"))))[:4] == [
        "t",
        "n",
        "key_label",
        "metadata",
    ]
    assert "key_label" not in module.encode_setup(keygen(module))


@EVERY
def test_wallet_is_shown_the_label_but_not_the_permissions(module):
    """The message is the setup without tag 1."""
    setup = keygen(module, key_label="mine", permissions="{}")
    shown = module.typed_data("keygen", setup, "ab" * 32)["message"]["setup"]
    assert shown["key_label"] == "mine"
    assert [entry["tag"] for entry in shown["metadata"]] == [2]


@EVERY
def test_members_may_stand_in_any_order(module):
    """A setup of another writer means the same."""
    value = json.loads(module.encode_setup(keygen(module, key_label="a", permissions="{}")))
    turned = json.dumps(dict(reversed(value.items())), indent=1)
    assert module.decode_setup("keygen", turned) == keygen(module, key_label="a", permissions="{}")


@EVERY
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"t": ...}, "t is missing"),
        ({"n": ...}, "n is missing"),
        ({"metadata": ...}, "metadata is missing"),
        ({"t": 0}, "t must be"),
        ({"t": True}, "t must be"),
        ({"t": "2"}, "t must be"),
        ({"n": 2**32}, "n must be"),
        ({"key_label": ""}, "key_label must be"),
        ({"key_label": None}, "key_label must be"),
        ({"key_label": "x" * 257}, "key_label must be"),
        ({"metadata": []}, "metadata has no entry with tag 2"),
        ({"more": 1}, "does not know"),
    ],
)
def test_wrong_keygen_setup_is_refused(module, change, named):
    """Each member with its own message."""
    with pytest.raises(InvalidFieldError, match=named):
        module.decode_setup("keygen", keygen_object(module, **change))


@pytest.mark.parametrize("module", [REVISION_0_1, REVISION_0_3], ids=["0.1", "0.3"])
def test_algorithm_is_unknown_before_revision_1(module):
    """Neither read nor written."""
    with pytest.raises(InvalidFieldError, match="does not know"):
        module.decode_setup("keygen", keygen_object(module, signAlg="secp256k1"))
    with pytest.raises(InvalidFieldError, match="sign_alg must be secp256k1"):
        module.encode_setup(keygen(module, sign_alg="ed25519"))
    with pytest.raises(InvalidFieldError, match="sign_alg must be secp256k1"):
        module.typed_data("keygen", keygen(module, sign_alg="ed25519"), "ab" * 32)
    with pytest.raises(InvalidFieldError, match="sign_alg must be secp256k1"):
        module.encode_setup(SigngenSetup(t=2, key_id="k", message="", sign_alg="ed25519"))


@pytest.mark.parametrize("change", [{"signAlg": ...}, {"signAlg": "rsa"}, {"signAlg": None}, {"signAlg": []}])
def test_algorithm_is_needed_in_revision_1(change):
    """And must be one there is."""
    with pytest.raises(InvalidFieldError, match=r"signAlg is missing|sign_alg must be"):
        REVISION_1.decode_setup("keygen", keygen_object(REVISION_1, **change))


@EVERY
@pytest.mark.parametrize("text", ["", "[]", "null", "1", '"a"', "{", '{"t":1,"t":1}'])
def test_what_is_no_object_is_no_setup(module, text):
    """Other JSON, or none."""
    for operation in ("keygen", "signgen"):
        with pytest.raises((InvalidFieldError, ProtocolError)):
            module.decode_setup(operation, text)


@EVERY
def test_message_is_base64_once(module):
    """Encoded where the setup is made, and never again: a second encoding would be signed as another message."""
    setup = module.signgen_setup(t=2, key_id="k", message="€")
    assert setup.message == "4oKs"
    assert json.loads(module.encode_setup(setup))["message"] == "4oKs"
    assert module.decode_setup("signgen", module.encode_setup(setup)).message == "4oKs"


@EVERY
@pytest.mark.parametrize(
    "change",
    [
        {"t": 0},
        {"t": None},
        {"key_id": ""},
        {"key_id": 1},
        {"message": "€"},
        {"message": "YQ"},
        {"message": None},
        {"more": 1},
    ],
)
def test_wrong_signgen_setup_is_refused(module, change):
    """Each member in turn."""
    value = json.loads(module.encode_setup(module.signgen_setup(t=2, key_id="k", message="a")))
    with pytest.raises(InvalidFieldError):
        module.decode_setup("signgen", json.dumps(value | change))


def test_every_setup_has_its_text():
    """encode_setup finds the writer by the setup's type."""
    metadata = (TaggedValue(2, "claim"),)
    list_text = '[{"tag":2,"value":"claim"}]'
    keygen_setup = KeygenSetup(t=2, n=3, metadata=metadata)
    change = EphemeralKeySetup(metadata=metadata)
    assert REVISION_0_3.encode_setup(keygen_setup) == f'{{"t":2,"n":3,"metadata":{list_text}}}'
    assert (
        REVISION_1.encode_setup(keygen_setup)
        == f'{{"t":2,"n":3,"metadata":{list_text},"signAlg":"secp256k1"}}'
    )
    assert REVISION_0_3.encode_setup(SigngenSetup(t=2, key_id="k", message="YQ==")) == (
        '{"t":2,"key_id":"k","message":"YQ=="}'
    )
    assert REVISION_0_3.encode_setup(evolve(change, n=3, key_id="k")) == (
        f'{{"n":3,"key_id":"k","metadata":{list_text}}}'
    )
    assert REVISION_1.encode_setup(change) == f'{{"metadata":{list_text}}}'
    assert REVISION_1.encode_setup(PasskeySetup(options="o")) == '{"options":"o"}'
    with pytest.raises(InvalidFieldError, match=r"does not exist in revision 0\.3"):
        REVISION_0_3.encode_setup(PasskeySetup())
