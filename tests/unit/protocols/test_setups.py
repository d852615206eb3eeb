"""Keygen and signgen setups."""

import json

import pytest

from dan_async.config import Threshold
from dan_async.errors import InvalidFieldError, ProtocolError
from dan_async.protocols import gateway_0_1 as revision_0_1
from dan_async.protocols import gateway_0_3 as revision_0_3
from dan_async.protocols import gateway_1 as revision_1
from dan_async.protocols.exchange import encode_setup
from dan_async.protocols.setups import EphemeralClaim, KeygenSetup, SigngenSetup, TaggedValue

EVERY = pytest.mark.parametrize("module", [revision_0_1, revision_0_3, revision_1], ids=["0.1", "0.3", "1"])
CLAIM = EphemeralClaim(eph_id="id", eph_pk=b"\x01" * 32, expiry=7, sign_alg="ed25519")


def keygen(module, **changes):
    fields = {"threshold": Threshold(2, 3), "claim": CLAIM, **changes}
    return module.keygen_setup(**fields)


def keygen_object(module, **changes):
    """A keygen setup as decoded JSON, with some members changed; None leaves a member out."""
    value = json.loads(module.encode_keygen_setup(keygen(module))) | changes
    return json.dumps({key: inner for key, inner in value.items() if inner is not ...})


@EVERY
def test_key_label_stands_before_the_metadata(module):
    """And only if there is one."""
    assert list(json.loads(module.encode_keygen_setup(keygen(module, key_label="€"))))[:4] == [
        "t",
        "n",
        "key_label",
        "metadata",
    ]
    assert "key_label" not in module.encode_keygen_setup(keygen(module))


@EVERY
def test_wallet_is_shown_the_label_but_not_the_permissions(module):
    """The message is the setup without tag 1."""
    setup = keygen(module, key_label="mine", permissions="{}")
    shown = module.keygen_typed_data(setup, "ab" * 32)["message"]["setup"]
    assert shown["key_label"] == "mine"
    assert [entry["tag"] for entry in shown["metadata"]] == [2]


@EVERY
def test_members_may_stand_in_any_order(module):
    """A setup of another writer means the same."""
    value = json.loads(module.encode_keygen_setup(keygen(module, key_label="a", permissions="{}")))
    turned = json.dumps(dict(reversed(value.items())), indent=1)
    assert module.decode_keygen_setup(turned) == keygen(module, key_label="a", permissions="{}")


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
        module.decode_keygen_setup(keygen_object(module, **change))


@pytest.mark.parametrize("module", [revision_0_1, revision_0_3], ids=["0.1", "0.3"])
def test_algorithm_is_unknown_before_revision_1(module):
    """Neither read nor written."""
    with pytest.raises(InvalidFieldError, match="does not know"):
        module.decode_keygen_setup(keygen_object(module, signAlg="secp256k1"))
    with pytest.raises(InvalidFieldError, match="sign_alg must be secp256k1"):
        module.encode_keygen_setup(keygen(module, sign_alg="ed25519"))
    with pytest.raises(InvalidFieldError, match="sign_alg must be secp256k1"):
        module.keygen_typed_data(keygen(module, sign_alg="ed25519"), "ab" * 32)
    with pytest.raises(InvalidFieldError, match="sign_alg must be secp256k1"):
        module.encode_signgen_setup(SigngenSetup(t=2, key_id="k", message="", sign_alg="ed25519"))


@pytest.mark.parametrize("change", [{"signAlg": ...}, {"signAlg": "rsa"}, {"signAlg": None}, {"signAlg": []}])
def test_algorithm_is_needed_in_revision_1(change):
    """And must be one there is."""
    with pytest.raises(InvalidFieldError, match=r"signAlg is missing|sign_alg must be"):
        revision_1.decode_keygen_setup(keygen_object(revision_1, **change))


@EVERY
@pytest.mark.parametrize("text", ["", "[]", "null", "1", '"a"', "{", '{"t":1,"t":1}'])
def test_what_is_no_object_is_no_setup(module, text):
    """Other JSON, or none."""
    for decode in (module.decode_keygen_setup, module.decode_signgen_setup):
        with pytest.raises((InvalidFieldError, ProtocolError)):
            decode(text)


@EVERY
def test_message_is_base64_once(module):
    """Encoded where the setup is made, and never again: a second encoding would be signed as another message."""
    setup = module.signgen_setup(t=2, key_id="k", message="€")
    assert setup.message == "4oKs"
    assert json.loads(module.encode_signgen_setup(setup))["message"] == "4oKs"
    assert module.decode_signgen_setup(module.encode_signgen_setup(setup)).message == "4oKs"


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
    value = json.loads(module.encode_signgen_setup(module.signgen_setup(t=2, key_id="k", message="a")))
    with pytest.raises(InvalidFieldError):
        module.decode_signgen_setup(json.dumps(value | change))


def test_every_setup_has_its_text():
    """encode_setup finds the writer by the setup's type."""
    setup = KeygenSetup(t=2, n=3, metadata=(TaggedValue(2, "claim"),))
    assert encode_setup("0.3", setup) == revision_0_3.encode_keygen_setup(setup)
    assert encode_setup("1", setup) == revision_1.encode_keygen_setup(setup)
