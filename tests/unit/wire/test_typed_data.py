"""The EIP-712 request."""

import pytest

from dan_async.errors import InvalidFieldError
from dan_async.wire.typed_data import owner_request

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
