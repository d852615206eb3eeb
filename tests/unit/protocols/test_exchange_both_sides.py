"""Round trips of every operation in every revision, between the client's side and the server's."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dan_async.devnet.gateway import accept
from dan_async.errors import InvalidFieldError
from dan_async.protocols.exchange import protocol_for
from dan_async.protocols.gateway import Operation, Revision
from dan_async.protocols.gateway_1 import REVISION_1
from dan_async.protocols.results import STATUS_OK
from tests import strategies

EVERY_OPERATION = pytest.mark.parametrize(
    ("revision", "operation"),
    strategies.EVERY_OPERATION,
    ids=[f"{revision}-{operation}" for revision, operation in strategies.EVERY_OPERATION],
)


#: Each property runs once for each operation, so a few examples each make many.
QUICK = settings(max_examples=10)


def _accepted(exchange, authentications):
    frame = exchange.authentication_frame(authentications)
    if exchange.api_version == "v2":
        return accept(exchange.operation, frame, api_version="v2")
    return accept(exchange.operation, exchange.setup_frame).read_authentications(frame)


@EVERY_OPERATION
@QUICK
@given(data=st.data())
def test_server_reads_the_very_exchange_that_the_client_began(revision, operation, data):
    """Revision, setups, their exact texts and the authentications arrive unchanged."""
    exchange = data.draw(strategies.exchanges(revision, operation))
    authentications = data.draw(strategies.authentications(exchange))
    served = _accepted(exchange, authentications)
    assert served.protocol.revision == revision
    assert tuple(served.setups) == tuple(exchange.setups)
    assert served.setups == exchange.setups
    assert served.authentications == authentications


@EVERY_OPERATION
@QUICK
@given(data=st.data())
def test_setup_survives_its_text(revision, operation, data):
    """decode(encode(setup)) is the setup, and encode(decode(text)) the text."""
    exchange = data.draw(strategies.exchanges(revision, operation))
    for part in exchange.setups.values():
        setup = exchange.protocol.decode_setup(operation, part.text)
        assert setup == part.setup
        assert exchange.protocol.encode_setup(setup) == part.text


@EVERY_OPERATION
@QUICK
@given(data=st.data())
def test_client_reads_the_challenges_that_the_server_gave(revision, operation, data):
    """One challenge for each slot, unchanged; for one-shot both sides work out the same ones."""
    exchange = data.draw(strategies.exchanges(revision, operation))
    if exchange.api_version == "v2":
        served = _accepted(exchange, data.draw(strategies.authentications(exchange)))
        challenges = {slot: REVISION_1.oneshot_challenge(part.text) for slot, part in served.setups.items()}
        assert challenges == exchange.own_challenges()
        return
    given_out = data.draw(
        st.lists(
            strategies.challenges(),
            min_size=len(tuple(exchange.setups)),
            max_size=len(tuple(exchange.setups)),
            unique=True,
        )
    )
    challenges = dict(zip(tuple(exchange.setups), given_out, strict=True))
    frame = accept(operation, exchange.setup_frame).challenge_frame(challenges)
    assert exchange.read_challenges(frame) == challenges


@EVERY_OPERATION
@QUICK
@given(data=st.data())
def test_client_reads_the_result_that_the_server_gave(revision, operation, data):
    """Keys, signatures, the word of success or a credential id, unchanged and in the order asked for."""
    exchange = data.draw(strategies.exchanges(revision, operation))
    served = _accepted(exchange, data.draw(strategies.authentications(exchange)))
    if operation == Operation.KEYGEN:
        results = tuple(data.draw(strategies.keygen_results(slot)) for slot in tuple(exchange.setups))
        if len({result.key_id for result in results}) != len(results):
            return
        frame = served.protocol.encode_keygen_results(results[::-1])
    elif operation == Operation.SIGNGEN:
        results = tuple(data.draw(strategies.signgen_results(name)) for name in exchange.transaction_ids)
        frame = served.protocol.encode_signgen_results(results[::-1])
    elif operation == Operation.REGISTER_PASSKEY:
        results, frame = "credential-id", served.passkey_frame()
    else:
        results, frame = None, STATUS_OK
    assert exchange.read_result(frame) == results


@pytest.mark.parametrize("revision", list(Revision))
@QUICK
@given(data=st.data())
def test_claim_survives_its_text(revision, data):
    """Credentials give back the claim; so does tag 2, except that 0.1 has no expiry there."""
    module, claim = protocol_for(revision), data.draw(strategies.claims(revision))
    owner = data.draw(strategies.addresses())
    assert module.decode_credentials(module.encode_credentials(claim, owner), owner) == claim
    found = module.decode_claim(module.encode_claim(claim))
    assert (found.eph_id, found.eph_pk, found.sign_alg) == (claim.eph_id, claim.eph_pk, claim.sign_alg)
    assert found.expiry == (0 if revision == Revision.V0_1 else claim.expiry)


@EVERY_OPERATION
@QUICK
@given(data=st.data())
def test_server_finds_the_claim_that_the_client_gave(revision, operation, data):
    """What an owner vouches for, and what an ephemeral key proves, is read from setup and authentication."""
    exchange = data.draw(strategies.exchanges(revision, operation))
    authentications = data.draw(strategies.authentications(exchange))
    served = _accepted(exchange, authentications)
    for slot, entry in served.setups.items():
        auth = served.authentications[slot]
        if operation == Operation.SIGNGEN:
            claim, signature = protocol_for(revision).ephemeral_proof(entry.setup, auth)
            assert claim == protocol_for(revision).decode_credentials(auth.credentials, auth.id)
            assert signature.startswith("0x")
        elif operation != Operation.REGISTER_PASSKEY:
            claim = protocol_for(revision).decode_claim(entry.setup.claim_text)
            owner = data.draw(strategies.addresses())
            own = exchange.protocol.owner_authentication(
                claim=claim, method="eoa", owner_id=owner, signature="0x00"
            )
            assert protocol_for(revision).owner_claim(entry.setup, own) == claim


@pytest.mark.parametrize("revision", list(Revision))
@QUICK
@given(data=st.data())
def test_message_to_sign_survives_its_text(revision, data):
    """The server finds the very requests that the client asked for."""
    exchange = data.draw(strategies.exchanges(revision, Operation.SIGNGEN))
    [part] = exchange.setups.values()
    requests = exchange.protocol.sign_requests(part.setup)
    text = protocol_for(revision).encode_message(requests)
    assert protocol_for(revision).decode_message(text, part.setup.sign_alg) == requests
    assert tuple(request.transaction_id for request in requests) == exchange.transaction_ids


@EVERY_OPERATION
@QUICK
@given(data=st.data())
def test_wallet_never_sees_the_permissions(revision, operation, data):
    """Typed data has the metadata exactly as sent, without tag 1; operations without a wallet have no typed data."""
    exchange = data.draw(strategies.exchanges(revision, operation))
    challenge = data.draw(strategies.challenges())
    for slot, part in exchange.setups.items():
        if operation in (Operation.SIGNGEN, Operation.REGISTER_PASSKEY):
            with pytest.raises(InvalidFieldError, match="wallet"):
                exchange.typed_data(slot, challenge)
            continue
        typed_data = exchange.typed_data(slot, challenge)
        setup = exchange.protocol.decode_setup(operation, part.text)
        assert typed_data == exchange.protocol.typed_data(operation, setup, challenge)
        shown = [(entry["tag"], entry["value"]) for entry in typed_data["message"]["setup"]["metadata"]]
        assert shown == [(entry.tag, entry.value) for entry in setup.metadata if entry.tag != 1]
