"""The EIP-712 request."""

import copy
import json
import pickle

import pytest

from dan_async.crypto.eip712 import typed_data_digest
from dan_async.errors import InvalidFieldError
from dan_async.protocols.gateway import owner_request

CHALLENGE = "ab" * 32


def test_every_call_gives_lists_of_its_own():
    """A wallet that changes what it was handed does not change the next request."""
    first = owner_request("KeygenSetupOpts", {"t": 2}, CHALLENGE)
    first["types"]["TaggedValue"].clear()
    first["types"]["EIP712Domain"][0]["name"] = "other"
    first["domain"]["version"] = "9"
    second = owner_request("KeygenSetupOpts", {"t": 2}, CHALLENGE)
    assert second["types"]["TaggedValue"]
    assert second["types"]["EIP712Domain"][0]["name"] == "name"
    assert second["domain"]["version"] == "0.1.0"


def test_message_does_not_share_the_setup():
    """Changing the message does not change the setup it was made of."""
    setup = {"t": 2}
    owner_request("KeygenSetupOpts", setup, CHALLENGE)["message"]["setup"]["t"] = 3
    assert setup == {"t": 2}


@pytest.mark.parametrize("challenge", ["", "0x" + CHALLENGE, '{"secp256k1":"00"}', None])
def test_nothing_but_a_challenge_is_put_before_a_wallet(challenge):
    """A gateway cannot have the owner sign a text of its choice."""
    with pytest.raises(InvalidFieldError, match="challenge"):
        owner_request("KeygenSetupOpts", {}, challenge)


def test_the_digest_of_a_form_is_that_of_the_same_plain_data():
    """What is known of types and domain beforehand makes no difference."""
    for setup_type, setup in (
        ("KeygenSetupOpts", {"t": 2, "n": 3, "metadata": [{"tag": 2, "value": "claim"}]}),
        ("AddEphemeralKeyOpts", {"n": 3, "metadata": []}),
        ("MetadataSetupOpts", {"metadata": [{"tag": 3, "value": ""}, {"tag": 2, "value": "é"}]}),
    ):
        made = owner_request(setup_type, setup, "ab" * 32)
        assert typed_data_digest(made) == typed_data_digest(json.loads(json.dumps(made)))


def test_a_copy_is_plain_data():
    """A callback may hand it to another process, which signs."""
    made = owner_request("KeygenSetupOpts", {"t": 2, "n": 3, "metadata": []}, CHALLENGE)
    for copied in (pickle.loads(pickle.dumps(made)), copy.deepcopy(made)):
        assert type(copied) is dict
        assert typed_data_digest(copied) == typed_data_digest(made)


@pytest.mark.parametrize(
    "change",
    [
        lambda made: made["domain"].update(name="Another"),
        lambda made: made.update(primaryType="TaggedValue", message={"tag": 1, "value": "x"}),
        lambda made: made["types"]["TaggedValue"].reverse(),
        lambda made: made["types"]["KeygenSetupOpts"].pop(),
        lambda made: made["message"].update(challenge="cd" * 32),
        lambda made: made["message"]["setup"].update(t=3),
    ],
)
def test_what_was_changed_in_a_form_is_hashed_as_it_is_now(change):
    """Nothing that was known of it beforehand is taken for granted."""
    setup = {"t": 2, "n": 3, "metadata": [{"tag": 2, "value": "claim"}]}
    made, untouched = (owner_request("KeygenSetupOpts", setup, "ab" * 32) for _ in range(2))
    change(made)
    assert typed_data_digest(made) == typed_data_digest(json.loads(json.dumps(made)))
    assert typed_data_digest(made) != typed_data_digest(untouched)


def test_a_form_that_lost_a_part_is_refused():
    """As any data without it."""
    made = owner_request("MetadataSetupOpts", {"metadata": []}, "ab" * 32)
    del made["message"]
    with pytest.raises(InvalidFieldError, match="must be an object with types"):
        typed_data_digest(made)
