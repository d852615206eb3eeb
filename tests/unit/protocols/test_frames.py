"""The frames around setups, challenges and authentications: single ones before revision 1, named ones in it."""

import json

import pytest

from dan_async.errors import ChallengeError, InvalidFieldError, ProtocolError
from dan_async.protocols.gateway_0_3 import REVISION_0_3
from dan_async.protocols.gateway_1 import REVISION_1
from dan_async.protocols.results import KeygenResult, SigngenResult
from dan_async.protocols.setups import UserAuthentication

EOA = "0xca7746cA393578aae76D6D4575064a4387dE7b98"
AUTH = UserAuthentication(method="eoa", id=EOA, credentials="{}", signature="0xab")
AUTH_TEXT = '{"credentials":{"credentials":"{}","method":"eoa","id":"' + EOA + '"},"signature":"0xab"}'
ONE, TWO = "ab" * 32, "cd" * 32


def test_named_setups_are_an_array_for_keygen_only():
    """One setup stands alone in the other operations."""
    assert REVISION_1.join_setups("keygen", ["{}", "[]"]) == "[{},[]]"
    assert REVISION_1.join_setups("signgen", ["{}"]) == "{}"


@pytest.mark.parametrize("frame", ['[{"a":1},{"b":[2]}]', ' [\n{"a":1} ,\t{"b":[2]}\r] '])
def test_each_setup_of_an_array_is_found_as_it_was_sent(frame):
    """Also with spaces between them: a signature covers the setup's own text."""
    assert REVISION_1.split_setups("keygen", frame) == ('{"a":1}', '{"b":[2]}')


def test_text_of_a_setup_keeps_its_spaces():
    """What is hashed is what was sent."""
    assert REVISION_1.split_setups("keygen", '[{ "t" : 2, "a":"],[" }]') == ('{ "t" : 2, "a":"],[" }',)
    assert REVISION_1.split_setups("signgen", ' { "t":2 }') == (' { "t":2 }',)


@pytest.mark.parametrize("frame", ["{}", "[]", "[1,2,3]", "null", '"[]"'])
def test_keygen_of_revision_1_is_an_array_of_one_setup_per_algorithm(frame):
    """Neither none nor more than there are algorithms."""
    with pytest.raises(InvalidFieldError, match="must be an array"):
        REVISION_1.split_setups("keygen", frame)


@pytest.mark.parametrize("split", [REVISION_0_3.split_setups, REVISION_1.split_setups])
@pytest.mark.parametrize("frame", ["", "\ud800", None, b"{}", "x" * (4 * 1024 * 1024 + 1)])
def test_setup_frame_is_text_within_bounds(split, frame):
    """Anything else is refused before it is parsed."""
    with pytest.raises(InvalidFieldError, match="setup of signgen"):
        split("signgen", frame)


@pytest.mark.parametrize("setups", [[], ["{}", "{}"]])
def test_old_revisions_take_one_setup(setups):
    """Keygen too."""
    with pytest.raises(InvalidFieldError, match="exactly one"):
        REVISION_0_3.join_setups("keygen", setups)
    with pytest.raises(InvalidFieldError, match="exactly one"):
        REVISION_1.join_setups("signgen", setups)


def test_single_challenge_is_bare():
    """64 hex digits, whatever the operation."""
    assert REVISION_0_3.encode_challenges("keygen", {"secp256k1": ONE}) == ONE
    assert REVISION_0_3.decode_challenges("keygen", ONE, ["secp256k1"]) == {"secp256k1": ONE}


def test_named_challenges_are_an_object_for_keygen_only():
    """And bare elsewhere."""
    frame = REVISION_1.encode_challenges("keygen", {"secp256k1": ONE, "ed25519": TWO})
    assert frame == f'{{"secp256k1":"{ONE}","ed25519":"{TWO}"}}'
    assert REVISION_1.encode_challenges("signgen", {"secp256k1": ONE}) == ONE
    assert REVISION_1.decode_challenges("addEphemeralKey", ONE, ["main"]) == {"main": ONE}


@pytest.mark.parametrize(
    ("frames", "operation", "frame"),
    [
        (REVISION_0_3, "keygen", f'{{"secp256k1":"{ONE}"}}'),
        (REVISION_1, "keygen", ONE),
        (REVISION_1, "signgen", f'{{"secp256k1":"{ONE}"}}'),
    ],
)
def test_challenge_of_another_revision_is_refused(frames, operation, frame):
    """The form tells the revision, and a wrong one is not guessed at."""
    with pytest.raises(ChallengeError):
        frames.decode_challenges(operation, frame, ["secp256k1"])


