"""No input of any kind makes a decoder raise anything but an error of ours."""

import copy
import json
from pathlib import Path

import pytest
from hypothesis import given, settings

from dan_async.config import Threshold
from dan_async.devnet.gateway import ServedExchange, accept, detect_revision
from dan_async.errors import DanError, InvalidFieldError, ProtocolError
from dan_async.protocols.exchange import keygen_exchange, protocol_for, signgen_exchange
from dan_async.protocols.gateway import Operation, Revision
from dan_async.protocols.gateway_0_3 import REVISION_0_1, REVISION_0_3
from dan_async.protocols.gateway_1 import REVISION_1
from dan_async.protocols.setups import EphemeralClaim, UserAuthentication, decode_passkey_signature
from dan_async.protocols.sign_request import SignRequest
from tests import strategies

CASES = json.loads((Path(__file__).parents[2] / "vectors" / "wire.json").read_text())["cases"]
BY_NAME = {case["name"]: case for case in CASES}
EOA = "0xca7746cA393578aae76D6D4575064a4387dE7b98"

#: One of each kind of frame.
KINDS = [
    "0.1-keygen-1",
    "0.1-signgen-0",
    "0.3-keygen-1",
    "0.3-signgen-0",
    "0.3-addEphemeralKey-0",
    "1-keygen-v1-secp256k1-1",
    "1-keygen-v2-ed25519-1",
    "1-keygen-batch-v1-1",
    "1-signgen-v1-secp256k1-0",
    "1-signgen-v2-ed25519-0",
    "1-addEphemeralKey-v1-secp256k1-0",
    "1-revokeEphemeralKey-v2-ed25519-0",
]

#: What may stand where something else is due.
WRONG = [
    None,
    True,
    False,
    0,
    -1,
    2**32,
    2**53,
    10**400,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "x",
    "\ud800",
    "0x",
    "0x" + "0" * 66,
    "{}",
    "[" * 3000,
    [],
    [[]],
    [None],
    {},
    {"a": 1},
    {"tag": 2, "value": {}},
]


def _exchange(case) -> ServedExchange:
    version = case["inputs"].get("api_version", "v1")
    return accept(case["operation"], case["frames"][0], api_version=version)


def _use(exchange: ServedExchange) -> None:
    """Do all that a gateway and a node would do with what was read."""
    for slot, entry in exchange.setups.items():
        if exchange.authentications is None:
            continue
        auth = exchange.authentications[slot]
        if exchange.operation is Operation.SIGNGEN:
            exchange.protocol.ephemeral_proof(entry.setup, auth)
            exchange.protocol.sign_requests(entry.setup)
            exchange.protocol.ephemeral_payload(entry.text, "00" * 32)
        elif exchange.operation is not Operation.REGISTER_PASSKEY:
            exchange.protocol.owner_claim(entry.setup, auth)
            exchange.protocol.typed_data(
                exchange.operation, exchange.protocol.decode_setup(exchange.operation, entry.text), "00" * 32
            )


def _only_our_errors(function, *arguments) -> bool:
    """Call it; tell whether it refused. Any error that is not ours passes through and fails the test."""
    try:
        function(*arguments)
    except (ProtocolError, InvalidFieldError) as error:
        str(error).encode()
        return True
    except DanError as error:  # pragma: no cover - a failure
        raise AssertionError(f"decoders raise ProtocolError and InvalidFieldError, not {error!r}") from error
    return False


