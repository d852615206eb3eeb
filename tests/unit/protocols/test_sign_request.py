"""What a signgen message is."""

import json

import pytest

from dan_async.errors import InvalidFieldError, ProtocolError
from dan_async.protocols import sign_request
from dan_async.protocols.sign_request import RequestType, SignRequest

OPERATION = {
    "userOperation": {"sender": "0x00", "callData": "00", "nonce": "7"},
    "entryPointVersion": "v0.6.0",
    "entryPointAddress": "0x5FF137D4b0FDCD49DcA30c7CF57E578a026d2789",
    "chainId": 80002,
}
TYPED_DATA = '{"types":{},"domain":{},"primaryType":"A","message":{}}'


def request(request_type="EIP191", message="0xab", transaction_id=None):
    return SignRequest(request_type=request_type, message=message, transaction_id=transaction_id)


@pytest.mark.parametrize(
    ("request_type", "message"),
    [
        ("EIP191", "0xabcd"),
        ("EIP191", "abcd"),
        ("EIP191", "0x"),
        ("rawBytes", "ab" * 32),
        ("rawBytes", "0x" + "ab" * 32),
        ("EIP712", TYPED_DATA),
        ("accountAbstractionTx", json.dumps(OPERATION)),
        ("accountAbstractionTx", json.dumps({**OPERATION, "entryPointVersion": "v0.7.0"})),
        ("eddsa", "any text €"),
    ],
)
def test_message_of_its_type_is_taken(request_type, message):
    """And kept exactly."""
    found = request(request_type, message)
    assert (found.request_type, found.message) == (RequestType(request_type), message)


@pytest.mark.parametrize(
    ("request_type", "message", "named"),
    [
        ("EIP191", "0xabc", "message must be an even number"),
        ("EIP191", "hello", "message must be"),
        ("EIP191", "", "message must be"),
        ("rawBytes", "ab" * 31, "32 bytes"),
        ("rawBytes", "ab" * 33, "32 bytes"),
        ("EIP712", "{}", "types is missing"),
        ("EIP712", "[]", "JSON object"),
        ("EIP712", "hello", "JSON text"),
        ("EIP712", TYPED_DATA[:-1] + ',"x":1}', "does not know"),
        ("accountAbstractionTx", "hello", "JSON text"),
        ("accountAbstractionTx", "[" * 9_000, "JSON text"),
        ("accountAbstractionTx", "null", "JSON object"),
        ("accountAbstractionTx", json.dumps({**OPERATION, "userOperation": None}), "userOperation"),
        (
            "accountAbstractionTx",
            json.dumps({**OPERATION, "entryPointVersion": "v0.5.0"}),
            "entryPointVersion",
        ),
        ("accountAbstractionTx", json.dumps({**OPERATION, "entryPointVersion": []}), "entryPointVersion"),
        ("accountAbstractionTx", json.dumps({**OPERATION, "entryPointAddress": 1}), "entryPointAddress"),
        ("accountAbstractionTx", json.dumps({**OPERATION, "chainId": 0}), "chainId"),
        ("accountAbstractionTx", json.dumps({**OPERATION, "chainId": True}), "chainId"),
        ("accountAbstractionTx", json.dumps({**OPERATION, "chainId": "1"}), "chainId"),
        ("accountAbstractionTx", json.dumps({**OPERATION, "more": 1}), "does not know"),
        ("eddsa", "\ud800", "lone surrogate"),
        ("other", "a", "requestType must be one of"),
        ([], "a", "requestType must be one of"),
        (None, "a", "requestType must be one of"),
    ],
)
def test_message_that_is_not_of_its_type_is_refused(request_type, message, named):
    """The error names the field."""
    with pytest.raises(InvalidFieldError, match=named):
        request(request_type, message)


def test_message_is_not_in_the_repr():
    """A user operation can be long, and is nobody's business in a log."""
    assert "abcd" not in repr(request(message="0xabcd"))


