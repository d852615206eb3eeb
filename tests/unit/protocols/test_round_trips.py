"""encode(decode(x)) is x for every recorded text, frames and what stands inside them, on the client's side and the server's."""

import json
from pathlib import Path

import pytest

from dan_async.crypto.curve import compress
from dan_async.protocols.exchange import protocol_for
from dan_async.protocols.gateway_1 import REVISION_1

CASES = json.loads((Path(__file__).parents[2] / "vectors" / "wire.json").read_text())["cases"]
EVERY = pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])


def _is_one_shot(case) -> bool:
    return case["inputs"].get("api_version", "v1") == "v2"


def _slots(case) -> tuple[str, ...]:
    """The slots of an exchange, from its inputs alone."""
    if case["operation"] == "keygen":
        return tuple(case["inputs"].get("sign_algs", ["secp256k1"]))
    return (case["inputs"].get("sign_alg", "secp256k1"),) if case["operation"] == "signgen" else ("main",)


def _setup_frame(case) -> str:
    return json.loads(case["frames"][0])["setupOpts"] if _is_one_shot(case) else case["frames"][0]


def _authentications(case):
    module, operation = protocol_for(case["revision"]), case["operation"]
    if _is_one_shot(case):
        found = json.loads(case["frames"][0])["userSigs"]
        return REVISION_1.read_authentications(operation, found, _slots(case))
    return module.decode_authentications(operation, case["frames"][1], _slots(case))


@EVERY
def test_setup_frame_survives_a_reading(case):
    """Taken apart into setups, each read and written again, and put together."""
    revision, operation, frame = case["revision"], case["operation"], _setup_frame(case)
    module = protocol_for(revision)
    texts = module.split_setups(operation, frame)
    setups = [protocol_for(revision).decode_setup(operation, text) for text in texts]
    assert [protocol_for(revision).encode_setup(setup) for setup in setups] == list(texts)
    assert module.join_setups(operation, texts) == frame


@EVERY
def test_challenge_frame_survives_a_reading(case):
    """A one-shot exchange has none."""
    if _is_one_shot(case):
        assert len(case["server_replies"]) == 1
        return
    module, operation, frame = (
        protocol_for(case["revision"]),
        case["operation"],
        case["server_replies"][0],
    )
    assert (
        module.encode_challenges(operation, module.decode_challenges(operation, frame, _slots(case))) == frame
    )


@EVERY
def test_authentication_frame_survives_a_reading(case):
    """Also where it stands beside the setup, in the one frame of a one-shot exchange."""
    module, operation = protocol_for(case["revision"]), case["operation"]
    found = _authentications(case)
    if _is_one_shot(case):
        texts = module.split_setups(operation, _setup_frame(case))
        assert REVISION_1.encode_oneshot(operation, texts, found) == case["frames"][0]
        assert REVISION_1.decode_oneshot(case["frames"][0])[0] == _setup_frame(case)
    else:
        assert module.encode_authentications(operation, found) == case["frames"][1]


@EVERY
def test_credentials_survive_a_reading(case):
    """The claim in every authentication, and that of every setup that has one."""
    revision, operation = case["revision"], case["operation"]
    module = protocol_for(revision)
    for auth in _authentications(case).values():
        claim = module.decode_credentials(auth.credentials, auth.id)
        assert module.encode_credentials(claim, auth.id) == auth.credentials
    if operation != "signgen":
        for text in module.split_setups(operation, _setup_frame(case)):
            claim_text = protocol_for(revision).decode_setup(operation, text).claim_text
            assert module.encode_claim(module.decode_claim(claim_text)) == claim_text


@EVERY
def test_ephemeral_signature_survives_a_reading(case):
    """Found in the authentication, and put into one again."""
    if case["operation"] != "signgen":
        return
    module = protocol_for(case["revision"])
    [auth] = _authentications(case).values()
    setup = protocol_for(case["revision"]).decode_setup("signgen", _setup_frame(case))
    claim = module.decode_credentials(auth.credentials, auth.id)
    signature = module.read_ephemeral_signature(auth, setup.message)
    again = module.ephemeral_authentication(
        claim=claim, owner_id=case["inputs"]["eoa"], message=setup.message, signature=signature
    )
    assert again == auth


@EVERY
def test_message_survives_a_reading(case):
    """The setup's message, made from the requests that were found in it."""
    if case["operation"] != "signgen":
        return
    module = protocol_for(case["revision"])
    setup = protocol_for(case["revision"]).decode_setup("signgen", _setup_frame(case))
    text = module.encode_message(protocol_for(case["revision"]).sign_requests(setup))
    assert (
        module.signgen_setup(t=setup.t, key_id=setup.key_id, message=text, sign_alg=setup.sign_alg) == setup
    )


@EVERY
def test_result_frame_survives_a_reading(case):
    """An uncompressed key comes back compressed, and the word of success has nothing in it to be read."""
    module, frame = protocol_for(case["revision"]), case["server_replies"][-1]
    if case["operation"] == "keygen":
        again = module.encode_keygen_results(module.decode_keygen_results(frame))
        for entry in case["result"] if isinstance(case["result"], list) else [case["result"]]:
            if entry["publicKey"].startswith("04"):
                frame = frame.replace(entry["publicKey"], compress(bytes.fromhex(entry["publicKey"])).hex())
        assert again == frame
    elif case["operation"] == "signgen":
        assert module.encode_signgen_results(module.decode_signgen_results(frame)) == frame
    else:
        assert frame == "ok"