@pytest.mark.parametrize("frames", [REVISION_0_3, REVISION_1])
@pytest.mark.parametrize("operation", ["keygen", "signgen"])
def test_server_cannot_give_a_challenge_of_another_form(frames, operation):
    """Checked before it is sent."""
    with pytest.raises(InvalidFieldError, match="challenge"):
        frames.encode_challenges(operation, {"secp256k1": "0x" + ONE})


def test_single_authentication_is_bare():
    """Members in the wire's order, no name around them."""
    assert REVISION_0_3.encode_authentications("keygen", {"secp256k1": AUTH}) == AUTH_TEXT
    assert REVISION_0_3.decode_authentications("keygen", AUTH_TEXT, ["secp256k1"]) == {"secp256k1": AUTH}


def test_named_authentications_stand_under_their_slots():
    """The algorithm, or main."""
    assert REVISION_1.encode_authentications("addEphemeralKey", {"main": AUTH}) == f'{{"main":{AUTH_TEXT}}}'
    assert REVISION_1.decode_authentications("signgen", f'{{"ed25519":{AUTH_TEXT}}}', ["ed25519"]) == {
        "ed25519": AUTH
    }


@pytest.mark.parametrize(
    "frame",
    [AUTH_TEXT, "{}", f'{{"main":{AUTH_TEXT}}}', f'{{"secp256k1":{AUTH_TEXT},"main":{AUTH_TEXT}}}', "[]"],
)
def test_authentications_under_other_slots_are_refused(frame):
    """One for each slot, and none besides."""
    with pytest.raises(InvalidFieldError, match="authentications of keygen"):
        REVISION_1.decode_authentications("keygen", frame, ["secp256k1"])


@pytest.mark.parametrize(
    "change",
    [
        {"method": "none"},
        {"method": None},
        {"method": ["eoa"]},
        {"id": "0x00"},
        {"id": EOA.replace("cA", "Ca")},
        {"id": None},
        {"credentials": None},
        {"credentials": {}},
        {"more": 1},
    ],
)
def test_wrong_authentication_is_refused(change):
    """An owner's id is an address, its checksum right if it has one."""
    value = json.loads(AUTH_TEXT)
    value["credentials"] |= change
    with pytest.raises(InvalidFieldError):
        REVISION_0_3.decode_authentications("keygen", json.dumps(value), ["secp256k1"])


def test_one_shot_frame_holds_the_setup_as_a_string():
    """Setup frame and authentication frame in one."""
    frame = REVISION_1.encode_oneshot("signgen", ['{"t":2,"a":"€"}'], {"secp256k1": AUTH})
    assert frame == '{"setupOpts":"{\\"t\\":2,\\"a\\":\\"€\\"}","userSigs":{"secp256k1":' + AUTH_TEXT + "}}"
    setup_frame, signatures = REVISION_1.decode_oneshot(frame)
    assert setup_frame == '{"t":2,"a":"€"}'
    assert REVISION_1.read_authentications("signgen", signatures, ["secp256k1"]) == {"secp256k1": AUTH}


@pytest.mark.parametrize(
    "frame",
    [
        "{}",
        '{"setupOpts":"{}"}',
        '{"userSigs":{}}',
        '{"setupOpts":{},"userSigs":{}}',
        '{"setupOpts":"","userSigs":{}}',
        '{"setupOpts":"\\ud800","userSigs":{}}',
        '{"setupOpts":"{}","userSigs":{},"more":1}',
        "x",
    ],
)
def test_wrong_one_shot_frame_is_refused(frame):
    """Missing, unknown and wrong members."""
    with pytest.raises((InvalidFieldError, ProtocolError)):
        REVISION_1.decode_oneshot(frame)


def test_old_revisions_give_one_result():
    """Two keys, or two signatures, have no form there."""
    key = KeygenResult(key_id="K", public_key=b"\x02" + b"\x01" * 32)
    signature = SigngenResult(signature=b"\x01" * 64, recovery_id=0)
    with pytest.raises(InvalidFieldError, match="exactly one"):
        REVISION_0_3.encode_keygen_results([key, key])
    with pytest.raises(InvalidFieldError, match="exactly one"):
        REVISION_0_3.encode_signgen_results([signature, signature])