@pytest.mark.parametrize("name", ["a:b", "a;b", "", "a b"])
def test_transaction_id_must_fit_the_result_grammar(name):
    """Otherwise its signature could not be told from another's."""
    with pytest.raises(InvalidFieldError, match="transaction_id"):
        request(transaction_id=name)


def test_revision_0_1_sends_the_inner_message():
    """Nothing around it."""
    inner = json.dumps(OPERATION)
    assert sign_request.encode_bare(request("accountAbstractionTx", inner)) == inner
    assert sign_request.decode_bare(inner) == request("accountAbstractionTx", inner)


def test_revision_0_1_has_no_other_request_type():
    """There is no place to say which."""
    with pytest.raises(InvalidFieldError, match="request_type"):
        sign_request.encode_bare(request())


def test_revision_0_3_sends_one_object():
    """Message, then requestType."""
    text = sign_request.encode_wrapped(request())
    assert text == '{"message":"0xab","requestType":"EIP191"}'
    assert sign_request.decode_wrapped(text) == request()


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        "x",
        '{"message":"0xab"}',
        '{"message":"0xab","requestType":"other"}',
        '{"message":1,"requestType":"EIP191"}',
        '{"message":"0xab","requestType":null}',
        '{"message":"0xab","requestType":"EIP191","more":1}',
    ],
)
def test_wrong_object_is_refused(text):
    """Missing, unknown and wrong members."""
    with pytest.raises((InvalidFieldError, ProtocolError)):
        sign_request.decode_wrapped(text)


def test_revision_1_maps_names_to_texts():
    """Each entry is the JSON text of an object, in the order given."""
    found = (request(transaction_id="b"), request("rawBytes", "ab" * 32, "a"))
    text = sign_request.encode_keyed(found)
    assert text == (
        '{"b":"{\\"message\\":\\"0xab\\",\\"requestType\\":\\"EIP191\\"}",'
        '"a":"{\\"message\\":\\"' + "ab" * 32 + '\\",\\"requestType\\":\\"rawBytes\\"}"}'
    )
    assert sign_request.decode_keyed(text, sign_alg="secp256k1") == found


def test_messages_of_an_ed25519_key_are_bare():
    """Without requestType."""
    found = (request("eddsa", "hello", "a"),)
    assert sign_request.encode_keyed(found) == '{"a":"hello"}'
    assert sign_request.decode_keyed('{"a":"hello"}', sign_alg="ed25519") == found


@pytest.mark.parametrize(
    ("requests", "named"),
    [
        ([], "requests must be 1 to"),
        ([request(transaction_id=str(i)) for i in range(65)], "requests must be 1 to"),
        ([request()], "transaction_id"),
        ([request(transaction_id="a"), request(transaction_id="a")], "same for two"),
        ([request(transaction_id="a"), request("eddsa", "x", "b")], "mixes eddsa"),
    ],
)
def test_requests_that_revision_1_cannot_carry_are_refused(requests, named):
    """None, too many, unnamed, of one name, or for two kinds of key."""
    with pytest.raises(InvalidFieldError, match=named):
        sign_request.encode_keyed(requests)


@pytest.mark.parametrize(
    ("text", "sign_alg"),
    [
        ("{}", "secp256k1"),
        ("[]", "secp256k1"),
        ('["a"]', "secp256k1"),
        ('"a"', "ed25519"),
        ('{"a":1}', "secp256k1"),
        ('{"a":"hello"}', "secp256k1"),
        ('{"a:b":"{\\"message\\":\\"0xab\\",\\"requestType\\":\\"EIP191\\"}"}', "secp256k1"),
        ('{"a":"{\\"message\\":\\"x\\",\\"requestType\\":\\"eddsa\\"}"}', "secp256k1"),
        ('{"a":1}', "ed25519"),
        ('{"a":""}', "ed25519"),
        (json.dumps({str(i): "x" for i in range(65)}), "ed25519"),
    ],
)
def test_wrong_map_is_refused(text, sign_alg):
    """Empty, too long, with wrong names or entries."""
    with pytest.raises((InvalidFieldError, ProtocolError)):
        sign_request.decode_keyed(text, sign_alg=sign_alg)