def _places(value, path=()):
    """Every place in a JSON value, and in JSON texts inside it."""
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _places(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _places(inner, (*path, index))
    elif isinstance(value, str) and value.startswith(("{", "[")):
        for inner in _places(json.loads(value)):
            if inner:
                yield (*path, "text", *inner)


def _changed(value, path, change):
    """The value with one place changed; "text" in a path steps into a JSON text."""
    if not path:
        return change(value)
    head, *rest = path
    if isinstance(value, str):
        return json.dumps(_changed(json.loads(value), rest, change), ensure_ascii=False)
    value = copy.copy(value)
    if rest:
        value[head] = _changed(value[head], rest, change)
    elif change is _remove:
        del value[head]
    else:
        value[head] = change(value[head])
    return value


def _remove(_):
    return None


def _frames(case):
    """The client's frames as (name, text, how to read it)."""
    version, revision = case["inputs"].get("api_version", "v1"), case["revision"]
    if version == "v2":
        yield case["frames"][0], lambda text: _use(accept(case["operation"], text, api_version="v2"))
    else:
        yield case["frames"][0], lambda text: _use(accept(case["operation"], text, revision=revision))
        yield case["frames"][1], lambda text: _use(_exchange(case).read_authentications(text))


@pytest.mark.parametrize("name", KINDS)
def test_wrong_type_at_any_place_of_a_client_frame(name):
    """Each member in turn, also inside JSON texts, is replaced by everything it must not be."""
    for frame, read in _frames(BY_NAME[name]):
        read(frame)
        value = json.loads(frame)
        for path in _places(value):
            for wrong in WRONG:
                text = json.dumps(_changed(value, path, lambda _, wrong=wrong: wrong), ensure_ascii=False)
                _only_our_errors(read, text)


@pytest.mark.parametrize("name", KINDS)
def test_missing_member_of_a_client_frame_is_refused(name):
    """Each member in turn is left out, and missed. (Permissions are the caller's own JSON, not looked into.)"""
    for frame, read in _frames(BY_NAME[name]):
        value = json.loads(frame)
        for path in _places(value):
            if path and isinstance(path[-1], str) and "permissions" not in path:
                text = json.dumps(_changed(value, path, _remove), ensure_ascii=False)
                assert _only_our_errors(read, text), f"nothing missed {path}"


@pytest.mark.parametrize("name", KINDS)
def test_unknown_member_of_a_client_frame_is_refused(name):
    """A member that the revision does not know is refused in every object, also inside JSON texts."""
    for frame, read in _frames(BY_NAME[name]):
        value = json.loads(frame)
        for path in _places(value):
            grown = []

            def grow(inner, grown=grown):
                if isinstance(inner, dict):
                    grown.append(True)
                    return {**inner, "unknown": 1}
                return inner

            text = json.dumps(_changed(value, path, grow), ensure_ascii=False)
            if grown and "permissions" not in path:
                assert _only_our_errors(read, text), f"nothing refused at {path}"


@pytest.mark.parametrize("name", KINDS)
def test_cut_frame_is_refused(name):
    """Half a JSON text is not read as anything."""
    for frame, read in _frames(BY_NAME[name]):
        for at in range(0, len(frame), max(1, len(frame) // 50)):
            assert _only_our_errors(read, frame[:at])


@pytest.mark.parametrize("name", KINDS)
def test_repeated_member_is_refused(name):
    """A frame that says a thing twice is refused, whichever of the two another reader would take."""
    for frame, read in _frames(BY_NAME[name]):
        first = frame.index('":') + 1
        begin = frame.rindex("{", 0, first)
        member = frame[begin + 1 : first]
        doubled = frame[: begin + 1] + f"{member}:null," + frame[begin + 1 :]
        assert _only_our_errors(read, doubled)


@settings(max_examples=100)
@given(text=strategies.foreign_texts())
def test_foreign_first_frame(text):
    """Whatever comes first on a connection, in any operation, form and revision."""
    for operation in Operation:
        _only_our_errors(lambda operation=operation: accept(operation, text))
        _only_our_errors(lambda operation=operation: accept(operation, text, api_version="v2"))
        _only_our_errors(detect_revision, operation, text)
        for revision in Revision:
            _only_our_errors(protocol_for(revision).decode_setup, operation, text)


@settings(max_examples=100)
@given(text=strategies.foreign_texts())
def test_foreign_authentication_frame(text):
    """Whatever comes where an authentication is due."""
    for name in ("0.1-keygen-0", "0.3-signgen-0", "1-keygen-batch-v1-0", "1-addEphemeralKey-v1-ed25519-0"):
        exchange = _exchange(BY_NAME[name])
        _only_our_errors(lambda exchange=exchange: _use(exchange.read_authentications(text)))


@settings(max_examples=100)
@given(text=strategies.foreign_texts())
def test_foreign_reply(text):
    """Whatever a gateway sends for a challenge or a result is refused by the client."""
    for name in ("0.1-keygen-0", "0.3-signgen-0", "1-keygen-batch-v1-0", "1-signgen-v1-ed25519-0"):
        exchange = _client_of(BY_NAME[name])
        assert _only_our_errors(exchange.read_challenges, text)
        assert _only_our_errors(exchange.read_result, text)


@settings(max_examples=100)
@given(text=strategies.foreign_texts())
def test_foreign_text_inside_an_authentication(text):
    """Whatever stands where a claim, an ephemeral signature or a passkey's is due."""
    for module in (REVISION_0_1, REVISION_0_3, REVISION_1):
        _only_our_errors(module.decode_claim, text)
        _only_our_errors(module.decode_credentials, text, EOA)
        _only_our_errors(module.decode_message, text)
        _only_our_errors(module.decode_message, text, "ed25519")
    _only_our_errors(decode_passkey_signature, text)
    setup = _exchange(BY_NAME["1-signgen-v1-secp256k1-0"]).setups["secp256k1"].setup
    for revision in Revision:
        _only_our_errors(_read_proof, revision, setup, text)


def _read_proof(revision, setup, text):
    auth = UserAuthentication(method="ephemeral", id="id", credentials=text, signature=text)
    protocol_for(revision).ephemeral_proof(setup, auth)


@settings(max_examples=80)
@given(text=strategies.foreign_texts())
def test_foreign_setup_is_never_hashed_by_accident(text):
    """The functions that hash or sign a setup's text refuse what is no text."""
    _only_our_errors(REVISION_1.oneshot_challenge, text)
    _only_our_errors(REVISION_1.ephemeral_payload, text, "00" * 32)
    _only_our_errors(REVISION_1.ephemeral_payload, "{}", text)


def _client_of(case):
    inputs = case["inputs"]
    claim = EphemeralClaim(
        eph_id="id",
        eph_pk=bytes.fromhex(inputs["eph_public_key"][2:]),
        expiry=1,
        sign_alg=inputs["eph_alg"],
    )
    if case["operation"] == "keygen":
        return keygen_exchange(
            protocol_for(case["revision"]),
            threshold=Threshold(inputs["t"], inputs["n"]),
            claim=claim,
            sign_algs=inputs.get("sign_algs", ["secp256k1"]),
        )
    request = SignRequest(
        request_type="rawBytes", message="00" * 32, transaction_id=inputs.get("transaction_id")
    )
    return signgen_exchange(protocol_for(case["revision"]), t=2, key_id="key", requests=[request])
