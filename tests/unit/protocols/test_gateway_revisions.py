"""Which revision has what."""

import pytest

from dan_async.devnet.gateway import accept, detect_revision
from dan_async.errors import InvalidFieldError
from dan_async.protocols.exchange import protocol_for
from dan_async.protocols.gateway import Revision
from dan_async.protocols.gateway_0_3 import REVISION_0_1, REVISION_0_3
from dan_async.protocols.gateway_1 import REVISION_1
from dan_async.protocols.setups import EphemeralClaim, PasskeySetup

CLAIM = EphemeralClaim(eph_id="id", eph_pk=b"\x01" * 32, expiry=7, sign_alg="ed25519")
WRONG = ["", "2", "0.2", "1.0", "v1", None, 1, 0.1, [], b"1"]


def test_every_revision_has_its_protocol():
    """By its number as text or as a Revision."""
    assert protocol_for("0.1") is protocol_for(Revision.V0_1) is REVISION_0_1
    assert protocol_for("0.3") is REVISION_0_3
    assert protocol_for("1") is REVISION_1


@pytest.mark.parametrize("revision", WRONG)
def test_unknown_revision_is_refused(revision):
    """The error lists those there are."""
    with pytest.raises(InvalidFieldError, match=r"revision must be one of 0\.1, 0\.3, 1"):
        protocol_for(revision)


@pytest.mark.parametrize("operation", [*WRONG, "Keygen", "keygen/"])
def test_unknown_operation_is_refused(operation):
    """In every function that takes one."""
    for use in (
        lambda: protocol_for("1").check_operation(operation),
        lambda: protocol_for("1").check_method(operation, "eoa"),
        lambda: protocol_for("1").decode_setup(operation, "{}"),
        lambda: accept(operation, "{}"),
        lambda: detect_revision(operation, "{}"),
    ):
        with pytest.raises(InvalidFieldError, match="operation must be one of"):
            use()


@pytest.mark.parametrize(
    ("revision", "operation"),
    [
        ("0.1", "addEphemeralKey"),
        ("0.1", "revokeEphemeralKey"),
        ("0.1", "registerPasskey"),
        ("0.3", "revokeEphemeralKey"),
        ("0.3", "registerPasskey"),
    ],
)
def test_operation_that_a_revision_lacks_is_refused(revision, operation):
    """The error names both."""
    with pytest.raises(
        InvalidFieldError, match=f"operation {operation} does not exist in revision {revision}"
    ):
        protocol_for(revision).decode_setup(operation, "{}")


def test_revision_0_1_has_no_ephemeral_key_operations():
    """Asked for directly."""
    with pytest.raises(InvalidFieldError, match=r"does not exist in revision 0\.1"):
        REVISION_0_1.ephemeral_key_setup(claim=CLAIM, key_id="k", n=3)
    setup = REVISION_0_3.ephemeral_key_setup(claim=CLAIM, key_id="k", n=3)
    with pytest.raises(InvalidFieldError, match=r"does not exist in revision 0\.1"):
        REVISION_0_1.encode_setup(setup)


@pytest.mark.parametrize(("revision", "version"), [("0.1", "v2"), ("0.3", "v2"), ("1", "v3"), ("1", None)])
def test_one_shot_is_of_revision_1(revision, version):
    """Others are told which forms there are."""
    with pytest.raises(InvalidFieldError, match="api_version must be v1"):
        protocol_for(revision).check_operation("keygen", version)


@pytest.mark.parametrize(
    ("operation", "methods"),
    [
        ("keygen", {"eoa", "passkey"}),
        ("signgen", {"ephemeral"}),
        ("addEphemeralKey", {"eoa", "passkey", "ephemeral"}),
        ("revokeEphemeralKey", {"eoa", "passkey", "ephemeral"}),
        ("registerPasskey", {"passkey"}),
    ],
)
def test_methods_of_an_operation(operation, methods):
    """Every other method is refused: an ephemeral key cannot make keys, nor a wallet sign with one."""
    for method in ("eoa", "passkey", "ephemeral", "none"):
        if method in methods:
            protocol_for("1").check_method(operation, method)
        else:
            with pytest.raises(InvalidFieldError, match="method must be"):
                protocol_for("1").check_method(operation, method)


def test_revision_0_1_knows_no_passkeys():
    """They came with 0.3."""
    protocol_for("0.3").check_method("keygen", "passkey")
    with pytest.raises(InvalidFieldError, match="method must be eoa for keygen"):
        protocol_for("0.1").check_method("keygen", "passkey")


def test_typed_data_is_for_what_a_wallet_authorises():
    """Neither signatures nor passkeys."""
    for operation, setup in (
        ("signgen", REVISION_1.signgen_setup(t=2, key_id="k", message="")),
        ("registerPasskey", PasskeySetup()),
    ):
        with pytest.raises(InvalidFieldError, match="not one that a wallet authorises"):
            protocol_for("1").typed_data(operation, setup, "ab" * 32)


def test_typed_data_is_for_an_operation_of_the_revision():
    """Also where the setup was read before."""
    setup = REVISION_0_1.decode_setup("keygen", '{"t":2,"n":3,"metadata":[{"tag":2,"value":"0x"}]}')
    assert protocol_for("0.1").typed_data("keygen", setup, "ab" * 32)["message"]["setup"]["t"] == 2
    with pytest.raises(InvalidFieldError, match="does not exist in revision"):
        protocol_for("0.1").typed_data("addEphemeralKey", setup, "ab" * 32)


def test_ephemeral_payload_needs_a_known_revision():
    """Though it is alike in all."""
    assert protocol_for("0.1").ephemeral_payload("{}", "ab" * 32) == protocol_for("1").ephemeral_payload(
        "{}", "ab" * 32
    )
    with pytest.raises(InvalidFieldError, match="revision"):
        protocol_for("2").ephemeral_payload("{}", "ab" * 32)
